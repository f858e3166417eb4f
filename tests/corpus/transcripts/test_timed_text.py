import json
import os
import time

import pytest

from mitfrnet.corpus.transcripts.timed_text import KINDS, read_sidecar
from mitfrnet.corpus.transcripts.words import TimedWord
from mitfrnet.errors import CorpusError
from tests.helpers.timed_text import SO_FAR

LONG_TEXTGRID = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.0
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 2.0
        points: size = 1
        points [1]:
            number = 0.3
            mark = "click 7"
    item [2]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 2.0
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = ""
        intervals [2]:
            xmin = 0.5
            xmax = 1
            text = "say"
        intervals [3]:
            xmin = 1
            xmax = 1.5
            text = "<eps>"
        intervals [4]:
            xmin = 1.5
            xmax = 2.0
            text = "a ""b"""
    item [3]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 2.0
        intervals: size = 1
        intervals [1]:
            xmin = 0.5
            xmax = 1
            text = "S"
'''
SHORT_TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"

0
2
<exists>
1
"IntervalTier"
"anything"
0
2
2
0
1.25
"hello"
1.25
2
"SIL"
"""
SRT = """1
00:00:01,000 --> 00:00:02,000\x20
<i>Hello</i> you
\x20
2
00:01:00,500 --> 00:01:01,000
{\\an8}- there.
"""
VTT = """WEBVTT Kind: captions

STYLE
::cue { color: red }

NOTE not
spoken

intro
00:01.000 --> 00:02.000 align:start
<v Ann>Hello &amp; hi</v>

01:00:00.500 --> 01:00:01.500
BOB: [SIGHS] there
"""


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def said(sidecar):
    return [(w.text, w.start_s, w.end_s) for w in sidecar.words]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_each_kind_gives_its_words_and_their_times(tmp_path, kind, encoding):
    content = SO_FAR[kind].replace("\n", "\r\n").encode(encoding)
    sidecar = read_sidecar(write(tmp_path / f"1{kind.upper()}", content))
    assert sidecar.transcript == "so far"
    if kind == ".txt":
        assert sidecar.words is None
    else:
        assert said(sidecar) == [("so", 0.5, 0.75), ("far", 1.0, 1.5)]


def test_a_textgrid_in_the_long_form_gives_its_tier_of_words(tmp_path):
    """`a "b"` has 5 characters in half a second: `a` is the first, `"b"` the last three."""
    sidecar = read_sidecar(write(tmp_path / "1.TextGrid", LONG_TEXTGRID))
    assert said(sidecar) == [
        ("say", 0.5, 1.0),
        ("a", 1.5, pytest.approx(1.6)),
        ('"b"', pytest.approx(1.7), 2.0),
    ]
    assert sidecar.transcript == 'say a "b"'


def test_a_textgrid_in_the_short_form_gives_its_only_tier(tmp_path):
    path = write(tmp_path / "1.textgrid", SHORT_TEXTGRID)
    assert said(read_sidecar(path)) == [("hello", 0.0, 1.25)]


def test_subtitles_give_speech_without_markup(tmp_path):
    """`Hello you`, 9 characters in a second: 5 of them, and the last 3."""
    sidecar = read_sidecar(write(tmp_path / "1.SRT", SRT))
    assert said(sidecar) == [
        ("Hello", 1.0, pytest.approx(1 + 5 / 9)),
        ("you", pytest.approx(1 + 6 / 9), 2.0),
        ("there.", 60.5, 61.0),
    ]
    assert sidecar.transcript == "Hello you there."


def test_webvtt_leaves_out_notes_styles_names_and_sounds(tmp_path):
    sidecar = read_sidecar(write(tmp_path / "1.vtt", VTT))
    assert sidecar.transcript == "Hello & hi there"
    assert said(sidecar)[-1] == ("there", 3600.5, 3601.5)
    assert said(sidecar)[0][1] == 1.0


def test_rolling_captions_are_read_once_with_the_times_inside(tmp_path):
    text = """WEBVTT

00:00:00.000 --> 00:00:02.000
\x20
so<00:00:00.500><c> it</c><00:00:01.250><c> goes</c>

00:00:02.000 --> 00:00:02.010
so it goes
\x20

00:00:02.010 --> 00:00:03.000
so it goes
on<00:00:02.500><c> and</c>
"""
    sidecar = read_sidecar(write(tmp_path / "1.vtt", text))
    assert said(sidecar) == [
        ("so", 0.0, 0.5),
        ("it", 0.5, 1.25),
        ("goes", 1.25, 2.0),
        ("on", 2.01, 2.5),
        ("and", 2.5, 3.0),
    ]


@pytest.mark.parametrize(
    ("line", "speech"),
    [
        ("DR. WHO: I say", "I say"),
        ("he said: no", "he said: no"),
        ("(laughs)", ""),
        ("no (really) no", "no (really) no"),
        (">> 3 < 4, 5 > 2", "3 < 4, 5 > 2"),
        ("\u266a la la [MUSIC] \u266a", "la la"),
    ],
)
def test_of_a_subtitle_only_speech_is_kept(tmp_path, line, speech):
    path = write(tmp_path / "1.srt", f"00:00:00,0 --> 00:00:01,0\n{line}\n")
    assert read_sidecar(path).transcript == speech


def test_a_refrain_is_no_rolling_caption(tmp_path):
    cue = "{} --> {}\nno\n\n"
    text = cue.format("00:00:00,0", "00:00:01,0") + cue.format("00:00:01,0", "00:00:02,0")
    assert read_sidecar(write(tmp_path / "1.srt", text)).transcript == "no no"


@pytest.mark.parametrize(
    "data",
    [
        {"words": [{"text": t, "start": s, "end": s + 0.5} for t, s in (("so", 0.5), ("far", 1))]},
        {  # Whisper
            "text": " so far",
            "segments": [
                {"words": [{"word": " so", "start": 0.5, "end": 1.0}], "text": " so"},
                {"words": [{"word": " far", "start": 1.0, "end": 1.5}], "text": " far"},
            ],
        },
        {  # the Montreal Forced Aligner
            "start": 0,
            "tiers": {
                "words": {"type": "interval", "entries": [[0.5, 1, "so"], [1, 1.5, "far"]]},
                "phones": {"type": "interval", "entries": [[0.5, 1, "S"]]},
            },
        },
    ],
)
def test_json_of_several_tools_gives_its_words(tmp_path, data):
    sidecar = read_sidecar(write(tmp_path / "1.json", json.dumps(data)))
    assert said(sidecar) == [("so", 0.5, 1.0), ("far", 1.0, 1.5)]
    assert sidecar.transcript == "so far"


def test_a_word_that_the_aligner_did_not_find_stays_in_the_text(tmp_path):
    data = {"words": [{"word": "so", "start": 0, "end": 1}, {"word": "42"}]}
    sidecar = read_sidecar(write(tmp_path / "1.json", json.dumps(data)))
    assert said(sidecar) == [("so", 0.0, 1.0)]
    assert sidecar.transcript == "so 42"


def test_a_txt_file_gives_a_transcript_on_one_line(tmp_path):
    sidecar = read_sidecar(write(tmp_path / "1.txt", b"\xef\xbb\xbfone, \r\n\r\ntwo\n"))
    assert (sidecar.transcript, sidecar.words) == ("one, two", None)


def test_another_encoding_is_the_corpus_encoding(tmp_path):
    path = write(tmp_path / "1.txt", "né".encode("cp1252"))
    assert read_sidecar(path, "cp1252").transcript == "né"


def srt(times):
    return f"1\n00:00:00,0 --> 00:00:00,5\na\n\n2\n{times}\nb\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("1.txt", b"one\ntw\xe9", r"1\.txt:2: byte 0xe9 is not utf-8 \(save .*`encoding`"),
        ("1.txt", "a\nb".encode("utf-16-le"), r"1\.txt:1: a NUL character"),
        ("1.doc", b"", r"1\.doc: unknown kind of file \(expected \.txt, \.textgrid"),
        ("1.srt", srt("00:00:02,0 --> 00:00:01,0"), r"1\.srt:6: end 1 is before start 2"),
        ("1.srt", srt("00:00:0x,0 --> 00:00:01,0"), r"1\.srt:6: '00:00:0x.*times of a cue"),
        ("1.srt", "just text\n", r"1\.srt:1: 'just text'.*times of a cue"),
        ("1.vtt", SRT, r"1\.vtt:1: not WebVTT"),
        ("1.ctm", "a 1 0.5 0.5 so\na 1 0.5\n", r"1\.ctm:2: .*expected: file channel start"),
        ("1.ctm", "a 1 nan 0.5 so\n", r"1\.ctm:1: start is 'nan' \(expected seconds"),
        ("1.ctm", "a 1 0 1 so\nb 1 0 1 so\n", r"1\.ctm: words of 2 files, such as a and b"),
        ("1.json", '[{"word": "a",\n}]', r"1\.json:2: not JSON"),
        ("1.json", "[" * 100_000, r"1\.json: cannot be read as JSON"),
        ("1.json", "{}", r"1\.json: no list of words"),
        ("1.json", "[3]", r"1\.json: word 1 is 3 \(expected an object"),
        ("1.json", '[{"word": "a", "start": 1}]', r"word 1: end is None"),
        ("1.json", f'[{{"word": "a", "start": 1, "end": {"9" * 400}}}]', r"word 1: end is 9"),
        ("1.TextGrid", "hello", r"1\.TextGrid:1: the end of the file \(expected 'ooTextFile'"),
        (
            "1.TextGrid",
            SHORT_TEXTGRID.replace("\n1.25\n2\n", "\n2\n1.25\n"),
            r"1\.TextGrid:18: end 1\.25 is before start 2",
        ),
        (
            "1.TextGrid",
            SHORT_TEXTGRID[: SHORT_TEXTGRID.index('"hello"') + 4],
            r'1\.TextGrid:15: "hel \(expected a label',
        ),
        (
            "1.TextGrid",
            SHORT_TEXTGRID[: SHORT_TEXTGRID.index("1.25")],
            r"1\.TextGrid:14: the end of the file \(expected a time",
        ),
        ("1.TextGrid", SHORT_TEXTGRID.replace("1.25", "x"), r':15: "hello" \(expected a time'),
        (
            "1.TextGrid",
            LONG_TEXTGRID.replace('"words"', '"Wort"'),
            r"interval tiers are 'Wort', 'phones' \(expected one named 'words'\)",
        ),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, name, content, message):
    with pytest.raises(CorpusError, match=message) as caught:
        read_sidecar(write(tmp_path / name, content))
    assert "\n" not in str(caught.value)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "1.txt")
    with pytest.raises(CorpusError, match=r"not a regular file \(expected a transcript or word"):
        read_sidecar(tmp_path / "1.txt")


def test_timed_words_are_in_the_order_of_speech(tmp_path):
    sidecar = read_sidecar(write(tmp_path / "1.ctm", "a 1 2 1 two\na 1 0 1 one\n"))
    assert sidecar.words == (TimedWord("one", 0.0, 1.0), TimedWord("two", 2.0, 3.0))


@pytest.mark.parametrize("line", ["<a" * 80_000, "[" * 80_000, " " * 80_000 + "x"])
def test_a_hostile_line_takes_no_time(tmp_path, line):
    """Patterns that looked for an end beyond the next start took minutes."""
    path = tmp_path / "x.srt"
    path.write_text(f"1\n00:00:00,000 --> 00:00:01,000\n{line}\n")
    start = time.process_time()
    read_sidecar(path)
    assert time.process_time() - start < 2
