"""Run a stage's tasks on this machine or on a Dask cluster, as `run.backend` says.

Each thread of a Dask worker feeds one `WorkerProcess`. So on every machine a decoder that aborts
or hangs costs only its clip, and models load once per process. Dask moves tasks and results, and
gives the tasks of a lost machine to the others.
"""

import itertools
import logging
import os
import pickle
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mitfrnet.errors import DEBUG_VARIABLE, ClusterError, MitfrnetError
from mitfrnet.workers.cluster_worker import Job, fingerprint
from mitfrnet.workers.local import TaskError, WorkerFailure, supervised_map
from mitfrnet.workers.params import RunParams

if TYPE_CHECKING:
    from distributed import Client

Task = TypeVar("Task")
Result = TypeVar("Result")

_CONNECT_S = 5
_WITHOUT_WORKERS_S = 60  # enough to start one by hand or from a queue
_POLL_S = 0.005
_LOOK_S = 1.0  # between two counts of the workers' threads

# One runs and one waits, so no thread is idle while a result travels.
_TASKS_PER_THREAD = 2


def spread_map(
    setup: Callable[[], Callable[[Task], Result]],
    tasks: Sequence[Task],
    run: RunParams,
    *,
    local_workers: int | None = None,
    files: Sequence[Path] = (),
) -> Generator[tuple[Task, Result | WorkerFailure], None, None]:
    """Yield each task with its result, in the order in which they finish.

    Args:
        setup: as for `supervised_map`.
        tasks: as for `supervised_map`.
        run: where tasks run, and how long one may take.
        local_workers: number of processes if tasks run here; None: as in `run`.
        files: absolute paths that tasks read. Every machine must see them; a few are checked.

    Raises:
        MitfrnetError: as for `supervised_map`.
        ClusterError: there is no cluster, it is lost, or one of its workers cannot be used.
        RuntimeError: as for `supervised_map`.
    """
    if run.scheduler is not None and run.backend == "dask":
        return _dask_map(setup, tasks, files, run.scheduler, run.timeout_seconds)
    workers = run.slots if local_workers is None else local_workers
    return supervised_map(setup, tasks, workers=workers, timeout_s=run.timeout_seconds)


def _dask_map(
    setup: Callable[[], Callable[[Task], Result]],
    tasks: Sequence[Task],
    files: Sequence[Path],
    scheduler: str,
    timeout_s: float,
) -> Generator[tuple[Task, Result | WorkerFailure], None, None]:
    if not tasks:
        return
    sample = files[:: max(1, len(files) // 8)]
    job = Job(
        name=f"mitfrnet-{uuid.uuid4().hex[:12]}",
        setup=pickle.dumps(setup),
        timeout_s=timeout_s,
        fingerprint=fingerprint(),
        files=tuple(str(file) for file in sample if file.exists()),
    )
    with _connected(scheduler) as client:
        watch = _Watch(client, scheduler)
        while not watch.threads():
            time.sleep(_POLL_S)
        _check_workers(client, job)
        yield from _run(client, watch, job, tasks)


@contextmanager
def _connected(scheduler: str) -> Iterator["Client"]:
    try:
        import distributed
    except ImportError as error:
        raise ClusterError(
            f"run.backend: dask is not installed ({error}; expected: pip install 'mitfrnet[dask]')"
        ) from error
    if not os.environ.get(DEBUG_VARIABLE):  # our own errors say all that a user can act on
        for name in list(logging.root.manager.loggerDict):
            if name.partition(".")[0] in ("distributed", "tornado"):
                logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", distributed.versions.VersionMismatchWarning)
            client = distributed.Client(scheduler, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, TypeError, ValueError) as error:  # TypeError: tls without a certificate
        raise ClusterError(
            f"run.scheduler: nothing answers at {scheduler} ({' '.join(str(error).split())}; "
            "expected a scheduler, started with: dask scheduler)"
        ) from error
    try:
        yield client
    finally:
        with suppress(Exception):
            client.close(timeout=_CONNECT_S)


class _Watch:
    """Counts the threads of all workers, and raises if there are none for too long."""

    def __init__(self, client: "Client", scheduler: str) -> None:
        self._client, self._scheduler = client, scheduler
        self._threads = 0
        self._next_look = 0.0
        self._lonely_since: float | None = None

    def threads(self) -> int:
        """Return their number, counted at most `_LOOK_S` ago.

        Raises:
            ClusterError: the scheduler is lost, or there was no worker for too long.
        """
        now = time.monotonic()
        if now < self._next_look:
            return self._threads
        try:
            self._threads = sum(self._client.nthreads().values())
        except (OSError, RuntimeError) as error:
            raise self.lost() from error
        self._next_look = time.monotonic() + _LOOK_S
        start = f"start one with: dask worker {self._scheduler} --no-nanny"
        if self._threads:
            self._lonely_since = None
        elif self._lonely_since is None:
            self._lonely_since = now
            print(
                f"{self._scheduler}: waiting up to {_WITHOUT_WORKERS_S:g} s for a worker ({start})",
                file=sys.stderr,
            )
        elif now - self._lonely_since > _WITHOUT_WORKERS_S:
            raise ClusterError(
                f"{self._scheduler}: no worker for {_WITHOUT_WORKERS_S:g} s ({start}; finished "
                "work is kept)"
            )
        return self._threads

    def lost(self) -> ClusterError:
        return ClusterError(
            f"{self._scheduler}: the scheduler is gone (start it and its workers again; finished "
            "work is kept)"
        )


def _check_workers(client: "Client", job: Job) -> None:
    """Raise if a worker cannot do the job; the message names the first such worker."""
    answers = client.run(_on_worker(), "check", pickle.dumps(job), on_error="return")
    refusals = []
    for address, answer in sorted(answers.items()):
        if isinstance(answer, OSError):  # the worker has left
            continue
        # Dask raises other errors if it could not even run our function.
        where, why, _ = (address, repr(answer), None) if isinstance(answer, Exception) else answer
        if why is not None:
            refusals.append(f"{where}: {why}")
    if refusals:
        others = f"; and {len(refusals) - 1} more workers" * (len(refusals) > 1)
        raise ClusterError(refusals[0] + others)


def _run(
    client: "Client", watch: _Watch, job: Job, tasks: Sequence[Task]
) -> Iterator[tuple[Task, Any]]:
    """Submit tasks as threads become free; fetch each result when the caller asks for it."""
    from distributed import CancelledError, KilledWorker, as_completed

    function = _on_worker()
    todo = iter(enumerate(tasks))
    running: dict[Any, Task] = {}
    finished = as_completed(loop=client.loop, with_results=True, raise_errors=False)
    left = len(tasks)
    try:
        while left:
            room = max(0, _TASKS_PER_THREAD * watch.threads() - len(running))
            for number, task in itertools.islice(todo, room):
                payload = pickle.dumps((job, task))
                future = client.submit(function, "serve", payload, key=f"{job.name}-{number}")
                running[future] = task
                finished.add(future)
            batch = finished.next_batch(block=False)
            for future, answer in batch:
                if isinstance(answer, CancelledError):
                    raise watch.lost()
                left -= 1
                if future.status != "error":
                    yield running.pop(future), _result(*answer)
                elif isinstance(answer[1], KilledWorker):  # several workers died, in turn
                    yield running.pop(future), WorkerFailure("worker_crashed")
                else:
                    raise ClusterError(f"a task was lost: {answer[1]!r}") from answer[1]
            if not batch:
                time.sleep(_POLL_S)
    finally:
        with suppress(Exception):
            client.cancel(list(running))
            client.run(function, "end", job.name, on_error="ignore")


def _result(where: str, why: str | None, result: Any) -> Any:
    """Return a worker's result.

    Raises:
        ClusterError: the worker refused the job, or its task raised a `MitfrnetError`.
        RuntimeError: its task raised another error.
    """
    if why is not None:
        raise ClusterError(f"{where}: {why}")
    if isinstance(result, TaskError):
        kind = ClusterError if isinstance(result.error, MitfrnetError) else RuntimeError
        raise kind(f"{where}: {result.error}") from None
    return result


def _on_worker() -> Callable[[str, Any], tuple[str, str | None, Any]]:
    """Return the function that workers run; it calls a function of `cluster_worker` by name.

    It is a local function, so it is pickled by value, and its argument is bytes. So it runs even
    on a worker without this package, and the error can name that worker.
    """

    def call(name, argument, dask_worker=None):  # type: ignore[no-untyped-def]
        import importlib
        import socket

        from distributed import Reschedule, get_worker

        # Dask fills in `dask_worker` outside of a task.
        where = f"worker {(dask_worker or get_worker()).address} on {socket.gethostname()}"
        try:
            module = importlib.import_module("mitfrnet.workers.cluster_worker")
            why, result = getattr(module, name)(argument)
        except Reschedule:
            raise
        except Exception as error:
            why, result = f"{type(error).__name__}: {error}", None
        return where, why, result

    return call
