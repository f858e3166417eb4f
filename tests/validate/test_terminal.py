import io
import re

import pytest
from rich.console import Console

from mitfrnet.validate.problems import Problem
from mitfrnet.validate.report import Report, Split
from mitfrnet.validate.terminal import printable, render

SIDES = {"negative": 0, "neutral": 1, "positive": 3}
PROBLEMS = [
    Problem("error", "reading", "raw/mine/label.csv:2: label is 'x' (expected a number)"),
    Problem("warning", "no_file", "raw/mine/label.csv:3: Raw/v/1.*: no file (expected a film)"),
    Problem("warning", "no_file", "raw/mine/label.csv:4: Raw/v/2.*: no file (expected a film)"),
    Problem("warning", "no_letters", "raw/mine/label.csv:5: transcript '?' has no letters"),
]


def report(**changes):
    of_all = {
        "folder": "raw/mine",
        "layout": "mmsa",
        "language": "en",
        "task": "regression",
        "probed": True,
        "clips": 6000,
        "videos": 1,
        "hours": 2.5,
        "bytes": 3 * 2**20,
        "pictures": {f"{100 * i}x48, 25 fps": 10 - i for i in range(9)},
        "sounds": {"16000 Hz": 6000},
        "transcripts": {"table": 5999, "none": 1},
        "transcript_lengths": {"min": 3, "median": 20.5, "max": 1234},
        "scripts": {"Latin": 5999},
        "word_times": 0,
        "labels": {"-1": 0, "0": 1000, "1": 3000},
        "splits": {
            "train": Split(4, 1, 0.75, SIDES),
            "valid": Split(0, 0, None, dict.fromkeys(SIDES, 0)),
            "test": Split(2, 1, -0.5, SIDES),
        },
        "videos_on_two_sides": 1,
        "missing": {"text": {"no_transcript": 1}, "acoustic": {}, "visual": {"no_file": 2}},
        "problems": tuple(PROBLEMS),
    }
    return Report(**{**of_all, **changes})


def shown(of, width=100, problems=10, **options):
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, **options)
    for part in render(of, problems):
        console.print(part)
    return out.getvalue()


def words(text):
    return " ".join(text.split())


def test_everything_is_shown():
    text = words(shown(report()))
    assert "layout mmsa, task regression, language en" in text
    assert "clips 6,000 of 1 video, 2.5 hours, 3.0 MiB" in text
    assert "500x48, 25 fps: 5" not in text
    assert "400x48, 25 fps: 6; 4 others: 14" in text
    assert "transcripts table: 5,999; none: 1 3 to 1,234 characters, median 20.5" in text
    assert "word times 0 clips" in text
    assert "train 4 0.1% 1 +0.75 negative 0%, neutral 25%, positive 75%" in text
    assert "valid 0 0.0% 0 - negative 0%, neutral 0%, positive 0%" in text
    assert "videos in more than one split: 1" in text
    assert "text 1 no transcript: 1 acoustic 0 visual 2 no file: 2" in text
    assert "1 error, 3 warnings" in text
    for problem in PROBLEMS:
        assert f"{problem.level} {problem.line}" in text


def test_bars_are_as_long_as_there_are_labels():
    bars = re.findall(r"^ *(-?\d)  ([━╸]*) +\d,?\d* +", shown(report()), re.MULTILINE)
    assert [(label, len(bar)) for label, bar in bars] == [("-1", 0), ("0", 10), ("1", 30)]


def test_what_is_not_listed_is_counted_by_kind():
    text = words(shown(report(), problems=2))
    assert "label.csv:3" in text
    assert "label.csv:4" not in text
    assert "and 2 more: no file: 1; no letters: 1" in text
    assert "(--problems 4 lists all)" in text
    assert "lists all" not in shown(report())


def test_without_clips_problems_alone_are_shown():
    text = shown(report(clips=0, problems=tuple(PROBLEMS[:1])))
    assert "Labels" not in text
    assert "1 error, 0 warnings" in text


def test_a_corpus_without_labels_and_problems():
    unlabelled = {name: Split(2, 1, None, {}) for name in ("train", "valid", "test")}
    text = shown(report(task="unlabelled", labels={}, splits=unlabelled, problems=()))
    assert "Labels" not in text
    assert "mean label" not in text
    assert "No problems found" in text


def test_what_was_not_probed_is_not_called_well():
    text = words(shown(report(probed=False, pictures={}, sounds={}, hours=None)))
    assert "length unknown" in text
    assert "picture not probed sound not probed" in text
    assert "visual 2 no file: 2; others unknown, as clips were not probed" in text


def test_short_corpora_are_shown_in_minutes():
    assert "15.0 minutes" in shown(report(hours=0.25))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_keep_to_the_width(width):
    assert all(len(line) <= width for line in shown(report(), width).splitlines())


def test_colours_are_for_terminals_alone():
    assert "\x1b" not in shown(report())
    coloured = shown(report(), force_terminal=True, color_system="standard")
    assert "\x1b[1;31merror" in coloured
    assert "\x1b[33mwarning" in coloured


def test_what_data_say_is_neither_markup_nor_control_characters():
    evil = "[red]x[/red] \x1b[31m\x07\r\u202e\ud800 [link=file:///etc]y"
    named = report(
        folder=evil,
        pictures={evil: 1},
        transcripts={evil: 1},
        labels={evil: 1},
        splits={"train": Split(1, 1, None, {evil: 1})},
        problems=(Problem("warning", "reading", evil),),
    )
    text = shown(named, width=400, force_terminal=True, color_system=None)
    assert not set("\x1b\x07\r\u202e\ud800") & set(text)
    whole = r"[red]x[/red] \x1b[31m\x07\r\u202e\ud800 [link=file:///etc]y"
    assert text.count(whole) == 4  # folder, picture, transcripts, problem
    assert text.count(whole[:20]) == 6  # and shortened, a label in the bars and in the splits


def test_long_lines_keep_their_place_and_what_would_be_right():
    line = printable(f"raw/mine/label.csv:12: label is '{'x' * 10_000}' (expected a number)")
    assert len(line) < 420
    assert line.startswith("raw/mine/label.csv:12: label is 'xxx")
    assert line.endswith("xxx' (expected a number)")
    assert printable("短い 😀 text") == "短い 😀 text"
