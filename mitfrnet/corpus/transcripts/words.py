"""Finds timed words in a transcript, and gives words times."""

import difflib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

# Kana and Han are written without spaces between words. Each character counts as a word.
_CJK = r"\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_ALONE = re.compile(f"[{_CJK}]")
_PIECE = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+")
# No space is written beside these: the above, their punctuation and wide forms.
_WIDE = re.compile(rf"[{_CJK}\u3000-\u303f\uff00-\uffef]")

# With more units than this, difflib ignores frequent ones (`autojunk`): otherwise its time grows
# with up to the cube of their number, to 20 s for 2,000, for little gain.
_MAX_EXACT_UNITS = 500


@dataclass(frozen=True, slots=True)  # there may be many millions
class TimedWord:
    """A word of an aligner or a subtitle file, with times in seconds from the file's start."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)  # there may be many millions
class Word:
    """A word's place in the transcript, and its time in seconds from the utterance's start."""

    char_start: int
    char_end: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Transcript:
    """What is said in a clip.

    Attributes:
        text: may be empty.
        words: when each word is spoken; None if unknown.
        source: `given`, a kind of file, or `asr`; None without a transcript.
    """

    text: str = ""
    words: tuple[Word, ...] | None = None
    source: str | None = None


def spread(text: str, start_s: float, end_s: float) -> list[TimedWord]:
    """Return the words of a text with times, given only the time of the whole text.

    The time is shared by the number of characters. Words are separated by spaces; in Chinese and
    Japanese each character is a word.
    """
    pieces = list(_PIECE.finditer(text))
    if not pieces:
        return []
    first, last = pieces[0].start(), pieces[-1].end()

    def time(character: int) -> float:
        share = (character - first) / (last - first)
        # start + share * duration could miss the end by a rounding error.
        return start_s * (1 - share) + end_s * share

    return [TimedWord(p[0], time(p.start()), time(p.end())) for p in pieces]


def join_words(words: Sequence[str]) -> str:
    """Return words as running text, with spaces between them except in Chinese and Japanese."""
    text = ""
    for word in filter(None, (w.strip() for w in words)):
        together = not text or _WIDE.match(text[-1]) or _WIDE.match(word[0])
        text += word if together else f" {word}"
    return text


def place_words(transcript: str, timed: Sequence[TimedWord]) -> tuple[Word, ...]:
    """Return the timed words that occur in the transcript, each with its place there.

    Both sides are compared unit by unit (a run of letters and digits, or one Chinese or Japanese
    character), in order, ignoring case, punctuation and how Unicode composes a character. Where
    the units differ ("don't", "dont", "do n't") the characters decide. Words that do not occur,
    such as marks of silence, are skipped.

    Args:
        transcript: what is said.
        timed: words in the order of speech.

    Returns:
        Words in the order of speech. Places are indices into the string, as of fast tokenizers.
    """
    ours = list(_units(transcript))
    theirs: list[_Unit] = []
    spoken_by: list[int] = []  # the word of each of their units
    for i, word in enumerate(timed):
        units = list(_units(word.text))
        theirs += units
        spoken_by += [i] * len(units)

    places: dict[int, tuple[int, int]] = {}
    for our_block, their_block in _matches([u.text for u in ours], [u.text for u in theirs]):
        at = [place for unit in ours[our_block] for place in unit.places]
        by = [
            i
            for unit, i in zip(theirs[their_block], spoken_by[their_block], strict=True)
            for _ in unit.text
        ]
        for i, (start, end) in zip(by, at, strict=True):
            places[i] = (places.get(i, (start, end))[0], end)
    return tuple(
        Word(*places[i], word.start_s, word.end_s) for i, word in enumerate(timed) if i in places
    )


@dataclass(frozen=True)
class _Unit:
    """A unit of comparison: normalised characters, and the place of each in the string."""

    text: str
    places: tuple[tuple[int, int], ...]


def _units(text: str) -> Iterator[_Unit]:
    run: list[tuple[str, tuple[int, int]]] = []

    def unit() -> _Unit:
        return _Unit("".join(c for c, _ in run), tuple(place for _, place in run))

    for i, character in enumerate(text):
        alone = _ALONE.match(character) is not None
        # Marks, such as accents, belong to the letter before them.
        part = character.isalnum() or (run and unicodedata.category(character).startswith("M"))
        if run and (alone or not part):
            yield unit()
            run.clear()
        if part:
            run += [(c, (i, i + 1)) for c in _normalised(character)]
        if alone:
            yield unit()
            run.clear()
    if run:
        yield unit()


@lru_cache(maxsize=10_000)
def _normalised(character: str) -> str:
    # Decomposed, so that a character does not depend on what follows it.
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())


def _matches(ours: list[str], theirs: list[str]) -> Iterator[tuple[slice, slice]]:
    """Yield ranges of units that spell the same, in order."""
    if "".join(ours) == "".join(theirs):
        yield slice(None), slice(None)
        return
    matcher = difflib.SequenceMatcher(
        None, ours, theirs, autojunk=max(len(ours), len(theirs)) > _MAX_EXACT_UNITS
    )
    for _, i1, i2, j1, j2 in matcher.get_opcodes():
        if "".join(ours[i1:i2]) == "".join(theirs[j1:j2]):
            yield slice(i1, i2), slice(j1, j2)
