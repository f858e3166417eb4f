"""What DVC runs again after a change, and after it was killed; on ten clips of the sample."""

import os
import shutil
import signal

import psutil
import pyarrow.parquet as pq
import pytest

from tests.helpers.running import (
    commit,
    copy_code,
    copy_of_sample,
    repro,
    start_dvc,
    write_params,
)
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.slow


def features(folder):
    paths = sorted((folder / "data" / "sample" / "features").rglob("*.parquet"))
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    copy_code(folder)
    copy_of_sample(folder / "raw" / "sample")
    write_params(folder, train__max_epochs=1)
    commit(folder)
    ran, _ = repro(folder)
    assert ran == [
        "plan", "ingest@sample", "extract@sample-text", "extract@sample-acoustic",
        "extract@sample-visual", "tensors@sample", "mask@sample-0.3", "train@sample-mitfrnet-0.3-1",
        "evaluate@sample-mitfrnet-0.3-1", "cards", "inspect@sample", "report",
    ]  # fmt: skip
    return folder


@pytest.fixture
def project(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "project", symlinks=True)
    return tmp_path / "project"


def test_nothing_changed_runs_nothing(project):
    ran, output = repro(project)
    assert ran == []
    assert "up to date" in output


def test_another_rate_runs_only_its_own_cells(project):
    write_params(project, train__max_epochs=1, grid__missing_rates=[0.3, 0.5])
    assert repro(project)[0] == [
        "plan", "mask@sample-0.5", "train@sample-mitfrnet-0.5-1", "evaluate@sample-mitfrnet-0.5-1",
        "cards", "inspect@sample", "report",
    ]  # fmt: skip


def test_hop_length_extracts_sound_alone(project):
    write_params(project, extract__acoustic__hop_length=400)
    ran, output = repro(project, "tensors@sample")
    assert ran == ["plan", "extract@sample-acoustic", "tensors@sample"]
    assert "acoustic: 10 of 10 clips extracted" in output


def test_how_the_work_is_done_reruns_nothing(project):
    write_params(project, train__max_epochs=1, run__workers=1)
    assert repro(project)[0] == ["plan"]


def test_an_added_clip_is_the_only_one_extracted(project):
    clips = sorted((project / "raw" / "sample" / "Raw").glob("*/*.mp4"))
    shutil.copy(clips[0], clips[0].with_name("new.mp4"))
    with (project / "raw" / "sample" / "label.csv").open("a") as file:
        file.write(f"{clips[0].parent.name},new,A fine day.,1.0,,,,Positive,train\n")
    before = features(project)
    ran, output = repro(project, "tensors@sample")
    assert ran[0] == "ingest@sample"
    for modality in ("text", "acoustic", "visual"):
        assert f"{modality}: 1 of 11 clips extracted" in output
    after = features(project)
    changed = {name for name in after if after[name] != before[name]}
    assert len(changed) == 3  # one shard of each modality

    shutil.rmtree(project / "data")
    shutil.rmtree(project / ".dvc" / "cache")
    repro(project, "tensors@sample")
    assert features(project) == after


@pytest.mark.parametrize("killed", ["dvc", "dvc and stage"])
def test_a_killed_repro_resumes_with_the_same_bytes(project, killed):
    """SIGKILL in the middle of the visual extraction; then what is left, and only that, is run."""
    whole = features(project)
    write_params(project, train__max_epochs=1, run__workers=1)  # slow enough to be caught
    out = project / "data" / "sample" / "features" / "visual"
    shutil.rmtree(out)
    shutil.rmtree(project / ".dvc" / "cache")
    process = start_dvc(project, "repro", "extract@sample-visual")
    stage = wait_for(lambda: next(iter(stages_of(process.pid)), None))
    wait_for(lambda: rows_in(out))
    if killed == "dvc and stage":
        stage.kill()
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not stage.is_running() or stage.status() == psutil.STATUS_ZOMBIE)
    assert 0 < rows_in(out) < 10
    left = 10 - rows_in(out)
    ran, output = repro(project, "extract@sample-visual")
    assert "extract@sample-visual" in ran
    assert f"visual: {left} of 10 clips extracted" in output
    assert {n: b for n, b in features(project).items() if "/visual/" in n} == {
        n: b for n, b in whole.items() if "/visual/" in n
    }


@pytest.mark.parametrize(
    ("edited", "resumes"), [("report/page.py", True), ("training/losses.py", False)]
)
def test_a_killed_training_resumes_after_an_edit_elsewhere(project, edited, resumes):
    """The file of an unfinished training is named by what decides its result.

    A training that resumes removes it in the end; one that starts again leaves it.
    """
    write_params(
        project, train__max_epochs=40, model__mitfrnet__optimiser__stop_patience=1000,
    )  # fmt: skip
    cell = "train@sample-mitfrnet-0.3-1"
    process = start_dvc(project, "repro", cell)
    unfinished = project / "work" / "training"
    wait_for(lambda: list(unfinished.glob("[!.]*.safetensors")), seconds=200)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (before,) = unfinished.glob("[!.]*.safetensors")
    code = project / "mitfrnet" / edited
    code.write_text(code.read_text() + "\nX = 1\n")
    assert repro(project, cell)[0] == ["plan", cell]
    assert list(unfinished.glob("*.safetensors")) == ([] if resumes else [before])


def stages_of(pid):
    children = psutil.Process(pid).children(recursive=True)
    return [c for c in children if "pipeline.extract" in c.cmdline() and is_python(c)]


def is_python(process):
    return process.name().startswith("python")


def rows_in(folder):
    paths = list(folder.glob("*.parquet")) if folder.exists() else []
    return sum(pq.read_metadata(p).num_rows for p in paths)
