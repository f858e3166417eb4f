from dataclasses import replace

import torch

from mitfrnet.models.base import Loss
from mitfrnet.training.losses import EpochLosses


def loss(total, count=1.0, weight=1.0):
    return Loss(torch.tensor(total), torch.tensor(count), weight)


def test_epoch_means_weigh_batches_by_their_counts():
    """Two batches: sum 3 of 1 item and sum 1 of 3 items have the mean 1, not 1.67."""
    losses = EpochLosses()
    for task in (loss(3.0, 1.0), loss(1.0, 3.0)):
        losses.add([{"task": task, "empty": loss(0.0, 0.0), "off": replace(task, weight=0.0)}])
    assert losses.means(losses.steps().numpy()) == {"task": 1.0}


def test_the_parts_of_a_batch_make_one_step():
    """Sums 1, 2 and 3 of 1, 2 and 1 items: (1 + 2 + 3) / 4."""
    losses = EpochLosses()
    losses.add([{"task": loss(1.0, 1.0)}, {"task": loss(2.0, 2.0)}, {"task": loss(3.0, 1.0)}])
    assert losses.steps().tolist() == [[[6.0], [4.0]]]
    assert losses.means(losses.steps().numpy()) == {"task": 1.5}


def test_the_first_step_that_is_not_finite_is_named_with_its_terms():
    losses = EpochLosses()
    for a, b in ((1.0, 1.0), (1.0, float("inf")), (float("nan"), float("nan"))):
        losses.add([{"a": loss(a), "b": loss(b, weight=0.0)}])
    assert losses.broken(losses.steps().numpy()) == (1, ["b"])
    assert losses.broken(losses.steps().numpy()[:1]) is None
