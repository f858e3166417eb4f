"""Arrays of all utterances, end to end in one: a million small arrays take ten times the room."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item", bound=np.generic)


class Rows(Sequence[NDArray[Item]], Generic[Item]):
    """One array per utterance, each a view of its part of a single one.

    Attributes:
        flat: all steps end to end; axes beyond the first are as in each row.
        offsets: int64, (utterances + 1,); row i is flat[offsets[i]:offsets[i + 1]].
    """

    def __init__(self, flat: NDArray[Item], offsets: NDArray[np.int64]) -> None:
        self.flat, self.offsets = flat, offsets

    @classmethod
    def of(cls, rows: "Sequence[NDArray[Item]]") -> "Rows[Item]":
        """Return `rows`, laid end to end if they are not."""
        if isinstance(rows, Rows):
            return rows
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        return cls(np.concatenate(rows) if rows else np.empty(0, bool), offsets)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Return how many steps each row has, (utterances,)."""
        return np.diff(self.offsets)

    def any(self) -> NDArray[np.bool_]:
        """Return whether anything in each row is True, (utterances,)."""
        found = np.zeros(len(self), dtype=bool)
        filled = self.lengths > 0
        if filled.any():  # reduceat takes the next row's first value for an empty one
            found[filled] = np.logical_or.reduceat(self.flat, self.offsets[:-1][filled])
        return found

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> NDArray[Item]: ...
    @overload
    def __getitem__(self, index: slice) -> "Rows[Item]": ...
    def __getitem__(self, index: Any) -> Any:
        """Return one row, or several that follow one another."""
        places = range(len(self))[index]
        if isinstance(places, int):
            return self.flat[self.offsets[places] : self.offsets[places + 1]]
        if places.step != 1:
            raise ValueError(f"rows {index} do not follow one another")
        offsets = self.offsets[places.start : max(places.start, places.stop) + 1]
        return Rows(self.flat[offsets[0] : offsets[-1]], offsets - offsets[0])

    def __iter__(self) -> Iterator[NDArray[Item]]:
        return (self.flat[start:end] for start, end in pairwise(self.offsets.tolist()))
