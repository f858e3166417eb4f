"""Tasks of a stage on the machine it runs on, or on a Dask cluster, as `run.backend` says.

A thread of a Dask worker does nothing but feed one `WorkerProcess`, so that on every machine a
decoder that aborts or hangs costs its clip and no more, and models load once per process. Dask
brings tasks there and results back, and gives the tasks of a lost machine to the others.
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
_WITHOUT_WORKERS_S = 60  # as long as it takes to start one by hand, or for a queue to do so
_POLL_S = 0.005
_LOOK_S = 1.0  # between two looks at who is there

# One runs, one waits, so that no thread of a worker is idle while a result is on its way.
_TASKS_PER_THREAD = 2


def spread_map(
    setup: Callable[[], Callable[[Task], Result]],
    tasks: Sequence[Task],
    run: RunParams,
    *,
    local_workers: int | None = None,
    files: Sequence[Path] = (),
) -> Generator[tuple[Task, Result | WorkerFailure], None, None]:
    """Yield each task with its result, in the order in which they finish, from wherever it ran.

    Args:
        setup: as for `supervised_map`.
        tasks: likewise.
        run: says where they run, and how long a process may be silent.
        local_workers: processes of this machine, where they run here; None: as `run` says.
        files: what tasks read, by absolute paths. Every machine must see the same; a few are tried.

    Raises:
        MitfrnetError: as for `supervised_map`.
        ClusterError: there is no cluster, it is lost, or one of its workers is of no use.
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
    few = files[:: max(1, len(files) // 8)]
    job = Job(
        name=f"mitfrnet-{uuid.uuid4().hex[:12]}",
        setup=pickle.dumps(setup),
        timeout_s=timeout_s,
        fingerprint=fingerprint(),
        files=tuple(str(file) for file in few if file.exists()),
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
    if not os.environ.get(DEBUG_VARIABLE):  # all that a user can act on, we say
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
    """Counts the threads of all workers, and gives up where there are none for too long."""

    def __init__(self, client: "Client", scheduler: str) -> None:
        self._client, self._scheduler = client, scheduler
        self._threads = 0
        self._next_look = 0.0
        self._lonely_since: float | None = None

    def threads(self) -> int:
        """Return how many there were at the last look, which is at most `_LOOK_S` ago.

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
                f"{self._scheduler}: no worker for {_WITHOUT_WORKERS_S:g} s ({start}; what is "
                "finished is kept)"
            )
        return self._threads

    def lost(self) -> ClusterError:
        return ClusterError(
            f"{self._scheduler}: the scheduler is gone (start it and its workers again; what is "
            "finished is kept)"
        )


def _check_workers(client: "Client", job: Job) -> None:
    """Raise unless all workers that are there can do the job, and name the first that cannot."""
    answers = client.run(_on_worker(), "check", pickle.dumps(job), on_error="return")
    refusals = []
    for address, answer in sorted(answers.items()):
        if isinstance(answer, OSError):  # it left meanwhile
            continue
        # An error came from Dask: not even our function could be run.
        where, why, _ = (address, repr(answer), None) if isinstance(answer, Exception) else answer
        if why is not None:
            refusals.append(f"{where}: {why}")
    if refusals:
        others = f"; and {len(refusals) - 1} more workers" * (len(refusals) > 1)
        raise ClusterError(refusals[0] + others)


def _run(
    client: "Client", watch: _Watch, job: Job, tasks: Sequence[Task]
) -> Iterator[tuple[Task, Any]]:
    """Keep the workers supplied; a result leaves the cluster when it is asked for."""
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
                elif isinstance(answer[1], KilledWorker):  # several, one after the other
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
    """Return what a worker answered.

    Raises:
        ClusterError: it refused to work; or what it runs raised an error that a user can act on.
        RuntimeError: it raised another.
    """
    if why is not None:
        raise ClusterError(f"{where}: {why}")
    if isinstance(result, TaskError):
        kind = ClusterError if isinstance(result.error, MitfrnetError) else RuntimeError
        raise kind(f"{where}: {result.error}") from None
    return result


def _on_worker() -> Callable[[str, Any], tuple[str, str | None, Any]]:
    """Return what workers run: it calls a function of `cluster_worker`, by its name.

    A local function travels by value and so needs nothing there, and what it is given are bytes:
    a worker without this package can be told from one that is lost, and be named.
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
