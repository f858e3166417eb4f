"""Run stages as DVC does: the command of `dvc.yaml`, in a folder with a params.yaml."""

import csv
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.helpers.faces import BACKEND
from tests.helpers.paths import ROOT

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

REAL_CLIPS = ROOT.parent / "shared" / "clips"
needs_real_clips = pytest.mark.skipif(
    not REAL_CLIPS.exists(), reason="no ../shared/clips beside the repository"
)

TAKEN = {"train": 6, "valid": 2, "test": 2}  # clips that `copy_of_sample` takes of each split

CODE = ["dvc.yaml", ".dvc/config", ".dvcignore", ".gitignore", "pipeline", "mitfrnet"]

# Tells on stderr which section of params.yaml a stage reads; -X importtime tells what it imports.
SPY = """
import runpy, sys
from mitfrnet import params
read = params.read_section
def spy(section, *args):
    print("section", section, file=sys.stderr)
    return read(section, *args)
params.read_section = spy
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def command_of(stage, **item):
    """Return the stage's command for one item of its matrix, as words without `python -m`."""
    command = STAGES[stage]["cmd"]
    for key, value in item.items():
        command = command.replace("${item." + key + "}", str(value))
    command = command.replace("${grid.models[0]}", "mitfrnet")
    assert "${" not in command
    return command.split()[2:]


def run_python(*words, cwd, **environment):
    """Run Python on this project's code, and return the finished process."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )


def run_stage(folder, stage, *, spy=False, **item):
    """Run one stage in `folder`, and return the finished process.

    As under DVC, stage `plan` runs before a training, which reads its plan.
    """
    start = ["-X", "importtime", "-c", SPY] if spy else ["-m"]
    if stage == "train":
        run_python("-m", *command_of("plan"), cwd=folder)
    return run_python(*start, *command_of(stage, **item), cwd=folder)


def imported(process):
    """Return the modules of mitfrnet that a spied stage and its workers loaded."""
    return set(re.findall(r"^import time:.*\|\s+(mitfrnet[\w.]*)$", process.stderr, re.MULTILINE))


def sections(process):
    """Return the sections of params.yaml that a spied stage read."""
    return set(re.findall(r"^section (.*)$", process.stderr, re.MULTILINE))


def write_params(folder, **changes):
    """Write the shipped params.yaml, with a backend that is here, and values at dotted keys."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["extract"]["visual"]["backend"] = BACKEND
    for key, value in changes.items():
        *path, last = key.split("__")
        section = params
        for part in path:
            section = section[part]
        section[last] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def copy_code(folder):
    """Copy what makes a folder a project of DVC's: the stages, and the code they run."""
    for name in CODE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)


def commit(folder):
    """Put the folder under git, without which DVC does not run."""
    author = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for words in (["init", "-q"], ["add", "-A"], [*author, "commit", "-q", "-m", "project"]):
        subprocess.run(["git", *words], cwd=folder, check=True)


def ingest_real_clips(folder):
    """Make the real clips the corpus `sample` of a project in `folder`, and ingest them."""
    (folder / "raw").mkdir()
    (folder / "raw" / "sample").symlink_to(REAL_CLIPS)
    write_params(folder)
    process = run_stage(folder, "ingest", corpus="sample")
    assert process.returncode == 0, process.stderr


def copy_of_sample(folder):
    """Copy the first clips of each split of raw/sample."""
    source = ROOT / "raw" / "sample"
    with (source / "label.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    left, kept = dict(TAKEN), []
    for row in rows:
        if left[row["mode"]]:
            left[row["mode"]] -= 1
            kept.append(row)
            clip = f"Raw/{row['video_id']}/{row['clip_id']}.mp4"
            (folder / clip).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / clip, folder / clip)
    with (folder / "label.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(kept)


def start_dvc(folder, *words, **options):
    """Start `dvc` in a project, in a process group of its own."""
    # Stages call `python`, which must be this one.
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", *words],
        cwd=folder,
        env={**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,
    )


def repro(folder, *words):
    """Run `dvc repro`, and return the stages it ran, in order, and all that it printed."""
    process = start_dvc(folder, "repro", *words)
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    return re.findall(r"^Running stage '(.*)':", output, re.MULTILINE), output
