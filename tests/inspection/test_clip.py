import numpy as np
import pytest

from mitfrnet.corpus.transcripts.words import Transcript
from mitfrnet.errors import MediaError
from mitfrnet.inspection.clip import gather_clip, inspect_clip
from mitfrnet.inspection.inspect import default_page
from mitfrnet.labels import ClassScale
from mitfrnet.predict.predictor import Predictor
from tests.helpers.clips import tone, write_clip
from tests.helpers.inspected_project import MODEL, UTTERANCE
from tests.helpers.made_model import make_model
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.slow


def test_a_clip_outside_its_corpus_is_scored_as_in_it(view, project):
    path = project / f"raw/mine/Raw/{UTTERANCE}.mp4"
    alone = inspect_clip(path, [project / MODEL], view.subject.clip.transcript)
    assert alone.models[0].values[0] == pytest.approx(view.models[0].values[0], abs=1e-4)
    assert default_page(alone).name == "01.html"


def test_a_missing_modality_has_its_reason(tmp_path, project):
    silent = write_clip(tmp_path / "silent.mkv", np.arange(6) / 10)
    model = Predictor(project / MODEL)
    transcript = Transcript(" ", source="given")
    subject = gather_clip(silent, transcript, model.settings, model.extractors)
    assert subject.reasons == {
        "text": "empty_transcript",
        "acoustic": "no_audio_stream",
        "visual": "no_face",
    }
    assert subject.tokens == []


def test_a_model_of_classes_needs_no_label(tmp_path):
    scale = ClassScale(classes=("joy", "anger")).model_dump(mode="json")
    make_model(scale=scale).save(tmp_path / "model")
    clip = write_clip(tmp_path / "sound.wav", sound=tone(0.5))
    view = inspect_clip(clip, [tmp_path / "model"])
    assert view.subject.label is None
    assert set(np.ravel(view.models[0].values)) <= {0, 1}


def test_words_without_times_are_spread_for_a_model_aligned_with_words(tmp_path):
    make_model(align="words").save(tmp_path / "model")
    clip = write_clip(tmp_path / "sound.wav", sound=tone(0.5))
    view = inspect_clip(clip, [tmp_path / "model"], "Good band")
    assert not view.subject.timed
    assert len(view.subject.tensors.modalities["acoustic"].detected) == 4  # as many as tokens


def test_clips_that_cannot_be_shown(tmp_path):
    (tmp_path / "a.mp4").write_bytes(bytes(100))
    with pytest.raises(MediaError, match=r"a\.mp4: cannot be read: not media \(expected"):
        inspect_clip(tmp_path / "a.mp4", [], root=ROOT)
    # Ten hours need no more than two stored frames.
    long = write_clip(tmp_path / "long.mkv", [0, 36000], tone(0.1))
    with pytest.raises(MediaError, match=r"long\.mkv: too long, 36000 s \(expected at most 600 s"):
        inspect_clip(long, [], root=ROOT)
