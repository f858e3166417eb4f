import itertools

import numpy as np
import pyarrow.parquet as pq
import pytest

from mitfrnet.errors import FeatureError, ParamsError
from mitfrnet.missing import (
    MaskParams,
    Steps,
    draw_masks,
    mask_corpus,
    mask_steps,
    read_masks,
    realised_rates,
    write_masks,
)

IDS = [f"video/{i}" for i in range(40)]
LENGTHS = [i % 23 for i in range(40)]
PARAMS = MaskParams(pattern="random", seed=7)


def draw(rate, ids=IDS, lengths=LENGTHS, **changes):
    settings = {"seed": 7, "split": "train", "modality": "acoustic"} | changes
    return dict(zip(ids, draw_masks(lengths, ids, rate=rate, **settings), strict=True))


def test_rate_0_hides_nothing_and_rate_1_everything():
    assert all(kept.all() for kept in draw(0.0).values())
    assert not any(kept.any() for kept in draw(1.0).values())


def test_what_is_hidden_stays_hidden_at_every_higher_rate():
    rates = [0.0, 0.1, 0.3, 0.5, 0.9, 1.0]
    drawn = [draw(rate) for rate in rates]
    for low, high in itertools.pairwise(drawn):
        assert all((~low[u] <= ~high[u]).all() for u in IDS)


def test_a_mask_depends_neither_on_order_nor_on_other_clips():
    whole = draw(0.4)
    shuffled = draw(0.4, ids=IDS[::-1], lengths=LENGTHS[::-1])
    alone = draw(0.4, ids=IDS[30:31], lengths=LENGTHS[30:31])
    assert all(np.array_equal(whole[u], shuffled[u]) for u in IDS)
    assert np.array_equal(alone[IDS[30]], whole[IDS[30]])


def test_a_longer_clip_begins_with_the_same_mask():
    short, long = draw(0.5, ids=["a"], lengths=[10])["a"], draw(0.5, ids=["a"], lengths=[50])["a"]
    assert np.array_equal(short, long[:10])


@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"split": "test"}, {"modality": "visual"}, {"epoch": 1}]
)
def test_seed_split_modality_and_epoch_each_give_other_masks(change):
    first, other = draw(0.5), draw(0.5, **change)
    assert any(not np.array_equal(first[u], other[u]) for u in IDS)


def test_the_share_of_hidden_steps_is_the_rate():
    """40 x 500 steps: the standard error of a share near .3 is .0032."""
    masks = draw_masks([500] * 40, IDS, rate=0.3, seed=1, split="test", modality="visual")
    assert np.mean(np.concatenate(masks)) == pytest.approx(0.7, abs=0.013)


def test_only_maskable_steps_are_hidden():
    maskable = [np.array([False, True, True, False])]
    (kept,) = draw_masks(
        [4], ["a"], rate=1.0, seed=1, split="train", modality="text", maskable=maskable
    )
    assert kept.tolist() == [True, False, False, True]


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_outside_0_to_1_is_refused(rate):
    with pytest.raises(ParamsError, match=r"expected a number in \[0, 1\]"):
        draw(rate)


def test_an_unknown_pattern_is_refused():
    with pytest.raises(ValueError, match="pattern: 'blok' is unknown"):
        draw(0.5, pattern="blok")


def small_steps():
    """Two utterances: one of 4 tokens and 3 frames, one without a face or a word."""
    return Steps(
        ids=["v/1", "v/2"],
        detected={
            "text": [np.ones(4, bool), np.ones(0, bool)],
            "acoustic": [np.ones(5, bool), np.ones(6, bool)],
            "visual": [np.array([True, False, True]), np.ones(0, bool)],
        },
        special=[np.array([True, False, False, True]), np.ones(0, bool)],
    )


def test_natural_missingness_is_joined_in_and_special_tokens_are_kept():
    observed = mask_steps(small_steps(), rate=0.0, split="train", params=PARAMS)
    assert observed["visual"][0].tolist() == [True, False, True]
    assert len(observed["visual"][1]) == 0
    observed = mask_steps(small_steps(), rate=1.0, split="train", params=PARAMS)
    assert observed["text"][0].tolist() == [True, False, False, True]
    assert not observed["visual"][0].any()


def test_realised_rates_by_hand():
    """At rate 1: both words of four tokens hidden; both faces of three frames.

    text: 2 of 2 maskable, 2 of 4 valid. visual: 2 of 2 detected, 3 of 3 valid missing.
    """
    steps = small_steps()
    rates = realised_rates(steps, mask_steps(steps, rate=1.0, split="train", params=PARAMS))
    assert rates["text"] == {
        "hidden_of_maskable": 1.0, "missing_of_valid": 0.5, "clips_without": 1
    }  # fmt: skip
    assert rates["visual"] == {
        "hidden_of_maskable": 1.0, "missing_of_valid": 1.0, "clips_without": 1
    }  # fmt: skip
    rates = realised_rates(steps, mask_steps(steps, rate=0.0, split="train", params=PARAMS))
    assert rates["visual"]["missing_of_valid"] == pytest.approx(1 / 3)
    assert rates["visual"]["hidden_of_maskable"] == 0


def test_masks_come_back_as_written_and_the_file_is_the_same_again(tmp_path):
    splits = {"train": small_steps()}
    masks = mask_corpus(splits, rate=0.5, params=PARAMS)
    for name in ("a", "b"):
        write_masks(masks, splits, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    found = read_masks(tmp_path / "a", splits)
    assert found.metadata == masks.metadata
    assert found.metadata["rate"] == 0.5
    for modality, rows in masks.observed["train"].items():
        for row, again in zip(rows, found.observed["train"][modality], strict=True):
            assert np.array_equal(row, again)
    assert pq.read_schema(tmp_path / "a").names == [
        "utterance_id", "split", "text", "acoustic", "visual"
    ]  # fmt: skip


def test_masks_of_other_tensors_are_refused(tmp_path):
    splits = {"train": small_steps()}
    write_masks(mask_corpus(splits, rate=0.5, params=PARAMS), splits, tmp_path / "masks")
    other = Steps(["v/1", "v/3"], splits["train"].detected, splits["train"].special)
    with pytest.raises(FeatureError, match="v/3: drawn for other tensors"):
        read_masks(tmp_path / "masks", {"train": other})
    with pytest.raises(FeatureError, match="run the mask stage"):
        read_masks(tmp_path / "absent", splits)
