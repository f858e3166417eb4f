"""What faults cost the extraction, each really done: python -m benchmarks.faults.

Needs Linux, and for a full disk and a read-only folder the leave to mount in a namespace of one's
own (`unshare --user --map-root-user --mount`); without it these rows say so. Ends with status 1 if
anything did not come out as it must.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.helpers.fault_trial import CLIPS, UnavailableError, end_all, make_clean
from tests.helpers.faults import SCENARIOS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        clean = make_clean(folder / "clean" / "project")
        print(
            f"{CLIPS} clips in {len(clean.shards)} shards, two workers; "
            f"a run without faults takes {clean.seconds:.1f} s\n"
        )
        print("| fault | times tried | clips lost | bytes equal | unfinished | redone | seen |")
        print("|---|---|---|---|---|---|---|", flush=True)
        failed = False
        for scenario in args.only:
            (folder / scenario).mkdir()
            before = time.monotonic()
            try:
                row = SCENARIOS[scenario](clean, folder / scenario)
            except UnavailableError as error:
                print(f"| {scenario} | 0 | | | | | {error} |", flush=True)
                continue
            except AssertionError as error:
                failed = True
                end_all()
                said = " ".join(str(error).split())
                print(f"| {scenario} | FAILED | | | | | {said} |", flush=True)
                continue
            failed |= not row.costs_nothing
            print(
                f"| {row.fault} | {row.tried} | {row.lost} | {'yes' if row.equal else 'NO'} "
                f"| {row.unfinished} | {row.redone} | {row.seen} |",
                flush=True,
            )
            print(f"{scenario}: {time.monotonic() - before:.0f} s", file=sys.stderr)
    sys.exit(failed)


if __name__ == "__main__":
    main()
