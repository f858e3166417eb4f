import pytest

from mitfrnet.corpus.clips import (
    ClipFiles,
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
from mitfrnet.metrics import SCALES, ClassScale

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
        "x.csv:2: label is 'Joy', no class of this corpus (expected anger, joy)"
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
        "x.csv:2: table.path is '{none}', and there is no 'none' (expected of video_id, take)"
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


def test_a_file_is_found_in_any_container_but_not_its_sidecar_or_a_folder(tmp_path):
    (tmp_path / "v" / "1").mkdir(parents=True)
    for name in ("1.TXT", "1.webm", "10.mp4", ".1.mp4"):
        (tmp_path / "v" / name).touch()
    files = ClipFiles(tmp_path)
    assert files.by_stem("v/1", "x") == "v/1.webm"
    assert files.by_stem("v/2", "x") is None
    assert files.by_stem("w/1", "x") is None
    assert files.at("v/1.webm", "x") == "v/1.webm"
    assert files.at("v/1", "x") is None
    assert files.at("v/none.mp4", "x") is None


def test_several_files_of_one_clip_are_an_error(tmp_path):
    for name in ("1.mp4", "1.avi"):
        (tmp_path / name).touch()
    assert refusal(ClipFiles(tmp_path).by_stem, "1", "x.csv:2") == (
        "x.csv:2: several files for 1: 1.avi, 1.mp4 (keep one)"
    )


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.mp4", "v/../../secret.mp4", "a\0b.mp4"])
def test_a_path_may_not_lead_out(tmp_path, path):
    (tmp_path / "secret.mp4").touch()
    files = ClipFiles(tmp_path / "corpus")
    assert "leads out of the corpus folder" in refusal(files.at, path, "x.csv:2")
    assert "x.csv:2: " in refusal(files.by_stem, path.removesuffix(".mp4"), "x.csv:2")


def test_a_link_may_lead_to_another_place_inside_but_not_out(tmp_path):
    corpus = tmp_path / "corpus"
    (corpus / "v").mkdir(parents=True)
    (corpus / "v" / "1.mp4").touch()
    (corpus / "v" / "2.mp4").symlink_to("1.mp4")
    (corpus / "w").symlink_to("v")
    (corpus / "out").symlink_to(tmp_path)
    (tmp_path / "3.mp4").touch()
    (corpus / "v" / "3.mp4").symlink_to(tmp_path / "3.mp4")
    (corpus / "v" / "4.mp4").symlink_to("4.mp4")
    (tmp_path / "link").symlink_to(corpus)
    for folder in (corpus, tmp_path / "link"):
        files = ClipFiles(folder)
        assert files.at("v/2.mp4", "x") == "v/2.mp4"
        assert files.by_stem("w/1", "x") == "w/1.mp4"
        assert files.at("v/4.mp4", "x") == "v/4.mp4"  # to itself; the probe gives the reason
        for find, path in [
            (files.at, "v/3.mp4"),
            (files.by_stem, "v/3"),
            (files.at, "out/3.mp4"),
            (files.by_stem, "out/3"),
            (files.table, "out/3.mp4"),
        ]:
            arguments = (path,) if find == files.table else (path, "x.csv:2")
            assert "leads out of the corpus folder" in refusal(find, *arguments)
