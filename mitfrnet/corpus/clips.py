"""What layout readers return, and how all of them parse the values of a table."""

import math
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mitfrnet.corpus.transcripts.words import Word
from mitfrnet.errors import CorpusError
from mitfrnet.labels import ClassScale, LabelScale, Scale
from mitfrnet.modalities import SPLITS

# `minutes:seconds` or `hours:minutes:seconds`, with a point or, as in subtitles, a comma.
_CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,4}):(\d{1,2}(?:[.,]\d{1,9})?)", re.ASCII)

_NOT_IN_NAMES = re.compile(r'[/\\"\x00-\x1f\x7f\ud800-\udfff]')
_MAX_NAME_BYTES = 255  # the limit of common file systems

# In a folder without a table, only these endings tell clips from other files.
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
        where: its line in a table, e.g. `raw/mine/label.csv:12`, or its file.
        video_id, clip_id: as published, with leading zeros.
        path: the media file, relative to the folder of clips; None if there is no file.
        stem: path of the clip's files without ending, relative to the corpus folder; None if
            unknown.
        transcript: what is said; may be empty.
        transcript_source: `table`, or the kind of file it is from; None without a transcript.
        words: when each word is spoken; None if unknown.
        label: the score, or the index of the class; None in an unlabelled corpus.
        modality_labels: labels of single modalities, if the corpus has them.
        split: `train`, `valid` or `test`; None if the corpus does not say.
        group: a drawn split keeps the clips of one group together; None: those of one video.
        start_s: start of the utterance in the file, in seconds; None: the file's start.
        end_s: end of the utterance in the file, in seconds; None: the file's end.
        digest: digest of the stored features in layout `features`; None: the digest is taken
            from the media file when it is probed.
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
        """Return the group that a drawn split keeps together."""
        return self.video_id if self.group is None else self.group


class Problems:
    """What is wrong with a corpus, a line each: where, what, and what would be right.

    Attributes:
        errors: the corpus cannot be used until they are fixed.
        warnings: the corpus can be used, but they deserve a look.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Add a `CorpusError` raised in the block to the errors, and go on after the block."""
        try:
            yield
        except CorpusError as error:
            self.errors.append(str(error))

    def raise_errors(self, folder: Path) -> None:
        """Raise the first error, with the count of the others.

        Raises:
            CorpusError: there is an error.
        """
        if self.errors:
            others = len(self.errors) - 1
            more = f"; and {others} more error{'s' * (others > 1)}" if others else ""
            hint = f" (mitfrnet validate {folder} lists them)" if others else ""
            raise CorpusError(f"{self.errors[0]}{more}{hint}")


def unique(clips: Iterable[LabelledClip], problems: Problems) -> list[LabelledClip]:
    """Return the first clip of each utterance id; the others are errors."""
    clip_by_id: dict[str, LabelledClip] = {}
    for clip in clips:
        first = clip_by_id.setdefault(clip.utterance_id, clip)
        if first is not clip:
            problems.errors.append(
                f"{clip.where}: duplicate id {clip.utterance_id!r}, first used in "
                f"{_place(first.where)} (every video_id, clip_id pair must be unique)"
            )
    return list(clip_by_id.values())


def _place(where: str) -> str:
    file, _, line = where.rpartition(":")
    return f"line {line}" if file and line.isdecimal() else where


def identifier(value: str, column: str, where: str) -> str:
    """Return an id without blanks around it; ids become parts of paths.

    Raises:
        CorpusError: it is empty, or cannot be a file name.
    """
    value = value.strip()
    # File names that are not UTF-8 arrive with surrogates, which no table can hold.
    too_long = len(value.encode(errors="surrogatepass")) > _MAX_NAME_BYTES
    if too_long or _NOT_IN_NAMES.search(value) or value in {"", ".", ".."}:
        raise CorpusError(
            f"{where}: {column} is {value[:60]!r} (expected a file name: not empty, "
            "no slash, UTF-8, not leaving the corpus folder)"
        )
    return value


def ids_of_path(stem: str, folder: Path) -> tuple[str, str]:
    """Return the `video_id` and `clip_id` of a file whose table does not name them.

    The video is the folders above the file, joined by `-`; without any, the corpus folder's name.
    The clip is the file's name without ending.

    Args:
        stem: path without ending, relative to the corpus folder.
        folder: the corpus.
    """
    *parents, name = PurePosixPath(stem).parts
    return "-".join(parents) or folder.name, name


def stem_of(path: str) -> str:
    """Return a path without its ending."""
    return os.path.splitext(path)[0]


def label_of(text: str, column: str, scale: LabelScale, where: str) -> float:
    """Return a label as a number on `scale`, or as the index of its class.

    Raises:
        CorpusError: it is not a number on the scale, or not one of the classes.
    """
    if isinstance(scale, ClassScale):
        if text.strip() not in scale.classes:
            raise CorpusError(
                f"{where}: {column} is {text.strip()[:60]!r}, not a class of this corpus "
                f"(expected {', '.join(scale.classes)})"
            )
        return float(scale.classes.index(text.strip()))
    try:
        value = float(text.replace("_", "?"))  # float reads 1_5 as 15
    except ValueError:
        raise CorpusError(
            f"{where}: {column} is {text[:60]!r}, not a number ({_expected(scale)})"
        ) from None
    return score_of(value, column, scale, where)


def score_of(value: float, column: str, scale: Scale, where: str) -> float:
    """Return a score after checking that it lies on `scale`.

    Raises:
        CorpusError: it does not, or is NaN or infinite.
    """
    if not (math.isfinite(value) and scale.low <= value <= scale.high):
        raise CorpusError(f"{where}: {column} is {value:g}, out of scale ({_expected(scale)})")
    return value


def _expected(scale: Scale) -> str:
    return f"expected a number in [{scale.low:g}, {scale.high:g}]"


def split_of(value: str, column: str, where: str, names: dict[str, str] | None = None) -> str:
    """Return the split of a row.

    Args:
        value: the table's name of the split.
        column: name of the column.
        where: the line of the table.
        names: the table's name of each split; None: our own names.

    Raises:
        CorpusError: the name is unknown.
    """
    names = names or {split: split for split in SPLITS}
    for split, name in names.items():
        if name == value.strip():
            return split
    raise CorpusError(f"{where}: {column} is {value[:60]!r} (expected {', '.join(names.values())})")


def segment_of(
    start: str, end: str, columns: tuple[str, str], where: str
) -> tuple[float | None, float | None]:
    """Return start and end of an utterance in its file, in seconds; None for an empty time.

    Raises:
        CorpusError: a time is not a number or negative, or the end is not after the start.
    """
    start_s, end_s = _seconds(start, columns[0], where), _seconds(end, columns[1], where)
    if end_s is not None and end_s <= (start_s or 0.0):
        raise CorpusError(
            f"{where}: {columns[1]} is {end_s:g} and {columns[0]} is {start_s or 0.0:g} "
            "(expected an end after the start)"
        )
    return start_s, end_s


def _seconds(text: str, column: str, where: str) -> float | None:
    """Return a time in seconds, from seconds or a clock time; None if empty."""
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
    """Return a path pattern with the names in braces replaced by their values in `row`.

    Args:
        pattern: e.g. `{video_id}/{clip_id}.mp4`.
        row: values by name.
        key: the key of params.yaml that holds the pattern.
        where: the line of the table.

    Raises:
        CorpusError: a name in braces is not in `row`.
    """

    def value(match: "re.Match[str]") -> str:
        if match[1] not in row:
            raise CorpusError(
                f"{where}: {key} is {pattern!r}, but there is no {match[1]!r} "
                f"(expected one of {', '.join(row)})"
            )
        return row[match[1]].strip()

    return re.sub(r"\{([^{}]*)\}", value, pattern)
