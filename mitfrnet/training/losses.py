"""The losses of an epoch: kept on the device while it runs, then averaged and checked."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mitfrnet.models.base import Loss


class EpochLosses:
    """Sums and counts of every loss term in every step of an epoch.

    Nothing is looked at before the epoch is over: that would make the CPU wait for the GPU in
    every step.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._weights: dict[str, float] = {}
        self._steps: list[Tensor] = []

    def add(self, parts: Sequence[Mapping[str, Loss]]) -> None:
        """Add a step: the terms of each part of its batch, of the same names in every step."""
        self.names = list(parts[0])
        self._weights = {name: loss.weight for name, loss in parts[0].items()}
        values = [
            torch.stack([loss.sum for loss in p.values()] + [loss.count for loss in p.values()])
            for p in parts
        ]
        self._steps.append(torch.stack(values).detach().float().sum(0))

    def steps(self) -> Tensor:
        """Return sum and count, (steps, 2, terms), of float64 on the device."""
        return torch.stack(self._steps).double().unflatten(1, (2, -1))

    def means(self, steps: NDArray[np.float64]) -> dict[str, float]:
        """Return the mean of each term, exact whatever the sizes of batches.

        Terms without weight, and those that had nothing to score, are left out.

        Args:
            steps: as from `steps`, of all devices together.
        """
        sums, counts = steps.sum(axis=0)
        return {
            name: float(total / count)
            for name, total, count in zip(self.names, sums, counts, strict=True)
            if self._weights[name] and count > 0
        }

    def broken(self, steps: NDArray[np.float64]) -> tuple[int, list[str]] | None:
        """Return the first step, from 0, in which a term is no finite number, and such terms."""
        wrong = ~np.isfinite(steps[:, 0])
        at = np.flatnonzero(wrong.any(axis=1))
        if not len(at):
            return None
        return int(at[0]), [n for n, w in zip(self.names, wrong[at[0]], strict=True) if w]
