"""Read a corpus folder as published: its table of labels, and where each clip lies."""

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mitfrnet.errors import CorpusError
from mitfrnet.metrics import ClassScale, LabelScale
from mitfrnet.modalities import SPLITS

# Files that may stand beside a clip under its own name.
_SIDECARS = {".csv", ".ctm", ".json", ".srt", ".textgrid", ".txt", ".vtt"}


@dataclass(frozen=True)
class LabelledClip:
    """One row of a corpus table.

    Attributes:
        video_id, clip_id: as published, leading zeros kept.
        path: the media file, relative to the corpus folder; None: there is none.
        transcript: what is said; may be empty.
        label: the score, on the corpus's scale; of class labels the index of the class.
        modality_labels: the same, given to single modalities, where the corpus has them.
        split: `train`, `valid` or `test`; None: the corpus does not say.
    """

    video_id: str
    clip_id: str
    path: str | None
    transcript: str
    label: float
    modality_labels: dict[str, float]
    split: str | None

    @property
    def utterance_id(self) -> str:
        """Return `<video_id>/<clip_id>`."""
        return f"{self.video_id}/{self.clip_id}"

    def with_split(self, split: str) -> "LabelledClip":
        """Return the same clip on the given side."""
        return replace(self, split=split)


def read_mmsa(folder: Path, scale: LabelScale) -> list[LabelledClip]:
    """Return the rows of the default layout: `label.csv`, `Raw/<video_id>/<clip_id>.<any>`.

    Columns `video_id, clip_id, text, label` are required; `label_T, label_A, label_V` and `mode`
    are used where present; a label is a number on a `Scale`, a name of a `ClassScale`;
    `annotation` is not read, as published files contradict their own labels.

    Raises:
        CorpusError: the table cannot be used, with its line; or a clip lies outside `folder`.
    """
    table = folder / "label.csv"
    clips: list[LabelledClip] = []
    first_line: dict[str, int] = {}
    files = _ClipFiles(folder)
    for line, row in _read_csv(table, required=["video_id", "clip_id", "text", "label"]):
        where = f"{table}:{line}"
        clip = LabelledClip(
            video_id=_identifier(row, "video_id", where),
            clip_id=_identifier(row, "clip_id", where),
            path=None,
            transcript=row["text"].strip(),
            label=_label(row["label"], "label", scale, where),
            modality_labels={
                modality: _label(row[column], column, scale, where)
                for modality, column in _MODALITY_LABELS.items()
                if row.get(column, "").strip()
            },
            split=_split(row, where),
        )
        if clip.utterance_id in first_line:
            raise CorpusError(
                f"{where}: duplicate id {clip.utterance_id!r}, first used in line "
                f"{first_line[clip.utterance_id]} (every video_id, clip_id pair must be unique)"
            )
        first_line[clip.utterance_id] = line
        clips.append(replace(clip, path=files.find(clip, where)))
    if not clips:
        raise CorpusError(f"{table}: no rows (expected one per clip)")
    return clips


_MODALITY_LABELS = {"text": "label_T", "acoustic": "label_A", "visual": "label_V"}

LAYOUTS: dict[str, Callable[[Path, LabelScale], list[LabelledClip]]] = {"mmsa": read_mmsa}


def _read_csv(path: Path, required: list[str]) -> list[tuple[int, dict[str, str]]]:
    """Return the rows with the line each one ends on."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="", restkey="", strict=True)
            columns = reader.fieldnames or []
            absent = [name for name in required if name not in columns]
            if absent:
                raise CorpusError(
                    f"{path}: missing column {', '.join(absent)} "
                    f"(found: {', '.join(columns) or 'none'}; required: {', '.join(required)})"
                )
            return [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror} (expected the table of labels)") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: byte {error.start} is not UTF-8 (save it as UTF-8)") from error
    except csv.Error as error:
        raise CorpusError(f"{path}: not a CSV file ({error})") from error


def _identifier(row: dict[str, str], column: str, where: str) -> str:
    value = row[column].strip()
    if not value or value in {".", ".."} or any(c in value for c in '/\\"\0\n'):
        raise CorpusError(
            f"{where}: {column} is {value!r} (expected a file name: not empty, "
            "no slash, not leaving the corpus folder)"
        )
    return value


def _label(text: str, column: str, scale: LabelScale, where: str) -> float:
    if isinstance(scale, ClassScale):
        if text.strip() not in scale.classes:
            raise CorpusError(
                f"{where}: {column} is {text.strip()!r}, no class of this corpus "
                f"(expected {', '.join(scale.classes)})"
            )
        return float(scale.classes.index(text.strip()))
    expected = f"expected a number in [{scale.low:g}, {scale.high:g}]"
    try:
        value = float(text)
    except ValueError:
        raise CorpusError(f"{where}: {column} is {text!r}, not a number ({expected})") from None
    if not (math.isfinite(value) and scale.low <= value <= scale.high):
        raise CorpusError(f"{where}: {column} is {text.strip()}, out of scale ({expected})")
    return value


def _split(row: dict[str, str], where: str) -> str | None:
    if "mode" not in row:
        return None
    if row["mode"] not in SPLITS:
        raise CorpusError(f"{where}: mode is {row['mode']!r} (expected {', '.join(SPLITS)})")
    return row["mode"]


class _ClipFiles:
    """Finds `Raw/<video_id>/<clip_id>.<any container>`, listing each folder once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._inside = folder.resolve()
        self._listed: dict[str, dict[str, list[Path]]] = {}

    def find(self, clip: LabelledClip, where: str) -> str | None:
        """Return the path relative to the corpus folder, or None where there is no file."""
        found = self._in_video(clip.video_id).get(clip.clip_id, [])
        if len(found) > 1:
            names = ", ".join(str(p.relative_to(self._folder)) for p in found)
            raise CorpusError(f"{where}: several files for {clip.utterance_id}: {names} (keep one)")
        if not found:
            return None
        try:
            inside = found[0].resolve().is_relative_to(self._inside)
        except (OSError, RuntimeError):  # a link to itself; the probe gives the reason
            inside = True
        if not inside:
            raise CorpusError(
                f"{where}: {found[0].relative_to(self._folder)} leads out of the corpus folder "
                "(expected a file inside it)"
            )
        return found[0].relative_to(self._folder).as_posix()

    def _in_video(self, video_id: str) -> dict[str, list[Path]]:
        if video_id not in self._listed:
            by_stem: dict[str, list[Path]] = {}
            folder = self._folder / "Raw" / video_id
            for path in sorted(folder.iterdir()) if folder.is_dir() else []:
                if path.suffix.lower() not in _SIDECARS and not path.name.startswith("."):
                    by_stem.setdefault(path.stem, []).append(path)
            self._listed[video_id] = by_stem
        return self._listed[video_id]
