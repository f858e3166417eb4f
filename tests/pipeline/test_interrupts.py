"""Ctrl-C before a stage has begun; benchmarks/faults.py does it while one works."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.helpers.paths import ROOT
from tests.helpers.waiting import wait_for


@pytest.mark.skipif(sys.platform != "linux", reason="looks at a process's maps")
def test_ctrl_c_amid_the_imports_ends_a_stage_without_a_word(tmp_path):
    stage = subprocess.Popen(
        [sys.executable, "-m", "pipeline.extract"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    process = psutil.Process(stage.pid)
    # One of the first libraries that it loads, and seconds before the last.
    wait_for(
        lambda: stage.poll() is not None or any("_psutil" in m.path for m in process.memory_maps()),
        "the stage does not load psutil",
    )
    stage.send_signal(signal.SIGINT)
    assert stage.communicate(timeout=60) == ("", "")
    assert stage.returncode == -signal.SIGINT
