import random

import pytest
from pydantic import ValidationError

from mitfrnet.corpus.splits import SplitParams, assign_splits

PARAMS = SplitParams(train=0.7, valid=0.1, test=0.2, seed=1)
VIDEOS = [f"v{i}" for i in range(30) for _ in range(1 + i % 7)]


def by_video(videos, params=PARAMS):
    return dict(zip(videos, assign_splits(videos, params), strict=True))


def test_no_video_is_on_two_sides_and_sizes_are_within_one_video():
    splits = assign_splits(VIDEOS, PARAMS)
    assert len(set(zip(VIDEOS, splits, strict=True))) == len(set(VIDEOS))
    for split in ("train", "valid", "test"):
        assert abs(splits.count(split) - getattr(PARAMS, split) * len(VIDEOS)) <= 7


def test_the_order_of_rows_does_not_matter_and_the_seed_does():
    shuffled = random.Random(0).sample(VIDEOS, len(VIDEOS))
    assert by_video(shuffled) == by_video(VIDEOS)
    assert by_video(VIDEOS, PARAMS.model_copy(update={"seed": 2})) != by_video(VIDEOS)


def test_three_videos_fill_three_splits():
    assert sorted(assign_splits(["a", "b", "c"], PARAMS)) == ["test", "train", "valid"]


def test_shares_must_add_up_to_one():
    with pytest.raises(ValidationError, match="must add up to 1"):
        SplitParams(train=0.7, valid=0.2, test=0.2, seed=1)
