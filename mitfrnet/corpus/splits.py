"""A seeded split by group, stratified by label, for corpora that are published without one."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mitfrnet.modalities import SPLITS
from mitfrnet.params import StageParams

# Scores of more values than this are cut into so many bins of about equal size: with few groups,
# finer strata matched their means less well. Whole numbers may be classes, which have no order.
_BINS = 10
_MAX_CLASSES = 100

Strata = NDArray[np.int64]


class SplitParams(StageParams):
    """Section `ingest.split`: used where the corpus does not say which split a clip is of."""

    train: float = Field(gt=0, lt=1)
    valid: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _sums_to_one(self) -> "SplitParams":
        if abs(self.train + self.valid + self.test - 1) > 1e-6:
            raise ValueError("train, valid and test must add up to 1")
        return self


def assign_splits(
    groups: Sequence[str], labels: Sequence[float | None], params: SplitParams
) -> list[str]:
    r"""Return the split of each clip; all clips of a group get the same one.

    Groups are placed one after the other where they fit best: with `n` the clips of a stratum in
    a split and `e` those it should have, where

    .. math:: \sum_{split} \sum_{stratum} (n - e)^2 / e

    becomes least. The strata are the labels, in bins if there are many, and once more all clips,
    for the size of the split. The result does not depend on the order of rows.

    A split has as many clips as was asked, give or take the largest group. With three groups or
    more none is empty, even where it was asked less than a group.

    Args:
        groups: of each clip, the video, speaker or whatever is to stay on one side.
        labels: of each clip, on a scale or the index of its class; None: it has none.
        params: the share of each split, and the seed.
    """
    if not groups:
        return []
    numbers: dict[str, int] = {}
    group_of = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
    strata = _strata(labels)
    clips = _count(group_of, strata)  # (groups, strata + 1), the last for all clips
    sizes = clips[:, -1]
    largest = sizes.max()

    def drawn(group: str) -> bytes:
        return hashlib.sha256(f"{params.seed}/{group}".encode(errors="surrogatepass")).digest()

    # The largest first: a late large one could not be evened out. Sizes up to twice as large
    # count as equal, or the seed would have no say.
    order = sorted(numbers, key=lambda g: (-int(sizes[numbers[g]]).bit_length(), drawn(g)))
    shares = np.array([getattr(params, split) for split in SPLITS])
    asked = shares[:, None] * clips.sum(axis=0)  # (splits, strata + 1)
    placed = np.zeros_like(asked)
    split_of = np.zeros(len(numbers), np.int64)
    for left, group in zip(range(len(order), 0, -1), order, strict=True):
        more = clips[numbers[group]]
        cost = (more * (more + 2 * (placed - asked)) / asked).sum(axis=1)  # what it adds to the sum
        empty = placed[:, -1] == 0
        if left <= empty.sum():
            free = empty
        else:
            free = _within_one_group((asked - placed)[:, -1], more[-1], largest)
        split = np.where(free, cost, np.inf).argmin()
        split_of[numbers[group]] = split
        placed[split] += more
    return [SPLITS[split] for split in split_of[group_of]]


def _within_one_group(due: NDArray[np.float64], size: float, largest: float) -> NDArray[np.bool_]:
    """Return which splits may take a group, so that all end within one group of what is due.

    It must not take one of them too far beyond, and the clips that come later must be enough to
    lift the others: those still due, less all that is due beyond the largest group. The split of
    which most is due may always take it.

    Args:
        due: clips that each split still lacks, (splits,); negative: it has too many.
        size: clips of the group.
        largest: clips of the largest group.
    """
    then = due - size * np.eye(len(due))  # (choice, splits)
    return (due - size >= -largest) & (np.minimum(then, largest).sum(axis=1) >= -1e-9 * largest)


def _strata(labels: Sequence[float | None]) -> Strata:
    """Return the stratum of each clip, (clips,); clips without label are one of their own."""
    values = np.array([np.nan if label is None else label for label in labels])
    edges = np.unique(values[~np.isnan(values)])
    if len(edges) > (_BINS if (edges % 1).any() else _MAX_CLASSES):
        edges = np.unique(np.nanquantile(values, np.arange(_BINS) / _BINS))
    return np.where(np.isnan(values), -1, np.searchsorted(edges, values, side="right"))


def _count(group_of: Strata, strata: Strata) -> NDArray[np.float64]:
    """Return clips per group and stratum that there is, and of each group in all."""
    kinds, stratum_of = np.unique(strata, return_inverse=True)
    shape = (group_of.max() + 1, len(kinds))
    places = np.ravel_multi_index((group_of, stratum_of), shape)
    counts = np.bincount(places, minlength=shape[0] * shape[1]).reshape(shape)
    return np.column_stack([counts, counts.sum(axis=1)]).astype(np.float64)
