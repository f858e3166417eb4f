"""Stage `inspect`: list the test clips that the first model gets most wrong, with a page of each.

It also reads `data/` and `raw/`, as `mitfrnet inspect` does.
"""

import argparse
from pathlib import Path

from mitfrnet.grid import GridParams
from mitfrnet.inspection.worst import write_worst_clips
from mitfrnet.missing import MaskParams
from mitfrnet.params import PARAMS_FILE, load_params, parse_params, read_section
from mitfrnet.report.params import WorstParams
from mitfrnet.report.results import Results, read_cells
from mitfrnet.workers.params import RunParams
from pipeline import run_stage


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--metrics", type=Path, required=True)
    parser.add_argument("--predictions", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)

    params = load_params(WorstParams, section="report.worst")
    # The rest of the grid is not read: another model changes no page.
    axes = {axis: read_section(f"grid.{axis}") for axis in ("missing_rates", "seeds")}
    own = {"corpora": [args.corpus], "models": [args.model]}
    grid = parse_params(GridParams, own | axes, where=f"{PARAMS_FILE}: grid")
    cells = read_cells(
        grid,
        metrics=args.metrics,
        predictions=args.predictions,
        models=args.models,
        timings=None,  # no page shows them
    )
    masks = load_params(MaskParams, section="mask")
    run = load_params(RunParams, section="run")
    write_worst_clips(
        Results(grid, [], cells), params, args.out, models=args.models, masks=masks, run=run
    )


if __name__ == "__main__":
    run_stage(main)
