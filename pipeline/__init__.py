"""The stages of `dvc.yaml`, one script each, and how all of them behave as processes."""

import os
import threading
import time
from collections.abc import Callable

import psutil

from mitfrnet.errors import reporting_errors

# Before torch loads: threads that wait must soon sleep. Those that spin make a step ten times
# slower when other stages, or anything else, run on the same cores (benchmarks/NOTES.md).
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

_SHELLS = {"sh", "bash", "dash", "zsh", "fish", "ksh"}
_WATCH_INTERVAL_S = 0.05


def run_stage(main: Callable[[], None]) -> None:
    """Run `main`; a `MitfrnetError` becomes one line on stderr and exit status 1."""
    with reporting_errors():
        main()


def _leave_with_dvc() -> None:
    """End this process, and so its workers, once the DVC that started it is gone.

    A DVC that is killed cannot stop its stage, and a stage that lives on would write beside
    the next run. Does nothing outside DVC.
    """
    ancestors = psutil.Process().parents()
    dvc = next((p for p in ancestors if p.name() not in _SHELLS), None)
    if dvc is None or (dvc.pid == 1 and "dvc" not in " ".join(dvc.cmdline())):
        os._exit(1)  # it went before we looked

    def watch() -> None:
        while dvc.is_running() and dvc.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_WATCH_INTERVAL_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# Now, not when the stage runs: its imports take seconds.
if "DVC_STAGE" in os.environ:
    _leave_with_dvc()
