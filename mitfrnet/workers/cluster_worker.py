"""What a Dask worker does for `cluster.py`: feed the processes that work, and end them in time.

`check`, `serve` and `end` are called by name there. The first value they return is why this worker
refuses to work, None if it does not.
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

# Those whose versions decide the numbers of a clip; models are compared by extractors' identity.
_PACKAGES = (
    *("av", "librosa", "mediapipe", "numba", "numpy", "opencv-python", "scipy", "soxr"),
    *("tokenizers", "torch", "transformers"),
)

_LOOK_S = 1.0  # between two looks at whether a task is still wanted
_IDLE_S = 10  # a process without a task for longer ends: its client may be gone


@dataclass(frozen=True)
class Job:
    """What travels with every task, so that a machine may join or come back at any time."""

    name: str
    setup: bytes  # pickled, since only the process that calls it needs what it names
    timeout_s: float
    fingerprint: dict[str, str]  # of the machine the stage runs on
    files: tuple[str, ...]


def check(payload: bytes) -> tuple[str | None, None]:
    """Return what keeps this worker from a job: None, nothing does."""
    return _complaint(pickle.loads(payload)), None


def serve(payload: bytes) -> tuple[str | None, Any]:
    """Return what one of this worker's processes makes of a task."""
    from distributed import get_worker

    job, task = pickle.loads(payload)
    worker = get_worker()
    with _lock:
        if job.name not in _processes:
            why = _complaint(job)  # as `check`, for a worker that came later
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
    """The processes of one job on this worker, as many as threads have asked at the same time."""

    def __init__(self, job: Job, worker: "Worker") -> None:
        self._job, self._worker = job, worker
        self._idle: list[WorkerProcess[Any, Any]] = []
        self._busy: dict[Any, WorkerProcess[Any, Any]] = {}  # by the key of the task
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
            if self._ended.is_set():  # which may be why there is no result
                raise Reschedule
            if isinstance(result, TaskError):
                process.stop()
            else:
                self._idle.append(process)
        return result

    def end(self) -> None:
        """End all processes, also those that are at work."""
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
        """Return whether the scheduler still wants a task: not so when its client is gone."""
        from distributed.core import Status

        task = self._worker.state.tasks.get(key)
        leaving = self._worker.status in (Status.closing, Status.closed, Status.failed)
        return task is not None and task.state != "cancelled" and not leaving


def _unpickled_setup(setup: bytes) -> Callable[[Any], Any]:
    return pickle.loads(setup)()


def _complaint(job: Job) -> str | None:
    """Return why this process is of no use to a job, None if it is."""
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
    """Return what must be the same on two machines, for the same bytes."""
    code = hashlib.sha256()
    package = Path(__file__).parent
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
        return version(package).partition("+")[0]  # of torch, for whatever device
    except PackageNotFoundError:
        return "absent"
