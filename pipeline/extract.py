"""Stage `extract`: features of one modality for every clip of a corpus."""

import argparse
from pathlib import Path

from mitfrnet.corpus.manifest import read_manifest
from mitfrnet.features.extract import extract_corpus, extractor_params
from mitfrnet.modalities import MODALITIES
from mitfrnet.params import PARAMS_FILE, load_params, read_section
from mitfrnet.workers.params import RunParams
from pipeline import run_stage


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modality", choices=MODALITIES, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)

    section = f"extract.{args.modality}"
    where = f"{PARAMS_FILE}: {section}"
    params = extractor_params(args.modality, read_section(section), where=where)
    run = load_params(RunParams, section="run")
    manifest = read_manifest(args.manifest)
    extracted = extract_corpus(args.modality, manifest, args.raw, args.out, params, run)
    print(f"{args.modality}: {extracted} of {len(manifest)} clips extracted")


if __name__ == "__main__":
    run_stage(main)
