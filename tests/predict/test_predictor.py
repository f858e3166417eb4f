"""Clips scored from Python with a model folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mitfrnet
from mitfrnet.errors import CorpusError, FeatureError
from mitfrnet.predict.predictor import Predictor
from tests.helpers.clips import tone, write_clip
from tests.helpers.made_model import edit_features, make_model
from tests.helpers.paths import ROOT
from tests.helpers.predicting import SPOKEN, run_predict

REAL = Path(os.environ.get("MITFRNET_TEST_CLIPS", ROOT.parent / "shared" / "clips")) / "Raw"
TIMES = np.arange(0, 1, 0.1)


@pytest.mark.slow
class TestPredictor:
    def test_says_what_was_observed(self, predictor):
        prediction = predictor.predict(SPOKEN, text="The band was excellent.")
        assert -3 <= prediction.score <= 3
        assert prediction.class_name == ("positive" if prediction.score > 0 else "negative")
        assert prediction.tokens == 5  # four words and a full stop
        assert prediction.sound_seconds == pytest.approx(1.8, abs=0.01)
        assert prediction.face_share == 1
        assert (prediction.missing, prediction.warnings) == ({}, ())
        assert (prediction.transcript_source, prediction.clip) == ("given", SPOKEN)

    def test_any_part_may_be_missing(self, predictor, tmp_path):
        write_clip(tmp_path / "silent.mkv", TIMES)
        write_clip(tmp_path / "sound.wav", sound=tone(1))
        silent = predictor.predict(tmp_path / "silent.mkv")
        assert silent.missing == {
            "text": "empty_transcript",
            "acoustic": "no_audio_stream",
            "visual": "no_face",
        }
        assert (silent.tokens, silent.sound_seconds, silent.face_share) == (0, 0, 0)
        sound = predictor.predict(str(tmp_path / "sound.wav"), text="Fine.")
        assert sound.missing == {"visual": "no_video_stream"}
        assert sound.sound_seconds == pytest.approx(1, abs=0.04)
        assert np.isfinite([silent.score, sound.score]).all()

    def test_a_transcript_beside_the_clip_is_read_unless_one_is_given(self, predictor, tmp_path):
        clip = shutil.copy(SPOKEN, tmp_path / "a.mp4")
        (tmp_path / "a.txt").write_text("The band was excellent.\n")
        prediction = predictor.predict(clip)
        assert prediction.transcript == "The band was excellent."
        assert prediction.transcript_source == "txt"
        assert prediction.score == predictor.predict(SPOKEN, text="The band was excellent.").score
        assert predictor.predict(clip, text="No.").transcript == "No."
        (tmp_path / "a.txt").write_bytes(b"\xff")
        with pytest.raises(CorpusError, match=r"a\.txt"):
            predictor.predict(clip)

    def test_warns_of_another_language_and_of_what_was_cut(self, predictor):
        (warning,) = predictor.predict(SPOKEN, text="我喜欢").warnings
        assert warning.startswith("100% of the letters are in no script of language 'en'")
        (warning,) = predictor.predict(SPOKEN, text="good " * 300).warnings
        assert warning.startswith("the transcript was cut after 12")  # 254 of 300 words

    def test_classes_are_named(self, tmp_path):
        from mitfrnet.labels import ClassScale

        scale = ClassScale(classes=("joy", "anger")).model_dump(mode="json")
        make_model(scale=scale).save(tmp_path)
        prediction = Predictor(tmp_path).predict(SPOKEN)
        assert prediction.score is None
        assert prediction.class_name in ("joy", "anger")

    def test_load_model_loads_nothing_until_it_is_called(self, folder):
        code = "import sys, mitfrnet; assert not {'torch', 'av', 'typer'} & set(sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
        assert isinstance(mitfrnet.load_model(folder), Predictor)

    @pytest.mark.parametrize(
        ("modality", "changes", "message"),
        [
            ("acoustic", {"version": "0"}, "acoustic features: version is 2 here and 0 in train"),
            ("text", {"identity__weights": "x"}, "text features: weights is 53aa.* in training"),
            ("text", {"identity__vocabulary": "x"}, "text features: vocabulary is"),
            ("visual", {"feature_names": ["x"]}, "visual features: feature_names is"),
            ("visual", {"digest": "x"}, "visual features: the fingerprint in config.json does"),
            ("acoustic", {"identity__settings__n_mfcc": 13}, "acoustic features: feature_names is"),
            ("visual", {"identity__settings__fps": 0}, "config.json: features.visual.fps: "),
            ("visual", {"identity": {}}, "features.visual: no 'settings' .*imported"),
            ("text", {"identity__encoder": "gone"}, "text encoder 'gone': not a folder"),
        ],
    )
    def test_features_that_cannot_be_made_again_are_refused(self, copy, modality, changes, message):
        edit_features(copy, modality, **changes)
        for other_versions in (False, True):
            with pytest.raises(Exception, match=message) as error:
                Predictor(copy, other_versions=other_versions)
            assert isinstance(error.value, mitfrnet.errors.MitfrnetError)
            assert "\n" not in str(error.value)

    def test_other_versions_of_libraries_are_refused_unless_allowed(self, copy, predictor):
        edit_features(copy, "acoustic", identity__libraries__librosa="0.1", digest="x")
        message = r"acoustic features: librosa is \S+ here and 0\.1 in training"
        with pytest.raises(FeatureError, match=message + ".*--other-versions"):
            Predictor(copy)
        prediction = Predictor(copy, other_versions=True).predict(SPOKEN)
        assert prediction.score == predictor.predict(SPOKEN).score
        assert message.partition(" is")[0] in prediction.warnings[0]

    def test_another_device_in_training_is_ignored(self, copy, predictor):
        edit_features(copy, "text", identity__device="cuda", digest="x")
        expected = predictor.predict(SPOKEN, text="Good.").score
        score = Predictor(copy).predict(SPOKEN, text="Good.").score
        assert score == pytest.approx(expected, abs=1e-5)

    @pytest.mark.skipif(not REAL.exists(), reason="no ../shared/clips beside the repository")
    def test_real_clips_with_parts_missing(self, predictor):
        missing = {
            "grid_s1/bbaf2n.mpg": set(),
            "edge/no_audio_stream.mp4": {"acoustic"},
            "edge/cartoon_no_face.mp4": {"visual"},
            "edge/face_then_none.mov": set(),
        }
        for name, modalities in missing.items():
            prediction = predictor.predict(REAL / name)
            assert set(prediction.missing) == modalities | {"text"}, name
        assert prediction.face_share == pytest.approx(0.42, abs=0.1)


@pytest.mark.slow
class TestSaving:
    SCORE = "from mitfrnet import load_model; print(repr(load_model({!r}).predict({!r}).score))"

    def test_a_fresh_process_scores_the_same_from_another_folder(self, predictor, tmp_path):
        predictor.save_pretrained(tmp_path / "there")
        moved = (tmp_path / "there").rename(tmp_path / "moved")
        process = subprocess.run(
            [sys.executable, "-c", self.SCORE.format(str(moved), str(SPOKEN))],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert process.stdout.strip() == repr(predictor.predict(SPOKEN).score)
        assert Predictor.from_pretrained(moved).trained.config == predictor.trained.config | {
            "format": 1
        }

    def test_the_card_is_made_once_and_then_kept(self, predictor, tmp_path):
        scores = {0.3: {1: {"mae": 0.5, "n": 4}}}
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "README.md").write_text("of another model")
        predictor.save_pretrained(
            tmp_path / "a", model_card_kwargs={"scores": scores, "corpus": "mine"}
        )
        card = (tmp_path / "a" / "README.md").read_text()
        assert "corpus `mine`" in card
        assert "| 0.3 | 1 | 0.500 |" in card
        Predictor(tmp_path / "a").save_pretrained(tmp_path / "b")
        assert (tmp_path / "b" / "README.md").read_text() == card
        names = {p.name for p in (tmp_path / "b").iterdir()}
        assert names == {"README.md", "config.json", "model.safetensors", "scaling.safetensors"}

    def test_a_fine_tuned_model_scores_without_its_base(self, tmp_path):
        base = tmp_path / "base"
        from mitfrnet.features.text_encoder import encoder_folder

        shutil.copytree(encoder_folder("embedded"), base)
        make_model(encoder=str(base), fine_tuned=True).save(tmp_path / "model")
        expected = Predictor(tmp_path / "model").predict(SPOKEN, text="Good.")
        shutil.rmtree(base)
        assert Predictor(tmp_path / "model").predict(SPOKEN, text="Good.") == expected

    def test_an_unreachable_hub_is_reported_in_one_line(self, folder, tmp_path):
        nobody = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
        process = run_predict(SPOKEN, "--model", "owner/name", **nobody)
        assert process.returncode == 1
        assert process.stdout == ""
        (line,) = process.stderr.splitlines()
        assert line.startswith("error: owner/name: no such folder, and the download")
        code = f"""
from mitfrnet import load_model
from mitfrnet.errors import reporting_errors
with reporting_errors():
    load_model({str(folder)!r}).push_to_hub("owner/name", token="none")
"""
        process = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, **nobody},
            capture_output=True,
            text=True,
        )
        assert process.returncode == 1
        assert process.stderr.splitlines()[-1].startswith("error: owner/name: the upload")
        assert "Traceback" not in process.stderr
