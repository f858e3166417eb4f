"""Measure `dvc repro` with nothing to do, for the shipped grid and for one of 350 stages.

    python -m benchmarks.idle [--rounds 3]

The project is copied. Its stages are not run: small files are put in place of their outputs and
committed to DVC. What DVC reads, hashes and compares to find that nothing is to be done is real.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from dvc.repo import Repo

ROOT = Path(__file__).parents[1]
PROJECT = ["dvc.yaml", "params.yaml", ".dvc/config", ".dvcignore", ".gitignore", "pipeline",
           "mitfrnet", "raw"]  # fmt: skip
GRIDS = {
    "shipped": {},
    # plan, ingest, 3 of extract, tensors, 11 masks, 2 * 5 * 11 * 3 cells, cards, inspect, report
    "350 stages": {
        "models": ["mitfrnet", "tfn", "mult", "misa", "tfrnet"],
        "missing_rates": [i / 10 for i in range(11)],
        "seeds": [1, 2, 3],
    },
}


def make_finished_project(folder: Path, grid: dict) -> int:
    """Make a project in which nothing is to be done; return how many stages it has.

    Args:
        folder: an empty folder.
        grid: what differs from the shipped section `grid`.
    """
    for name in PROJECT:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["grid"] |= grid
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    with Repo(str(folder)) as repo:
        stages = list(repo.index.stages)
        for stage in stages:
            for out in stage.outs:
                path = Path(out.fs_path)
                name = str(path.relative_to(folder))
                if name == "plan":
                    words = [sys.executable, "-m", "pipeline.plan", "--out", name]
                    subprocess.run(words, cwd=folder, check=True)
                elif path.suffix:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(name)
                else:
                    path.mkdir(parents=True, exist_ok=True)
                    (path / "made.txt").write_text(name)
    dvc = [sys.executable, "-m", "dvc", "commit", "--quiet", "--force"]
    subprocess.run(dvc, cwd=folder, check=True)
    return len(stages)


def seconds_idle(folder: Path) -> float:
    """Return the seconds of a `dvc repro` that runs nothing."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], cwd=folder, env=os.environ | {"NO_COLOR": "1"},
        check=True, text=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    if "up to date" not in done.stdout:
        sys.exit(f"error: something was run:\n{done.stdout}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    for name, grid in GRIDS.items():
        with tempfile.TemporaryDirectory() as folder:
            stages = make_finished_project(Path(folder), grid)
            seconds = [seconds_idle(Path(folder)) for _ in range(args.rounds)]
            lock = (Path(folder) / "dvc.lock").stat().st_size // 1024
        rounds = " ".join(f"{s:.1f}" for s in seconds)
        print(f"{name}: {stages} stages, dvc.lock {lock} kB: {statistics.median(seconds):.1f} s "
              f"(rounds: {rounds})", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
