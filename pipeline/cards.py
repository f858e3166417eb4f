"""Stage `cards`: a model card for each cell of the grid."""

import argparse
from pathlib import Path

from mitfrnet.grid import GridParams
from mitfrnet.params import load_params
from mitfrnet.report.cards import write_cards
from mitfrnet.report.results import read_cells
from pipeline import run_stage


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metrics", type=Path, required=True)
    parser.add_argument("--predictions", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)

    cells = read_cells(
        load_params(GridParams, section="grid"),
        metrics=args.metrics,
        predictions=args.predictions,
        models=args.models,
        timings=None,  # no card shows them
    )
    write_cards(cells, args.models, args.out)


if __name__ == "__main__":
    run_stage(main)
