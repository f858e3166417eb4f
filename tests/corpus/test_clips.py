import pytest

from mitfrnet.corpus.clips import (
    LabelledClip,
    Problems,
    fill_pattern,
    identifier,
    ids_of_path,
    label_of,
    segment_of,
    split_of,
    unique,
)
from mitfrnet.errors import CorpusError
from mitfrnet.labels import SCALES, ClassScale

MOSI = SCALES["mosi"]
EMOTIONS = ClassScale(classes=["anger", "joy"])


def refusal(function, *arguments):
    with pytest.raises(CorpusError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("value", ["007", " 1 ", "-a_b.c", "\u597d"])
def test_an_id_is_a_file_name(value):
    assert identifier(value, "clip_id", "x.csv:2") == value.strip()


@pytest.mark.parametrize(
    "value", ["", " ", ".", "..", "a/b", "/etc", "a\\b", 'a"b', "a\nb", "a\0b", "\x7f", "a" * 256]
)
def test_what_is_no_file_name_is_no_id(value):
    message = refusal(identifier, value, "clip_id", "x.csv:2")
    assert message.startswith("x.csv:2: clip_id is ")
    assert len(message) < 300


@pytest.mark.parametrize(("text", "label"), [("1.5", 1.5), (" -3 ", -3.0), ("1e-1", 0.1)])
def test_a_score_is_a_number_on_the_scale(text, label):
    assert label_of(text, "label", MOSI, "x") == label


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.csv:2: label is '', not a number (expected a number in [-3, 3])"),
        ("1,5", "x.csv:2: label is '1,5', not a number (expected a number in [-3, 3])"),
        ("1_5", "x.csv:2: label is '1_5', not a number"),
        ("good", "x.csv:2: label is 'good', not a number"),
        ("nan", "x.csv:2: label is nan, out of scale (expected a number in [-3, 3])"),
        ("inf", "x.csv:2: label is inf, out of scale"),
        ("3.01", "x.csv:2: label is 3.01, out of scale"),
    ],
)
def test_what_is_no_score_is_named(text, message):
    assert message in refusal(label_of, text, "label", MOSI, "x.csv:2")


def test_a_class_is_stored_as_its_index():
    assert label_of(" joy ", "label", EMOTIONS, "x") == 1.0
    assert refusal(label_of, "Joy", "label", EMOTIONS, "x.csv:2") == (
        "x.csv:2: label is 'Joy', not a class of this corpus (expected anger, joy)"
    )


def test_splits_may_have_names_of_their_own():
    assert split_of(" dev ", "mode", "x", {"train": "train", "valid": "dev"}) == "valid"
    assert refusal(split_of, "dev", "mode", "x.csv:2") == (
        "x.csv:2: mode is 'dev' (expected train, valid, test)"
    )


@pytest.mark.parametrize(
    ("start", "end", "segment"),
    [
        ("1.5", "2", (1.5, 2.0)),
        ("", " ", (None, None)),
        ("", "2", (None, 2.0)),
        ("0", "", (0.0, None)),
        ("01:02.5", "1:00:00", (62.5, 3600.0)),
        ("00:14:38,127", "00:14:40,378", (878.127, 880.378)),
    ],
)
def test_times_are_seconds_or_of_the_clock(start, end, segment):
    assert segment_of(start, end, ("start", "end"), "x") == segment


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("-1", "2", "x.csv:2: from is '-1' (expected seconds from the video's start, or hours:"),
        ("nan", "2", "x.csv:2: from is 'nan' (expected seconds"),
        ("1", "inf", "x.csv:2: to is 'inf' (expected seconds"),
        ("1,5", "2", "x.csv:2: from is '1,5' (expected seconds"),
        ("1:2:3:4", "2", "x.csv:2: from is '1:2:3:4' (expected seconds"),
        ("2", "1", "x.csv:2: to is 1 and from is 2 (expected an end after the start)"),
        ("2", "2", "x.csv:2: to is 2 and from is 2"),
        ("", "0", "x.csv:2: to is 0 and from is 0"),
    ],
)
def test_times_that_cannot_be_are_named(start, end, message):
    assert message in refusal(segment_of, start, end, ("from", "to"), "x.csv:2")


def test_a_pattern_is_filled_from_the_row():
    row = {"video_id": "v", "take": " 7 "}
    assert fill_pattern("{take}/{video_id}.mp4", row, "table.path", "x") == "7/v.mp4"
    assert refusal(fill_pattern, "{none}", row, "table.path", "x.csv:2") == (
        "x.csv:2: table.path is '{none}', but there is no 'none' (expected one of video_id, take)"
    )


@pytest.mark.parametrize(
    ("stem", "ids"),
    [("a/b", ("a", "b")), ("a/b/c.d", ("a-b", "c.d")), ("c", ("corpus", "c"))],
)
def test_a_file_has_ids_by_its_place(tmp_path, stem, ids):
    assert ids_of_path(stem, tmp_path / "corpus") == ids


def test_a_repeated_id_is_an_error_at_each_repetition():
    clips = [
        LabelledClip(where=f"x.csv:{line}", video_id="v", clip_id=clip_id)
        for line, clip_id in enumerate(["1", "2", "1", "1"], start=2)
    ]
    problems = Problems()
    assert unique(clips, problems) == clips[:2]
    assert problems.errors == [
        f"x.csv:{line}: duplicate id 'v/1', first used in line 2 "
        "(every video_id, clip_id pair must be unique)"
        for line in (4, 5)
    ]


def test_of_many_errors_the_first_is_raised_with_the_number_of_the_others(tmp_path):
    problems = Problems()
    problems.raise_errors(tmp_path)
    for error in ("first", "second", "third"):
        with problems.collecting():
            raise CorpusError(error)
    assert refusal(problems.raise_errors, tmp_path) == (
        f"first; and 2 more errors (mitfrnet validate {tmp_path} lists them)"
    )
