import pickle
from pathlib import Path

import numpy as np
import psutil
import pytest

from mitfrnet.workers import cluster_worker
from mitfrnet.workers.cluster_worker import Job, fingerprint
from tests.helpers.dask_cluster import square
from tests.helpers.paths import ROOT
from tests.helpers.waiting import wait_for

pytest.importorskip("distributed", reason="the extra `dask` is not installed")


def test_a_worker_must_see_the_files_and_have_the_same_packages():
    job = Job("name", b"", 1, fingerprint(), (__file__,))
    assert cluster_worker._refusal(job) is None
    absent = Job("name", b"", 1, fingerprint(), (__file__, "/absent/raw/1.mp4"))
    assert cluster_worker._refusal(absent).startswith("no file /absent/raw/1.mp4 (expected")
    older = Job("name", b"", 1, fingerprint() | {"numpy": "1.0"}, ())
    refusal = cluster_worker._refusal(older)
    assert refusal == f"numpy is {np.__version__} (expected 1.0, as where the stage runs)"


def test_the_fingerprint_covers_the_whole_package(monkeypatch):
    """The digest of the code is taken over all files of `mitfrnet`."""
    files = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: files.append(path) or read(path))
    fingerprint()
    assert set(files) == set((ROOT / "mitfrnet").rglob("*.py"))


def test_idle_processes_end(monkeypatch):
    """As they do when their client is gone."""
    monkeypatch.setattr(cluster_worker, "_IDLE_S", 0.1)
    monkeypatch.setattr(cluster_worker, "_LOOK_S", 0.05)
    job = Job("idle", pickle.dumps(square), 100, {}, ())
    processes = cluster_worker._Processes(job, worker=None)
    monkeypatch.setattr(processes, "_is_wanted", lambda key: True)
    monkeypatch.setitem(cluster_worker._processes, "idle", processes)
    assert processes.answer("key", 3)[0] == 9
    wait_for(lambda: "idle" not in cluster_worker._processes)
    commands = [" ".join(c.cmdline()) for c in psutil.Process().children()]
    assert not [command for command in commands if "spawn_main" in command]
