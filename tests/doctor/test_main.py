import json
import subprocess
import sys
import venv

import pytest
from typer.testing import CliRunner

from mitfrnet.cli import app
from mitfrnet.doctor import __main__ as command
from mitfrnet.doctor.findings import ERROR, OK, REMARK, Finding
from tests.helpers.paths import ROOT


@pytest.mark.parametrize(("level", "status"), [(OK, 0), (REMARK, 0), (ERROR, 1)])
@pytest.mark.parametrize("as_json", [True, False])
def test_the_status_says_whether_dvc_repro_would_stop(monkeypatch, level, status, as_json):
    finding = Finding("disk", level, "what is there", "what to do")
    monkeypatch.setattr(command, "examine", lambda free_gib: [finding] * int(free_gib))
    result = CliRunner().invoke(app, ["doctor", "--free", "3", *["--json"] * as_json])
    assert result.exit_code == status
    if as_json:
        rows = json.loads(result.stdout)["findings"]
        assert [Finding(**row) for row in rows] == [finding] * 3
    else:
        assert result.stdout.count("what to do") == 3
        assert ("would stop" in result.stdout) == bool(status)


def test_a_folder_without_a_project(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.diagnose(as_json=False, free_gib=0) == 1
    assert "no pyproject.toml here" in capsys.readouterr().out


def test_an_environment_without_packages(tmp_path, monkeypatch):
    """The report needs the standard library alone, and one error lists every package."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    venv.create(tmp_path / "bare", with_pip=False)
    words = [tmp_path / "bare/bin/python", "-m", "mitfrnet.doctor", "--json"]
    process = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (1, "")
    findings = [Finding(**row) for row in json.loads(process.stdout)["findings"]]
    assert {"Python", "disk", "git"} <= {f.name for f in findings if f.level == OK}
    (absent,) = [f for f in findings if f.name == "packages" and f.level == ERROR]
    assert absent.found.startswith("not installed: torch, ")
    assert "make install" in absent.advice


# Writes down every connection to another machine, in whatever process it is tried.
SPY = """
import os, sys
def listen(event, args):
    called = event == "socket.connect" and isinstance(args[1], tuple)
    if called or event == "socket.getaddrinfo":
        with open(os.environ["SPY_LOG"], "a") as log:
            print(event, *args, file=log)
sys.addaudithook(listen)
"""


@pytest.mark.slow
def test_this_checkout_can_run_and_nothing_is_downloaded(project, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(SPY)
    monkeypatch.setenv("SPY_LOG", str(tmp_path / "connections.txt"))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    words = [sys.executable, "-m", "mitfrnet.doctor", "--json"]
    process = subprocess.run(words, capture_output=True, text=True)
    report = json.loads(process.stdout)
    assert (process.returncode, report["errors"], process.stderr) == (0, 0, "")
    assert not (tmp_path / "connections.txt").exists()
