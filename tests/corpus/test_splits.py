import random
import time
from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from mitfrnet.corpus.splits import SplitParams, assign_splits
from mitfrnet.modalities import SPLITS

PARAMS = SplitParams(train=0.7, valid=0.1, test=0.2, seed=1)
VIDEOS = [f"v{i}" for i in range(30) for _ in range(1 + i % 7)]


def without_labels(groups, params=PARAMS):
    return assign_splits(groups, [None] * len(groups), params)


def by_group(groups, labels, params=PARAMS):
    return dict(zip(groups, assign_splits(groups, labels, params), strict=True))


def corpus(videos, seed, clips=17):
    """Return groups and labels in steps of 0.2, where each video leans to one side."""
    rng = np.random.default_rng(seed)
    groups, labels = [], []
    for video in range(videos):
        lean = rng.normal(0, 1.2)
        for _ in range(1 + rng.poisson(clips)):
            groups.append(f"v{video}")
            labels.append(float(np.clip(np.round(5 * rng.normal(lean, 1)) / 5, -3, 3)))
    return groups, labels


def random_corpus(seed):
    """Return a corpus of few or many groups, equal or very unequal, and the shares of the splits.

    In a third of them all clips of a group are of one class that few others have: strata alone
    would put all of them on the largest side.
    """
    rng = random.Random(seed)
    tail = rng.choice([0.3, 1.0, 3.0])
    sizes = [min(400, int(rng.paretovariate(tail))) for _ in range(rng.choice([3, 4, 7, 30, 90]))]
    groups = [f"g{i}" for i, size in enumerate(sizes) for _ in range(size)]
    values = rng.choice([[None], [0.0, 1.0], [i / 5 for i in range(-15, 16)], [None, 0.0, 2.0]])
    cuts = sorted([rng.uniform(0.01, 0.98), rng.uniform(0.01, 0.98)])
    shares = {"train": cuts[0], "valid": cuts[1] - cuts[0] + 1e-4, "test": 1 - cuts[1] - 1e-4}
    rng.shuffle(groups)
    labels = [rng.choice(values) for _ in groups]
    if seed % 3 == 0:
        labels = [float(int(group[1:]) % 50) for group in groups]
    return groups, labels, SplitParams(**shares, seed=rng.randrange(9)), sorted(sizes)


@pytest.mark.parametrize("block", range(10))
def test_groups_stay_whole_no_split_is_empty_and_sizes_are_within_one_group(block):
    """A split that should get less than a group may take one more group from another split.

    That group is one of the last two in order of size. As sizes within a factor of two count as
    equal, it has at most twice the clips of the second smallest.
    """
    for seed in range(100 * block, 100 * (block + 1)):
        groups, labels, params, sizes = random_corpus(seed)
        splits = assign_splits(groups, labels, params)
        assert len(set(zip(groups, splits, strict=True))) == len(sizes)
        assert set(splits) == set(SPLITS)
        asked = {split: getattr(params, split) * len(groups) for split in SPLITS}
        given_up = max(0, 2 * sizes[1] - min(asked.values()))
        for split in SPLITS:
            off = abs(splits.count(split) - asked[split])
            assert off <= sizes[-1] + given_up + 1e-6, (seed, split, off)


def test_a_split_gets_a_group_where_hardly_a_clip_was_asked():
    params = SplitParams(train=0.98, valid=0.01, test=0.01, seed=1)
    assert Counter(without_labels(list("abc"), params)) == dict.fromkeys(SPLITS, 1)


def test_equal_groups_give_the_sizes_that_were_asked():
    groups = [f"g{i // 5}" for i in range(500)]
    assert Counter(without_labels(groups)) == {"train": 350, "valid": 50, "test": 100}


def test_the_order_of_rows_does_not_matter_and_the_seed_does():
    labels = [float(i % 5) for i in range(len(VIDEOS))]
    rows = list(zip(VIDEOS, labels, strict=True))
    shuffled = random.Random(0).sample(rows, len(rows))
    assert by_group(*zip(*shuffled, strict=True)) == by_group(VIDEOS, labels)
    other = PARAMS.model_copy(update={"seed": 2})
    assert by_group(VIDEOS, labels, other) != by_group(VIDEOS, labels)


def test_the_seed_has_a_say_where_all_sizes_differ():
    groups = [f"g{i}" for i in range(30) for _ in range(i + 1)]
    draws = {tuple(without_labels(groups, PARAMS.model_copy(update={"seed": s}))) for s in range(9)}
    assert len(draws) == 9


def test_each_class_has_its_share_in_each_split():
    """A clip a video, 100 of one class and 900 of another: the shares of 100 are 70, 10, 20."""
    groups = [f"v{i}" for i in range(1000)]
    labels = [float(i % 10 == 0) for i in range(1000)]
    splits = assign_splits(groups, labels, PARAMS)
    rare = Counter(s for s, label in zip(splits, labels, strict=True) if label)
    assert rare == {"train": 70, "valid": 10, "test": 20}
    assert Counter(splits) == {"train": 700, "valid": 100, "test": 200}


def distance(labels, splits):
    """Return the mean distance of the splits' label bins from the corpus's, in [0, 1]."""
    bins = np.digitize(labels, np.arange(-2.5, 3))
    whole = np.bincount(bins, minlength=7) / len(bins)
    apart = [bins[np.array(splits) == split] for split in SPLITS]
    shares = [np.bincount(b, minlength=7) / len(b) for b in apart]
    return np.mean([np.abs(share - whole).sum() / 2 for share in shares])


def test_strata_bring_the_labels_of_the_splits_near_those_of_the_corpus():
    with_strata, without = [], []
    for seed in range(10):
        groups, labels = corpus(93, seed)  # as many videos and clips as MOSI, about
        with_strata.append(distance(labels, assign_splits(groups, labels, PARAMS)))
        without.append(distance(labels, without_labels(groups)))
    assert np.mean(with_strata) < np.mean(without) / 2
    assert np.mean(with_strata) < 0.04


def test_clips_without_label_are_spread_as_a_class_of_their_own():
    groups = [f"v{i}" for i in range(200)]
    labels = [None if i % 2 else 1.0 for i in range(200)]
    unlabelled = Counter(
        s for s, x in zip(assign_splits(groups, labels, PARAMS), labels, strict=True) if x is None
    )
    assert unlabelled == {"train": 70, "valid": 10, "test": 20}


def test_a_hundred_thousand_clips_take_no_second():
    groups = [f"v{i % 10_000}" for i in range(100_000)]
    labels = [i % 61 / 10 - 3 for i in range(100_000)]
    begun = time.process_time()
    assign_splits(groups, labels, PARAMS)
    assert time.process_time() - begun < 2


def test_no_clips_no_splits():
    assert without_labels([]) == []


def test_shares_must_add_up_to_one():
    with pytest.raises(ValidationError, match="must add up to 1"):
        SplitParams(train=0.7, valid=0.2, test=0.2, seed=1)
