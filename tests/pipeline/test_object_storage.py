"""Clips read from object storage and outputs kept there, as docs/corpora.md and scale.md say."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from mitfrnet.corpus.manifest import manifest_settings, read_manifest
from mitfrnet.features.shards import read_features
from mitfrnet.modalities import MODALITIES
from tests.helpers.clips import write_small_corpus
from tests.helpers.paths import ROOT
from tests.helpers.running import run_stage, write_params

pytestmark = pytest.mark.slow

MEDIA = "s3://clips/mine"
CORPUS = {"layout": "mmsa", "language": "en", "scale": "mosi", "media": MEDIA}
# The small clips have no face, and are few.
CHANGES = {"corpora": {"mine": CORPUS}, "grid__corpora": ["mine"], "run__workers": 1}
PROJECT = ["dvc.yaml", ".dvc/config", ".dvcignore", ".gitignore", "pipeline", "mitfrnet"]
PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("corpora", "scale")}


@pytest.fixture
def project(s3, tmp_path):
    """Return a project with a corpus whose clips lie in a bucket alone."""
    folder = tmp_path / "project"
    for name in PROJECT:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    write_small_corpus(folder / "raw" / "mine")
    s3.upload(folder / "raw/mine/Raw", "clips", "mine/Raw")
    shutil.rmtree(folder / "raw/mine/Raw")
    write_params(folder, **CHANGES)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def dvc(folder, *words):
    """Run DVC, whose stages call this Python, and return what it printed."""
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": "", "DVC_NO_ANALYTICS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def commands(page, word):
    """Return the DVC commands of a page that hold `word`, without the leading `dvc`."""
    lines = re.findall(r"^dvc (.*)$", PAGES[page], re.MULTILINE)
    return [line.split("#")[0].split() for line in lines if word in line]


def contents(folder):
    files = (p for p in (folder / "data").rglob("*") if p.is_file() and p.suffix != ".lock")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def test_outputs_go_to_a_bucket_and_come_back_elsewhere(project, s3, tmp_path):
    dvc(project, "repro", "-q", "tensors@mine")
    made = contents(project)
    assert "data/mine/tensors/train.safetensors" in made
    s3.client.create_bucket(Bucket="bucket")
    (add,) = commands("scale", "remote add")
    (endpoint,) = commands("scale", "endpointurl")
    assert (add[:3], add[4]) == (["remote", "add", "--default"], "s3://bucket/mitfrnet")
    dvc(project, *add)
    dvc(project, *endpoint[:-1], s3.url)
    # As a clone has it: metrics are in git, data and DVC's cache are not.
    shutil.copytree(project, tmp_path / "elsewhere")
    for name in ("data", ".dvc/cache", ".dvc/tmp"):
        shutil.rmtree(tmp_path / "elsewhere" / name)
    dvc(project, "push", "-q")
    keys = s3.client.list_objects_v2(Bucket="bucket")["Contents"]
    assert all(entry["Key"].startswith("mitfrnet/files/md5/") for entry in keys)
    targets = ["ingest@mine", "tensors@mine", *(f"extract@mine-{m}" for m in MODALITIES)]
    dvc(tmp_path / "elsewhere", "pull", "-q", *targets)
    assert contents(tmp_path / "elsewhere") == made
    assert "up to date" in dvc(tmp_path / "elsewhere", "repro", "tensors@mine")


def test_a_clip_replaced_in_the_bucket_is_seen_by_an_ingest_that_is_asked_for(project, s3):
    dvc(project, "repro", "-q", "extract@mine-acoustic")
    other = s3.client.get_object(Bucket="clips", Key="mine/Raw/v1/01.mkv")["Body"].read() + b"x"
    s3.client.put_object(Bucket="clips", Key="mine/Raw/v1/01.mkv", Body=other)
    assert "up to date" in dvc(project, "repro", "extract@mine-acoustic")
    (again,) = commands("corpora", "repro -f ingest@")
    assert again == ["repro", "-f", "ingest@mine"]
    dvc(project, *again)
    assert "acoustic: 1 of 4 clips extracted" in dvc(project, "repro", "extract@mine-acoustic")


def test_a_server_that_is_down_is_one_line_and_harms_nothing(project, s3):
    assert run_stage(project, "ingest", corpus="mine").returncode == 0
    path = project / "data" / "mine" / "manifest.parquet"
    assert manifest_settings(read_manifest(path))["media"] == MEDIA
    before = contents(project)
    s3.stop()
    extract = {"corpus": "mine", "modality": "acoustic"}
    for stage, item in (("ingest", {"corpus": "mine"}), ("extract", extract)):
        process = run_stage(project, stage, **item)
        assert process.returncode == 1
        (line,) = (line for line in process.stderr.splitlines() if line.startswith("error:"))
        assert re.match(r"error: s3://clips/mine\S*: cannot be read: Could not connect", line)
        assert "Traceback" not in process.stderr
        assert not any(value in process.stderr for value in s3.key.values())
    assert {name: contents(project).get(name) for name in before} == before
    assert len(read_features(project / "data/mine/features/acoustic")) == 0
