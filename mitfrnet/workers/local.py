"""Supervised worker processes: a crash or a hang costs one task, never the run.

Decoders of untrusted media do abort. The process pools of the standard library and of joblib
break when one worker aborts; here each thread owns one process and replaces it when it dies.
`cluster.py` uses the same processes on other machines.
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection, get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mitfrnet.errors import MitfrnetError
from mitfrnet.workers.params import available_cores

Task = TypeVar("Task")
Result = TypeVar("Result")
Item = TypeVar("Item")

_CRASHED = "worker_crashed"
_PAUSE_S = 0.5  # after a crash: whatever killed the worker may be about to kill us too
_PR_SET_PDEATHSIG = 1  # Linux: sets the signal this process gets when its parent thread ends
_CLAIM = "mitfrnet-core"

_environment = threading.Lock()  # held while a process starts, as that changes `os.environ`


@dataclass(frozen=True)
class WorkerFailure:
    """Why a task has no result: `worker_crashed` (twice), `timed_out` or `out_of_memory`."""

    reason: str


class _NotStarted(WorkerFailure):
    """The worker failed before its first task."""


@dataclass(frozen=True)
class TaskError:
    """An error that `setup` or a task raised, while the process stayed alive."""

    error: Exception


def supervised_map(
    setup: Callable[[], Callable[[Task], Result]],
    tasks: Sequence[Task],
    *,
    workers: int,
    timeout_s: float,
) -> Generator[tuple[Task, Result | WorkerFailure], None, None]:
    """Yield each task with its result, in the order in which they finish.

    When a worker crashes, its task is tried once more in a new one: the system or a person may
    have killed the worker.

    Args:
        setup: picklable; called once in every worker, returns the function applied to tasks.
        tasks: picklable.
        workers: number of processes, each pinned to one core.
        timeout_s: a worker is killed if `setup` or one task takes longer.

    Raises:
        MitfrnetError: `setup` or the function raised it, or a worker failed before its first
            task.
        RuntimeError: they raised another error; the message holds its traceback.
    """
    waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    processes = [WorkerProcess(setup, timeout_s=timeout_s) for _ in range(min(workers, len(tasks)))]
    threads = [
        threading.Thread(target=_feed, args=(process, waiting, done), daemon=True)
        for process in processes
    ]
    if hasattr(signal, "pthread_sigmask"):
        resource_tracker.ensure_running()  # starting it would undo a thread's block of SIGINT
    for thread in threads:
        thread.start()
    try:
        for _ in tasks:
            task, result = done.get()
            if isinstance(result, TaskError):
                raise result.error
            yield task, result
    finally:
        for process in processes:
            process.stop()
        for thread in threads:
            thread.join()


def _feed(
    process: "WorkerProcess[Any, Any]",
    waiting: "queue.SimpleQueue[Any]",
    done: "queue.SimpleQueue[Any]",
) -> None:
    """Give waiting tasks to one worker process until there are none or one raises an error."""
    if hasattr(signal, "pthread_sigmask"):  # workers inherit it, so only we handle Ctrl-C
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    with suppress(queue.Empty):
        while not process.stopped:
            task = waiting.get_nowait()
            result = process.answer(task)
            if not process.stopped:
                done.put((task, result))
            if isinstance(result, TaskError):  # the whole map ends
                break
    process.stop()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Give each process started in this block one thread for numerical libraries.

    The libraries read these variables when they load, which may be when `setup` is unpickled.
    Several threads on one core wait for each other and take ten times as long.
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


class WorkerProcess(Generic[Task, Result]):
    """Answers tasks one by one in a process, which it replaces when it dies or hangs.

    Args:
        setup: as for `supervised_map`; called in the process, before its first task.
        timeout_s: as for `supervised_map`.
    """

    def __init__(self, setup: Callable[[], Callable[[Task], Result]], *, timeout_s: float) -> None:
        self._setup, self._timeout_s = setup, timeout_s
        self._process: BaseProcess | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._link: Connection | None = None
        self._stopping = threading.Event()

    @property
    def stopped(self) -> bool:
        """Return whether `stop` was called; later answers mean nothing."""
        return self._stopping.is_set()

    def answer(self, task: Task) -> Result | WorkerFailure | TaskError:
        """Return the result of `task`, tried twice if the process crashes.

        The first call starts the process.
        """
        try:
            result = self._attempt(task)
            crashed = isinstance(result, WorkerFailure) and result.reason == _CRASHED
            if crashed and not self._stopping.wait(_PAUSE_S):
                result = self._attempt(task)
        except Exception as error:  # otherwise the caller would wait for ever
            return TaskError(error)
        if isinstance(result, _NotStarted):
            return TaskError(
                MitfrnetError(
                    f"a worker process did not start: {result.reason} (expected it to load its "
                    "models within run.timeout_seconds and the available memory)"
                )
            )
        return result

    def stop(self) -> None:
        """End the process, from any thread; a call of `answer` then returns."""
        self._stopping.set()
        self._kill()

    def _attempt(self, task: Task) -> Any:
        """Return the result of a task; start a process if there is none."""
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
        spawn = get_context("spawn")
        ours, theirs = spawn.Pipe()
        # We remove this folder, with anything a killed process left there.
        temporary = tempfile.TemporaryDirectory(prefix="mitfrnet-", ignore_cleanup_errors=True)
        self._temporary = temporary
        self._process = spawn.Process(
            target=_work,
            args=(self._setup, theirs, available_cores(), temporary.name),
            daemon=True,
        )
        with _environment, _one_thread_each():
            self._process.start()
        theirs.close()
        if self._stopping.is_set():  # `stop` may have been called before the process existed
            self._kill()
        return ours

    def _ask(self, link: Connection, *tasks: Task) -> Any:
        """Return the answer to a task; without one, that of `setup`."""
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
        # When a decoder hangs and holds Python's lock, that thread cannot run, so the kernel must
        # kill us. The temporary folder then stays behind.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent also gets Ctrl-C, and ends us
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
    """Pin this process to the core in `cores` with the fewest worker processes.

    This counts the workers of all stages and Dask workers on the machine. A core is claimed by
    binding a Linux abstract socket, whose name is free again when the process ends in any way.

    Returns:
        The claim, which must be kept open; None if the system has no abstract sockets.
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
    raise AssertionError("the loop has no end")


def _answer(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except MitfrnetError as error:
        return TaskError(error)
    except MemoryError:  # the process may be in any state now, so it is replaced
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
        results: any items.
        total: sum of all sizes.
        size: returns the share of one item in the total.
        description: text before the bar.
        detail: returns the text after it; called after each item.
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
