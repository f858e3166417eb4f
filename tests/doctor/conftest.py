import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Go to a project like this one, whose child processes find this code and this Python."""
    folder = tmp_path / "project"
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc/config").touch()
    for name in ("dvc.yaml", "params.yaml", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    for name in ("mitfrnet", "pipeline", "raw"):
        (folder / name).symlink_to(ROOT / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin:/bin"]))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def packages(project, tmp_path, monkeypatch):
    """Return a function that declares packages, each with the code that its import runs."""

    def declare(codes):
        for name, code in codes.items():
            (tmp_path / "site" / name).mkdir(parents=True)
            (tmp_path / "site" / name / "__init__.py").write_text(code)
        lines = "".join(f'  "{name}>=1",  # why\n' for name in codes)
        text = f'requires-python = ">=3.10,<3.99"\ndependencies = [\n{lines}]\n'
        (project / "pyproject.toml").write_text(text)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), str(ROOT)]))

    return declare
