"""What readers of corpora return, and the checks that all of them share."""

import math
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from mitfrnet.corpus.transcripts.words import Word
from mitfrnet.errors import CorpusError
from mitfrnet.labels import ClassScale, LabelScale, Scale
from mitfrnet.modalities import SPLITS

# `minutes:seconds` or `hours:minutes:seconds`, the fraction with a point or, as subtitles have it,
# a comma.
_CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,4}):(\d{1,2}(?:[.,]\d{1,9})?)", re.ASCII)

_NOT_IN_NAMES = re.compile(r'[/\\"\x00-\x1f\x7f\ud800-\udfff]')
_MAX_NAME_BYTES = 255  # of a file, in the file systems in use

# Files that may stand beside a clip under its own name.
SIDECARS = (".txt", ".textgrid", ".ctm", ".json", ".srt", ".vtt", ".csv")


# By name alone: in a folder without a table nothing else says what is meant to be a clip.
MEDIA_ENDINGS = frozenset(
    """
    .3gp .aac .asf .avi .flac .flv .m2ts .m4a .m4v .mkv .mov .mp3 .mp4 .mpeg .mpg .mts .oga .ogg
    .ogv .ts .wav .webm .wma .wmv
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)  # there may be a million
class LabelledClip:
    """One utterance as a corpus describes it.

    Attributes:
        where: the line of the table it is from, e.g. `raw/mine/label.csv:12`, or its file.
        video_id, clip_id: as published, leading zeros kept.
        path: the media file, relative to the corpus folder; None: there is none.
        stem: where the clip's files lie, relative to the corpus folder, without ending; None:
            nobody knows.
        transcript: what is said; may be empty.
        transcript_source: `table`, or the kind of file it is from; None: there is none.
        words: when each word is spoken; None: nobody says.
        label: the score, on the corpus's scale; of class labels the index of the class; None in
            a corpus without labels.
        modality_labels: the same, given to single modalities, where the corpus has them.
        split: `train`, `valid` or `test`; None: the corpus does not say.
        group: clips of one group stay on one side of a drawn split; None: those of a video do.
        start_s: where the utterance starts in the file, in seconds; None: at its start.
        end_s: where it ends; None: at the end of the file.
        digest: of what is stored for it, in a corpus of features; None: clips have theirs taken
            when they are probed.
    """

    where: str
    video_id: str
    clip_id: str
    path: str | None = None
    stem: str | None = None
    transcript: str = ""
    transcript_source: str | None = None
    words: tuple[Word, ...] | None = None
    label: float | None = None
    modality_labels: dict[str, float] = field(default_factory=dict)
    split: str | None = None
    group: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    digest: str | None = None

    @property
    def utterance_id(self) -> str:
        """Return `<video_id>/<clip_id>`."""
        return f"{self.video_id}/{self.clip_id}"

    @property
    def split_group(self) -> str:
        """Return the name of what stays on one side of a drawn split."""
        return self.video_id if self.group is None else self.group

    def with_split(self, split: str) -> "LabelledClip":
        """Return the same clip on the given side."""
        return replace(self, split=split)

    def with_transcript(
        self, transcript: str, source: str, words: tuple[Word, ...] | None
    ) -> "LabelledClip":
        """Return the same clip with another transcript."""
        return replace(self, transcript=transcript, transcript_source=source, words=words)


class Problems:
    """What is wrong with a corpus, in lines that each say where, what, and what would be right.

    Attributes:
        errors: the corpus cannot be used before they are mended.
        warnings: it can, but should be looked at.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Note a `CorpusError` of the block as an error, and go on."""
        try:
            yield
        except CorpusError as error:
            self.errors.append(str(error))

    def raise_errors(self, folder: Path) -> None:
        """Raise the first error, with the number of the others.

        Raises:
            CorpusError: there is one.
        """
        if self.errors:
            others = len(self.errors) - 1
            more = f"; and {others} more error{'s' * (others > 1)}" if others else ""
            hint = f" (mitfrnet validate {folder} lists them)" if others else ""
            raise CorpusError(f"{self.errors[0]}{more}{hint}")


def unique(clips: Iterable[LabelledClip], problems: Problems) -> list[LabelledClip]:
    """Return the clips whose utterance id is new, and note the others."""
    first: dict[str, LabelledClip] = {}
    for clip in clips:
        before = first.setdefault(clip.utterance_id, clip)
        if before is not clip:
            problems.errors.append(
                f"{clip.where}: duplicate id {clip.utterance_id!r}, first used in "
                f"{_place(before.where)} (every video_id, clip_id pair must be unique)"
            )
    return list(first.values())


def _place(where: str) -> str:
    file, _, line = where.rpartition(":")
    return f"line {line}" if file and line.isdecimal() else where


def identifier(value: str, column: str, where: str) -> str:
    """Return an id, which becomes part of paths.

    Raises:
        CorpusError: it is empty, or holds what no file name may.
    """
    value = value.strip()
    # Names that are no UTF-8 come from the file system with surrogates, which no table can hold.
    too_long = len(value.encode(errors="surrogatepass")) > _MAX_NAME_BYTES
    if too_long or _NOT_IN_NAMES.search(value) or value in {"", ".", ".."}:
        raise CorpusError(
            f"{where}: {column} is {value[:60]!r} (expected a file name: not empty, "
            "no slash, UTF-8, not leaving the corpus folder)"
        )
    return value


def ids_of_path(stem: str, folder: Path) -> tuple[str, str]:
    """Return the `video_id` and `clip_id` that a file has by its place.

    The folders above it, joined by `-`, are its video, the name of the corpus folder where there
    are none; its own name without ending is its clip.

    Args:
        stem: its path without ending, relative to the corpus folder.
        folder: of the corpus.
    """
    *parents, name = PurePosixPath(stem).parts
    return "-".join(parents) or folder.name, name


def stem_of(path: str) -> str:
    """Return a path without its ending."""
    return os.path.splitext(path)[0]


def label_of(text: str, column: str, scale: LabelScale, where: str) -> float:
    """Return a label as a number on `scale`, or the index of its class.

    Raises:
        CorpusError: it is no such number, or no such class.
    """
    if isinstance(scale, ClassScale):
        if text.strip() not in scale.classes:
            raise CorpusError(
                f"{where}: {column} is {text.strip()[:60]!r}, no class of this corpus "
                f"(expected {', '.join(scale.classes)})"
            )
        return float(scale.classes.index(text.strip()))
    try:
        value = float(text.replace("_", "?"))  # float takes 1_5 for 15
    except ValueError:
        raise CorpusError(
            f"{where}: {column} is {text[:60]!r}, not a number ({_expected(scale)})"
        ) from None
    return score_of(value, column, scale, where)


def score_of(value: float, column: str, scale: Scale, where: str) -> float:
    """Return a label that is a number on `scale`.

    Raises:
        CorpusError: it is not on it.
    """
    if not (math.isfinite(value) and scale.low <= value <= scale.high):
        raise CorpusError(f"{where}: {column} is {value:g}, out of scale ({_expected(scale)})")
    return value


def _expected(scale: Scale) -> str:
    return f"expected a number in [{scale.low:g}, {scale.high:g}]"


def split_of(value: str, column: str, where: str, names: dict[str, str] | None = None) -> str:
    """Return which split a row is of.

    Args:
        value: what the table says.
        column: what the column is called.
        where: the line.
        names: what the table calls each split, where it is not as we do.

    Raises:
        CorpusError: it is none of them.
    """
    names = names or {split: split for split in SPLITS}
    found = next((split for split, name in names.items() if name == value.strip()), None)
    if found is None:
        raise CorpusError(
            f"{where}: {column} is {value[:60]!r} (expected {', '.join(names.values())})"
        )
    return found


def segment_of(
    start: str, end: str, columns: tuple[str, str], where: str
) -> tuple[float | None, float | None]:
    """Return where an utterance starts and ends in its file, in seconds; empty: not said.

    Raises:
        CorpusError: a time is no number, negative, or the end is not after the start.
    """
    times = [_seconds(text, c, where) for text, c in zip((start, end), columns, strict=True)]
    start_s, end_s = times
    if end_s is not None and end_s <= (start_s or 0.0):
        raise CorpusError(
            f"{where}: {columns[1]} is {end_s:g} and {columns[0]} is {start_s or 0.0:g} "
            "(expected an end after the start)"
        )
    return start_s, end_s


def _seconds(text: str, column: str, where: str) -> float | None:
    """Return a time in seconds, of a number of them or a time of the clock; None: empty."""
    text = text.strip()
    if not text:
        return None
    try:
        time = float(text.replace("_", "?"))
    except ValueError:
        clock = _CLOCK.fullmatch(text)
        hours, minutes, seconds = clock.groups(default="0") if clock else ("0", "0", "nan")
        time = 3600 * int(hours) + 60 * int(minutes) + float(seconds.replace(",", "."))
    if not (math.isfinite(time) and time >= 0):
        raise CorpusError(
            f"{where}: {column} is {text[:60]!r} (expected seconds from the video's start, or "
            "hours:minutes:seconds)"
        )
    return time


def fill_pattern(pattern: str, row: dict[str, str], key: str, where: str) -> str:
    """Return a path pattern with the columns of a row in place of their names in braces.

    Args:
        pattern: e.g. `{video_id}/{clip_id}.mp4`.
        row: values by name.
        key: of params.yaml that holds the pattern.
        where: the line.

    Raises:
        CorpusError: a name in braces is no column.
    """

    def value(match: "re.Match[str]") -> str:
        if match[1] not in row:
            raise CorpusError(
                f"{where}: {key} is {pattern!r}, and there is no {match[1]!r} "
                f"(expected of {', '.join(row)})"
            )
        return row[match[1]].strip()

    return re.sub(r"\{([^{}]*)\}", value, pattern)
