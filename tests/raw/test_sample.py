"""The sample corpus matches its README, and its script reproduces it."""

import csv
import importlib
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest

from tests.helpers.paths import ROOT

SAMPLE = ROOT / "raw" / "sample"
COLUMNS = ["video_id", "clip_id", "text", "label", "label_T", "label_A", "label_V"]
COLUMNS += ["annotation", "mode"]
LARGEST_BYTES = 6_000_000
WITHOUT_SOUND = "speaker02_a/0004"
SLIDES_OUT = "speaker05_b/0007"
WITHOUT_TRANSCRIPT = "speaker06_c/0005"

Row = dict[str, str]


def clip_path(utterance_id: str) -> Path:
    return SAMPLE / "Raw" / f"{utterance_id}.mp4"


def read_streams(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return all frames, (frames, height, width, 3), and all samples, (samples,)."""
    with av.open(path) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(path) as container:
        if not container.streams.audio:
            return np.stack(frames), np.zeros(0, np.float32)
        sound = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    return np.stack(frames), np.concatenate(sound)


def read_seconds(path: Path) -> float:
    """Return the length of the picture in seconds."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert stream.duration is not None
        assert stream.time_base is not None
        return float(stream.duration * stream.time_base)


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    """Lines of label.csv by utterance id."""
    with (SAMPLE / "label.csv").open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        assert reader.fieldnames == COLUMNS
        return {f"{row['video_id']}/{row['clip_id']}": row for row in reader}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script that makes the corpus; it imports the files beside it by name."""
    sys.path.insert(0, str(SAMPLE))
    try:
        return importlib.import_module("make_sample")
    finally:
        sys.path.remove(str(SAMPLE))


def test_every_split_has_its_share_of_both_signs(rows: dict[str, Row]) -> None:
    counts = {mode: Counter[str]() for mode in ("train", "valid", "test")}
    for row in rows.values():
        counts[row["mode"]][row["annotation"]] += 1
    assert counts == {
        "train": {"Positive": 77, "Negative": 77, "Neutral": 6},
        "valid": {"Positive": 19, "Negative": 19, "Neutral": 2},
        "test": {"Positive": 19, "Negative": 19, "Neutral": 2},
    }


def test_no_video_is_on_two_sides(rows: dict[str, Row]) -> None:
    sides = defaultdict(set)
    for row in rows.values():
        sides[row["video_id"]].add(row["mode"])
    assert all(len(modes) == 1 for modes in sides.values())


def test_video_and_clip_ids_keep_their_leading_zeros(rows: dict[str, Row]) -> None:
    assert all(len(row["clip_id"]) == 4 and row["clip_id"][0] == "0" for row in rows.values())


def test_labels_are_in_range_and_agree_with_annotations(rows: dict[str, Row]) -> None:
    for row in rows.values():
        values = [float(row[name]) for name in ("label", "label_T", "label_A", "label_V")]
        assert all(-3 <= value <= 3 for value in values)
        sign = np.sign(values[0])
        assert row["annotation"] == {-1: "Negative", 0: "Neutral", 1: "Positive"}[sign]


def test_in_one_of_seven_clips_a_part_contradicts_the_label(rows: dict[str, Row]) -> None:
    contrary = 0
    for row in rows.values():
        sign = np.sign(float(row["label"]))
        parts = [float(row[name]) * sign for name in ("label_T", "label_A", "label_V")]
        assert sum(part <= -1 for part in parts) <= 1
        contrary += min(parts) <= -1
    assert 0.12 <= contrary / len(rows) <= 0.15


def test_exactly_the_labelled_clips_are_there(rows: dict[str, Row]) -> None:
    files = {p.relative_to(SAMPLE / "Raw").as_posix() for p in SAMPLE.glob("Raw/*/*")}
    assert files == {f"{utterance_id}.mp4" for utterance_id in rows}


def test_corpus_is_small(rows: dict[str, Row]) -> None:
    files = [path for path in SAMPLE.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files) <= LARGEST_BYTES


def test_length_tells_nothing_about_the_label(rows: dict[str, Row]) -> None:
    seconds = np.array([read_seconds(clip_path(utterance_id)) for utterance_id in rows])
    assert seconds.min() >= 1.4
    assert seconds.max() <= 2.8
    for column in ("label", "label_T", "label_A", "label_V"):
        labels = np.array([float(row[column]) for row in rows.values()])
        assert abs(np.corrcoef(labels, seconds)[0, 1]) < 0.1
        assert abs(np.corrcoef(abs(labels), seconds)[0, 1]) < 0.2


@pytest.mark.parametrize(
    "utterance_id",
    ["speaker01_a/0001", "speaker03_b/0005", "speaker04_c/0010", "speaker08_c/0002"],
)
def test_picture_and_sound_decode_and_last_equally_long(utterance_id: str) -> None:
    path = clip_path(utterance_id)
    frames, sound = read_streams(path)
    assert frames.shape[1:] == (176, 176, 3)
    assert len(frames) / 20 == pytest.approx(read_seconds(path))
    assert len(sound) / 16_000 == pytest.approx(len(frames) / 20, abs=0.2)
    assert np.sqrt(np.mean(sound**2)) > 0.01  # somebody speaks
    assert np.abs(np.diff(frames.astype(float), axis=0)).mean() > 0.1  # somebody moves


def test_one_clip_has_no_audio_stream(rows: dict[str, Row]) -> None:
    silent = []
    for utterance_id in rows:
        with av.open(clip_path(utterance_id)) as container:
            if not container.streams.audio:
                silent.append(utterance_id)
    assert silent == [WITHOUT_SOUND]
    assert rows[WITHOUT_SOUND]["mode"] == "train"


def test_one_test_clip_has_no_transcript(rows: dict[str, Row]) -> None:
    empty = [utterance_id for utterance_id, row in rows.items() if not row["text"]]
    assert empty == [WITHOUT_TRANSCRIPT]
    assert rows[WITHOUT_TRANSCRIPT]["mode"] == "test"


def test_in_one_clip_the_face_leaves_halfway() -> None:
    frames, _ = read_streams(clip_path(SLIDES_OUT))
    detail = frames.astype(float).std(axis=(1, 2)).mean(axis=-1)  # an empty wall is smooth
    middle = len(detail) // 2
    assert detail[: middle // 2].min() > 2 * detail[-middle // 2 :].max()


def test_no_sentence_is_in_two_clips(rows: dict[str, Row]) -> None:
    sentences = [row["text"] for row in rows.values()]
    assert len(set(sentences)) == len(sentences)
    assert all(4 <= len(text.split()) <= 8 for text in sentences if text)


def test_label_file_comes_from_the_script(
    script: ModuleType, tmp_path: Path, rows: dict[str, Row]
) -> None:
    script.write_labels(script.plan_corpus(), tmp_path / "label.csv")
    assert (tmp_path / "label.csv").read_bytes() == (SAMPLE / "label.csv").read_bytes()


def skip_unless_made_with_the_same_versions(script: ModuleType) -> None:
    try:
        versions = script.find_versions()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if versions != script.MADE_WITH:
        pytest.skip(f"made with {script.MADE_WITH}, here is {versions}")


@pytest.mark.parametrize("index", [37, 155])
def test_script_makes_the_committed_clip_again(
    script: ModuleType, tmp_path: Path, index: int
) -> None:
    """Equal bytes, or on a processor that rounds differently, the same picture and sound."""
    skip_unless_made_with_the_same_versions(script)
    made = script.make_clip(script.plan_corpus()[index], tmp_path)
    committed = SAMPLE / made.relative_to(tmp_path)
    if made.read_bytes() != committed.read_bytes():
        (pictures, sound), (old_pictures, old_sound) = map(read_streams, (made, committed))
        assert pictures.shape == old_pictures.shape
        assert sound.shape == old_sound.shape
        assert np.abs(pictures.astype(float) - old_pictures).mean() < 1
        assert np.abs(sound - old_sound).mean() < 1e-3
        pytest.skip("same picture and sound, other bytes: made on another processor?")


def test_bytes_do_not_depend_on_what_memory_held_before(script: ModuleType, tmp_path: Path) -> None:
    """With glibc, MALLOC_PERTURB_ fills new memory with a byte."""
    skip_unless_made_with_the_same_versions(script)
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); "
        "from make_sample import make_clip, plan_corpus; "
        "print(make_clip(plan_corpus()[50], Path(sys.argv[2])))"
    )
    clips = []
    for fill in ("1", "170"):
        done = subprocess.run(
            [sys.executable, "-c", program, str(SAMPLE), str(tmp_path / fill)],
            env=os.environ | {"MALLOC_PERTURB_": fill},
            capture_output=True,
            text=True,
            check=True,
        )
        clips.append(Path(done.stdout.strip()).read_bytes())
    assert clips[0] == clips[1]
