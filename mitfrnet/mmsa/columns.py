"""The keys of one split of a feature file, each checked for kind and length as it is read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitfrnet.errors import FeatureError
from mitfrnet.mmsa.unpickling import PickledArray

SEPARATOR = "$_$"


def video_and_clip(stored_id: str) -> tuple[str, str]:
    """Return video and clip of a stored id; an id without `$_$` is both."""
    video_id, separator, clip_id = stored_id.rpartition(SEPARATOR)
    return (video_id, clip_id) if separator else (stored_id, stored_id)


def are_ids(values: NDArray[np.float64]) -> bool:
    """Return whether all values are whole numbers that fit 31 bits."""
    return bool(((values >= 0) & (values < 2**31) & (np.floor(values) == values)).all())


def shown(values: NDArray[np.float64]) -> str:
    """Return the first few values, for an error."""
    some = ", ".join(f"{v:g}" for v in values[:8])
    return some + (", ..." if len(values) > 8 else "")


def listed(names: Iterable[Any]) -> str:
    """Return names as one short line, for an error."""
    text = ", ".join(map(str, names))[:200]
    return text if text.isprintable() else ascii(text)


@dataclass(frozen=True)
class Sequences:
    """The feature vectors of all utterances: (utterances, steps, dim), or one array each."""

    rows: NDArray[Any] | list[NDArray[Any]]
    dim: int
    width: int | None = None  # padded number of steps; None: not padded

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self.rows[row]


@dataclass
class Columns:
    """The keys of one split, each checked for kind and length as it is read."""

    raw: Mapping[str, Any]
    where: str
    count: int = field(init=False, default=-1)

    def _content(self, key: str, required: bool = False) -> Any:
        value = self.raw.get(key)
        if value is None:
            if required:
                raise FeatureError(f"{self.where}: no {key} (found: {listed(self.raw)})")
            return None
        value = value.content if isinstance(value, PickledArray) else value
        value = list(value) if isinstance(value, tuple) else value
        if not isinstance(value, list) and not (isinstance(value, np.ndarray) and value.ndim):
            raise self._wrong(key, f"a {type(value).__name__}", "one value per utterance")
        if self.count < 0:
            self.count = len(value)
        if len(value) != self.count:
            raise self._wrong(key, f"{len(value)} long", f"{self.count}, as id is")
        return value

    def _wrong(self, key: str, actual: str, expected: str) -> FeatureError:
        return FeatureError(f"{self.where}: {key} is {actual} (expected {expected})")

    def ids(self) -> list[str]:
        """Return the ids, which must be safe as parts of paths."""
        ids = self.strings("id", required=True)
        assert ids is not None
        for row, value in enumerate(ids):
            for part in video_and_clip(value):
                if (
                    not part
                    or part != part.strip()
                    or part in {".", ".."}
                    or any(c in part for c in '/\\"\0\n')
                ):
                    raise FeatureError(
                        f"{self.where} row {row}: id is {value!r} (expected "
                        "<video_id>$_$<clip_id>, each a file name)"
                    )
        return ids

    def strings(self, key: str, required: bool = False) -> list[str] | None:
        """Return a column of strings; None if it is absent."""
        value = self._content(key, required)
        if value is None:
            return None
        strings = value.tolist() if isinstance(value, np.ndarray) else value
        for row, text in enumerate(strings):
            if not isinstance(text, str):
                raise self._wrong(f"{key} in row {row}", f"a {type(text).__name__}", "a string")
            try:
                text.encode()
            except UnicodeEncodeError:
                raise self._wrong(f"{key} in row {row}", "invalid Unicode", "text") from None
        return strings

    def _numbers(self, key: str, required: bool = False) -> NDArray[Any] | None:
        value = self._content(key, required)
        if isinstance(value, list):
            if not all(isinstance(v, int | float) for v in value):
                raise self._wrong(key, "a list of other things", "numbers")
            try:
                value = np.array(value, dtype=np.float64)
            except OverflowError:
                raise self._wrong(key, "a list with a number too large", "numbers") from None
        if value is not None and value.dtype.kind not in "biuf":
            raise self._wrong(key, f"an array of {value.dtype}", "numbers")
        return value

    def _flat_numbers(self, key: str, required: bool = False) -> NDArray[np.float64] | None:
        value = self._numbers(key, required)
        if value is None:
            return None
        if value.size != self.count:
            raise self._wrong(key, f"of shape {value.shape}", f"({self.count},)")
        return value.astype(np.float64).reshape(-1)

    def labels(self, key: str) -> NDArray[np.float64]:
        """Return the column of labels."""
        value = self._flat_numbers(key, required=True)
        assert value is not None
        if not np.isfinite(value).all():
            row = int(np.flatnonzero(~np.isfinite(value))[0])
            raise self._wrong(f"{key} in row {row}", f"{value[row]}", "a number")
        return value

    def labels_of_modality(self, key: str) -> NDArray[np.float64] | None:
        """Return a column of labels, NaN if missing; None if the column is absent."""
        return self._flat_numbers(key)

    def whole_numbers(self, key: str) -> NDArray[np.float64] | None:
        """Return a column of counts; None if it is absent."""
        value = self._flat_numbers(key)
        if value is not None and not are_ids(value):
            row = int(np.flatnonzero([not are_ids(v) for v in value[:, None]])[0])
            raise self._wrong(f"{key} in row {row}", f"{value[row]:g}", "a number of steps")
        return value

    def flags(self, key: str) -> NDArray[np.bool_] | None:
        """Return which steps are detected, (utterances, steps); None if the column is absent."""
        value = self._numbers(key)
        if value is not None and (value.ndim != 2 or value.dtype != bool):
            raise self._wrong(key, f"{value.dtype} {value.shape}", "booleans per step")
        return value

    def tokens(self) -> NDArray[Any]:
        """Return ids, mask and segments, (utterances, 3, tokens), from either of two layouts."""
        if self.raw.get("text_bert") is None:
            raise FeatureError(
                f"{self.where}: no text_bert (found: {listed(self.raw)}; token ids are needed to "
                "hide words)"
            )
        value = self._numbers("text_bert")
        assert value is not None
        if value.ndim != 3 or 3 not in value.shape[1:]:
            raise self._wrong("text_bert", f"of shape {value.shape}", "(utterances, 3, tokens)")
        by_token = value.shape[1] != 3
        if value.shape[1:] == (3, 3):
            by_token = not _rows_fit(value) and _rows_fit(value.transpose(0, 2, 1))
        return value.transpose(0, 2, 1) if by_token else value

    def sequences(self, key: str) -> Sequences | None:
        """Return the feature vectors of a modality; None if the file has none."""
        value = self._content(key)
        if value is None:
            return None
        if isinstance(value, list):
            return self._ragged(key, value)
        if value.ndim != 3 or value.dtype.kind not in "biuf" or not value.shape[2]:
            raise self._wrong(
                key, f"{value.dtype} of shape {value.shape}", "numbers, (utterances, steps, dim)"
            )
        return Sequences(value, value.shape[2], value.shape[1])

    def _ragged(self, key: str, value: list[Any]) -> Sequences:
        rows: list[NDArray[Any]] = []
        for row, stored in enumerate(value):
            array = stored.content if isinstance(stored, PickledArray) else stored
            dim = rows[0].shape[1] if rows else "dim"
            if not isinstance(array, np.ndarray):
                raise self._wrong(f"{key} in row {row}", "not an array", f"numbers, (steps, {dim})")
            valid = array.ndim == 2 and array.dtype.kind in "biuf" and array.shape[1]
            if not valid or (rows and array.shape[1] != dim):
                raise self._wrong(
                    f"{key} in row {row}",
                    f"{array.dtype} of shape {array.shape}",
                    f"numbers, (steps, {dim})",
                )
            rows.append(array)
        return Sequences(rows, rows[0].shape[1] if rows else 1)

    def check_flags(
        self, key: str, flags: NDArray[np.bool_] | None, sequences: Sequences | None
    ) -> None:
        """Raise if the flags have another number of steps than their modality."""
        if flags is not None and sequences is not None and flags.shape[1] != sequences.width:
            raise self._wrong(key, f"{flags.shape[1]} steps wide", f"{sequences.width}")

    def check_width(self, key: str, sequences: Sequences, tokens: int) -> None:
        """Raise if the text vectors have another number of steps than its tokens."""
        if sequences.width != tokens:
            raise self._wrong(
                key,
                "ragged" if sequences.width is None else f"{sequences.width} tokens wide",
                f"{tokens}, as text_bert is",
            )


def _rows_fit(tokens: NDArray[Any]) -> bool:
    """Return whether (utterances, 3, tokens) can be ids, mask and segments."""
    return bool(are_ids(tokens[:, 0].astype(np.float64)) and np.isin(tokens[:, 1:], (0, 1)).all())
