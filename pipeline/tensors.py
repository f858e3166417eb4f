"""Stage `tensors`: join manifest and features into tensors, one file per split."""

import argparse
import sys
from pathlib import Path

from mitfrnet.corpus.manifest import read_manifest
from mitfrnet.data.alignment import TensorParams
from mitfrnet.data.build import build_tensors, summarise_features
from mitfrnet.data.tensors import write_tensors
from mitfrnet.features.shards import read_features
from mitfrnet.files import write_json
from mitfrnet.modalities import MODALITIES
from mitfrnet.params import load_params
from pipeline import run_stage


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--summary", type=Path, required=True)
    args = parser.parse_args(argv)

    params = load_params(TensorParams, section="tensors")
    manifest = read_manifest(args.manifest)
    features = {m: read_features(args.features / m) for m in MODALITIES}
    splits = build_tensors(manifest, features, params)
    summary = summarise_features(manifest, features, splits, params)
    if spread := summary.get("aligned_by", {}).get("characters"):
        print(
            f"warning: {args.manifest}: {spread} of {len(manifest)} utterances have no word times; "
            "their words are spread evenly over them",
            file=sys.stderr,
        )
    write_tensors(splits, args.out)
    write_json(summary, args.summary)


if __name__ == "__main__":
    run_stage(main)
