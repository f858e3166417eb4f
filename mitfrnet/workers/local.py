"""Supervised worker processes: a crash or a hang costs one task, never the run.

Process pools of the standard library and joblib are lost when one worker aborts, and decoders
of untrusted media do abort; here every slot owns one process and starts another when it dies.
`cluster.py` feeds the same processes on other machines.
"""

import ctypes
import errno
import itertools
import os
import queue
import shutil
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection, get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mitfrnet.errors import MitfrnetError
from mitfrnet.workers.params import RunParams as RunParams
from mitfrnet.workers.params import available_cores

Task = TypeVar("Task")
Result = TypeVar("Result")
Item = TypeVar("Item")

_CRASHED = "worker_crashed"
_PAUSE_S = 0.5  # after a crash: who ended the worker may be ending us as well
_PR_SET_PDEATHSIG = 1  # of Linux: the signal this process gets when the thread that made it ends


@dataclass(frozen=True)
class WorkerFailure:
    """Why a task has no result: `worker_crashed` (twice), `timed_out` or `out_of_memory`."""

    reason: str


class _NotStarted(WorkerFailure):
    """What befell a worker before its first task, and is no fault of the task."""


@dataclass(frozen=True)
class TaskError:
    """What the work on a task raised, or its `setup`: that is no fault of the process."""

    error: Exception


_CLAIM = "mitfrnet-core"

# Changed for the moment in which a process starts, so one at a time.
_environment = threading.Lock()


def supervised_map(
    setup: Callable[[], Callable[[Task], Result]],
    tasks: Sequence[Task],
    *,
    workers: int,
    timeout_s: float,
) -> Generator[tuple[Task, Result | WorkerFailure], None, None]:
    """Yield each task with its result, in the order in which they finish.

    A task whose worker crashed is tried once more, in a new one: the system or a person may have
    killed it, through no fault of the task.

    Args:
        setup: picklable; called once in every worker, returns the function applied to tasks.
        tasks: picklable.
        workers: number of processes, each pinned to one core.
        timeout_s: a worker that is silent for longer, on `setup` or on one task, is killed.

    Raises:
        MitfrnetError: `setup` or the function raised it, or a worker did not come as far as a
            task.
        RuntimeError: they raised another error, of which this carries the traceback.
    """
    waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    slots = [
        _Slot(WorkerProcess(setup, timeout_s=timeout_s), waiting, done)
        for _ in range(min(workers, len(tasks)))
    ]
    if hasattr(signal, "pthread_sigmask"):
        resource_tracker.ensure_running()  # a thread that starts it no longer blocks SIGINT
    for slot in slots:
        slot.start()
    try:
        for _ in tasks:
            task, result = done.get()
            if isinstance(result, TaskError):
                raise result.error
            yield task, result
    finally:
        for slot in slots:
            slot.stop()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let the processes started in this block use one thread each.

    Their libraries read these variables when they load, which may be as early as `setup` is
    unpickled. Several threads on one core would wait for each other, ten times as long.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Slot(threading.Thread):
    """One thread that feeds one worker process."""

    def __init__(
        self,
        process: "WorkerProcess[Any, Any]",
        waiting: "queue.SimpleQueue[Any]",
        done: "queue.SimpleQueue[Any]",
    ) -> None:
        super().__init__(daemon=True)
        self._process, self._waiting, self._done = process, waiting, done

    def run(self) -> None:
        if hasattr(signal, "pthread_sigmask"):  # workers take it over, and leave ctrl-C to us
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        while not self._process.stopped:
            try:
                task = self._waiting.get_nowait()
            except queue.Empty:
                break
            result = self._process.answer(task)
            if not self._process.stopped:
                self._done.put((task, result))
            if isinstance(result, TaskError):  # which ends the whole map
                break
        self._process.stop()

    def stop(self) -> None:
        """End the worker process and wait for the thread."""
        self._process.stop()
        self.join()


class WorkerProcess(Generic[Task, Result]):
    """Answers tasks one by one in a process of its own, and replaces that when it dies or hangs.

    Args:
        setup: as for `supervised_map`; called in the process, before its first task.
        timeout_s: likewise.
    """

    def __init__(self, setup: Callable[[], Callable[[Task], Result]], *, timeout_s: float) -> None:
        self._setup, self._timeout_s = setup, timeout_s
        self._process: BaseProcess | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._link: Connection | None = None
        self._stopping = threading.Event()

    @property
    def stopped(self) -> bool:
        """Return whether `stop` was called; an answer given since then says nothing."""
        return self._stopping.is_set()

    def answer(self, task: Task) -> Result | WorkerFailure | TaskError:
        """Return what the function makes of `task`; the first call starts the process.

        A task whose process crashed is tried once more, in a new one: the system or a person may
        have killed it, through no fault of the task.
        """
        try:
            result = self._attempt(task)
            crashed = isinstance(result, WorkerFailure) and result.reason == _CRASHED
            if crashed and not self._stopping.wait(_PAUSE_S):
                result = self._attempt(task)
        except Exception as error:  # or whoever waits for the result would wait for ever
            return TaskError(error)
        if isinstance(result, _NotStarted):
            return TaskError(
                MitfrnetError(
                    f"a worker process did not start: {result.reason} (expected it to load its "
                    "models within run.timeout_seconds and the memory that is there)"
                )
            )
        return result

    def stop(self) -> None:
        """End the process, from any thread; who waits for an answer gets one."""
        self._stopping.set()
        self._kill()

    def _attempt(self, task: Task) -> Any:
        """Return the result of a task, from a new process where there is none."""
        result: Any = None
        if self._link is None:
            self._link = self._start()
            result = self._ask(self._link)
            if isinstance(result, WorkerFailure):
                result = _NotStarted(result.reason)
        if result is None:
            result = self._ask(self._link, task)
        if isinstance(result, WorkerFailure):
            self._kill()
            self._link = None
        return result

    def _start(self) -> Connection:
        ours, theirs = get_context("spawn").Pipe()
        # Its own, so that what a killed process leaves there goes too.
        temporary = tempfile.TemporaryDirectory(prefix="mitfrnet-", ignore_cleanup_errors=True)
        self._temporary = temporary
        self._process = get_context("spawn").Process(
            target=_work,
            args=(self._setup, theirs, available_cores(), temporary.name),
            daemon=True,
        )
        with _environment, _one_thread_each():
            self._process.start()
        theirs.close()
        if self._stopping.is_set():  # `stop` may have come before there was a process to end
            self._kill()
        return ours

    def _ask(self, link: Connection, *tasks: Task) -> Any:
        """Return the answer to a task, or to nothing: that of `setup`."""
        try:
            for task in tasks:
                link.send(task)
            if link.poll(self._timeout_s):
                return link.recv()
            return WorkerFailure("timed_out")
        except (EOFError, OSError):
            return WorkerFailure(_CRASHED)

    def _kill(self) -> None:
        process = self._process
        if process is not None and process.is_alive():
            process.kill()
            process.join()
        if self._temporary is not None:
            self._temporary.cleanup()


def _work(
    setup: Callable[[], Callable[[Any], Any]],
    link: Connection,
    cores: Sequence[int],
    temporary: str,
) -> None:
    """Serve tasks from `link` until it closes; runs in the worker process."""
    os.environ["TMPDIR"] = tempfile.tempdir = temporary
    claim = pin_to_core(cores)
    threading.Thread(target=_leave_with_parent, args=(temporary,), daemon=True).start()
    if sys.platform == "linux":
        # Where a decoder hangs and holds Python's lock, that thread does not run; the kernel does.
        # It leaves the folder for temporary files behind.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of ctrl-C the parent hears too, and ends us
    function = _answer(setup)
    if isinstance(function, TaskError | WorkerFailure):
        link.send(function)
        return
    link.send(None)
    while True:
        try:
            task = link.recv()
        except EOFError:
            if claim is not None:
                claim.close()
            return
        link.send(_answer(partial(function, task)))


def pin_to_core(cores: Sequence[int]) -> socket.socket | None:
    """Move this process to that of `cores` on which fewest worker processes run, for good.

    Whose they are does not matter: two stages, or two Dask workers of one machine, know nothing
    of each other. A core is claimed by a name among Linux's abstract sockets, which goes with the
    process that holds it, however that ends.

    Returns:
        The claim, which must be kept; None where the system has no such names.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    try:
        claim, core = _claim_core(cores)
    except OSError:
        claim, core = None, cores[os.getpid() % len(cores)]
    os.sched_setaffinity(0, {core})
    return claim


def _claim_core(cores: Sequence[int]) -> tuple[socket.socket, int]:
    claim = socket.socket(socket.AF_UNIX)
    for turn in itertools.count():
        for core in cores:
            try:
                claim.bind(f"\0{_CLAIM}-{core}-{turn}")
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return claim, core
    raise AssertionError("turns have no end")


def _answer(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except MitfrnetError as error:
        return TaskError(error)
    except MemoryError:  # the task asks for too much, and who knows what state it left
        return WorkerFailure("out_of_memory")
    except Exception:
        return TaskError(RuntimeError(f"in a worker process:\n{traceback.format_exc()}"))


def _leave_with_parent(temporary: str) -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        shutil.rmtree(temporary, ignore_errors=True)
        os._exit(1)


def track(
    results: Iterable[Item],
    *,
    total: int,
    size: Callable[[Item], int],
    description: str,
    detail: Callable[[], str] = str,
) -> Generator[Item, None, None]:
    """Yield `results` with a progress bar on stderr: done, rate, time left.

    Args:
        results: what is waited for.
        total: sum of all sizes.
        size: how much of the total one result is.
        description: stands before the bar.
        detail: returns what stands behind it, asked after each result.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(description, total=total, rate="", detail="")
        for result in results:
            yield result
            progress.advance(bar, size(result))
            speed = progress.tasks[0].speed
            progress.update(bar, rate=f"{speed:.1f}/s" if speed else "", detail=detail())
