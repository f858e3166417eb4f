import math

import pytest
import torch

from mitfrnet.models.base import Loss, Task, objective, task_loss


def loss(total: float, count: int, weight: float) -> Loss:
    return Loss(torch.tensor(total), torch.tensor(count), weight)


def test_task_loss():
    """Scores 1, -2, 0 against 2, 2, 0 differ by 1, 4, 0: sums 5 and 1 + 16 = 17."""
    prediction, label = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([2.0, 2.0, 0.0])
    l1 = task_loss(prediction, label, weight=3.0)
    assert (l1.sum, l1.count, l1.weight) == (5, 3, 3.0)
    assert task_loss(prediction, label, weight=1.0, kind="mse").sum == 17


def test_classes_are_scored_by_cross_entropy():
    """Equal logits of two classes give ln 2; 0 against ln 3 in favour of the truth ln (4 / 3)."""
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]])
    loss = task_loss(logits, torch.tensor([0.0, 1.0]), weight=1.0)
    assert loss.sum.item() == pytest.approx(math.log(2) + math.log(4 / 3))
    assert loss.count == 2


def test_a_head_gives_a_score_or_logits():
    assert Task(classes=0).prediction(torch.zeros(4, 1)).shape == (4,)
    assert Task(classes=3).prediction(torch.zeros(4, 3)).shape == (4, 3)
    assert Task(classes=3).outputs == 3


def test_objective_is_the_weighted_sum_of_means():
    """2 x 6 / 3 + 0.5 x 8 / 4 = 5; the term that scores nothing adds 0."""
    losses = {"task": loss(6.0, 3, 2.0), "a": loss(8.0, 4, 0.5), "b": loss(0.0, 0, 1.0)}
    assert objective(losses) == 5
    assert losses["b"].mean == 0


def test_objective_with_global_counts():
    """Parts with sums 6 and 2 of 3 and 1 items: 6 / 4 + 2 / 4 = 2, though the means add to 4."""
    counts = {"task": torch.tensor(4)}
    parts = [objective({"task": loss(s, n, 1.0)}, counts) for s, n in ((6.0, 3), (2.0, 1))]
    assert sum(parts) == pytest.approx(2.0)
