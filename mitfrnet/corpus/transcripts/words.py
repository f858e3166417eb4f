"""When each word of a transcript is spoken."""

import difflib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

# Scripts without spaces between words: kana and Han. Each character counts as a word.
_CJK = r"\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_ALONE = re.compile(f"[{_CJK}]")
_PIECE = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+")
# No space is written beside these either: the above, with their punctuation and wide forms.
_WIDE = re.compile(rf"[{_CJK}\u3000-\u303f\uff00-\uffef]")

# With more units than this, difflib no longer anchors on those that are too frequent: it takes
# up to the cube of their number, 20 s for 2,000, and little is found that way.
_MAX_EXACT_UNITS = 500


@dataclass(frozen=True, slots=True)  # there may be many millions, as of the next
class TimedWord:
    """A word as an aligner or a subtitle file gives it; seconds from the start of its file."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
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
        words: when each word is spoken; None: not known.
        source: `given`, a kind of file, or `asr`; None: there is no transcript.
    """

    text: str = ""
    words: tuple[Word, ...] | None = None
    source: str | None = None


def spread(text: str, start_s: float, end_s: float) -> list[TimedWord]:
    """Return the words of a text of which only the whole's time is known.

    Each takes the part of the time that its characters are of the text. Words stand between
    spaces; of Chinese and Japanese each character is one.
    """
    pieces = list(_PIECE.finditer(text))
    if not pieces:
        return []
    first, last = pieces[0].start(), pieces[-1].end()

    def time(character: int) -> float:
        share = (character - first) / (last - first)
        # Not start + share * duration, which may miss the end by a rounding.
        return start_s * (1 - share) + end_s * share

    return [TimedWord(p[0], time(p.start()), time(p.end())) for p in pieces]


def join_words(words: Sequence[str]) -> str:
    """Return words as running text: spaces between them, but for Chinese and Japanese."""
    text = ""
    for word in filter(None, (w.strip() for w in words)):
        together = not text or _WIDE.match(text[-1]) or _WIDE.match(word[0])
        text += word if together else f" {word}"
    return text


def place_words(transcript: str, timed: Sequence[TimedWord]) -> tuple[Word, ...]:
    """Return the timed words that are found in the transcript, each at its place.

    Both sides are compared unit by unit (a run of letters and digits, or one Chinese or
    Japanese character), in the same order, without regard to case, punctuation or how Unicode
    composes a character. Where the cut into units differs ("don't", "dont", "do n't") the
    characters decide. Words that are not found, such as marks of silence, are left out.

    Args:
        transcript: what is said.
        timed: words in the order in which they are spoken.

    Returns:
        Words in that order. Places are indices into the string, as fast tokenizers give them.
    """
    ours = list(_units(transcript))
    theirs: list[_Unit] = []
    spoken_by: list[int] = []  # the word that each of their units is from
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
    """What is compared: normalised characters, and where in the string each of them stands."""

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
    # Decomposed, so that each character can be seen alone whatever follows it.
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())


def _matches(ours: list[str], theirs: list[str]) -> Iterator[tuple[slice, slice]]:
    """Yield stretches of units that spell the same, in order."""
    if "".join(ours) == "".join(theirs):
        yield slice(None), slice(None)
        return
    matcher = difflib.SequenceMatcher(
        None, ours, theirs, autojunk=max(len(ours), len(theirs)) > _MAX_EXACT_UNITS
    )
    for _, i1, i2, j1, j2 in matcher.get_opcodes():
        if "".join(ours[i1:i2]) == "".join(theirs[j1:j2]):
            yield slice(i1, i2), slice(j1, j2)
