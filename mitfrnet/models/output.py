"""What every model returns, and how its losses become the one number that is minimised."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """One term of an objective, `weight` x `sum` / `count`.

    Sum and count stand apart so that micro-batches and devices can be divided by the count of
    the whole global batch; means of unequal parts do not average to the mean of the whole.

    Attributes:
        sum: over everything the term scores in this batch, a scalar.
        count: how many items that are, a scalar; zero when the batch has nothing to score.
        weight: of the term in the objective.
    """

    sum: Tensor
    count: Tensor
    weight: float

    @property
    def mean(self) -> Tensor:
        """The term of this batch alone, without its weight; zero when there is nothing."""
        return self.sum / self.count.clamp(min=1)


@dataclass(frozen=True)
class Output:
    """What a model makes of one batch.

    Attributes:
        prediction: one score per utterance, (batch,).
        reconstructed: rebuilt features by modality, (batch, time, dim), zero on padding; empty
            for a model that rebuilds nothing.
        losses: the whole objective of the model by name; `task` is always among them, and all
            others are auxiliary.
    """

    prediction: Tensor
    reconstructed: dict[str, Tensor]
    losses: dict[str, Loss]


def task_loss(
    prediction: Tensor, label: Tensor, *, weight: float, kind: Literal["l1", "mse"] = "l1"
) -> Loss:
    """Return the distance between predicted and true scores, both (batch,), eq. 23 of MIT-FRNet.

    Args:
        prediction: one score per utterance.
        label: the true scores.
        weight: of the term in the objective.
        kind: absolute (`l1`) or squared (`mse`) difference.
    """
    difference = prediction - label  # float32 under autocast, as the label is
    distance = difference.abs() if kind == "l1" else difference.square()
    return Loss(distance.sum(), torch.ones_like(label).sum(), weight)


def objective(losses: Mapping[str, Loss], counts: Mapping[str, Tensor] | None = None) -> Tensor:
    """Return the weighted sum of the terms, a scalar to minimise.

    Args:
        losses: as in `Output.losses`.
        counts: by the same names, the counts of the global batch this batch is a part of; the
            objectives of the parts then add up to that of the whole. None: the batch is the
            whole.
    """
    parts = [
        loss.weight * loss.sum / (loss.count if counts is None else counts[name]).clamp(min=1)
        for name, loss in losses.items()
    ]
    return torch.stack(parts).sum()
