import shutil

import pytest
import torch
import yaml

from mitfrnet.doctor import project as checks
from mitfrnet.doctor.examination import run
from mitfrnet.doctor.findings import ERROR, OK, REMARK
from mitfrnet.errors import FeatureError
from mitfrnet.features import text_encoder
from mitfrnet.features.face_detection import MODEL_VARIABLE


@pytest.fixture
def change(project):
    """Return a function that sets a value of params.yaml by its dotted key."""

    def put(key, value):
        path = project / "params.yaml"
        values = section = yaml.safe_load(path.read_text())
        *parts, last = key.split(".")
        for part in parts:
            section = section[part]
        section[last] = value
        path.write_text(yaml.safe_dump(values))

    return put


def test_all_errors_are_listed(change):
    change("mask.seed", "x")
    change("extract.text.batch_size", 0)
    assert [finding.level for finding in checks.parameters()] == [ERROR, ERROR]


@pytest.mark.parametrize("content", [None, b"grid: [", b"\xff\xfe\x00"])
def test_unreadable_parameters_are_one_error(project, content):
    (project / "params.yaml").unlink()
    if content is not None:
        (project / "params.yaml").write_bytes(content)
    levels = [f.level for f in run(["parameters", "corpora", "extraction"])]
    assert levels == [ERROR]


def test_stages(project):
    (finding,) = checks.stages()
    assert finding.level == OK
    (project / "dvc.yaml").unlink()
    (finding,) = checks.stages()
    assert finding.level == ERROR
    assert "git clone" in finding.advice


def test_stages_that_dvc_cannot_read(project):
    (project / "dvc.yaml").write_text("stages: {x: {cmd: a, dep: b}}")
    (finding,) = run(["stages"])
    assert "dvc.yaml" in finding.found
    shutil.rmtree(".dvc")
    (finding,) = run(["stages"])
    assert "not inside of a DVC repository" in finding.found
    assert "DVC" in finding.advice


def test_a_corpus_without_its_folder(project):
    (finding,) = checks.corpora()
    assert (finding.level, finding.found) == (OK, "sample: text encoder embedded")
    (project / "raw").unlink()
    assert next(f.found for f in checks.corpora()) == "raw/sample: no such folder"


def test_the_embedded_encoder_is_checked_by_its_digest(project, monkeypatch):
    monkeypatch.setitem(text_encoder._EMBEDDED_SHA256, "tokenizer.json", "0" * 64)
    with pytest.raises(FeatureError, match="SHA-256 differs"):
        list(checks.corpora())


def test_models_that_would_be_downloaded_are_remarks(project, change, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    change("extract.text.encoders", {"en": "nobody/no-encoder"})
    change("extract.visual.backend", "face_landmarker")
    corpora, acoustic, visual = run(["corpora", "extraction"])
    assert (corpora.level, acoustic.level, visual.level) == (REMARK, OK, REMARK)
    assert "nobody/no-encoder is absent, and would be downloaded" in corpora.found
    assert "face_landmarker.task is absent, and would be downloaded" in visual.found
    assert not (tmp_path / "cache").exists()


def test_files_that_are_no_models_are_errors(project, change, monkeypatch):
    (project / "encoder").mkdir()
    (project / "face.task").write_bytes(b"x")
    monkeypatch.setenv(MODEL_VARIABLE, "face.task")
    change("extract.text.encoders", {"en": "encoder"})
    change("extract.visual.backend", "face_landmarker")
    corpora, _, visual = run(["corpora", "extraction"])
    assert (corpora.level, visual.level) == (ERROR, ERROR)
    assert "text encoder 'encoder'" in corpora.found
    assert "not the face landmarker this version knows" in visual.found


def test_a_clip_without_a_face_is_an_error(project, monkeypatch):
    monkeypatch.setattr("mitfrnet.features.face_detection._FaceMesh.find", lambda *_: None)
    acoustic, visual = checks.extraction()
    assert (acoustic.level, visual.level) == (OK, ERROR)
    assert visual.found.startswith("0 of 20 steps")
    (project / "raw").unlink()
    assert [finding.level for finding in checks.extraction()] == [REMARK]


def test_no_gpu_is_a_remark(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (finding,) = checks.gpu()
    assert finding.level == REMARK
