"""Arrays of all utterances laid end to end: a million small arrays take ten times the memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from mitfrnet.modalities import MODALITIES

Item = TypeVar("Item", bound=np.generic)

Bools = NDArray[np.bool_]
Observed = Mapping[str, Sequence[Bools]]  # per modality and utterance: what a mask keeps


class RaggedArray(Sequence[NDArray[Item]], Generic[Item]):
    """One array per utterance, each a view of its part of a single one.

    Attributes:
        flat: all steps end to end; axes beyond the first are as in each row.
        offsets: int64, (utterances + 1,); row i is flat[offsets[i]:offsets[i + 1]].
    """

    def __init__(self, flat: NDArray[Item], offsets: NDArray[np.int64]) -> None:
        self.flat, self.offsets = flat, offsets

    @classmethod
    def of(cls, rows: "Sequence[NDArray[Item]]") -> "RaggedArray[Item]":
        """Return `rows` laid end to end."""
        if isinstance(rows, RaggedArray):
            return rows
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        return cls(np.concatenate(rows) if rows else np.empty(0, bool), offsets)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Return how many steps each row has, (utterances,)."""
        return np.diff(self.offsets)

    def any(self) -> NDArray[np.bool_]:
        """Return whether anything in each row is True, (utterances,)."""
        result = np.zeros(len(self), dtype=bool)
        filled = self.lengths > 0
        if filled.any():  # reduceat takes the next row's first value for an empty one
            result[filled] = np.logical_or.reduceat(self.flat, self.offsets[:-1][filled])
        return result

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> NDArray[Item]: ...
    @overload
    def __getitem__(self, index: slice) -> "RaggedArray[Item]": ...
    def __getitem__(self, index: Any) -> Any:
        """Return one row, or several that follow one another."""
        places = range(len(self))[index]
        if isinstance(places, int):
            return self.flat[self.offsets[places] : self.offsets[places + 1]]
        if places.step != 1:
            raise ValueError(f"rows {index} do not follow one another")
        offsets = self.offsets[places.start : max(places.start, places.stop) + 1]
        return RaggedArray(self.flat[offsets[0] : offsets[-1]], offsets - offsets[0])

    def __iter__(self) -> Iterator[NDArray[Item]]:
        return (self.flat[start:end] for start, end in pairwise(self.offsets.tolist()))


@dataclass(frozen=True)
class Steps:
    """The steps of one split, for which masks are drawn.

    Attributes:
        ids: utterance ids.
        detected: per modality and utterance, (steps,); no step where it is naturally missing.
        special: special tokens of the text, (steps,) per utterance; never hidden alone.
        times: centre of each step in seconds, per modality and utterance, (steps,).

    Lists of arrays are accepted too, and laid end to end.
    """

    ids: list[str]
    detected: dict[str, RaggedArray[np.bool_]]
    special: RaggedArray[np.bool_]
    times: dict[str, RaggedArray[Any]]

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "detected", {m: RaggedArray.of(r) for m, r in self.detected.items()}
        )
        object.__setattr__(self, "special", RaggedArray.of(self.special))
        object.__setattr__(self, "times", {m: RaggedArray.of(r) for m, r in self.times.items()})

    def maskable(self, modality: str) -> RaggedArray[np.bool_]:
        """Return the steps that may be hidden: detected and not special, (steps,) each."""
        detected = self.detected[modality]
        if modality != "text":
            return detected
        return RaggedArray(detected.flat & ~self.special.flat, detected.offsets)

    def present(self) -> dict[str, NDArray[np.bool_]]:
        """Return per modality whether each utterance has any detected step, (utterances,)."""
        return {m: self.detected[m].any() for m in MODALITIES}
