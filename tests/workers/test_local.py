"""The functions that workers run are at the top level, so that a spawned process finds them."""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from mitfrnet.errors import FeatureError, MitfrnetError, ParamsError
from mitfrnet.media.decode import MediaLimits, limit_memory
from mitfrnet.params import parse_params
from mitfrnet.workers.local import WorkerFailure, supervised_map
from mitfrnet.workers.params import RunParams, available_cores
from tests.helpers.paths import ROOT
from tests.helpers.waiting import wait_for


def square():
    return lambda x: x * x


def misbehave():
    def work(task):
        if task == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if task == "hang":
            time.sleep(600)
        if task == "raise":
            raise ValueError("no good")
        return task.upper()

    return work


def report_process(device):
    """Unpickling `device` imports torch before this function runs."""
    import torch  # at the top, it would cost every worker of these tests seconds

    return lambda _: (os.getpid(), os.sched_getaffinity(0), torch.get_num_threads())


def sleep_marked(folder):
    def work(task):
        (Path(folder) / str(os.getpid())).write_text(tempfile.gettempdir())
        time.sleep(600)

    return work


def grow(limits):
    """Limit the worker's memory, and allocate as many megabytes as a task says."""
    limit_memory(limits)
    return lambda megabytes: len(np.ones(megabytes << 20, np.uint8)) >> 20


def die_at_start():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_first(folder, moments):
    """Die the first time that each of `moments` comes: the start, or a task."""

    def pass_moment(name):
        if name in moments and not (folder / name).exists():
            (folder / name).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    pass_moment("start")
    return lambda task: pass_moment(task) or task.upper()


def count_tries(folder):
    def work(task):
        with (Path(folder) / task).open("a") as file:
            file.write("x")
        if task == "crash":
            os.abort()
        time.sleep(600)

    return work


class Unreadable:
    """Can be pickled, but not unpickled."""

    def __reduce__(self):
        return int, ("no number",)


def answer_unreadably():
    return lambda _: Unreadable()


def hang_in_c(folder):
    """Hold Python's lock for ever, so that no thread of the worker can run."""

    def work(task):
        (Path(folder) / str(os.getpid())).touch()
        ctypes.PyDLL(None).sleep(600)

    return work


def run(setup, tasks, workers=2, timeout_s=60):
    return dict(supervised_map(setup, tasks, workers=workers, timeout_s=timeout_s))


def test_a_worker_that_cannot_start_is_an_error_of_the_run():
    with pytest.raises(MitfrnetError, match="did not start: worker_crashed"):
        run(die_at_start, ["a"])


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_too_much_memory_costs_one_task():
    limits = MediaLimits(
        max_duration_s=1, max_pixels=1, max_bytes=1, max_streams=1, max_memory_mb=1000
    )
    results = run(partial(grow, limits), [10, 2000, 20], workers=1)
    assert results == {10: 10, 2000: WorkerFailure("out_of_memory"), 20: 20}


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_every_task_has_its_result(workers):
    assert run(square, range(20), workers) == {i: i * i for i in range(20)}
    assert run(square, [], workers) == {}


def test_each_worker_has_one_core_and_one_thread():
    import torch

    before = os.environ.get("OMP_NUM_THREADS")
    results = run(partial(report_process, torch.device("cpu")), range(8)).values()
    assert {len(cores) for _, cores, _ in results} == {1}
    assert {threads for *_, threads in results} == {1}
    assert os.environ.get("OMP_NUM_THREADS") == before
    assert os.getpid() not in {pid for pid, *_ in results}


def test_a_crash_and_a_hang_cost_one_task_each():
    results = run(misbehave, ["a", "crash", "b", "hang", "c"], timeout_s=10)
    assert results == {
        "a": "A",
        "b": "B",
        "c": "C",
        "crash": WorkerFailure("worker_crashed"),
        "hang": WorkerFailure("timed_out"),
    }


@pytest.mark.parametrize("moments", [["start"], ["a", "b"]])
def test_a_worker_killed_once_costs_no_task(tmp_path, moments):
    setup = partial(die_at_first, tmp_path, moments)
    assert run(setup, ["a", "b"], workers=1) == {"a": "A", "b": "B"}
    assert sorted(p.name for p in tmp_path.iterdir()) == moments


def test_a_task_is_tried_twice_if_it_crashes_and_once_if_it_hangs(tmp_path):
    results = run(partial(count_tries, tmp_path), ["crash", "hang"], workers=1, timeout_s=10)
    assert results == {"crash": WorkerFailure("worker_crashed"), "hang": WorkerFailure("timed_out")}
    assert (tmp_path / "crash").read_text() == "xx"
    assert (tmp_path / "hang").read_text() == "x"


def test_a_result_that_cannot_be_unpickled_is_an_error_and_no_deadlock():
    with pytest.raises(ValueError, match="no number"):
        run(answer_unreadably, ["a"])


def fail_at_start():
    raise FeatureError("a model is missing")


def test_an_error_of_setup_prints_nothing_else(capfd):
    with pytest.raises(FeatureError, match="a model is missing"):
        run(fail_at_start, range(8), workers=2)
    assert capfd.readouterr().err == ""


def test_an_error_is_raised_and_no_worker_stays():
    with pytest.raises(RuntimeError, match="ValueError: no good"):
        run(misbehave, ["a", "raise", "b"], workers=1)
    assert not [c for c in psutil.Process().children() if "spawn_main" in " ".join(c.cmdline())]


@pytest.mark.parametrize("work", ["sleep_marked", "hang_in_c"])
def test_workers_leave_when_their_parent_is_killed(tmp_path, work):
    """The parent is killed while its worker has a task; the worker must end."""
    code = (
        "from functools import partial\n"
        "from mitfrnet.workers.local import supervised_map\n"
        f"from tests.workers.test_local import {work}\n"
        "if __name__ == '__main__':\n"
        f"    setup = partial({work}, {str(tmp_path)!r})\n"
        "    list(supervised_map(setup, [1], workers=1, timeout_s=600))\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    parent = subprocess.Popen(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    worker = wait_for(lambda: next((p for p in tmp_path.iterdir() if p.name.isdigit()), None))
    parent.kill()
    parent.wait()
    wait_for(lambda: not psutil.pid_exists(int(worker.name)))


def test_the_least_used_core_is_taken_until_its_process_ends():
    """The claims use a name of this test, since other processes may extract meanwhile."""
    code = (
        "import os\n"
        "from mitfrnet.workers import local, params\n"
        f"local._CLAIM = 'test-{os.getpid()}'\n"
        "cores = params.available_cores()\n"
        "def taken():\n"
        "    claim = local.pin_to_core(cores)\n"
        "    (core,) = os.sched_getaffinity(0)\n"
        "    return claim, core\n"
        "claims = [taken() for _ in cores + cores]\n"
        "assert [core for _, core in claims] == cores + cores\n"
        "claims[-2][0].close()\n"
        "assert taken()[1] == claims[-2][1]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_zero_workers_means_one_per_core():
    assert RunParams(workers=0, timeout_seconds=1).slots == len(available_cores())
    assert RunParams(workers=3, timeout_seconds=1).slots == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backend": "dask"}, "run.scheduler: is needed for backend dask, expected the address"),
        ({"scheduler": "10.0.0.1:8786"}, "such as tcp://10.0.0.1:8786 (found: '10.0.0.1:8786')"),
        ({"backend": "ray"}, "run.backend: Input should be 'local' or 'dask' (found: 'ray')"),
    ],
)
def test_a_scheduler_has_an_address(values, message):
    values = {"workers": 0, "timeout_seconds": 1} | values
    with pytest.raises(ParamsError) as error:
        parse_params(RunParams, values, where="run")
    assert message in str(error.value)
