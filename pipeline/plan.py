"""Stage `plan`: check all parameters; for each stage, write what it depends on."""

import argparse
from pathlib import Path

from mitfrnet.errors import ParamsError
from mitfrnet.grid import GridParams
from mitfrnet.models.variants import resolve
from mitfrnet.params import PARAMS_FILE, load_params, read_section
from mitfrnet.plan.check import check_params
from mitfrnet.plan.stages import write_plans
from pipeline import run_stage


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)

    if problems := check_params():
        raise ParamsError(*problems)
    grid = load_params(GridParams, section="grid")
    section = read_section("model")
    models = {m: resolve(m, section, where=f"{PARAMS_FILE}: model") for m in grid.models}
    write_plans(args.out, models, root=Path(__file__).parents[1])


if __name__ == "__main__":
    run_stage(main)
