"""The part of `cluster.py` that runs in a Dask worker: it feeds processes and ends them in time.

`check`, `serve` and `end` are called by name. Each returns the reason why this worker refuses the
job (or None), and a result.
"""

import hashlib
import pickle
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import current_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mitfrnet.workers.local import TaskError, WorkerProcess

if TYPE_CHECKING:
    from distributed import Worker

# Packages whose versions can change features; models are compared by the extractors' identity.
_PACKAGES = (
    *("av", "librosa", "mediapipe", "numba", "numpy", "opencv-python", "scipy", "soxr"),
    *("tokenizers", "torch", "transformers"),
)

_LOOK_S = 1.0  # between two checks that a task is still wanted
_IDLE_S = 10  # processes end after so long without a task: their client may be gone


@dataclass(frozen=True)
class Job:
    """Sent with every task, so that a machine may join or return at any time."""

    name: str
    setup: bytes  # pickled: only the process that calls it imports what it needs
    timeout_s: float
    fingerprint: dict[str, str]  # of the machine the stage runs on
    files: tuple[str, ...]  # that must exist on every machine


def check(payload: bytes) -> tuple[str | None, None]:
    """Return why this worker cannot do a job."""
    return _refusal(pickle.loads(payload)), None


def serve(payload: bytes) -> tuple[str | None, Any]:
    """Return the result of a task, from one of this worker's processes."""
    from distributed import get_worker

    job, task = pickle.loads(payload)
    worker = get_worker()
    with _lock:
        if job.name not in _processes:
            why = _refusal(job)  # this worker may have joined after `check`
            if why is not None:
                return why, None
            _processes[job.name] = _Processes(job, worker)
        processes = _processes[job.name]
    return None, processes.answer(worker.get_current_task(), task)


def end(name: str) -> tuple[None, None]:
    """End this worker's processes of a job."""
    with _lock:
        processes = _processes.pop(name, None)
    if processes is not None:
        processes.end()
    return None, None


_processes: dict[str, "_Processes"] = {}  # by the name of their job
_lock = threading.Lock()


class _Processes:
    """The processes of one job on this worker, one for each thread that is busy with it."""

    def __init__(self, job: Job, worker: "Worker") -> None:
        self._job, self._worker = job, worker
        self._idle: list[WorkerProcess[Any, Any]] = []
        self._busy: dict[Any, WorkerProcess[Any, Any]] = {}  # by the task's key
        self._used = time.monotonic()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._end_when_unwanted, daemon=True).start()

    def answer(self, key: Any, task: Any) -> Any:
        from distributed import Reschedule

        with self._lock:
            if self._ended.is_set():
                raise Reschedule
            process = self._idle.pop() if self._idle else self._new_process()
            self._busy[key] = process
        result = process.answer(task)
        with self._lock:
            del self._busy[key]
            self._used = time.monotonic()
            if self._ended.is_set():  # then the result means nothing
                raise Reschedule
            if isinstance(result, TaskError):
                process.stop()
            else:
                self._idle.append(process)
        return result

    def end(self) -> None:
        """End all processes, busy ones included."""
        with self._lock:
            self._ended.set()
            for process in [*self._idle, *self._busy.values()]:
                process.stop()

    def _new_process(self) -> WorkerProcess[Any, Any]:
        setup = partial(_unpickled_setup, self._job.setup)
        return WorkerProcess(setup, timeout_s=self._job.timeout_s)

    def _end_when_unwanted(self) -> None:
        while not self._ended.wait(_LOOK_S):
            with self._lock:
                unwanted = any(not self._is_wanted(key) for key in self._busy)
                idle = not self._busy and time.monotonic() - self._used > _IDLE_S
            if unwanted or idle:
                end(self._job.name)

    def _is_wanted(self, key: Any) -> bool:
        """Return whether the scheduler still wants a task; it does not if the client is gone."""
        from distributed.core import Status

        task = self._worker.state.tasks.get(key)
        leaving = self._worker.status in (Status.closing, Status.closed, Status.failed)
        return task is not None and task.state != "cancelled" and not leaving


def _unpickled_setup(setup: bytes) -> Callable[[Any], Any]:
    return pickle.loads(setup)()


def _refusal(job: Job) -> str | None:
    """Return why this process cannot do a job; None if it can."""
    if current_process().daemon:
        return (
            "may not start processes (expected: dask worker --no-nanny, or "
            "DASK_DISTRIBUTED__WORKER__DAEMON=False in its environment)"
        )
    here = fingerprint()
    for name, expected in job.fingerprint.items():
        if here[name] != expected:
            return f"{name} is {here[name]} (expected {expected}, as where the stage runs)"
    for file in job.files:
        if not Path(file).exists():
            return f"no file {file} (expected the corpus at the same path on every machine)"
    return None


def fingerprint() -> dict[str, str]:
    """Return everything that must be equal on two machines if they are to write the same bytes."""
    code = hashlib.sha256()
    package = Path(__file__).parents[1]  # mitfrnet
    for file in sorted(package.rglob("*.py")):
        code.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "machine": platform.machine(),
        "code of mitfrnet": code.hexdigest()[:12],
        **{package: _version(package) for package in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package).partition("+")[0]  # torch builds for CPU and GPU count as equal
    except PackageNotFoundError:
        return "absent"
