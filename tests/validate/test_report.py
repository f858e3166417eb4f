import json
import re
import time

import numpy as np
import pytest

from mitfrnet.corpus.clips import LabelledClip
from mitfrnet.corpus.ingest import IngestParams, ProbedClip
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.media import decode
from mitfrnet.validate.problems import KINDS, Problem, check_clips, worst_first
from mitfrnet.validate.report import check_corpus, to_json
from mitfrnet.workers.params import RunParams
from tests.helpers.clips import write_clip, write_corpus, write_small_corpus
from tests.helpers.defects import BLOCK, INGEST, write_defects
from tests.helpers.paths import SHARED
from tests.helpers.reading import MOSI

EMOTIONS = CorpusParams(
    layout="mmsa", language="en", task="classification", classes=["anger", "joy", "fear"]
)
INGEST = IngestParams.model_validate(INGEST)
RUN = RunParams(workers=2, timeout_seconds=60)
CLIPS = SHARED / "clips"
COLUMNS = ("video_id", "clip_id", "text", "label")

LIMITS = decode.MediaLimits(max_duration_s=60, max_pixels=10**7, max_bytes=10**9, max_streams=8)


def lines(report, level):
    return [problem.line for problem in report.problems if problem.level == level]


def kinds(report):
    return [problem.kind for problem in report.problems]


def labelled(tmp_path, rows, corpus=MOSI):
    """Check a table of (video_id, clip_id, text, label, mode), without any clip."""
    write_corpus(tmp_path / "mine", rows)
    return check_corpus(tmp_path / "mine", corpus, INGEST, None)


def test_each_defect_is_reported_with_its_place_and_what_would_be_right(tmp_path):
    folder = write_defects(tmp_path / "defects")
    report = check_corpus(folder, CorpusParams.model_validate(BLOCK), INGEST, RUN)
    table = f"{folder}/clips.csv"
    assert set(lines(report, "error")) == {
        f"{folder}: 5 of 21 clips have neither usable sound nor a usable picture (expected at most "
        "a share of 0.1, ingest.max_bad_fraction)",
        f"{table}:23: duplicate id 'twice/1', first used in line 22 (every video_id, clip_id pair "
        "must be unique)",
        f"{table}:24: label is 7, out of scale (expected a number in [-3, 3])",
        f"{table}:25: split is '[red]dev' (expected train, valid, test)",
        f"{table}:26: end is 1 and start is 2 (expected an end after the start)",
        f"{table}:27: video_id is '../out' (expected a file name: not empty, no slash, UTF-8, not "
        "leaving the corpus folder)",
    }
    assert set(lines(report, "warning")) == {
        f"{table}:5: gone/1.*: no file (expected video or sound)",
        f"{table}:6: zero/1.mkv: empty (expected video or sound; copy it again)",
        f"{table}:7: page/1.mkv: not a media file, or a broken one (expected one that plays)",
        f"{table}:8: mute/1.mkv: no sound (its acoustic features will be missing)",
        f"{table}:9: dark/1.mkv: no picture (its visual features will be missing)",
        f"{table}:10: long/1.mkv: lasts 6 s (expected at most 5, ingest.limits.max_duration_s)",
        f"{table}:11: slow/1.mkv: 2.5 frames a second (expected at least 5)",
        f"{table}:12: film/1.mkv: ends at 4.5 s, 3.5 s beyond the video's 1 s (expected an end "
        "within it)",
        f"{table}:13: film/2.mkv: starts at 3 s, 2 s beyond the video's 1 s (expected a start "
        "within it)",
        f"{table}:14: copy/1 has the same media as good/1 of {table}:2, in train and test "
        "(expected one of them)",
        f"{table}:15: video 'here' has 1 in train and 1 in test (expected all of a video in one "
        "split, or models are tested on what they have seen)",
        f"{table}:17: transcript '?! … \\x1b[7;1~' has no letters (expected what is said)",
        f"{table}:18: no transcript (its text features will be missing)",
        f"{table}:19: word/1.mkv: the last word ends at 1.75 s, 0.75 s beyond the clip's 1 s "
        "(expected an end within it)",
        f"{table}:20: mostly Cyrillic letters, like 1 of 19 transcripts (expected Latin for "
        "`language: en` of the corpus)",
        f"{folder}: all of valid is positive (expected several classes)",
        f"{folder}: all of test is negative (expected several classes)",
        f"{folder}: valid has 1 of 21 clips (expected at least 5%)",
    }
    assert (report.errors, report.warnings) == (6, 18)


def test_what_the_corpus_holds_is_counted(tmp_path):
    report = check_corpus(write_small_corpus(tmp_path / "mine"), MOSI, INGEST, RUN)
    assert (report.clips, report.videos, report.probed) == (4, 4, True)
    assert report.hours == pytest.approx(4 * 0.6 / 3600, rel=0.05)
    assert report.bytes == sum(p.stat().st_size for p in tmp_path.rglob("*.mkv"))
    assert report.pictures == {"64x48, 10 fps": 4}
    assert report.sounds == {"16000 Hz": 4}
    assert report.transcripts == {"table": 4}
    assert report.transcript_lengths == {"min": 14, "median": 14, "max": 14}
    assert report.scripts == {"Latin": 4}
    assert report.labels == {"-3": 0, "-2": 0, "-1": 1, "0": 1, "1": 1, "2": 1, "3": 0}
    train = report.splits["train"]
    assert (train.clips, train.videos, train.mean_label) == (2, 2, -0.5)
    assert train.kinds == {"negative": 1, "neutral": 1, "positive": 0}
    assert report.missing == {"text": {}, "acoustic": {}, "visual": {}}
    assert report.errors == 0


def test_json_has_a_key_per_attribute_and_nothing_is_lost(tmp_path):
    report = check_corpus(write_small_corpus(tmp_path / "mine"), EMOTIONS, INGEST, None)
    values = json.loads(to_json(report))
    assert set(values) == set(report.__dataclass_fields__)
    assert values["splits"]["train"] == {"clips": 0, "videos": 0, "mean_label": None} | {
        "kinds": {"anger": 0, "joy": 0, "fear": 0}
    }
    assert values["errors"] == 4
    assert values["problems"][0] == {
        "level": "error",
        "kind": "reading",
        "line": f"{tmp_path}/mine/label.csv:2: label is '-1', not a class of this corpus (expected "
        "anger, joy, fear)",
    }


def test_a_table_that_cannot_be_read_is_the_one_error(tmp_path):
    report = check_corpus(tmp_path, MOSI, INGEST, RUN)
    (line,) = lines(report, "error")
    assert line.startswith(f"{tmp_path}/label.csv: No such file")
    assert report.clips == 0
    json.loads(to_json(report))


def test_an_empty_split_is_an_error(tmp_path):
    rows = [(f"v{i}", "1", "yes", i, mode) for i, mode in enumerate(["train", "train", "test"])]
    report = labelled(tmp_path, rows)
    assert "split 'valid' is empty" in lines(report, "error")[-1]
    assert "one_class" in kinds(report)


@pytest.mark.parametrize(("corpus", "label", "named"), [(MOSI, 2, "2"), (EMOTIONS, "joy", "joy")])
def test_one_label_for_all_is_reported_once(tmp_path, corpus, label, named):
    modes = ["train", "train", "valid", "test"]
    rows = [(f"v{i}", "1", "yes", label, mode) for i, mode in enumerate(modes)]
    report = labelled(tmp_path, rows, corpus)
    warnings = [line for line in lines(report, "warning") if "no file" not in line]
    assert warnings == [
        f"{tmp_path}/mine: every label is {named} (expected several, to learn from)"
    ]


def test_a_test_split_larger_than_train_is_reported(tmp_path):
    modes = ["train", "train", "valid", "valid", "test", "test", "test"]
    rows = [(f"v{i}", "1", "yes", i % 2 - 0.5, mode) for i, mode in enumerate(modes)]
    warnings = [p.line for p in labelled(tmp_path, rows).problems if p.kind == "unequal_splits"]
    assert warnings == [f"{tmp_path}/mine: test has 3 clips, and train 2 (expected most in train)"]


@pytest.mark.parametrize(
    ("language", "text", "warning"),
    [
        ("en", "今天天气很好", "mostly Han letters, like 1 of 4 transcripts (expected Latin for"),
        ("zh", "今天天气很好", "mostly Latin letters, like 3 of 4 transcripts (expected Han for"),
        (
            "ja",
            "今天",
            "mostly Latin letters, like 3 of 4 transcripts (expected Han or Hiragana",
        ),
        ("de", "schöner Tag", None),
        ("qaa", "今天天气很好", None),  # its script is unknown
    ],
)
def test_the_language_is_checked_by_its_script(tmp_path, language, text, warning):
    modes = ["train", "train", "valid", "test"]
    rows = [(f"v{i}", "1", "good day", i - 1, mode) for i, mode in enumerate(modes)]
    rows[0] = ("v0", "1", text, -1, "train")
    report = labelled(tmp_path, rows, MOSI.model_copy(update={"language": language}))
    warnings = [p.line for p in report.problems if p.kind == "language"]
    assert len(warnings) == (warning is not None)
    if warning:
        assert warning in warnings[0]


def test_a_name_in_another_script_says_nothing_of_the_language(tmp_path):
    rows = [(f"v{i}", "1", "good day", i % 3 - 1, "train") for i in range(30)]
    rows[7] = ("v7", "1", "Мама", 1, "train")
    assert "language" not in kinds(labelled(tmp_path, rows))


def test_clips_that_will_be_transcribed_are_not_without_transcript(tmp_path):
    rows = [("v0", "1", "", 1, "train"), ("v1", "1", "yes", 1, "train")]
    assert "no_transcript" in kinds(labelled(tmp_path, rows))
    corpus = MOSI.model_copy(update={"asr": "a/model"})
    assert "no_transcript" not in kinds(check_corpus(tmp_path / "mine", corpus, INGEST, None))


def test_a_folder_of_clips_has_no_labels_and_names_each_file_once(tmp_path):
    write_clip(tmp_path / "a.mkv", np.arange(10) / 10)
    report = check_corpus(tmp_path, CorpusParams(layout="media_only", language="en"), INGEST, RUN)
    assert (report.labels, report.splits["test"].clips) == ({}, 1)
    assert lines(report, "warning") == [
        f"{tmp_path}/a.mkv: no sound (its acoustic features will be missing)"
    ]


def test_every_reason_has_words_and_its_limits(tmp_path):
    for reason in (*decode.REASONS, "worker_crashed", "timed_out"):
        clip = LabelledClip("t.csv:2", "v", "1", path="v/1.mp4", start_s=1.0)
        probed = [(clip, ProbedClip(None, decode.unusable(reason)))]
        (problem,) = check_clips(tmp_path, probed, MOSI, INGEST)
        assert problem.kind == reason
        assert problem.line.startswith("t.csv:2: v/1.mp4: ")
        assert "{" not in problem.line
    assert (
        "at most 1000000, ingest"
        in next(
            check_clips(
                tmp_path,
                [(clip, ProbedClip(None, decode.unusable("frame_too_large")))],
                MOSI,
                INGEST,
            )
        ).line
    )


def test_a_file_without_time_is_reported(tmp_path):
    clip = LabelledClip("t.csv:2", "v", "1", path="v/1.mp4")
    probe = decode.Probe(0.0, 25.0, 1, 64, 48, "h264", "aac", 0.0, 16000, "mov", None, None)
    (problem,) = check_clips(tmp_path, [(clip, ProbedClip(None, probe))], MOSI, INGEST)
    assert problem.line == (
        "t.csv:2: v/1.mp4: lasts 0 s (expected video or sound with time stamps)"
    )


def test_segments_of_one_film_are_no_duplicates(tmp_path):
    probe = decode.Probe(9.0, 25.0, 225, 64, 48, "h264", "aac", 9.0, 16000, "mov", None, None)
    times = [(0.0, 3.0), (3.0, 6.0), (0.0, 3.0)]
    probed = [
        (LabelledClip(f"t:{i}", "v", str(i), path="v.mp4", start_s=s, end_s=e), of)
        for i, (s, e) in enumerate(times)
        for of in [ProbedClip("digest", probe)]
    ]
    assert [p.line for p in check_clips(tmp_path, probed, MOSI, INGEST)] == [
        "t:2: v/2 has the same media as v/0 of t:0 (expected one of them)"
    ]


def test_errors_come_first_and_one_of_each_kind_before_the_second():
    warnings = [Problem("warning", kind, str(i)) for i in (1, 2) for kind in reversed(KINDS)]
    error = Problem("error", "reading", "here")
    ranked = worst_first([*warnings, error])
    assert ranked[0] == error
    assert [p.kind for p in ranked[1:]] == [*KINDS, *KINDS]
    assert [p.line for p in ranked[1:]] == ["1"] * len(KINDS) + ["2"] * len(KINDS)


def test_problems_come_in_the_order_of_the_table(tmp_path):
    """Ids sort as v0, v1, v10, v11, v2, ...; lines as they stand."""
    rows = [(f"v{i}", "1", "yes", i % 3 - 1, "train") for i in range(12)]
    places = [
        p.line.split(":")[1] for p in labelled(tmp_path, rows).problems if p.kind == "no_file"
    ]
    assert places == [str(line) for line in range(2, 14)]


def test_problems_do_not_come_in_the_order_of_probing(tmp_path):
    """A clip without a file needs no probing, and is done first."""
    folder = write_small_corpus(tmp_path / "mine")
    table = (folder / "label.csv").read_text()
    (folder / "label.csv").write_text(re.sub("words number [03]", "", table))
    (folder / "Raw" / "v3" / "01.mkv").unlink()
    report = check_corpus(folder, MOSI, INGEST, RUN)
    places = [p.line.split(":")[1] for p in report.problems if p.kind == "no_transcript"]
    assert places == ["2", "5"]


def test_twenty_thousand_rows_take_seconds(tmp_path):
    rows = [
        (f"v{i // 10}", str(i), "a transcript of some words", i % 61 / 10 - 3)
        for i in range(20_000)
    ]
    write_corpus(tmp_path / "mine", rows, COLUMNS)
    begun = time.process_time()
    report = check_corpus(tmp_path / "mine", MOSI, INGEST, None)
    assert time.process_time() - begun < 10
    assert report.missing["visual"] == {"no_file": 20_000}
    assert sum(split.clips for split in report.splits.values()) == 20_000


@pytest.mark.slow
@pytest.mark.skipif(not CLIPS.is_dir(), reason="no ../shared/clips beside the repository")
def test_real_clips():
    report = check_corpus(CLIPS, MOSI, INGEST.model_copy(update={"limits": LIMITS}), RUN)
    assert (report.clips, report.videos, report.errors) == (14, 9, 0)
    assert report.hours == pytest.approx(61 / 3600, rel=0.01)
    assert report.pictures["360x288, 25 fps"] == 7
    assert report.missing["acoustic"] == {"no_audio_stream": 1}
    assert report.splits["train"].kinds == {"negative": 0, "neutral": 11, "positive": 0}
    assert "one_label" in kinds(report)
