"""A real scheduler and real workers, on loopback."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from mitfrnet.errors import ClusterError
from mitfrnet.features.extract import _worker
from mitfrnet.features.shards import read_features
from mitfrnet.workers.local import WorkerFailure
from tests.helpers import extraction
from tests.helpers.clips import write_small_corpus
from tests.helpers.dask_cluster import cluster, fail, hold, meet, run_on, square, working_processes
from tests.helpers.extraction import MODES, contents, crash_on, manifest_of
from tests.helpers.paths import ROOT
from tests.helpers.running import run_stage, write_params
from tests.helpers.waiting import wait_for

pytest.importorskip("distributed", reason="the extra `dask` is not installed")
pytestmark = pytest.mark.slow


def hold_on(folder, utterance_id):
    """Return a stand-in for `_worker`, in which one clip takes long at the first try."""
    return partial(_hold_on, folder, utterance_id)


def _hold_on(folder, utterance_id, *args):
    function = _worker(*args)

    def work(clips):
        if clips[0].utterance_id == utterance_id and not list(folder.iterdir()):
            hold(folder)(None)
        return function(clips)

    return work


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def running(shared_cluster):
    """A cluster without workers."""
    yield shared_cluster
    shared_cluster.stop_workers()


def held(folder):
    """Wait until a task of `hold` runs; return the pids of its process and its Dask worker."""
    file = wait_for(lambda: next(folder.iterdir(), None))
    return tuple(map(int, file.name.split(".")))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A corpus of ten clips, ingested and extracted locally by the stages."""
    folder = tmp_path_factory.mktemp("reference")
    write_small_corpus(folder / "raw" / "small", MODES)
    return stages(folder, run__workers=1)


def stages(folder, **params):
    corpora = {"small": {"layout": "mmsa", "language": "en", "scale": "mosi"}}
    write_params(folder, corpora=corpora, **params)
    for stage, item in (("ingest", {}), ("extract", {"modality": "acoustic"})):
        done = run_stage(folder, stage, corpus="small", **item)
        assert done.returncode == 0, done.stderr
    return folder


def extract(folder, out, running):
    raw = folder / "raw" / "small"
    where = {"backend": "dask", "scheduler": running.address}
    return extraction.extract(manifest_of(raw), raw, out, **where)


def features(folder):
    return contents(folder / "data" / "small" / "features" / "acoustic")


def test_stages_on_a_cluster_write_the_bytes_of_local_ones(running, reference, tmp_path):
    """Workers run in other folders than the stage, whose paths are relative."""
    for _ in range(2):
        running.add_worker()
    shutil.copytree(reference / "raw", tmp_path / "raw")
    stages(tmp_path, run__backend="dask", run__scheduler=running.address)
    manifest = Path("data", "small", "manifest.parquet")
    assert (tmp_path / manifest).read_bytes() == (reference / manifest).read_bytes()
    assert features(tmp_path) == features(reference)
    for worker in running.workers:
        assert "Run out-of-band function" in worker.log.read_text()
        assert not working_processes(worker)


def test_a_worker_killed_during_a_task_changes_no_byte(running, reference, tmp_path, monkeypatch):
    for _ in range(2):
        running.add_worker()
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setattr("mitfrnet.features.extract._worker", hold_on(marks, "v3/01"))
    killed = []

    def kill():
        process, worker = held(marks)
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: not psutil.pid_exists(process))
        killed.append(worker)

    killer = threading.Thread(target=kill)
    killer.start()
    assert extract(reference, tmp_path / "out", running) == len(MODES)
    killer.join()
    assert killed[0] in {worker.pid for worker in running.workers}
    assert contents(tmp_path / "out") == features(reference)


def test_a_decoder_that_aborts_costs_its_clip_but_no_worker(
    running, reference, tmp_path, monkeypatch, capsys
):
    worker = running.add_worker()
    monkeypatch.setattr("mitfrnet.features.extract._worker", crash_on({"v3/01"}))
    extract(reference, tmp_path / "out", running)
    assert "tried again next time: v3/01: worker_crashed" in capsys.readouterr().err
    assert worker.poll() is None
    rows = {r["utterance_id"]: r["reason"] for r in read_features(tmp_path / "out").to_pylist()}
    assert {u: reason for u, reason in rows.items() if reason} == {"v3/01": "worker_crashed"}
    monkeypatch.undo()
    assert extract(reference, tmp_path / "out", running) == 1
    assert contents(tmp_path / "out") == features(reference)


def test_a_task_that_kills_its_workers_is_given_up(tmp_path):
    """The scheduler allows as many deaths as configured, here none."""
    for name in ("marks", "cluster"):
        (tmp_path / name).mkdir()
    allowed = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    with cluster(tmp_path / "cluster", **allowed) as running:
        running.add_worker()
        killer = threading.Thread(
            target=lambda: os.kill(held(tmp_path / "marks")[1], signal.SIGKILL)
        )
        killer.start()
        setup = partial(hold, tmp_path / "marks")
        assert run_on(running, setup, [1]) == {1: WorkerFailure("worker_crashed")}
        killer.join()


def test_a_worker_may_join_later(running, tmp_path, capfd):
    """There is none at first, and two tasks end only when two workers have one each."""

    def add():
        wait_for(lambda: "waiting up to" in capfd.readouterr().err)
        running.add_worker()
        wait_for(lambda: list(tmp_path.iterdir()))
        running.add_worker()

    adding = threading.Thread(target=add)
    adding.start()
    assert run_on(running, partial(meet, tmp_path, 2), [1, 2]) == {1: 1, 2: 2}
    adding.join()


def test_a_hang_costs_one_task_and_an_error_names_its_worker(running, tmp_path):
    worker = running.add_worker()
    assert run_on(running, square, [3])[3][:2] == (9, worker.pid)
    done = run_on(running, partial(hold, tmp_path), [1], timeout_s=20)
    assert done == {1: WorkerFailure("timed_out")}
    with pytest.raises(RuntimeError, match=r"(?s)worker tcp://127.*ValueError: invalid literal"):
        run_on(running, fail, ["1", "x"])
    assert not working_processes(worker)


# Starts a worker that cannot find this package, since only these folders are on its path.
BARE = (
    "import sys; sys.path += {folders}; from dask.__main__ import main; "
    "sys.argv[0] = 'dask'; sys.argv.insert(1, 'worker'); main()"
)


def test_a_worker_that_cannot_import_the_package_is_named_at_once(running):
    folders = [p for p in sys.path if p and not (Path(p) / "mitfrnet").exists()]
    running.add_worker()
    running.add_worker(python=("-S", "-c", BARE.format(folders=folders)), PYTHONPATH="")
    start = time.monotonic()
    with pytest.raises(ClusterError) as error:
        run_on(running, square, range(4))
    assert time.monotonic() - start < 20
    assert "No module named 'mitfrnet'" in str(error.value)
    assert named_in(error) == running.workers[1].pid
    assert "\n" not in str(error.value)


def named_in(error):
    """Return the pid that listens at the address at the start of an error."""
    port = int(str(error.value).split()[1].rsplit(":", 1)[1])
    return next(
        c.pid for c in psutil.net_connections() if c.laddr.port == port and c.status == "LISTEN"
    )


def test_a_worker_with_other_code_is_named_even_if_it_joins_later(running, tmp_path):
    (tmp_path / "marks").mkdir()
    shutil.copytree(ROOT / "mitfrnet", tmp_path / "other" / "mitfrnet")
    with (tmp_path / "other" / "mitfrnet" / "metrics.py").open("a") as file:
        file.write("# a change\n")
    other = running.add_worker(PYTHONPATH=f"{tmp_path / 'other'}:{ROOT}")
    with pytest.raises(ClusterError, match=r"code of mitfrnet is .* as where the stage runs"):
        run_on(running, square, [1])
    running.stop_workers()

    running.add_worker()
    later = []

    def add():
        held(tmp_path / "marks")
        later.append(running.add_worker(PYTHONPATH=f"{tmp_path / 'other'}:{ROOT}"))

    adding = threading.Thread(target=add)
    adding.start()
    with pytest.raises(ClusterError, match="code of mitfrnet is") as error:
        run_on(running, partial(hold, tmp_path / "marks"), range(8))
    adding.join()
    assert named_in(error) == later[0].pid != other.pid


def test_a_worker_under_a_nanny_is_an_error_with_a_remedy(running, tmp_path):
    running.add_worker("--nanny")
    with pytest.raises(ClusterError, match="expected: dask worker --no-nanny, or DASK_"):
        run_on(running, square, [1])
    running.stop_workers()
    running.add_worker("--nanny", DASK_DISTRIBUTED__WORKER__DAEMON="False")
    assert run_on(running, square, [3])[3][0] == 9


def test_no_scheduler_is_one_line_within_seconds(tmp_path):
    start = time.monotonic()
    with pytest.raises(ClusterError, match=r"nothing answers at tcp://127\.0\.0\.1:9 "):
        run_on("tcp://127.0.0.1:9", square, [1])
    assert time.monotonic() - start < 30
    assert run_on("tcp://127.0.0.1:9", square, []) == {}  # no tasks need no cluster


def test_without_dask_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterError, match=r"expected: pip install 'mitfrnet\[dask\]'"):
        run_on("tcp://127.0.0.1:9", square, [1])


def test_without_workers_it_waits_and_then_raises(running, monkeypatch, capsys):
    monkeypatch.setattr("mitfrnet.workers.cluster._WITHOUT_WORKERS_S", 2)
    with pytest.raises(ClusterError, match=r"no worker for 2 s \(start one with: dask worker "):
        run_on(running, square, [1])
    assert "waiting up to 2 s for a worker" in capsys.readouterr().err


def test_it_ends_when_all_workers_are_lost(running, monkeypatch, tmp_path):
    monkeypatch.setattr("mitfrnet.workers.cluster._WITHOUT_WORKERS_S", 2)
    running.add_worker()
    killer = threading.Thread(target=lambda: os.kill(held(tmp_path)[1], signal.SIGKILL))
    killer.start()
    with pytest.raises(ClusterError, match="no worker for 2 s"):
        run_on(running, partial(hold, tmp_path), range(4))
    killer.join()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_no_process_stays_on_the_workers_when_the_stage_ends(running, tmp_path, sent):
    """The stage is interrupted, or killed, while a worker has a task."""
    for _ in range(2):
        running.add_worker()
    marks = tmp_path / "marks"
    marks.mkdir()
    code = (
        "from functools import partial\n"
        "from tests.helpers.dask_cluster import hold, run_on\n"
        "from mitfrnet.errors import reporting_errors\n"
        "with reporting_errors():\n"
        f"    run_on({running.address!r}, partial(hold, {str(marks)!r}), [1], 600)\n"
    )
    stage = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    held(marks)
    assert any(map(working_processes, running.workers))
    stage.send_signal(sent)
    _, err = stage.communicate(timeout=60)
    wait_for(lambda: not any(map(working_processes, running.workers)), seconds=60)
    assert stage.returncode == (130 if sent == signal.SIGINT else -sent)
    assert err == ""
    assert all(worker.poll() is None for worker in running.workers)
