"""A Dask cluster on loopback, started by the commands of a user, and tasks for it."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil

from mitfrnet.workers.cluster import spread_map
from mitfrnet.workers.params import RunParams
from tests.helpers.paths import ROOT
from tests.helpers.waiting import wait_for

LOOPBACK = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]


def square():
    return lambda x: (x * x, os.getppid(), os.getcwd())


def hold(folder):
    """Return a task that writes the pids of its process and Dask worker, then sleeps."""
    return partial(_hold, Path(folder))


def _hold(folder, task):
    (folder / f"{os.getpid()}.{os.getppid()}").touch()
    time.sleep(600)


def meet(folder, number):
    """Return a task that ends only when so many Dask workers run it."""
    return partial(_meet, Path(folder), number)


def _meet(folder, number, task):
    (folder / str(os.getppid())).touch()
    wait_for(lambda: len(list(folder.iterdir())) == number, seconds=120)
    return task


def fail():
    return partial(int, base=10)


def run_on(running, setup, tasks, timeout_s=100, **options):
    address = running if isinstance(running, str) else running.address
    run = RunParams(backend="dask", scheduler=address, workers=0, timeout_seconds=timeout_s)
    return dict(spread_map(setup, tasks, run, **options))


class Cluster:
    """A scheduler and its workers, each a process with the attribute `log`, a file."""

    def __init__(self, folder, **environment):
        self._folder, self.workers = folder, []
        file = folder / "scheduler.json"
        self.scheduler = self._start(
            [
                *("-m", "dask", "scheduler", "--port", "0", "--scheduler-file", str(file)),
                *("--idle-timeout", "5 minutes"),  # ends it and its workers if the tests are killed
            ],
            environment,
        )
        self.address = json.loads(wait_for(lambda: _text_of(file), seconds=120))["address"]

    def add_worker(self, *options, python=("-m", "dask", "worker"), **environment):
        """Start a worker with one thread in a folder of its own; return its process."""
        options = options or ("--no-nanny",)
        worker = self._start([*python, self.address, "--nthreads", "1", *options], environment)
        self.workers.append(worker)
        wait_for(lambda: "Registered to" in worker.log.read_text(), seconds=120)
        return worker

    def _start(self, words, environment):
        number = len(list(self._folder.glob("*.log")))
        cwd = self._folder / f"cwd{number}"  # empty
        cwd.mkdir()
        log = self._folder / f"{number}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *words, *LOOPBACK],
                cwd=cwd,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        process.log = log
        return process

    def stop_workers(self):
        for worker in self.workers:
            _end(worker)
        self.workers.clear()

    def stop(self):
        self.stop_workers()
        _end(self.scheduler)


@contextmanager
def cluster(folder, **environment):
    running = Cluster(folder, **environment)
    try:
        yield running
    finally:
        running.stop()


def working_processes(worker):
    """Return the pids of the processes in which a worker runs tasks."""
    ids = []
    for child in psutil.Process(worker.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended
            if "spawn_main" in " ".join(child.cmdline()):
                ids.append(child.pid)
    return ids


def _text_of(file):
    """Return the text of a JSON file; empty while it is being written."""
    text = file.read_text().strip() if file.exists() else ""
    return text if text.endswith("}") else ""


def _end(process):
    """Kill a process and its children, in any state."""
    if process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
