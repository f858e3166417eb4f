"""The stages of `dvc.yaml`, one script each, and how they handle signals and errors."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# Before imports that take seconds: until then a stage has done nothing, and ctrl-C just ends it.
if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import psutil

from mitfrnet.errors import reporting_errors

# Before torch loads: waiting threads must sleep soon. If they spin, a step takes ten times as long
# when anything else runs on the same cores (benchmarks/NOTES.md).
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

_SHELLS = {"sh", "bash", "dash", "zsh", "fish", "ksh"}
_WATCH_INTERVAL_S = 0.05


def run_stage(main: Callable[[], None]) -> None:
    """Run `main`; print an error that a user can act on as one line, with exit status 1.

    Ctrl-C, and SIGTERM, by which clusters end a job, leave nothing half-written.
    """
    with reporting_errors(), _interruptible():
        main()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into exceptions within the block."""

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
    """End this process, and with it its workers, when the DVC that started it is gone.

    A killed DVC cannot stop its stage, and a stage that lives on would write beside the next run.
    """
    ancestors = psutil.Process().parents()
    dvc = next((p for p in ancestors if p.name() not in _SHELLS), None)
    if dvc is None or (dvc.pid == 1 and "dvc" not in " ".join(dvc.cmdline())):
        os._exit(1)  # it is gone already

    def watch() -> None:
        while dvc.is_running() and dvc.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_WATCH_INTERVAL_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# Not later, when the stage runs: its imports take seconds.
if "DVC_STAGE" in os.environ:
    _leave_with_dvc()
