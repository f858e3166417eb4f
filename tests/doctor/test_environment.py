import os
import shutil
from importlib import metadata

import pytest

from mitfrnet.doctor import environment
from mitfrnet.doctor.findings import ERROR, OK, REMARK
from tests.helpers.paths import ROOT


def test_the_declared_packages_are_those_of_pyproject(project):
    tomllib = pytest.importorskip("tomllib", reason="this Python reads no TOML")
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [line.partition(">")[0] for line in table["dependencies"]]
    assert environment.versions() == {name: metadata.version(name) for name in names}


def test_the_version_of_python(project):
    (finding,) = environment.python()
    assert finding.level == OK
    text = (project / "pyproject.toml").read_text().replace(">=3.10,<3.13", ">=3.98,<3.99")
    (project / "pyproject.toml").write_text(text)
    (finding,) = environment.python()
    assert finding.level == ERROR
    assert "(expected at least 3.98, below 3.99)" in finding.found


def test_packages_that_are_absent_or_of_another_version(project, packages):
    packages({"rich": "", "typer": "", "no-such-package": ""})
    (project / "constraints.txt").write_text("rich==1.0 # old\nno-such-package==1\n")
    (project / "constraints-latest.txt").write_text(f"typer=={metadata.version('typer')}; x\n")
    absent, other, versions = environment.packages()
    assert (absent.level, absent.found) == (ERROR, "not installed: no-such-package")
    assert (other.name, other.level) == ("rich", REMARK)
    assert other.found.endswith(" (tested: 1.0)")
    assert [word.split()[0] for word in versions.found.split(", ")] == ["rich", "typer"]


def test_commands_of_another_environment(project, tmp_path, monkeypatch):
    stages, git = environment.commands()
    assert (stages.level, git.level) == (OK, REMARK)  # there is no commit yet
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text("#!/bin/sh\necho /elsewhere\n")
    (tmp_path / "bin/python").chmod(0o755)
    for path in (tmp_path / "bin", tmp_path):
        monkeypatch.setenv("PATH", str(path))
        stages, git = environment.commands()
        assert (stages.level, git.level) == (ERROR, REMARK)
        assert f"`python` is {shutil.which('python')}, `dvc` is None" in stages.found


def test_disk(project, tmp_path, monkeypatch):
    assert [finding.level for finding in environment.disk(0)] == [OK]
    (finding,) = environment.disk(1e9)
    assert finding.level == ERROR
    assert "(expected 1e+09)" in finding.found
    (project / "models").mkdir()
    writable = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: path.name != "models" and writable(path, mode)
    )
    refused, _ = environment.disk(0)
    assert (refused.level, refused.found) == (ERROR, "models: not writable")
