"""Stage `mask`: choose which steps of every utterance are missing."""

import argparse
from pathlib import Path

from mitfrnet.data.tensors import read_steps
from mitfrnet.files import write_json
from mitfrnet.missing import MaskParams, mask_corpus, parse_protocol, write_masks
from mitfrnet.params import load_params
from pipeline import run_stage


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tensors", type=Path, required=True)
    parser.add_argument("--missing-rate", required=True, help="a rate, or the name of a protocol")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--summary", type=Path, required=True)
    args = parser.parse_args(argv)

    params = load_params(MaskParams, section="mask")
    steps = read_steps(args.tensors)
    masks = mask_corpus(steps, rate=parse_protocol(args.missing_rate), params=params)
    write_masks(masks, steps, args.out)
    write_json(masks.metadata, args.summary)


if __name__ == "__main__":
    run_stage(main)
