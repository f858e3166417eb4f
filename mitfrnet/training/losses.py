"""The losses of an epoch: kept on the device during the epoch, then checked and averaged."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mitfrnet.models.base import Loss


class EpochLosses:
    """Sums and counts of every loss term in every step of an epoch.

    No value is read before the epoch ends: the CPU would wait for the GPU in every step.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._weights: dict[str, float] = {}
        self._steps: list[Tensor] = []

    def add(self, parts: Sequence[Mapping[str, Loss]]) -> None:
        """Add a step: the losses of each part of its batch, with the same names in every step."""
        self.names = list(parts[0])
        self._weights = {name: loss.weight for name, loss in parts[0].items()}
        values = [
            torch.stack([loss.sum for loss in p.values()] + [loss.count for loss in p.values()])
            for p in parts
        ]
        self._steps.append(torch.stack(values).detach().float().sum(0))

    def steps(self) -> Tensor:
        """Return sums and counts, (steps, 2, losses), float64, on the device."""
        return torch.stack(self._steps).double().unflatten(1, (2, -1))

    def means(self, steps: NDArray[np.float64]) -> dict[str, float]:
        """Return the mean of each loss; the sizes of batches do not matter.

        Losses without weight, and those that scored nothing, are left out.

        Args:
            steps: from `steps`, summed over all devices.
        """
        sums, counts = steps.sum(axis=0)
        return {
            name: float(total / count)
            for name, total, count in zip(self.names, sums, counts, strict=True)
            if self._weights[name] and count > 0
        }

    def broken(self, steps: NDArray[np.float64]) -> tuple[int, list[str]] | None:
        """Return the first step, from 0, with a NaN or infinite loss, and the names of these."""
        wrong = ~np.isfinite(steps[:, 0])
        at = np.flatnonzero(wrong.any(axis=1))
        if not len(at):
            return None
        return int(at[0]), [n for n, w in zip(self.names, wrong[at[0]], strict=True) if w]
