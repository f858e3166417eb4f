"""What every model returns, and how its losses become the one number that is minimised."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Task:
    """What is predicted of an utterance: a score, or one of several classes.

    Attributes:
        low, high: bounds of a score, for models whose output has a range.
        classes: how many there are; 0 for a score.
    """

    low: float = -3.0
    high: float = 3.0
    classes: int = 0

    @property
    def outputs(self) -> int:
        """Return how many numbers a head gives per utterance."""
        return self.classes or 1

    def prediction(self, head: Tensor) -> Tensor:
        """Return what a head's output, (batch, outputs), says.

        Scores are (batch,), logits of classes (batch, classes).
        """
        return head if self.classes else head.squeeze(-1)


SCORE = Task()  # of CMU-MOSI


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
        prediction: one score per utterance, (batch,); or the logits of its classes,
            (batch, classes).
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
    """Return the distance between predicted and true labels, eq. 23 of MIT-FRNet.

    Not in the paper: classes are scored by cross-entropy.

    Args:
        prediction: scores, (batch,), or logits, (batch, classes).
        label: true scores or indices of classes, (batch,) of float.
        weight: of the term in the objective.
        kind: absolute (`l1`) or squared (`mse`) difference of scores.
    """
    if prediction.ndim == 2:
        distance = F.cross_entropy(prediction.float(), label.long(), reduction="none")
    else:
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
