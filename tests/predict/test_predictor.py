"""Clips scored with a model folder: by the command, and from Python."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import mitfrnet
from mitfrnet.corpus.ingest import IngestParams
from mitfrnet.errors import CorpusError, FeatureError
from mitfrnet.params import load_params
from mitfrnet.predict.clips import find_clips
from mitfrnet.predict.extraction import LIMITS
from mitfrnet.predict.predictor import Predictor, model_folder
from mitfrnet.predict.transcripts import foreign_share
from tests.helpers.clips import tone, write_clip
from tests.helpers.made_model import make_model
from tests.helpers.paths import ROOT
from tests.helpers.running import run_python, run_stage, write_params

SAMPLE = ROOT / "raw" / "sample"
SPOKEN = SAMPLE / "Raw" / "speaker02_c" / "0001.mp4"  # of the test split; sound and a face
REAL = Path(os.environ.get("MITFRNET_TEST_CLIPS", ROOT.parent / "shared" / "clips")) / "Raw"
TIMES = np.arange(0, 1, 0.1)


def command(*argv, cwd=ROOT, **environment):
    """Run `mitfrnet predict` as a user does."""
    return run_python("-m", "mitfrnet.cli", "predict", *argv, cwd=cwd, **environment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    make_model().save(folder)
    return folder


@pytest.fixture(scope="module")
def predictor(folder):
    return Predictor(folder)


@pytest.fixture
def copy(folder, tmp_path):
    """Return a copy of the model folder, to be changed."""
    return shutil.copytree(folder, tmp_path / "model")


def edit(folder, modality, **changes):
    """Change what a model folder says of one modality; keys of its identity as `identity__x`."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        *parts, last = key.split("__")
        place = config["features"][modality]
        for part in parts:
            place = place[part]
        place[last] = value
    path.write_text(json.dumps(config))


def test_limits_are_those_that_are_shipped():
    assert load_params(IngestParams, section="ingest").limits == LIMITS


def test_clips_come_from_files_folders_and_patterns_each_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/2.mp4", "a/1.MKV", "a/notes.txt", "a/b/3.wav", "a/.hidden/4.mp4", "c.mp4"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("link.mp4").symlink_to("c.mp4")
    expected = ["a/1.MKV", "a/2.mp4", "a/b/3.wav"]
    assert [str(p) for p in find_clips(["a"])] == expected
    assert [str(p) for p in find_clips(["a", "./a/2.mp4", "a/**/*.wav"])] == expected
    assert [str(p) for p in find_clips(["*.mp4", "c.mp4"])] == ["c.mp4"]
    assert [str(p) for p in find_clips(["gone.mp4"])] == ["gone.mp4"]  # said of it when read
    Path("empty").mkdir()
    with pytest.raises(CorpusError, match=r"empty: no clips in this folder"):
        find_clips(["c.mp4", "empty"])
    with pytest.raises(CorpusError, match=r"\*\.avi: no file matches"):
        find_clips(["*.avi"])


@pytest.mark.parametrize(
    ("text", "language", "share"),
    [
        ("I liked it.", "en", 0),
        ("Je l'ai aimé, naïve.", "fr", 0),
        ("我喜欢", "en", 1),
        ("OK 我喜欢它的了", "en", 0.75),  # six of eight letters
        ("我喜欢", "zh", 0),
        ("I liked it.", "zh", 1),
        ("Мне понравилось", "ru", 0),
        ("ありがとう、カメラ", "ja", 0),
        ("123 !?", "en", 0),
        ("我喜欢", "xyz", 0),  # a language whose script is not known here
    ],
)
def test_letters_of_another_script_are_noticed(text, language, share):
    assert foreign_share(text, language) == share


@pytest.mark.parametrize("name", ["gone", "/gone/model", "./owner/name", "a/b/c", "../x"])
def test_what_is_neither_folder_nor_hub_name_is_not_asked_for_on_the_hub(name):
    with pytest.raises(FeatureError, match=r"no such folder \(expected one with model"):
        model_folder(name)


@pytest.mark.slow
class TestPredictor:
    def test_says_what_was_observed(self, predictor):
        found = predictor.predict(SPOKEN, text="The band was excellent.")
        assert -3 <= found.score <= 3
        assert found.class_name == ("positive" if found.score > 0 else "negative")
        assert found.tokens == 5  # four words and a full stop
        assert found.sound_seconds == pytest.approx(1.8, abs=0.01)
        assert found.face_share == 1
        assert (found.missing, found.warnings) == ({}, ())
        assert (found.transcript_source, found.clip) == ("given", SPOKEN)

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
        found = predictor.predict(clip)
        assert (found.transcript, found.transcript_source) == ("The band was excellent.", "txt")
        assert found.score == predictor.predict(SPOKEN, text="The band was excellent.").score
        assert predictor.predict(clip, text="No.").transcript == "No."
        (tmp_path / "a.txt").write_bytes(b"\xff")
        with pytest.raises(CorpusError, match=r"a\.txt"):
            predictor.predict(clip)

    def test_scores_do_not_depend_on_the_other_clips(self, predictor, tmp_path):
        write_clip(tmp_path / "other.mkv", TIMES, sound=tone(1))
        texts = {SPOKEN: "The band was excellent."}
        many = dict(predictor.predict_many([tmp_path / "other.mkv", SPOKEN], texts))
        assert many[SPOKEN] == predictor.predict(SPOKEN, texts[SPOKEN])

    def test_warns_of_another_language_and_of_what_was_cut(self, predictor):
        (warning,) = predictor.predict(SPOKEN, text="我喜欢").warnings
        assert warning.startswith("100% of the letters are of no script of language 'en'")
        (warning,) = predictor.predict(SPOKEN, text="good " * 300).warnings
        assert warning.startswith("the transcript was cut after 12")  # 254 of 300 words

    def test_classes_are_named(self, tmp_path):
        from mitfrnet.labels import ClassScale

        scale = ClassScale(classes=("joy", "anger")).model_dump(mode="json")
        make_model(scale=scale).save(tmp_path)
        found = Predictor(tmp_path).predict(SPOKEN)
        assert found.score is None
        assert found.class_name in ("joy", "anger")

    def test_load_model_is_at_hand_and_light_until_called(self, folder):
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
            ("visual", {"digest": "x"}, "visual features: the fingerprint in config.json is not"),
            ("acoustic", {"identity__settings__n_mfcc": 13}, "acoustic features: feature_names is"),
            ("visual", {"identity__settings__fps": 0}, "config.json: features.visual.fps: "),
            ("visual", {"identity": {}}, "features.visual: no 'settings' .*imported"),
            ("text", {"identity__encoder": "gone"}, "text encoder 'gone': no folder"),
        ],
    )
    def test_features_that_cannot_be_made_again_are_refused(self, copy, modality, changes, message):
        edit(copy, modality, **changes)
        for other_versions in (False, True):
            with pytest.raises(Exception, match=message) as error:
                Predictor(copy, other_versions=other_versions)
            assert isinstance(error.value, mitfrnet.errors.MitfrnetError)
            assert "\n" not in str(error.value)

    def test_other_versions_of_libraries_are_refused_unless_allowed(self, copy, predictor):
        edit(copy, "acoustic", identity__libraries__librosa="0.1", digest="x")
        message = r"acoustic features: librosa is \S+ here and 0\.1 in training"
        with pytest.raises(FeatureError, match=message + ".*--other-versions"):
            Predictor(copy)
        found = Predictor(copy, other_versions=True).predict(SPOKEN)
        assert found.score == predictor.predict(SPOKEN).score
        assert message.partition(" is")[0] in found.warnings[0]

    def test_another_device_in_training_is_no_hindrance(self, copy, predictor):
        edit(copy, "text", identity__device="cuda", digest="x")
        found = Predictor(copy).predict(SPOKEN, text="Good.")
        assert found.score == pytest.approx(predictor.predict(SPOKEN, text="Good.").score, abs=1e-5)

    @pytest.mark.skipif(not REAL.exists(), reason="no ../shared/clips beside the repository")
    def test_real_clips_with_parts_missing(self, predictor):
        missing = {
            "grid_s1/bbaf2n.mpg": set(),
            "edge/no_audio_stream.mp4": {"acoustic"},
            "edge/cartoon_no_face.mp4": {"visual"},
            "edge/face_then_none.mov": set(),
        }
        for name, modalities in missing.items():
            found = predictor.predict(REAL / name)
            assert set(found.missing) == modalities | {"text"}, name
        assert found.face_share == pytest.approx(0.42, abs=0.1)


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
        scores = {"mae": 0.5, "n": 4}
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

    def test_an_unreachable_hub_is_said_in_one_line(self, folder, tmp_path):
        nobody = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
        process = command(SPOKEN, "--model", "owner/name", **nobody)
        assert process.returncode == 1
        assert process.stdout == ""
        (line,) = process.stderr.splitlines()
        assert line.startswith("error: owner/name: no such folder, and not to be had from the Hug")
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
        assert process.stderr.splitlines()[-1].startswith("error: owner/name: cannot be written")
        assert "Traceback" not in process.stderr


@pytest.mark.slow
class TestCommand:
    def test_bad_clips_cost_themselves_alone(self, folder, tmp_path):
        (tmp_path / "empty.mp4").touch()
        (tmp_path / "text.mp4").write_text("no media")
        write_clip(tmp_path / "long.mkv", [0, 36000])
        good = shutil.copy(SPOKEN, tmp_path / "good.mp4")
        process = command(tmp_path, "gone.mp4", good, "--model", folder, "--json")
        assert process.returncode == 1
        records = {Path(r["clip"]).name: r for r in json.loads(process.stdout)}
        assert list(records) == ["empty.mp4", "good.mp4", "long.mkv", "text.mp4", "gone.mp4"]
        assert records["good.mp4"]["error"] is None
        assert isinstance(records["good.mp4"]["score"], float)
        errors = process.stderr.splitlines()
        assert errors == [f"error: {r['error']}" for n, r in records.items() if n != "good.mp4"]
        for name, reason in {
            "empty.mp4": "empty_file",
            "text.mp4": "not_media",
            "long.mkv": "too_long (expected at most 600 s; see --max-seconds)",
            "gone.mp4": "no_file",
        }.items():
            assert records[name]["score"] is None
            assert f"{name}: cannot be read: " in records[name]["error"]
            assert reason in records[name]["error"]

    def test_a_table_for_people_and_a_file_for_machines(self, folder, tmp_path):
        out = tmp_path / "new" / "scores.parquet"
        process = command(
            SPOKEN, "--model", folder, "--text", "The band was excellent.", "--parquet", out
        )
        assert (process.returncode, process.stderr) == (0, "")
        head, row = process.stdout.splitlines()
        assert head.split() == "clip score in [-3, 3] class tokens sound face missing".split()  # noqa: SIM905
        (record,) = pq.read_table(out).to_pylist()
        assert row.split() == [
            str(SPOKEN),
            f"{record['score']:+.2f}",
            record["class_name"],
            *("5", "1.8", "s", "100%", "-"),
        ]
        assert record["transcript"] == "The band was excellent."
        assert record["text_reason"] is record["error"] is None

    @pytest.mark.parametrize(
        ("argv", "status", "line"),
        [
            (["--model", "gone"], 1, "error: gone: no such folder"),
            (["--parquet", "."], 2, "is a folder"),
            ([str(ROOT / "raw"), "--text", "x"], 2, "--text needs exactly one clip"),
            ([str(ROOT / "docs")], 1, "docs: no clips in this folder"),
        ],
    )
    def test_wrong_arguments_are_answered(self, folder, argv, status, line):
        model = [] if "--model" in argv else ["--model", folder]
        process = command(SPOKEN, *argv, *model)
        assert process.returncode == status
        assert line in " ".join(process.stderr.replace("│", " ").split())
        assert "Traceback" not in process.stderr

    def test_a_warning_stands_on_stderr_once(self, folder, copy):
        edit(copy, "acoustic", identity__libraries__librosa="0.1", digest="x")
        process = command(SAMPLE / "Raw" / "speaker02_c", "--model", copy, "--other-versions")
        assert process.returncode == 0
        (line,) = process.stderr.splitlines()
        assert "clips: " in line
        assert "librosa is" in line


@pytest.mark.slow
def test_the_command_gives_what_evaluate_gave(tmp_path):
    """All test clips of the sample corpus, by a model trained at missing rate 0."""
    with (SAMPLE / "label.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    left, kept = {"train": 12, "valid": 3, "test": 40}, []
    raw = tmp_path / "raw" / "sample"
    for row in rows:
        if left[row["mode"]]:
            left[row["mode"]] -= 1
            kept.append(row)
            clip = raw / "Raw" / row["video_id"] / f"{row['clip_id']}.mp4"
            clip.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(SAMPLE / clip.relative_to(raw), clip)
            if row["mode"] == "test":
                clip.with_suffix(".txt").write_text(row["text"])
    with (raw / "label.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(kept)
    write_params(tmp_path, train__max_epochs=1, run__workers=2)
    cell = {"corpus": "sample", "model": "mitfrnet", "missing_rate": 0.0, "seed": 1}
    for stage, item in [
        ("ingest", {"corpus": "sample"}),
        *(("extract", {"corpus": "sample", "modality": m}) for m in ("text", "acoustic", "visual")),
        ("tensors", {"corpus": "sample"}),
        ("mask", {"corpus": "sample", "missing_rate": 0.0}),
        ("train", cell),
        ("evaluate", cell),
    ]:
        process = run_stage(tmp_path, stage, **item)
        assert process.returncode == 0, process.stderr[-2000:]
    predicted = pq.read_table(tmp_path / "predictions/sample/mitfrnet/0.0/1.parquet")
    clips = [raw / "Raw" / f"{u}.mp4" for u in predicted["utterance_id"].to_pylist()]
    assert len(clips) == 40
    process = command(*clips, "--model", "models/sample/mitfrnet/0.0/1", "--json", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    records = json.loads(process.stdout)
    assert [Path(r["clip"]) for r in records] == clips
    scores = np.array([r["score"] for r in records])
    assert np.abs(scores - predicted["prediction"].to_numpy()).max() < 1e-5
    assert sum(r["text_reason"] is not None for r in records) == 1  # one says nothing
    assert np.ptp(scores) > 0.01
