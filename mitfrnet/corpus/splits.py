"""A seeded split by group, stratified by label, for corpora without a published split."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mitfrnet.modalities import SPLITS
from mitfrnet.params import StageParams

# Scores with more distinct values than this are cut into as many bins of about equal size; finer
# strata matched the means less well with few groups. Whole numbers may be classes, so they are
# not binned until there are more of them than any corpus has classes.
_BINS = 10
_MAX_CLASSES = 100

Strata = NDArray[np.int64]


class SplitParams(StageParams):
    """Section `ingest.split`: used if the corpus names no splits."""

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

    Groups are placed one by one into the split that minimises

    .. math:: \sum_{split} \sum_{stratum} (n - e)^2 / e

    where `n` is the number of clips of a stratum in a split and `e` the number it should have.
    The strata are the labels, binned if there are many, and one stratum of all clips, which
    balances the size of the splits. The result does not depend on the order of rows.

    Each split has the requested number of clips, give or take the largest group. With three or
    more groups none is empty, even if less than a group was requested.

    Args:
        groups: the group of each clip: its video, speaker or whatever must stay together.
        labels: the label of each clip, a score or the index of a class; None: it has none.
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

    # Largest first: a large group placed late could not be balanced. Sizes within a factor of two
    # count as equal, so that the seed matters.
    order = sorted(numbers, key=lambda g: (-int(sizes[numbers[g]]).bit_length(), drawn(g)))
    shares = np.array([getattr(params, split) for split in SPLITS])
    asked = shares[:, None] * clips.sum(axis=0)  # (splits, strata + 1)
    placed = np.zeros_like(asked)
    split_of = np.zeros(len(numbers), np.int64)
    for left, group in zip(range(len(order), 0, -1), order, strict=True):
        more = clips[numbers[group]]
        cost = (more * (more + 2 * (placed - asked)) / asked).sum(axis=1)  # added to the sum
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
    """Return which splits may take a group, so that all end within one group of their target.

    The group must not take a split more than the largest group beyond its target, and enough
    clips must remain to bring the other splits within one group of theirs. The split that lacks
    most may always take it.

    Args:
        due: clips that each split still lacks, (splits,); negative: it has too many.
        size: clips of the group.
        largest: clips of the largest group.
    """
    due_after = due - size * np.eye(len(due))  # (choice, splits)
    enough = np.minimum(due_after, largest).sum(axis=1) >= -1e-9 * largest
    return (due - size >= -largest) & enough


def _strata(labels: Sequence[float | None]) -> Strata:
    """Return the stratum of each clip, (clips,); clips without a label form one of their own."""
    values = np.array([np.nan if label is None else label for label in labels])
    edges = np.unique(values[~np.isnan(values)])
    if len(edges) > (_BINS if (edges % 1).any() else _MAX_CLASSES):
        edges = np.unique(np.nanquantile(values, np.arange(_BINS) / _BINS))
    return np.where(np.isnan(values), -1, np.searchsorted(edges, values, side="right"))


def _count(group_of: Strata, strata: Strata) -> NDArray[np.float64]:
    """Return clips per group and stratum, (groups, strata + 1); the last column is their sum."""
    kinds, stratum_of = np.unique(strata, return_inverse=True)
    shape = (group_of.max() + 1, len(kinds))
    places = np.ravel_multi_index((group_of, stratum_of), shape)
    counts = np.bincount(places, minlength=shape[0] * shape[1]).reshape(shape)
    return np.column_stack([counts, counts.sum(axis=1)]).astype(np.float64)
