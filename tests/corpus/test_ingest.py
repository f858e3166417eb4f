from collections import Counter

import pytest

from mitfrnet.corpus.ingest import (
    build_manifest,
    check_bad_fraction,
    probe_clips,
    read_corpus,
    summarise,
)
from mitfrnet.corpus.manifest import manifest_settings, write_manifest
from mitfrnet.errors import CorpusError
from mitfrnet.labels import parse_scale
from mitfrnet.workers.params import RunParams
from tests.helpers.clips import write_corpus, write_small_corpus
from tests.helpers.reading import INGEST, MOSI, parse

EMOTIONS = parse({"layout": "mmsa", "task": "classification", "classes": ["anger", "joy", "fear"]})
STARS = parse(
    {
        "layout": "mmsa",
        "scale": {
            "low": 1, "high": 5, "neutral": 3, "neutral_is": "positive", "clip": True, "cuts": {}
        },
    }
)  # fmt: skip


def probed_clips(folder, workers=1, corpus=MOSI):
    clips = read_corpus(folder, corpus, INGEST)
    return list(
        probe_clips(folder, clips, INGEST.limits, RunParams(workers=workers, timeout_seconds=60))
    )


def ingest(folder, workers=1, corpus=MOSI):
    return build_manifest(probed_clips(folder, workers, corpus), corpus, INGEST)


def ingest_labels(folder, labels, corpus):
    rows = [(f"v{i}", "1", "x", label) for i, label in enumerate(labels)]
    write_corpus(folder, rows, ("video_id", "clip_id", "text", "label"))
    return ingest(folder, corpus=corpus)


def test_the_manifest_holds_what_was_measured(tmp_path):
    manifest = ingest(write_small_corpus(tmp_path))
    row = manifest.to_pylist()[0]
    assert row["utterance_id"] == "v0/01"
    assert row["path"] == "Raw/v0/01.mkv"
    assert row["split"] == "train"
    assert row["duration_s"] == pytest.approx(0.6, abs=0.05)
    assert row["fps"] == pytest.approx(10, rel=0.1)
    assert (row["width"], row["height"], row["video_codec"]) == (64, 48, "mpeg4")
    assert (row["audio_codec"], row["audio_sample_rate_hz"]) == ("pcm_s16le", 16000)
    assert row["text_reason"] is row["acoustic_reason"] is row["visual_reason"] is None
    assert len(row["digest"]) == 64
    assert manifest_settings(manifest)["scale"] == {"low": -3, "high": 3, "family": "mosi"}


def test_class_labels_are_stored_as_indices_and_counted_by_name(tmp_path):
    manifest = ingest_labels(tmp_path, ["joy", "anger", "joy", "joy"], EMOTIONS)
    assert manifest["label"].to_pylist() == [1.0, 0.0, 1.0, 1.0]
    assert manifest_settings(manifest)["scale"] == {
        "task": "classification",
        "classes": ["anger", "joy", "fear"],
    }
    assert summarise(manifest)["label"] == {"classes": {"anger": 1, "joy": 3, "fear": 0}}


def test_scores_are_counted_around_their_neutral_point(tmp_path):
    manifest = ingest_labels(tmp_path, [1, 3, 4.5, 3.5], STARS)
    assert parse_scale(manifest_settings(manifest)["scale"]) == STARS.scale
    assert summarise(manifest)["label"] == {
        "negative": 1,
        "zero": 1,
        "positive": 2,
        "mean": 3.0,
    }


def test_bytes_are_the_same_with_one_worker_or_two(tmp_path):
    folder = write_small_corpus(tmp_path / "corpus")
    for workers in (1, 2):
        write_manifest(ingest(folder, workers), tmp_path / f"{workers}.parquet")
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()


def test_damaged_clips_keep_their_rows_with_reasons(tmp_path):
    folder = write_small_corpus(tmp_path, modes=["train"] * 5 + ["valid", "test"])
    clips = sorted((folder / "Raw").glob("*/*.mkv"))
    clips[0].unlink()
    clips[1].write_bytes(b"")
    clips[2].write_text("this is no film")
    clips[3].write_bytes(clips[3].read_bytes()[: clips[3].stat().st_size // 2])
    manifest = ingest(folder)
    reasons = manifest["visual_reason"].to_pylist()
    assert reasons == ["no_file", "empty_file", "not_media", None, None, None, None]
    assert manifest["acoustic_reason"].to_pylist() == reasons
    assert summarise(manifest)["naturally_missing"] == {
        "text": {},
        "acoustic": {"empty_file": 1, "no_file": 1, "not_media": 1},
        "visual": {"empty_file": 1, "no_file": 1, "not_media": 1},
    }
    probed = probed_clips(folder)
    check_bad_fraction(probed, 3 / 7, folder)
    with pytest.raises(CorpusError, match=r"3 of 7 clips cannot be read.*v0/01: no_file; Raw/v1"):
        check_bad_fraction(probed, 0.4, folder)


def test_without_modes_videos_are_split(tmp_path):
    rows = [(f"v{i // 2}", str(i), "x", 0) for i in range(20)]
    write_corpus(tmp_path, rows, ("video_id", "clip_id", "text", "label"))
    clips = read_corpus(tmp_path, MOSI, INGEST)
    assert Counter(c.split for c in clips) == {"train": 12, "valid": 4, "test": 4}


@pytest.mark.parametrize("left_out", ["train", "valid", "test"])
def test_an_empty_split_is_an_error(tmp_path, left_out):
    modes = [m for m in ("train", "valid", "test") if m != left_out]
    with pytest.raises(CorpusError, match=f"split '{left_out}' is empty"):
        read_corpus(write_small_corpus(tmp_path, modes), MOSI, INGEST)


def test_an_empty_transcript_is_naturally_missing(tmp_path):
    folder = write_small_corpus(tmp_path)
    table = (folder / "label.csv").read_text().replace("words number 0", "  ")
    (folder / "label.csv").write_text(table)
    assert ingest(folder)["text_reason"].to_pylist() == ["empty_transcript", None, None, None]


def test_a_replaced_clip_changes_its_digest_alone(tmp_path):
    folder = write_small_corpus(tmp_path)
    before = ingest(folder)["digest"].to_pylist()
    (folder / "Raw" / "v2" / "01.mkv").write_bytes((folder / "Raw/v1/01.mkv").read_bytes() + b"x")
    after = ingest(folder)["digest"].to_pylist()
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False, True]
