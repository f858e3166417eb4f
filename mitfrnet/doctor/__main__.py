"""`python -m mitfrnet.doctor`: the same as `mitfrnet doctor`, and needs no package."""

import argparse
import sys

from mitfrnet.doctor.examination import examine
from mitfrnet.doctor.findings import ERROR, FREE_GIB, REMARK, to_json


def main() -> int:
    """Run the command line, and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m mitfrnet.doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="for bug reports: no names, no tokens")
    parser.add_argument("--free", type=float, default=FREE_GIB, metavar="GIB")
    arguments = parser.parse_args()
    return diagnose(as_json=arguments.json, free_gib=arguments.free)


def diagnose(*, as_json: bool, free_gib: float) -> int:
    """Print all findings, and return 1 if `dvc repro` would stop, else 0."""
    if hasattr(sys.stdout, "reconfigure"):  # the terminal may not be able to show every path
        sys.stdout.reconfigure(errors="backslashreplace")
    findings = []
    for finding in examine(free_gib):
        findings.append(finding)
        if not as_json:
            print(finding, flush=True)
    levels = [finding.level for finding in findings]
    end = f"\nerrors: {levels.count(ERROR)}, remarks: {levels.count(REMARK)}: `dvc repro` "
    print(to_json(findings) if as_json else end + ("would stop" if ERROR in levels else "can run"))
    return int(ERROR in levels)


if __name__ == "__main__":
    sys.exit(main())
