"""Stage `report`: page, tables, figures and plot data of the grid's cells."""

import argparse
from pathlib import Path

from mitfrnet.grid import GridParams
from mitfrnet.params import load_params
from mitfrnet.report.page import write_report
from mitfrnet.report.params import ReportParams
from mitfrnet.report.results import read_results
from mitfrnet.report.worst import read_worst
from pipeline import run_stage


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metrics", type=Path, required=True)
    parser.add_argument("--predictions", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--timings", type=Path, required=True)
    parser.add_argument("--inspected", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)

    params = load_params(ReportParams, section="report")
    grid = load_params(GridParams, section="grid")
    results = read_results(
        grid,
        metrics=args.metrics,
        predictions=args.predictions,
        models=args.models,
        timings=args.timings,
    )
    worst = {corpus: read_worst(args.inspected / corpus, args.out) for corpus in grid.corpora}
    write_report(results, params, args.out, worst)


if __name__ == "__main__":
    run_stage(main)
