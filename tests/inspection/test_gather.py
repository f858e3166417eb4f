import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from mitfrnet.corpus.manifest import (
    make_manifest,
    manifest_settings,
    read_manifest,
    write_manifest,
)
from mitfrnet.corpus.transcripts.words import Transcript
from mitfrnet.errors import CorpusError, FeatureError, MediaError
from mitfrnet.inspection.gather import find, gather_clip, gather_utterance
from mitfrnet.inspection.inspect import inspect, page_name
from mitfrnet.inspection.page import render_page
from mitfrnet.inspection.predictions import given
from mitfrnet.modalities import MODALITIES
from mitfrnet.predict.extraction import LIMITS, FeatureSettings
from tests.helpers.clips import tone, write_clip
from tests.helpers.inspected_project import HOSTILE, VIDEO
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.slow

MODEL = "models/mine/mitfrnet/0.3/1"
TEST = f"{VIDEO}/01"


@pytest.fixture(scope="module")
def view(project):
    return inspect(f"mine/{TEST}", root=project)


def test_an_utterance_is_shown_as_the_pipeline_made_it(view, project):
    subject = view.subject
    assert (subject.name, subject.corpus, subject.part) == (TEST, "mine", "test")
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


def test_predictions_are_those_of_the_evaluate_stage(view, project):
    rows = pq.read_table(project / "predictions/mine/mitfrnet/0.3/1.parquet").to_pylist()
    expected = next(r["prediction"] for r in rows if r["utterance_id"] == TEST)
    stored = [mask.name for mask in view.masks.masks].index("rate 0.3, as stored")
    assert view.models[0].values[stored][7] == pytest.approx(expected, abs=1e-5)


def test_a_modality_that_is_taken_away_was_never_there(project):
    """Of `quiet/01`, without a transcript, nothing changes where its words are taken."""
    values = np.array(inspect("mine/quiet/01", root=project).models[0].values)
    assert given(0b110) == ["acoustic", "visual"]
    np.testing.assert_allclose(values[:, 0b111], values[:, 0b110], atol=1e-6)
    assert np.ptp(values[0]) > 1e-4
    assert np.ptp(values[:, 0]) < 1e-6  # with nothing given, no mask hides anything


def test_a_clip_of_its_own_is_scored_as_in_its_corpus(view, project):
    path = project / "raw/mine/Raw" / VIDEO / "01.mp4"
    alone = inspect(
        str(path),
        models=[project / MODEL],
        transcript=view.subject.clip.transcript,
        root=project,
    )
    assert alone.models[0].values[0] == pytest.approx(view.models[0].values[0], abs=1e-4)
    assert page_name(alone).name == "01.html"
    assert page_name(view).name == "mine-v-lt-1-01.html"


def test_what_is_missing_has_its_reason(tmp_path, project):
    silent = write_clip(tmp_path / "silent.mkv", np.arange(6) / 10)
    subject = gather_clip(
        silent, Transcript(" ", source="given"), FeatureSettings(project / MODEL, LIMITS)
    )
    assert subject.reasons == {
        "text": "empty_transcript",
        "acoustic": "no_audio_stream",
        "visual": "no_face",
    }
    assert subject.tokens == []


def test_a_clip_in_object_storage_is_shown_as_one_in_a_folder(view, project, tmp_path, s3):
    (tmp_path / "models").symlink_to(project / "models")
    shutil.copy(project / "params.yaml", tmp_path)
    shutil.copytree(project / "data", tmp_path / "data")
    manifest = read_manifest(tmp_path / "data/mine/manifest.parquet")
    settings = manifest_settings(manifest) | {"media": "s3://clips/mine"}
    there = make_manifest(manifest.to_pylist(), settings)
    write_manifest(there, tmp_path / "data/mine/manifest.parquet")
    s3.upload(project / "raw/mine/Raw", "clips", "mine/Raw")
    shown = inspect(f"mine/{TEST}", root=tmp_path)
    assert not shown.subject.clip.path.exists()
    assert render_page(shown) == render_page(view)
    assert shown.subject.file == "01.mp4"
    s3.client.put_object(Bucket="clips", Key=f"mine/Raw/{VIDEO}/01.mp4", Body=b"x")
    with pytest.raises(CorpusError, match="changed or removed since the corpus was ingested"):
        inspect(f"mine/{TEST}", root=tmp_path)


def gathered(utterance_id, root):
    with gather_utterance("mine", utterance_id, root) as subject:
        return subject


def test_targets_are_told_apart(project):
    assert find(f"mine/{TEST}", None, project) == ("mine", TEST)
    assert find(TEST, "mine", project) == ("mine", TEST)
    clip = str(project / "raw/mine/Raw/b/01.mp4")
    assert find(clip, None, project) == (None, clip)
    with pytest.raises(CorpusError, match=r"corpora with a manifest: mine\)"):
        find("nope.mp4", None, project)


def test_an_unknown_utterance_names_close_ones(project):
    with pytest.raises(CorpusError, match=r"mine: no utterance 'quiet/1'.*quiet/01"):
        gathered("quiet/1", project)


@pytest.mark.parametrize(
    ("absent", "told"),
    [
        ("manifest.parquet", "run the ingest stage"),
        ("features/visual", r"no features of quiet/01 \(run the extract stage\)"),
        ("tensors/test.safetensors", "run the tensors stage"),
    ],
)
def test_a_stage_that_has_not_run_is_named(project, tmp_path, absent, told):
    shutil.copytree(project / "data", tmp_path / "data")
    path = tmp_path / "data/mine" / absent
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FeatureError, match=told):
        gathered("quiet/01", tmp_path)


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


def test_clips_that_cannot_be_shown(tmp_path):
    (tmp_path / "a.mp4").write_bytes(bytes(100))
    with pytest.raises(MediaError, match=r"a\.mp4: nothing of it can be read: not media \(exp"):
        gather_clip(tmp_path / "a.mp4", Transcript(), None)
    # Ten hours, of which two frames and no more need be stored.
    long = write_clip(tmp_path / "long.mkv", [0, 36000], tone(0.1))
    with pytest.raises(MediaError, match=r"long\.mkv: too long, 36000 s \(expected at most 600 s"):
        gather_clip(long, Transcript(), None)


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
    run = run_command(project, TEST, "--corpus", "mine", "--out", str(page), "--png", str(png))
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
