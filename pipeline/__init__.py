"""The stages of `dvc.yaml`, one script each, and how all of them behave as processes."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# Before the imports that take seconds: a stage has begun nothing yet, and ctrl-C just ends it.
if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import psutil

from mitfrnet.errors import reporting_errors

# Before torch loads: threads that wait must soon sleep. Those that spin make a step ten times
# slower when other stages, or anything else, run on the same cores (benchmarks/NOTES.md).
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

_SHELLS = {"sh", "bash", "dash", "zsh", "fish", "ksh"}
_WATCH_INTERVAL_S = 0.05


def run_stage(main: Callable[[], None]) -> None:
    """Run `main`; an error that a user can act on is one line on stderr and exit status 1.

    Ctrl-C and SIGTERM, with which clusters end a job, leave nothing half-written.
    """
    with reporting_errors(), _interruptible():
        main()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Make both signals exceptions within the block; before and after, they end the process."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: leave}
    taken = [number for number in handlers if signal.getsignal(number) == signal.SIG_DFL]
    for number in taken:
        signal.signal(number, handlers[number])
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


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
