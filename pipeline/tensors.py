"""Stage `tensors`: join manifest and features into ragged tensors, one file per split."""

import argparse
from pathlib import Path

from mitfrnet.assembly import build_tensors, summarise_features
from mitfrnet.corpus.manifest import read_manifest
from mitfrnet.data.tensors import write_tensors
from mitfrnet.features.store import read_features
from mitfrnet.files import write_json
from mitfrnet.modalities import MODALITIES
from pipeline import run_stage


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--summary", type=Path, required=True)
    args = parser.parse_args(argv)

    manifest = read_manifest(args.manifest)
    features = {m: read_features(args.features / m) for m in MODALITIES}
    write_tensors(build_tensors(manifest, features), args.out)
    write_json(summarise_features(features), args.summary)


if __name__ == "__main__":
    run_stage(main)
