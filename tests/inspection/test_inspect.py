import json
import shutil
import subprocess
import sys

import pytest

from mitfrnet.errors import CorpusError, FeatureError
from mitfrnet.inspection.inspect import default_page, find, inspect
from mitfrnet.modalities import MODALITIES
from tests.helpers.inspected_project import HOSTILE, MODEL, UTTERANCE
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.slow


def test_an_utterance_is_shown_as_the_pipeline_made_it(view):
    subject = view.subject
    assert (subject.name, subject.corpus, subject.part) == (UTTERANCE, "mine", "test")
    assert subject.label == pytest.approx(2.6)
    assert subject.reasons == dict.fromkeys(MODALITIES)
    spoken = [t for t in subject.tokens if not t.special]
    assert "".join(t.text for t in spoken) == "".join(subject.clip.transcript.split())
    starts = [t.start_s for t in spoken]
    assert starts == sorted(starts)
    assert spoken[-1].end_s == pytest.approx(subject.duration_s)
    assert len(view.stills) == 12
    assert all(still.face for still in view.stills)
    assert view.playback.kind == "video"
    assert default_page(view).name == "mine-v-lt-1-01.html"


def test_targets_are_told_apart(project):
    assert find(f"mine/{UTTERANCE}", None, project) == ("mine", UTTERANCE)
    assert find(UTTERANCE, "mine", project) == ("mine", UTTERANCE)
    clip = str(project / "raw/mine/Raw/b/01.mp4")
    assert find(clip, None, project) == (None, clip)
    with pytest.raises(CorpusError, match=r"corpora with a manifest: mine\)"):
        find("nope.mp4", None, project)


def test_without_a_model_the_view_says_so(project, tmp_path):
    for name in ("data", "raw", "params.yaml"):
        (tmp_path / name).symlink_to(project / name)
    view = inspect("mine/quiet/01", root=tmp_path)
    assert view.models == []
    assert "run dvc repro, or name one with --model" in view.remark


def test_a_broken_model_is_an_error_where_it_is_named_and_a_remark_in_the_grid(project, tmp_path):
    for name in ("data", "raw", "params.yaml"):
        (tmp_path / name).symlink_to(project / name)
    shutil.copytree(project / "models", tmp_path / "models")
    (tmp_path / MODEL / "model.safetensors").write_bytes(b"no")
    with pytest.raises(FeatureError, match=r"model\.safetensors"):
        inspect("mine/quiet/01", models=[tmp_path / MODEL], root=tmp_path)
    view = inspect("mine/quiet/01", root=tmp_path)
    assert view.models == []
    assert "model.safetensors" in view.remark


def run_command(folder, *argv):
    return subprocess.run(
        [sys.executable, "-m", "mitfrnet.cli", "inspect", *argv],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=250,
    )


def test_the_command_writes_a_page_and_a_picture(project, tmp_path):
    page, png = tmp_path / "page.html", tmp_path / "tracks.png"
    run = run_command(project, UTTERANCE, "--corpus", "mine", "--out", str(page), "--png", str(png))
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{page}\n{png}\n"
    assert png.read_bytes().startswith(b"\x89PNG")
    text = page.read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    data = text.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert json.loads(data)["label"] == pytest.approx(2.6)


def test_a_wrong_target_is_one_line_and_status_1(project):
    run = run_command(project, "mine/quiet/1")
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.startswith("error: mine: no utterance 'quiet/1'")
    assert run.stderr.count("\n") == 1
