import json
import sys

import numpy as np
import pytest

from mitfrnet.corpus.layouts import cmu
from tests.helpers.reading import read, refusal

h5py = pytest.importorskip("h5py")

BLOCK = {"layout": "cmu", "scale": "mosi"}
MOSI, MOSEI = "CMU_MOSI_Opinion_Labels.csd", "CMU_MOSEI_Labels.csd"
# Videos of the standard folds: train, test; train.
MOSI_VIDEO, MOSI_TEST = "03bSnISJMiM", "tmZoasNr4rU"
MOSEI_VIDEO = "_K0okiLaF9I"
NEUTRAL = [0.0] * 6


def write_labels(path, videos):
    """Write `video: [(start, end, scores), ...]` in the structure of CMU's files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    root = "Opinion Segment Labels" if "MOSI" in path.name.split("_") else "All Labels"
    with h5py.File(path, "w") as file:
        file.create_dataset(f"{root}/metadata/version", data=[json.dumps("1.0")])
        for video, segments in videos.items():
            group = file.create_group(f"{root}/data/{video}")
            group["features"] = np.array([s for *_, s in segments], np.float32)
            group["intervals"] = np.array([times for *times, _ in segments], np.float64)
    return path.parent


def write_transcript(folder, video, lines, encoding="utf-8"):
    timed = (folder / MOSEI).exists()
    path = folder / "Raw/Transcript/Segmented"
    path = path / "Combined" / f"{video}.txt" if timed else path / f"{video}.annotprocessed"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding=encoding)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write_mosi(folder):
    segments = [(51.9, 55.95, [2.4]), (56.0, 58.5, [-0.8])]
    write_labels(folder / MOSI, {MOSI_VIDEO: segments, MOSI_TEST: [(0.5, 2.0, [1.0])]})
    write_transcript(folder, MOSI_VIDEO, ["1_DELIM_ANYHOW IT WAS REALLY GOOD", "2_DELIM_UM NO"])
    write_transcript(folder, MOSI_TEST, ["1_DELIM_I LIKE IT"])
    return folder


def write_mosei(folder):
    segments = [(7.814, 13.882, [-1.0, *NEUTRAL]), (0.0, 8.025, [0.5, 0.75, *NEUTRAL[1:]])]
    write_labels(folder / MOSEI, {MOSEI_VIDEO: segments})
    write_transcript(
        folder,
        MOSEI_VIDEO,
        [
            f"{MOSEI_VIDEO}___0___0.0___8.025___Here we___ go.",
            f"{MOSEI_VIDEO}___1___7.814___13.882___It failed.",
            f"{MOSEI_VIDEO}___2___13.9___15.0___Nobody labelled this.",
        ],
    )
    return folder


def test_mosi_is_cut_out_of_whole_videos(tmp_path):
    touch(write_mosi(tmp_path), f"Raw/Video/Full/{MOSI_VIDEO}.mp4",
          f"Raw/Video/Segmented/{MOSI_VIDEO}_1.mp4")  # fmt: skip
    clips, errors, warnings = read(tmp_path, BLOCK)
    assert [(c.utterance_id, c.split, c.start_s, c.end_s) for c in clips] == [
        (f"{MOSI_VIDEO}/1", "train", 51.9, 55.95),
        (f"{MOSI_VIDEO}/2", "train", 56.0, 58.5),
        (f"{MOSI_TEST}/1", "test", 0.5, 2.0),
    ]
    assert [c.label for c in clips] == pytest.approx([2.4, -0.8, 1.0])
    assert [c.transcript for c in clips] == ["ANYHOW IT WAS REALLY GOOD", "UM NO", "I LIKE IT"]
    video = f"Raw/Video/Full/{MOSI_VIDEO}"
    assert [(c.path, c.stem) for c in clips] == [(f"{video}.mp4", video)] * 2 + [(None, None)]
    assert errors == warnings == []


def test_where_the_whole_video_is_not_there_its_segment_is_taken(tmp_path):
    segment = f"Raw/Video/Segmented/{MOSI_VIDEO}_2.mp4"
    touch(write_mosi(tmp_path), segment)
    clips, _, _ = read(tmp_path, BLOCK)
    assert (clips[1].path, clips[1].start_s, clips[1].end_s) == (segment, None, None)
    assert (clips[0].path, clips[0].start_s, clips[0].end_s) == (None, 51.9, 55.95)


def test_mosei_labels_are_found_by_the_times_of_the_lines(tmp_path):
    video = f"Raw/Videos/Full/Combined/{MOSEI_VIDEO}.mp4"
    touch(write_mosei(tmp_path), video)
    clips, errors, warnings = read(tmp_path, BLOCK)
    assert [(c.utterance_id, c.label, c.start_s, c.transcript) for c in clips] == [
        (f"{MOSEI_VIDEO}/0", 0.5, 0.0, "Here we___ go."),
        (f"{MOSEI_VIDEO}/1", -1.0, 7.814, "It failed."),
    ]
    assert {c.path for c in clips} == {video}
    assert errors == []
    assert warnings == [
        f"{MOSEI}: 1 transcript lines have no label and are skipped (first: "
        f"Raw/Transcript/Segmented/Combined/{MOSEI_VIDEO}.txt:3)"
    ]


def test_an_emotion_of_mosei_is_the_label_where_the_block_says_so(tmp_path):
    clips, _, _ = read(write_mosei(tmp_path), BLOCK | {"label": "happy"})
    assert [c.label for c in clips] == [0.75, 0.0]
    write_mosi(tmp_path / "mosi")
    assert refusal(tmp_path / "mosi", BLOCK | {"label": "happy"}) == (
        f"{MOSI}: no label 'happy' (expected label: sentiment)"
    )


def test_what_the_sdk_leaves_out_is_left_out_and_counted(tmp_path):
    segments = [(1.0, 1.0, [1.0]), (2.0, 3.0, [1.0])]
    videos = {MOSI_VIDEO: segments, "in_no_fold1": segments, "in_no_fold2": segments}
    write_labels(tmp_path / "labels" / MOSI, videos)
    write_transcript(tmp_path, MOSI_VIDEO, ["1_DELIM_A", "2_DELIM_B", "3_DELIM_C"])
    (clip,), errors, warnings = read(tmp_path, BLOCK)
    assert clip.utterance_id == f"{MOSI_VIDEO}/2"
    assert errors == []
    labels = f"labels/{MOSI}"
    assert warnings == [
        f"{labels}: 1 labels have zero length and are skipped (first: {labels}: {MOSI_VIDEO}, "
        "segment 1)",
        f"{labels}: 1 transcript lines have no label and are skipped (first: "
        f"Raw/Transcript/Segmented/{MOSI_VIDEO}.annotprocessed:3)",
        f"{labels}: 2 videos are in no standard fold and skipped (first: {labels}: in_no_fold1)",
    ]


def test_a_label_without_transcript_keeps_its_clip(tmp_path):
    write_labels(tmp_path / "1" / MOSI, {MOSI_VIDEO: [(1.0, 2.5, [1.0])]})
    write_labels(tmp_path / "2" / MOSEI, {MOSEI_VIDEO: [(1.0, 2.5, [1.0, *NEUTRAL])]})
    for folder, clip_id in (("1", "1"), ("2", "1.000-2.500")):
        (clip,), errors, (warning,) = read(tmp_path / folder, BLOCK)
        assert (clip.clip_id, clip.transcript, clip.transcript_source) == (clip_id, "", None)
        assert errors == []
        assert "1 labels have no transcript (first: " in warning


def test_of_labels_of_the_same_times_the_first_is_taken_in_mosei(tmp_path):
    twice = [(1.0, 2.5, [1.0, *NEUTRAL]), (1.0, 2.5, [2.0, *NEUTRAL])]
    write_labels(tmp_path / MOSEI, {MOSEI_VIDEO: twice})
    write_transcript(tmp_path, MOSEI_VIDEO, [f"{MOSEI_VIDEO}___4___1.0___2.5___Once."])
    (clip,), errors, (warning,) = read(tmp_path, BLOCK)
    assert (clip.clip_id, clip.label) == ("4", 1.0)
    assert errors == []
    assert "1 labels repeat earlier times and are skipped" in warning


def test_a_label_that_starts_before_its_video_starts_with_it(tmp_path):
    write_labels(tmp_path / MOSI, {MOSI_VIDEO: [(-0.1, 2.5, [1.0])]})
    (clip,), _, warnings = read(tmp_path, BLOCK)
    assert (clip.start_s, clip.end_s) == (0.0, 2.5)
    assert "1 labels start before their video" in warnings[1]


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        ((2.0, 1.0, [1.0]), "the times are 2 and 1 (expected seconds, the end after the start)"),
        ((0.0, np.inf, [1.0]), "the times are 0 and inf (expected seconds"),
        ((0.0, 1.0, [3.1]), "the label is 3.1, out of scale (expected a number in [-3, 3])"),
    ],
)
def test_a_bad_label_is_named(tmp_path, segment, message):
    write_labels(tmp_path / MOSI, {MOSI_VIDEO: [segment]})
    assert refusal(tmp_path, BLOCK).startswith(f"{MOSI}: {MOSI_VIDEO}, segment 1: {message}")


@pytest.mark.parametrize(
    ("write", "line", "message"),
    [
        (write_mosi, "GOOD", f"{MOSI_VIDEO}.annotprocessed:1: 'GOOD' (expected number_DELIM_text)"),
        (
            write_mosei,
            f"{MOSEI_VIDEO}___0___0.0___Here.",
            f"{MOSEI_VIDEO}.txt:1: '{MOSEI_VIDEO}___0___0.0___Here.' "
            f"(expected {MOSEI_VIDEO}___number___start___end___text)",
        ),
        (write_mosei, f"{MOSEI_VIDEO}___0___a___b___Here.", "(expected "),
        (write_mosei, f"{MOSEI_VIDEO}___../0___0.0___8.025___Here.", "the number is '../0' (exp"),
    ],
)
def test_a_bad_line_of_a_transcript_is_named(tmp_path, write, line, message):
    folder = write(tmp_path)
    write_transcript(folder, MOSI_VIDEO if write == write_mosi else MOSEI_VIDEO, [line])
    assert message in refusal(folder, BLOCK)


def test_transcripts_are_of_the_encoding_of_the_block(tmp_path):
    folder = write_mosi(tmp_path)
    write_transcript(folder, MOSI_VIDEO, ["1_DELIM_CAF\u00c9", "2_DELIM_NO"], encoding="latin-1")
    assert f"{MOSI_VIDEO}.annotprocessed:1: byte 0xc9 is not utf-8" in refusal(folder, BLOCK)
    clips, _, _ = read(folder, BLOCK | {"encoding": "latin-1"})
    assert clips[0].transcript == "CAF\u00c9"


def test_a_transcript_may_not_be_a_link_that_leads_out(tmp_path):
    folder = write_mosi(tmp_path / "corpus")
    transcript = folder / f"Raw/Transcript/Segmented/{MOSI_VIDEO}.annotprocessed"
    transcript.rename(tmp_path / "outside")
    transcript.symlink_to(tmp_path / "outside")
    assert "leads out of the corpus folder" in refusal(folder, BLOCK)


def test_labels_of_neither_or_of_both_corpora_are_an_error(tmp_path):
    assert refusal(tmp_path, BLOCK) == (
        f"{tmp_path}: label files: none (expected {MOSI} or {MOSEI}, there or in labels/)"
    )
    write_mosi(tmp_path)
    write_mosei(tmp_path)
    assert f"label files: {MOSI}, {MOSEI} (expected" in refusal(tmp_path, BLOCK)


def test_labels_that_are_no_hdf5_or_broken_off_are_an_error(tmp_path):
    write_mosi(tmp_path)
    path = tmp_path / MOSI
    path.write_bytes(path.read_bytes()[:-2000])
    assert f"{MOSI}: not a valid HDF5 file" in refusal(tmp_path, BLOCK)
    path.write_text("no")
    assert f"{MOSI}: not a valid HDF5 file" in refusal(tmp_path, BLOCK)


def test_labels_that_lie_in_another_file_are_not_read(tmp_path):
    write_mosi(tmp_path)
    (tmp_path / MOSI).rename(tmp_path / "other.h5")
    with h5py.File(tmp_path / MOSI, "w") as file:
        file["Opinion Segment Labels"] = h5py.ExternalLink("other.h5", "Opinion Segment Labels")
    assert "no group 'Opinion Segment Labels' in the file itself" in refusal(tmp_path, BLOCK)

    with h5py.File(tmp_path / MOSI, "w") as file:
        video = file.create_group(f"Opinion Segment Labels/data/{MOSI_VIDEO}")
        video["intervals"] = [[0.0, 1.0]]
        outside = [(str(tmp_path / "other.h5"), 0, 8)]
        video.create_dataset("features", (1, 1), np.float64, external=outside)
    assert f"{MOSI}: {MOSI_VIDEO}: features is float64 of shape (1, 1)" in refusal(tmp_path, BLOCK)


@pytest.mark.parametrize(
    ("features", "intervals", "message"),
    [
        ([[1.0, 2.0]], [[0.0, 1.0]], "features is float64 of shape (1, 2) (expected numbers, segm"),
        (["a"], [[0.0, 1.0]], "features is object of shape (1,)"),
        ([[1.0]], [[0.0, 1.0], [1.0, 2.0]], "1 rows of features, 2 of intervals"),
        ([[1.0]], None, "no dataset 'intervals' in the file itself (found: features)"),
    ],
)
def test_a_video_of_another_structure_is_named(tmp_path, features, intervals, message):
    with h5py.File(tmp_path / MOSI, "w") as file:
        video = file.create_group(f"Opinion Segment Labels/data/{MOSI_VIDEO}")
        video["features"] = features
        if intervals is not None:
            video["intervals"] = intervals
    assert f"{MOSI}: {MOSI_VIDEO}: {message}" in refusal(tmp_path, BLOCK)


def test_a_video_that_claims_more_segments_than_any_has_is_not_read(tmp_path):
    with h5py.File(tmp_path / MOSI, "w") as file:
        video = file.create_group(f"Opinion Segment Labels/data/{MOSI_VIDEO}")
        for name, columns in (("features", 1), ("intervals", 2)):
            video.create_dataset(name, (10**12, columns), np.float64, chunks=(1000, columns))
    assert "features is float64 of shape (1000000000000, 1)" in refusal(tmp_path, BLOCK)


def test_without_h5py_the_extra_to_install_is_named(tmp_path, monkeypatch):
    write_mosi(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.delitem(sys.modules, "mitfrnet.corpus.layouts.cmu_labels", raising=False)
    assert refusal(tmp_path, BLOCK) == (
        f"{tmp_path}: layout cmu needs h5py (expected: pip install 'mitfrnet[cmu]')"
    )


@pytest.mark.parametrize(("corpus", "sizes"), [("mosi", (52, 10, 31)), ("mosei", (2249, 300, 678))])
def test_the_standard_folds_have_the_published_sizes_and_share_no_video(corpus, sizes):
    split_of = cmu._split_of(corpus)
    counts = [list(split_of.values()).count(split) for split in ("train", "valid", "test")]
    assert tuple(counts) == sizes  # were a video in two folds, one of them would have lost it
