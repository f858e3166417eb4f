"""Reads transcripts and word times as other tools write them.

No library reads the subtitles and Praat files: pysubs2 1.8 takes notes and names in WebVTT for
speech, praatio 6.2 accepts truncated files, and neither names the line of an error.
"""

import codecs
import html
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mitfrnet.corpus.tables import check_file
from mitfrnet.corpus.transcripts.words import TimedWord, join_words, spread
from mitfrnet.errors import CorpusError

# The words of a day of speech take less.
_MAX_BYTES = 64 * 2**20

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}

# What aligners write for silence, as well as anything in `<>`, `{}` or `[]`.
_SILENCE = frozenset(["", "sp", "sil", "spn", "nsn", "silence", "#", "_", "-"])
_MARK = re.compile(r"<[^>]*>|\{[^}]*\}|\[[^\]]*\]")


@dataclass(frozen=True)
class Sidecar:
    """The content of a file beside a clip.

    Attributes:
        transcript: text of the whole file.
        words: words in the order of speech, with times in the media file; None if the sidecar
            has no times.
    """

    transcript: str
    words: tuple[TimedWord, ...] | None


def read_sidecar(path: Path, encoding: str = "utf-8") -> Sidecar:
    """Return the content of a sidecar.

    Its ending, in upper or lower case, selects the format:

    - `.txt`: a transcript.
    - `.TextGrid`, of Praat and the Montreal Forced Aligner: the tier `words`, or the only
      interval tier.
    - `.ctm`, of NIST.
    - `.json`: see `_words_of_json`.
    - `.srt` and `.vtt`: subtitles, without markup, names of speakers and notes on sounds.

    The time of an interval or cue is shared among its words by their length. Marks of silence
    are skipped.

    Args:
        path: a regular file.
        encoding: of text without a byte order mark.

    Raises:
        CorpusError: the file is absent, too large, of another format, or broken.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise CorpusError(f"{path}: unknown kind of file (expected {', '.join(KINDS)})")
    return reader(_read_text(path, encoding), path)


def _read_text(path: Path, encoding: str) -> str:
    check_file(path, "a transcript or word times", _MAX_BYTES)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror} (expected a readable file)") from error
    for mark, marked_encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            content, encoding = content.removeprefix(mark), marked_encoding
            break
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CorpusError(
            f"{path}:{line}: byte {content[error.start]:#04x} is not {encoding} (save the file as "
            "UTF-8, or set `encoding` of the corpus, e.g. cp1252)"
        ) from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    before, nul, _ = text.partition("\0")
    if nul:
        line = before.count("\n") + 1
        raise CorpusError(
            f"{path}:{line}: a NUL character (expected text; UTF-16 needs a byte order mark)"
        )
    return text


def _seconds(value: Any, what: str, where: str) -> float:
    try:
        time = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        time = math.nan
    if not (math.isfinite(time) and time >= 0):
        raise CorpusError(f"{where}: {what} is {value!r:.40} (expected seconds, 0 or more)")
    return time


def _timed(text: str, start: Any, end: Any, where: str) -> list[TimedWord]:
    """Return the words of an interval, sharing its time; none for a mark of silence."""
    start_s, end_s = _seconds(start, "start", where), _seconds(end, "end", where)
    if end_s < start_s:
        raise CorpusError(f"{where}: end {end_s:g} is before start {start_s:g} (expected after)")
    if text.strip().lower() in _SILENCE or _MARK.fullmatch(text.strip()):
        return []
    return spread(text, start_s, end_s)


def _spoken(words: Iterable[TimedWord], transcript: str = "") -> Sidecar:
    """Return a sidecar of these words in the order of speech; they make up a missing transcript."""
    ordered = tuple(sorted(words, key=lambda w: (w.start_s, w.end_s)))
    return Sidecar(transcript or join_words([w.text for w in ordered]), ordered)


def _read_txt(text: str, path: Path) -> Sidecar:
    return Sidecar(join_words(text.split("\n")), None)


# Praat reads strings, free-standing numbers and flags and ignores everything else, so one reader
# handles the long and the short form. An unclosed string runs to the end of the file.
_PRAAT = re.compile(
    r'"(?P<string>[^"]*(?:""[^"]*)*)(?P<closed>"|\Z)'
    r"|(?<!\S)(?:(?P<number>[-+]?[\d.]+(?:[eE][-+]?\d+)?)|(?P<flag><\w+>))(?!\S)|(?<!\S)![^\n]*"
)


class _PraatText:
    """The values of a Praat file, one after another."""

    def __init__(self, text: str, path: Path) -> None:
        self._text, self._path = text, path
        self._values = (m for m in _PRAAT.finditer(text) if m.lastgroup is not None)
        self._position, self._line = 0, 1

    @property
    def where(self) -> str:
        """Return the path with the line of the last value."""
        return f"{self._path}:{self._line}"

    def next(self, kind: str, what: str) -> str:
        """Return the next value.

        Raises:
            CorpusError: it is of another kind, or the file ends.
        """
        match = next(self._values, None)
        before, self._position = self._position, match.start() if match else len(self._text)
        self._line += self._text.count("\n", before, self._position)
        value = match[kind] if match else None
        if match is None or value is None or match["closed"] == "":
            text = "the end of the file" if match is None else f"{match[0]:.40}"
            raise CorpusError(f"{self.where}: {text} (expected {what} of a TextGrid)")
        return value.replace('""', '"')


def _read_textgrid(text: str, path: Path) -> Sidecar:
    values = _PraatText(text, path)
    for expected in ("ooTextFile", "TextGrid"):  # old files have `ooTextFile short`
        if not values.next("string", f"{expected!r}").startswith(expected):
            raise CorpusError(f"{values.where}: not a TextGrid saved as text (expected {expected})")
    values.next("number", "its start")
    values.next("number", "its end")
    values.next("flag", "<exists>")
    tiers: list[tuple[str, list[TimedWord]]] = []
    for _ in range(_count(values, "tiers")):
        kind = values.next("string", "the class of a tier")
        name = values.next("string", "the name of a tier")
        values.next("number", "the start of a tier")
        values.next("number", "the end of a tier")
        words: list[TimedWord] = []
        for _ in range(_count(values, "intervals or points")):
            start = values.next("number", "a time")
            if kind == "IntervalTier":
                end = values.next("number", "a time")
                label = values.next("string", "a label")
                words += _timed(label, start, end, values.where)
            else:
                values.next("string", "a label")
        if kind == "IntervalTier":
            tiers.append((name, words))
    return _spoken(_word_tier(tiers, path))


def _count(values: _PraatText, what: str) -> int:
    number = values.next("number", f"the number of {what}")
    if not number.isdecimal() or len(number) > 9:
        raise CorpusError(f"{values.where}: {number} (expected the number of {what})")
    return int(number)


def _word_tier(tiers: list[tuple[str, Any]], path: Path) -> Any:
    """Return the tier of words among the interval tiers, or the only tier.

    Aligners of several speakers name it `Ann - words`.

    Raises:
        CorpusError: there is not exactly one.
    """
    of_words = [tier for name, tier in tiers if re.search(r"\bwords?$", name.strip().lower())]
    candidates = of_words or [tier for _, tier in tiers]
    if len(candidates) != 1:
        names = ", ".join(repr(name) for name, _ in tiers) or "none"
        raise CorpusError(f"{path}: interval tiers are {names} (expected one named 'words')")
    return candidates[0]


def _read_ctm(text: str, path: Path) -> Sidecar:
    words: list[TimedWord] = []
    recordings = set()
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.split()
        if not fields or line.startswith(";;"):
            continue
        where = f"{path}:{number}"
        if len(fields) < 5:
            raise CorpusError(
                f"{where}: {line.strip()!r:.60} (expected: file channel start duration word)"
            )
        start = _seconds(fields[2], "start", where)
        words += _timed(fields[4], start, start + _seconds(fields[3], "duration", where), where)
        recordings.add(fields[0])
    if len(recordings) > 1:
        raise CorpusError(
            f"{path}: words of {len(recordings)} files, such as {min(recordings)} and "
            f"{max(recordings)} (expected one file per clip)"
        )
    return _spoken(words)


def _read_json(text: str, path: Path) -> Sidecar:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise CorpusError(f"{path}:{error.lineno}: not JSON ({error.msg})") from error
    except (ValueError, RecursionError) as error:  # numbers too long, lists too deep
        raise CorpusError(f"{path}: cannot be read as JSON ({error})") from error
    words, texts = _words_of_json(data, path)
    whole = [data.get(key) for key in ("transcript", "text")] if isinstance(data, dict) else []
    transcript = next((t for t in whole if isinstance(t, str) and t.strip()), "")
    return _spoken(words, transcript.strip() or join_words(texts))


def _words_of_json(data: Any, path: Path) -> tuple[list[TimedWord], list[str]]:
    """Return the words with times, and the texts of all words.

    Two forms are read. Whisper, WhisperX, Vosk and Gentle write a list of objects with `start`,
    `end` and one of `word`, `text` and `label`; the list may lie under `words`, `result` or
    `segments`, and segments may have `words` of their own. The Montreal Forced Aligner writes
    `tiers`, in which a word is a list of start, end and label.

    A word that an aligner left without times counts for the text alone.
    """
    if isinstance(data, dict) and isinstance(data.get("tiers"), dict):
        tiers = [(name, tier) for name, tier in data["tiers"].items() if _is_interval_tier(tier)]
        entries = _word_tier(tiers, path)["entries"]
        items: Any = [dict(zip(("start", "end", "label"), e, strict=False)) for e in entries]
    elif isinstance(data, dict):
        items = next((data[k] for k in ("words", "result", "segments") if k in data), None)
    else:
        items = data
    if not isinstance(items, list):
        raise CorpusError(
            f"{path}: no list of words (expected objects with word, start and end; if the "
            "transcripts lie elsewhere, set `sidecars` of the corpus)"
        )
    parts: list[Any] = []
    for item in items:
        inner = item.get("words") if isinstance(item, dict) else None
        parts += inner if isinstance(inner, list) and inner else [item]
    words: list[TimedWord] = []
    texts: list[str] = []
    for i, part in enumerate(parts, start=1):
        fields = part if isinstance(part, dict) else {}
        text = next((fields[k] for k in ("word", "text", "label") if k in fields), None)
        where = f"{path}: word {i}"
        if not isinstance(text, str):
            raise CorpusError(f"{where} is {part!r:.60} (expected an object with word, start, end)")
        start, end = fields.get("start"), fields.get("end")
        untimed = start is None and end is None
        timed = [] if untimed else _timed(text, start, end, where)
        words += timed
        if untimed or timed:
            texts.append(text)
    return words, texts


def _is_interval_tier(tier: Any) -> bool:
    return (
        isinstance(tier, dict)
        and tier.get("type") == "interval"
        and isinstance(tier.get("entries"), list)
        and all(isinstance(entry, list) for entry in tier["entries"])
    )


_CLOCK = r"(?:(?:\d+):)?\d{1,2}:\d{1,2}[.,]\d{1,3}"
_CUE_TIMES = re.compile(rf"\s*({_CLOCK})\s*-->\s*({_CLOCK})(?:\s.*)?")
_INNER_TIME = re.compile(rf"<({_CLOCK})>")

# No pattern looks for an end beyond the next start: that would take forever on "<a<a<a".
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_NOT_SPEECH = re.compile(r"\[[^\[\]]*\]|\{[^{}]*\}|[\u266a\u266b]|^\s*\([^)]*\)\s*$")
_NEW_SPEAKER = re.compile(r"^\s*(?:-|\u2013|>>)\s*")


def _read_srt(text: str, path: Path) -> Sidecar:
    # As in most players, a line of spaces ends a cue; in WebVTT it belongs to the cue.
    return _spoken(_cues(_blocks("\n".join(line.rstrip(" \t") for line in text.split("\n"))), path))


def _read_vtt(text: str, path: Path) -> Sidecar:
    blocks = _blocks(text)
    if not text.startswith("WEBVTT"):
        raise CorpusError(f"{path}:1: not WebVTT (expected WEBVTT as the first word)")
    next(blocks)  # the header
    other = re.compile(r"(NOTE|STYLE|REGION)\b(?!.*-->)")
    return _spoken(_cues((b for b in blocks if not other.match(b[1][0])), path))


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each block of lines between empty lines, with the number of its first line."""
    block: list[str] = []
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        if line:
            block.append(line)
            continue
        if any(map(str.strip, block)):
            yield number - len(block), block
        block = []


def _cues(blocks: Iterable[tuple[int, list[str]]], path: Path) -> Iterator[TimedWord]:
    """Yield the words of subtitles. A block has an optional name, then its times, then text.

    Rolling captions, which have times inside their text, repeat the line before; the repetition
    is skipped.
    """
    shown: list[str] = []
    rolling = False
    for number, lines in blocks:
        at = next((i for i, line in enumerate(lines[:2]) if "-->" in line), None)
        times = None if at is None else _CUE_TIMES.fullmatch(lines[at])
        if at is None or times is None:
            raise CorpusError(
                f"{path}:{number + (at or 0)}: {lines[at or 0].strip()!r:.60} "
                "(expected the times of a cue, e.g. 00:00:01,500 --> 00:00:02,000)"
            )
        said = [_speech(line) for line in lines[at + 1 :]]
        rolling = rolling or any(_INNER_TIME.search(line) for line in said)
        plain = [_INNER_TIME.sub("", line).strip() for line in said]
        fresh = [line for line, p in zip(said, plain, strict=True) if not (rolling and p in shown)]
        shown = plain
        # Times and texts alternate.
        parts = [times[1], *_INNER_TIME.split(" ".join(fresh)), times[2]]
        for start, text, end in zip(parts[::2], parts[1::2], parts[2::2], strict=False):
            span = (_clock(start), _clock(end))
            yield from _timed(html.unescape(text), *span, f"{path}:{number + at}")


def _speech(line: str) -> str:
    """Return a line of a subtitle without markup, speaker's name and notes on sounds.

    Notes stand in brackets, or in parentheses on a line of their own; names are in capitals.
    """
    line = _NEW_SPEAKER.sub("", _NOT_SPEECH.sub("", _TAG.sub("", line)))
    name, colon, said = line.partition(": ")
    return said if colon and name.isupper() and len(name) <= 30 else line


def _clock(time: str) -> float:
    """Return `[hours:]minutes:seconds.fraction` in seconds."""
    seconds = 0.0
    for part in time.replace(",", ".").split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


# By ending, in order of preference.
_READERS: dict[str, Callable[[str, Path], Sidecar]] = {
    ".txt": _read_txt,
    ".textgrid": _read_textgrid,
    ".ctm": _read_ctm,
    ".json": _read_json,
    ".srt": _read_srt,
    ".vtt": _read_vtt,
}

KINDS = tuple(_READERS)
