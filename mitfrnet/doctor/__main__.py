"""`python -m mitfrnet.doctor`: as `mitfrnet doctor`, also where nothing is installed."""

from __future__ import annotations

import argparse
import os
import shutil
import sys

from mitfrnet.doctor.examination import examine
from mitfrnet.doctor.findings import ERROR, FREE_GIB, conclusion, render, to_json


def main(argv: list[str] | None = None) -> int:
    """Run the command line, and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m mitfrnet.doctor",
        description="Say what is there for the pipeline to run on, and what to do about the rest.",
    )
    parser.add_argument("--json", action="store_true", help="for bug reports: no names, no tokens")
    parser.add_argument(
        "--free", type=float, default=FREE_GIB, metavar="GIB", help="space that must be free"
    )
    arguments = parser.parse_args(argv)
    return diagnose(as_json=arguments.json, free_gib=arguments.free)


def diagnose(*, as_json: bool, free_gib: float) -> int:
    """Print what is found, and return 1 if `dvc repro` would stop, else 0.

    Args:
        as_json: print JSON for a bug report.
        free_gib: space that must be free on each disk.
    """
    if hasattr(sys.stdout, "reconfigure"):  # a terminal's encoding may lack what a path has
        sys.stdout.reconfigure(errors="backslashreplace")
    findings = []
    width = shutil.get_terminal_size().columns
    colour = sys.stdout.isatty() and os.name == "posix" and "NO_COLOR" not in os.environ
    for finding in examine(free_gib=free_gib):
        findings.append(finding)
        if not as_json:
            print(render(finding, width=width, colour=colour), flush=True)
    print(to_json(findings) if as_json else f"\n{conclusion(findings)}")
    return int(any(finding.level == ERROR for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
