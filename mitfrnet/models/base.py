"""What every model offers and returns, and how its losses become the number to minimise."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mitfrnet.data.batches import Batch


@dataclass(frozen=True)
class Task:
    """What is predicted for an utterance: a score, or one of several classes.

    Attributes:
        low, high: bounds of a score, for models whose output has a range.
        classes: number of classes; 0 for a score.
    """

    low: float = -3.0
    high: float = 3.0
    classes: int = 0

    @property
    def outputs(self) -> int:
        """Return how many numbers a model's last layer gives per utterance."""
        return self.classes or 1

    def prediction(self, head: Tensor) -> Tensor:
        """Return scores, (batch,), or logits, (batch, classes), from `head`, (batch, outputs)."""
        return head if self.classes else head.squeeze(-1)


SCORE = Task()  # of CMU-MOSI


@dataclass(frozen=True)
class Loss:
    """One term of an objective, `weight` x `sum` / `count`.

    Sum and count are separate so that the parts of a global batch, on several devices or
    accumulated, are divided by the count of the whole: means of unequal parts do not average to
    the mean of the whole.

    Attributes:
        sum: over all items that the term scores in this batch, a scalar.
        count: number of these items, a scalar; zero when the batch has none.
        weight: of the term in the objective.
    """

    sum: Tensor
    count: Tensor
    weight: float

    @property
    def mean(self) -> Tensor:
        """The unweighted term of this batch alone; zero when the batch has nothing to score."""
        return self.sum / self.count.clamp(min=1)


@dataclass(frozen=True)
class Output:
    """What a model returns for one batch.

    Attributes:
        prediction: one score per utterance, (batch,), or the logits of its classes,
            (batch, classes).
        reconstructed: rebuilt features by modality, (batch, time, dim), zero on padding; empty
            if the model rebuilds nothing.
        losses: the terms of the model's objective by name: `task`, and any auxiliary ones.
    """

    prediction: Tensor
    reconstructed: dict[str, Tensor]
    losses: dict[str, Loss]


class Model(nn.Module):
    """What training asks of a model, beside `forward(batch, *, aux=True) -> Output`.

    With `aux=False` the auxiliary losses are zero but still part of the graph, so that every
    parameter has a gradient.

    Attributes:
        weights: the weight of each loss in the objective by name.
        aux_start_epoch: the first epoch, counted from 1, that is trained with `aux=True`.
        batch_losses: the names of losses that compare the utterances of a batch with each other;
            such losses of the parts of a batch do not add up to that of the whole.
    """

    weights: dict[str, float]
    aux_start_epoch: int = 1
    batch_losses: tuple[str, ...] = ()

    def loss_counts(self, batch: Batch) -> dict[str, Tensor]:
        """Return the count of each loss of `batch`, its utterances unless a model says otherwise.

        They follow from the masks alone, so that accumulated batches can be normalised before the
        first of them runs.
        """
        return dict.fromkeys(self.weights, torch.ones_like(batch.label).sum())


def task_loss(
    prediction: Tensor, label: Tensor, *, weight: float, kind: Literal["l1", "mse"] = "l1"
) -> Loss:
    """Return the distance between predicted and true labels, eq. 23 of MIT-FRNet.

    Not in the paper: classes are scored by cross-entropy.

    Args:
        prediction: scores, (batch,), or logits, (batch, classes).
        label: true scores, or indices of the true classes, (batch,) of float.
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
        counts: the counts of the global batch by the same names, if this batch is a part of one;
            the objectives of the parts then add up to that of the whole. None: the batch is the
            whole.
    """
    terms = [
        loss.weight * loss.sum / (loss.count if counts is None else counts[name]).clamp(min=1)
        for name, loss in losses.items()
    ]
    return torch.stack(terms).sum()
