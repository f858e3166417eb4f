import numpy as np
import torch

from mitfrnet.data.scaling import no_scaling
from mitfrnet.missing import Protocol
from mitfrnet.training.batching import Utterances, shuffled_batches, sorted_batches
from tests.helpers.splits import DIMS, StoredText, make_splits, mask_splits

LENGTHS = np.random.default_rng(0).integers(1, 400, 1284)


def test_an_epoch_has_every_utterance_once_in_batches_of_like_length():
    order = shuffled_batches(LENGTHS, 24, seed=1, epoch=1)
    assert sorted(np.concatenate(order)) == list(range(1284))
    assert {len(rows) for rows in order} == {23, 24}
    assert len(order) == 54
    # Lengths are uniform up to 400: 24 random clips are padded to nearly 400, twice the mean.
    padded = sum(len(rows) * LENGTHS[rows].max() for rows in order)
    assert padded / LENGTHS.sum() < 1.1
    # Short and long batches are mixed.
    means = [LENGTHS[rows].mean() for rows in order]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.4


def test_an_order_depends_on_seed_and_epoch_alone():
    first = shuffled_batches(LENGTHS, 24, seed=1, epoch=3)
    again = shuffled_batches(LENGTHS, 24, seed=1, epoch=3)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    contents = {frozenset(rows) for rows in first}
    for seed, epoch in ((2, 3), (1, 4)):
        other = shuffled_batches(LENGTHS, 24, seed=seed, epoch=epoch)
        assert not contents & {frozenset(rows) for rows in other}


def test_each_utterance_is_validated_once():
    order = sorted_batches(LENGTHS[:50], 24)
    assert sorted(np.concatenate(order)) == list(range(50))
    assert {len(rows) for rows in order} == {16, 17}


def utterances_of(rate):
    splits = make_splits()
    text = StoredText()
    return Utterances(
        splits, mask_splits(splits, rate), no_scaling(DIMS), frozen=text, redrawn=text
    )


def hidden(utterances, epoch):
    """Return which acoustic steps of each training utterance are hidden in an epoch."""
    return [u.hidden["acoustic"] for u in utterances.train(epoch)]


def test_the_masks_of_a_rate_are_the_same_in_each_epoch():
    utterances = utterances_of(0.4)
    assert torch.equal(torch.cat(hidden(utterances, 1)), torch.cat(hidden(utterances, 2)))


def test_random_train_hides_something_else_each_epoch():
    """Each clip has a rate of its own: some lose much, others little."""
    utterances = utterances_of(Protocol("random_train"))
    first, second = hidden(utterances, 1), hidden(utterances, 2)
    assert not torch.equal(torch.cat(first), torch.cat(second))
    assert torch.equal(torch.cat(first), torch.cat(hidden(utterances, 1)))
    shares = [float(steps.float().mean()) for steps in first]
    assert min(shares) < 0.25
    assert max(shares) > 0.75
