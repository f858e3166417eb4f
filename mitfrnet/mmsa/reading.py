"""Feature files of MMSA and MMSA-FET, read utterance by utterance.

Padding is cut off, and steps that cannot have been measured become undetected:

- A row of zeros shows nothing: padding, an interval without a frame, or a frame without a face. At
  the ends it is padding. Inside, or within the length that the file states, it is an undetected
  step.
- A row with NaN or infinity is an undetected step.
- Padding is at the end or in front, which the content of each utterance decides.

MMSA says audio and vision; we say acoustic and visual.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitfrnet.errors import FeatureError
from mitfrnet.mmsa.columns import Columns, are_ids, listed, shown, video_and_clip
from mitfrnet.mmsa.unpickling import load
from mitfrnet.modalities import SPLITS

NAMES = {"acoustic": "audio", "visual": "vision"}
LETTERS = {"text": "T", "acoustic": "A", "visual": "V"}


@dataclass(frozen=True)
class ModalitySteps:
    """One modality of one utterance, without padding.

    Attributes:
        values: float32, (steps, dim); NaN at undetected steps.
        detected: bool, (steps,).
        reason: why the modality is missing and has no steps; None if it is not missing.
    """

    values: NDArray[np.float32]
    detected: NDArray[np.bool_]
    reason: str | None = None


@dataclass(frozen=True)
class MmsaUtterance:
    """One utterance of a file.

    Attributes:
        video_id, clip_id: both are the whole id if it has no `$_$`.
        transcript: may be empty.
        label: the score; in a file without scores, the index of the class.
        modality_labels: labels of single modalities.
        token_ids: int32, (tokens,), without padding.
        text: the file's vectors of the tokens, (tokens, dim); None: it has none.
        acoustic, visual: their steps.
        notes: changes that an import should report.
    """

    video_id: str
    clip_id: str
    transcript: str
    label: float
    modality_labels: dict[str, float]
    token_ids: NDArray[np.int32]
    text: NDArray[np.float32] | None
    acoustic: ModalitySteps
    visual: ModalitySteps
    notes: tuple[str, ...] = ()

    @property
    def utterance_id(self) -> str:
        """Return `<video_id>/<clip_id>`."""
        return f"{self.video_id}/{self.clip_id}"


@dataclass(frozen=True)
class MmsaFile:
    """A feature file; its arrays are read when an utterance is asked for.

    Attributes:
        path: the file.
        splits: `train`, `valid` and `test`.
        aligned: whether all modalities have one step per token.
        task: `regression`, or `classification` if the file has only class labels.
        dims: features per step; for text those of the file's vectors, or None.
        description: of the features, if `mitfrnet.mmsa.write` wrote the file.
    """

    path: Path
    splits: dict[str, "MmsaSplit"]
    aligned: bool
    task: str
    dims: dict[str, int | None]
    description: dict[str, Any] | None


def read(path: Path) -> MmsaFile:
    """Return the feature file at `path`, without running any code in it.

    Raises:
        FeatureError: it is not a feature file, or its parts contradict each other; the message
            names split, key and row.
    """
    path = Path(path)
    content = load(path)
    if not isinstance(content, dict) or any(not isinstance(content.get(s), dict) for s in SPLITS):
        actual = listed(content) if isinstance(content, dict) else type(content).__name__
        raise FeatureError(
            f"{path}: no splits (found: {actual or 'nothing'}; expected a dictionary with "
            f"{', '.join(SPLITS)})"
        )
    splits = {name: MmsaSplit(content[name], f"{path}: {name}") for name in SPLITS}
    places: dict[str, str] = {}
    for name, split in splits.items():
        for row, stored_id in enumerate(split.ids):
            place = f"{name} row {row}"
            first = places.setdefault(split.utterance_id(row), place)
            if first != place:
                raise FeatureError(
                    f"{path}: {place}: id {stored_id!r} is also in {first} (expected every id once)"
                )
    if not places:
        raise FeatureError(f"{path}: no utterances")
    return MmsaFile(
        path=path,
        splits=splits,
        aligned=all(s.aligned for s in splits.values()),
        task=_shared(path, "labels", {n: s.task for n, s in splits.items()}),
        dims={
            m: _shared(path, key, {n: s.dims[m] for n, s in splits.items()})
            for m, key in {"text": "text", **NAMES}.items()
        },
        description=_description(content),
    )


def _shared(path: Path, key: str, by_split: dict[str, Any]) -> Any:
    if len(set(by_split.values())) > 1:
        values = ", ".join(f"{name} {value}" for name, value in by_split.items())
        raise FeatureError(f"{path}: {key} differ between splits ({values}; expected one kind)")
    return by_split["train"]


def _description(content: dict[str, Any]) -> dict[str, Any] | None:
    config = content.get("config")
    text = config.get("mitfrnet") if isinstance(config, dict) else None
    try:
        description = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        description = None
    return description if isinstance(description, dict) else None


class MmsaSplit:
    """The utterances of one split, each made when it is asked for.

    Args:
        raw: the unpickled split.
        where: file and split, the start of every error message.

    Raises:
        FeatureError: a key is absent, or has the wrong type, length or values.

    Attributes:
        ids: as stored.
        aligned: whether all modalities have one step per token.
        task: kind of the labels.
        dims: features per step.
    """

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        columns = Columns(raw, where)
        self._where = where
        self.ids = columns.ids()
        self._transcripts = columns.strings("raw_text")
        self._tokens = columns.tokens()
        self._text = columns.sequences("text")
        self._values = {m: columns.sequences(key) for m, key in NAMES.items()}
        self._lengths = {m: columns.whole_numbers(f"{k}_lengths") for m, k in NAMES.items()}
        self._exact = {
            m: (
                columns.whole_numbers(f"{key}_steps"),
                columns.flags(f"{key}_detected"),
                columns.strings(f"{key}_reason"),
            )
            for m, key in NAMES.items()
        }
        for m, key in NAMES.items():
            columns.check_flags(f"{key}_detected", self._exact[m][1], self._values[m])
        self.task = "regression" if "regression_labels" in raw else "classification"
        self._labels = columns.labels(f"{self.task}_labels")
        self._modality_labels = {
            m: columns.labels_of_modality(f"{self.task}_labels_{letter}")
            for m, letter in LETTERS.items()
        }
        if self._text is not None:
            columns.check_width("text", self._text, self._tokens.shape[2])
        widths = {v.width for v in self._values.values() if v is not None}
        self.aligned = widths == {self._tokens.shape[2]} and all(
            lengths is None for lengths in self._lengths.values()
        )
        self.dims = {
            "text": None if self._text is None else self._text.dim,
            **{m: 1 if v is None else v.dim for m, v in self._values.items()},
        }

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[MmsaUtterance]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> MmsaUtterance:
        """Return the utterance in `row`.

        Raises:
            FeatureError: its parts contradict each other.
        """
        if not 0 <= row < len(self):
            raise IndexError(row)
        where = f"{self._where} row {row} ({self.ids[row]!r})"
        notes: list[str] = []
        token_ids, positions = self._row_tokens(row, where)
        video_id, clip_id = video_and_clip(self.ids[row])
        steps = {m: self._row_steps(m, row, positions, where, notes) for m in NAMES}
        return MmsaUtterance(
            video_id=video_id,
            clip_id=clip_id,
            transcript=self.transcript_of(row),
            label=float(self._labels[row]),
            modality_labels={
                m: float(labels[row])
                for m, labels in self._modality_labels.items()
                if labels is not None and np.isfinite(labels[row])
            },
            token_ids=token_ids,
            text=None if self._text is None else self._text[row][positions].astype(np.float32),
            acoustic=steps["acoustic"],
            visual=steps["visual"],
            notes=tuple(notes),
        )

    @property
    def token_width(self) -> int:
        """Return the number of tokens to which the text is padded."""
        return self._tokens.shape[2]

    def utterance_id(self, row: int) -> str:
        """Return the utterance id of a row, `<video_id>/<clip_id>`."""
        return "/".join(video_and_clip(self.ids[row]))

    def transcript_of(self, row: int) -> str:
        """Return the transcript of a row; empty if the file has none."""
        return self._transcripts[row] if self._transcripts else ""

    def tokens_of(self, row: int) -> NDArray[np.int32]:
        """Return the token ids of a row, without reading the rest of it.

        Raises:
            FeatureError: they are not valid ids.
        """
        return self._row_tokens(row, f"{self._where} row {row} ({self.ids[row]!r})")[0]

    def _row_tokens(self, row: int, where: str) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the token ids of a row and their positions."""
        token_ids, mask, _ = np.asarray(self._tokens[row], dtype=np.float64)
        positions = np.flatnonzero(mask)
        if not np.isin(mask, (0, 1)).all() or (np.diff(positions) != 1).any():
            raise FeatureError(
                f"{where}: the attention mask in text_bert is {shown(mask)} "
                "(expected one run of ones among zeros)"
            )
        token_ids = token_ids[positions]
        if not are_ids(token_ids):
            raise FeatureError(
                f"{where}: text_bert holds {shown(token_ids)} (expected token ids, whole numbers)"
            )
        return token_ids.astype(np.int32), positions

    def _row_steps(
        self,
        modality: str,
        row: int,
        tokens: NDArray[np.int64],
        where: str,
        notes: list[str],
    ) -> ModalitySteps:
        """Return one modality of a row without its padding."""
        stored = self._values[modality]
        if stored is None:
            return _missing(1, "not_in_file")
        with np.errstate(over="ignore"):  # infinite values count as undetected
            values = np.asarray(stored[row]).astype(np.float32)
        steps, flags, reasons = self._exact[modality]
        where = f"{where}: {NAMES[modality]}"
        if steps is not None and flags is not None:
            count = int(steps[row])
            if not 0 <= count <= len(values):
                raise FeatureError(f"{where}_steps is {count} (expected 0 to {len(values)})")
            values, detected = values[:count], flags[row][:count].copy()
        else:
            own = self._unpadded(modality, row, values, tokens, where, notes)
            if own.start:
                notes.append(f"{modality}: padding in front, cut off")
            values = values[own]
            detected = _shows(values)
        finite = np.isfinite(values).all(axis=1)
        if (detected & ~finite).any():
            notes.append(f"{modality}: steps not finite, taken as undetected")
        detected &= finite
        if not len(detected) or (steps is None and not detected.any()):
            reason = reasons[row] if reasons and reasons[row] else "nothing_measured"
            return _missing(values.shape[1], reason)
        if not detected.all():
            notes.append(f"{modality}: some steps undetected")
        values[~detected] = np.nan
        return ModalitySteps(values, detected)

    def _unpadded(
        self,
        modality: str,
        row: int,
        values: NDArray[np.float32],
        tokens: NDArray[np.int64],
        where: str,
        notes: list[str],
    ) -> slice:
        """Return the steps of a modality that are not padding, in a file that does not list them.

        Raises:
            FeatureError: the stated length contradicts the values.
        """
        lengths = self._lengths[modality]
        stated = int(lengths[row]) if lengths is not None else None
        own = _steps_of_tokens(values, tokens) if self.aligned else None
        if own is None:
            own = _own_steps(values, len(tokens) if self.aligned else stated)
        if own is not None:
            return own
        if stated is not None and stated > len(values):
            raise FeatureError(f"{where}_lengths is {stated} (expected at most {len(values)})")
        first, last = np.flatnonzero(_shows(values))[[0, -1]].tolist()
        if stated is None:
            notes.append(f"{modality}: more steps than tokens, kept all")
            return slice(first, last + 1)
        raise FeatureError(
            f"{where}_lengths is {stated}, but steps {first} to {last} of {len(values)} are not "
            "zero (expected zeros as padding, at one end)"
        )


def _missing(dim: int, reason: str) -> ModalitySteps:
    return ModalitySteps(np.empty((0, dim), np.float32), np.empty(0, bool), reason)


def _shows(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which rows are not zero in every column, (steps,)."""
    return (values != 0).any(axis=1)


def _steps_of_tokens(values: NDArray[np.float32], tokens: NDArray[np.int64]) -> slice | None:
    """Return the steps at the tokens' positions; None if other steps show something too.

    The content alone cannot decide: a few steps amid the tokens would fit at either end.
    """
    if not len(tokens) or tokens[-1] >= len(values):
        return None
    own = slice(int(tokens[0]), int(tokens[-1]) + 1)
    others = np.delete(_shows(values), own)
    return None if others.any() else own


def _own_steps(values: NDArray[np.float32], declared: int | None) -> slice | None:
    """Return the steps that are not padding.

    Args:
        values: of one utterance, padded, (steps, dim).
        declared: its number of steps; None: unknown.

    Returns:
        None if nonzero steps lie outside both the first and the last `declared` steps.
    """
    filled = np.flatnonzero(_shows(values))
    if not len(filled):
        return slice(0, 0)
    first, end = int(filled[0]), int(filled[-1]) + 1
    if declared is None:
        return slice(first, end)
    if end <= declared <= len(values):
        return slice(0, declared)
    if 0 <= len(values) - declared <= first:
        return slice(len(values) - declared, len(values))
    return None
