import tracemalloc
from dataclasses import replace
from typing import get_args

import numpy as np
import pyarrow.parquet as pq
import pytest

from mitfrnet.data.ragged import RaggedArray, Steps
from mitfrnet.errors import FeatureError, ParamsError
from mitfrnet.missing import (
    PROTOCOLS,
    WHOLE_PATTERNS,
    MaskParams,
    Pattern,
    draw_rates,
    legacy_masks,
    mask_corpus,
    mask_steps,
    parse_protocol,
    reachable_rate,
    read_masks,
    realised_rates,
    write_masks,
)
from mitfrnet.modalities import MODALITIES, SPLITS
from tests.helpers.splits import make_mask_params, make_split

PARAMS = make_mask_params()
PATTERNS = get_args(Pattern)
STEP_PATTERNS = [pattern for pattern in PATTERNS if pattern not in WHOLE_PATTERNS]


def small_steps():
    """Two utterances: one of 4 tokens and 3 frames, one without a face or a word."""
    detected = {
        "text": [np.ones(4, bool), np.ones(0, bool)],
        "acoustic": [np.ones(5, bool), np.ones(6, bool)],
        "visual": [np.array([True, False, True]), np.ones(0, bool)],
    }
    return Steps(
        ids=["v/1", "v/2"],
        detected=detected,
        special=[np.array([True, False, False, True]), np.ones(0, bool)],
        times={m: [(np.arange(len(d)) + 0.5) / 10 for d in rows] for m, rows in detected.items()},
    )


def mask(steps, rate, params=PARAMS, **changes):
    return mask_steps(steps, rate=rate, split="train", params=params, **changes)


def realised(steps, rate, params=PARAMS):
    return realised_rates(steps, mask(steps, rate, params), rate=rate, params=params)


def same(first, second):
    return all(
        np.array_equal(a, b) for m in MODALITIES for a, b in zip(first[m], second[m], strict=True)
    )


@pytest.mark.parametrize("pattern", STEP_PATTERNS)
def test_what_is_naturally_missing_stays_missing_and_special_tokens_are_kept(pattern):
    params = make_mask_params(pattern)
    observed = mask(small_steps(), 0.0, params)
    assert observed["visual"][0].tolist() == [True, False, True]
    assert len(observed["visual"][1]) == 0
    observed = mask(small_steps(), 1.0, params)
    assert observed["text"][0].tolist() == [True, False, False, True]
    assert not observed["visual"][0].any()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_nothing_is_observed_that_was_not_detected(pattern):
    steps = make_split(without=[3]).steps
    observed = mask(steps, 0.5, make_mask_params(pattern))
    for modality in MODALITIES:
        for d, o in zip(steps.detected[modality], observed[modality], strict=True):
            assert (o <= d).all()
    assert not same(observed, steps.detected)


def test_a_hidden_modality_has_no_observed_step_at_all():
    observed = mask(small_steps(), 1.0, make_mask_params("modality", modalities=["text"]))
    assert observed["text"][0].tolist() == [False] * 4
    assert observed["acoustic"][0].all()


def test_scale_factors_set_the_rate_of_each_modality():
    factors = {"text": 0.0, "acoustic": 0.5, "visual": 2.0}
    steps = make_split().steps
    observed = mask(steps, 0.5, make_mask_params(scale_factors=factors))
    assert all(o.all() for o in observed["text"])
    assert not any(o.any() for o in observed["visual"])
    quarter = mask(steps, 0.25)
    assert same({m: observed["acoustic"] for m in MODALITIES},
                {m: quarter["acoustic"] for m in MODALITIES})  # fmt: skip


def test_structured_masks_hide_the_same_moments_by_the_steps_own_times():
    """Steps of text and sound last 1 s and have the same centres: they lose the same steps."""
    steps = make_split().steps
    observed = mask(steps, 0.5, make_mask_params("structured", cell_seconds=1.0))
    for text, special, acoustic in zip(
        observed["text"], steps.special, observed["acoustic"], strict=True
    ):
        assert np.array_equal(text[~special], acoustic[: len(text)][~special])
    assert any(0 < o.sum() < len(o) for o in observed["acoustic"])


def test_legacy_draws_on_the_padded_split_with_a_seed_per_modality():
    steps = make_split(without=[3]).steps
    params = make_mask_params("legacy")
    observed = mask(steps, 0.4, params)
    assert same(observed, mask(steps, 0.4, params.model_copy(update={"seed": 99})))
    for modality, seed in {"text": 111, "acoustic": 1111, "visual": 11111}.items():
        detected = steps.detected[modality]
        longest = max(map(len, detected))
        valid = np.array([np.arange(longest) < len(d) for d in detected])
        kept = legacy_masks(valid, 0.4, seed, text=modality == "text")
        for o, d, k in zip(observed[modality], detected, kept, strict=True):
            assert np.array_equal(o, d & k[: len(d)])


def test_the_reachable_rate_keeps_one_modality_per_clip():
    """One clip has 3 modalities, one has 1: 2 of 4 may vanish. An undetected face is missing."""
    steps = small_steps()
    assert reachable_rate(steps) == 2 / 4
    faceless = {**steps.detected, "visual": [np.zeros(3, bool), np.ones(0, bool)]}
    assert reachable_rate(replace(steps, detected=faceless)) == 1 / 3


def test_a_rate_that_random_modalities_cannot_reach_is_refused():
    params = make_mask_params("modality_random")
    with pytest.raises(ParamsError, match=r"rate is 0\.6 \(expected at most 0\.5000: .*train"):
        mask(small_steps(), 0.6, params)
    mask(small_steps(), 0.5, params)
    twice = {"text": 2.0, "acoustic": 1.0, "visual": 1.0}
    with pytest.raises(ParamsError, match=r"rate is 0\.6 \(expected at most"):
        mask(small_steps(), 0.3, make_mask_params("modality_random", scale_factors=twice))


def test_random_modalities_hide_nothing_where_clips_have_one_modality():
    steps = small_steps()
    none = [np.ones(0, bool)] * 2
    steps = replace(steps, detected={"text": steps.detected["text"], "acoustic": none,
                                     "visual": none})  # fmt: skip
    steps = replace(steps, times=dict.fromkeys(MODALITIES, none))
    params = make_mask_params("modality_random")
    mask(steps, 0.0, params)
    with pytest.raises(ParamsError, match=r"expected at most 0\.0000"):
        mask(steps, 0.1, params)


def test_every_clip_keeps_a_modality_it_has():
    """Every other clip has no sound, and may lose one of two: at most .6 of all."""
    steps = make_split(n=40).steps
    silent = [d & bool(i % 2) for i, d in enumerate(steps.detected["acoustic"])]
    steps = replace(steps, detected={**steps.detected, "acoustic": silent})
    params = make_mask_params("modality_random")
    for rate in (0.6, None):
        observed = mask(steps, rate, params)
        assert all(any(observed[m][i].any() for m in MODALITIES) for i in range(40))


def test_without_a_rate_each_clip_draws_one_in_each_epoch():
    steps = make_split().steps
    rates = draw_rates(steps.ids, seed=7, split="train", epoch=2)
    observed = mask(steps, None, epoch=2)
    assert same(observed, mask(steps, rates, epoch=2))
    assert not same(observed, mask(steps, rates, epoch=3))
    assert not same(observed, mask(steps, None, epoch=3))


def test_realised_rates_by_hand():
    """At rate 1: both words of four tokens hidden; both faces of three frames.

    text: 2 of 2 maskable, 2 of 4 valid. visual: 2 of 2 detected, 3 of 3 valid missing.
    """
    rates = realised(small_steps(), 1.0)
    assert rates["text"] == {
        "asked": 1.0, "hidden_of_maskable": 1.0, "missing_of_valid": 0.5, "clips_without": 1
    }  # fmt: skip
    assert rates["visual"] == {
        "asked": 1.0, "hidden_of_maskable": 1.0, "missing_of_valid": 1.0, "clips_without": 1
    }  # fmt: skip
    rates = realised(small_steps(), 0.0)
    assert rates["visual"]["missing_of_valid"] == pytest.approx(1 / 3)
    assert rates["visual"]["hidden_of_maskable"] == 0


def test_realised_rates_of_whole_modalities_count_the_clips():
    """Text vanishes from the one clip that has it: 2 of 2 maskable, 4 of 4 valid tokens."""
    rates = realised(small_steps(), 1.0, make_mask_params("modality"))
    assert rates["text"] == {
        "asked": 1.0, "hidden_of_maskable": 1.0, "missing_of_valid": 1.0, "clips_without": 1,
        "clips_hidden": 1,
    }  # fmt: skip
    assert rates["visual"]["clips_hidden"] == 0


def test_the_asked_rate_is_the_effective_rate_or_its_mean_over_clips():
    factors = {"text": 1.0, "acoustic": 0.5, "visual": 4.0}
    rates = realised(small_steps(), [0.2, 0.4], make_mask_params(scale_factors=factors))
    assert [rates[m]["asked"] for m in MODALITIES] == pytest.approx([0.3, 0.15, 0.9])


@pytest.mark.parametrize("entry", [0.3, *PROTOCOLS])
def test_an_entry_of_the_grid_sets_the_rate_of_each_split(entry):
    splits = {s: make_split(seed=i).steps for i, s in enumerate(SPLITS)}
    protocol = parse_protocol(entry)
    masks = mask_corpus(splits, rate=protocol, params=PARAMS)
    for split, steps in splits.items():
        rate = protocol.rate_of(split, PARAMS.fixed_rate)
        if rate is None:
            rate = draw_rates(steps.ids, seed=7, split=split)
        expected = mask_steps(steps, rate=rate, split=split, params=PARAMS)
        assert same(masks.observed[split], expected)
        stored = split in masks.metadata["realised"]
        assert stored != protocol.drawn_later(split)
        if stored:
            asked = masks.metadata["realised"][split]["text"]["asked"]
            assert asked == pytest.approx(np.mean(rate))
    assert masks.metadata["protocol"] == protocol.name
    assert masks.metadata["rate"] == protocol.rate


@pytest.mark.parametrize("pattern", PATTERNS)
def test_masks_are_read_back_as_written_and_the_bytes_are_the_same_again(tmp_path, pattern):
    splits = {"train": small_steps()}
    params = make_mask_params(pattern)
    masks = mask_corpus(splits, rate=0.5, params=params)
    for name in ("a", "b"):
        write_masks(masks, splits, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    read = read_masks(tmp_path / "a", splits)
    assert read.metadata == masks.metadata
    again = mask_corpus(splits, rate=0.5, params=MaskParams(**read.metadata["params"]))
    assert same(again.observed["train"], masks.observed["train"])
    seed = 0 if pattern == "legacy" else 7  # `legacy` has seeds of its own
    assert [read.metadata[k] for k in ("rate", "pattern", "seed")] == [0.5, pattern, seed]
    assert same(read.observed["train"], masks.observed["train"])
    assert pq.read_schema(tmp_path / "a").names == [
        "utterance_id", "split", "text", "acoustic", "visual"
    ]  # fmt: skip


def test_rows_in_another_order_are_found_by_their_ids(tmp_path):
    splits = {name: make_split(video=name).steps for name in ("train", "test")}
    masks = mask_corpus(splits, rate=0.5, params=PARAMS)
    write_masks(masks, splits, tmp_path / "masks")
    table = pq.read_table(tmp_path / "masks")
    pq.write_table(table.take([*range(1, len(table), 2), *range(0, len(table), 2)]),
                   tmp_path / "other")  # fmt: skip
    read = read_masks(tmp_path / "other", splits)
    for split in splits:
        assert same(read.observed[split], masks.observed[split])


def test_masks_of_other_tensors_are_refused(tmp_path):
    splits = {"train": small_steps()}
    write_masks(mask_corpus(splits, rate=0.5, params=PARAMS), splits, tmp_path / "masks")
    other = replace(splits["train"], ids=["v/1", "v/3"])
    with pytest.raises(FeatureError, match="v/3: drawn for other tensors"):
        read_masks(tmp_path / "masks", {"train": other})
    with pytest.raises(FeatureError, match="run the mask stage"):
        read_masks(tmp_path / "absent", splits)


@pytest.mark.parametrize(
    ("pattern", "changes"),
    [
        ("random", {"modalities": ["visual"], "cell_seconds": 9.0, "fixed_rate": 0.1}),
        ("random", {"legacy_seeds": {"text": 1, "acoustic": 2, "visual": 3}}),
        ("legacy", {"seed": 99}),
    ],
)
def test_unused_settings_do_not_change_the_bytes(tmp_path, pattern, changes):
    splits = {"train": small_steps()}
    for name, params in (
        ("a", make_mask_params(pattern)), ("b", make_mask_params(pattern, **changes))
    ):  # fmt: skip
        write_masks(mask_corpus(splits, rate=0.5, params=params), splits, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_asked_rate_of_a_modality_that_is_never_hidden_is_0():
    rates = realised(small_steps(), 0.5, make_mask_params("modality", modalities=["visual"]))
    assert [rates[m]["asked"] for m in ("text", "acoustic", "visual")] == [0.0, 0.0, 0.5]


def test_masks_of_many_clips_take_little_more_than_their_steps(tmp_path):
    """Each clip has 3 x 2 steps; an array per clip and modality would take 380 bytes a clip."""
    n, ones = 2000, np.ones(4000, bool)
    offsets = np.arange(n + 1) * 2
    steps = Steps(
        ids=[f"v/{i}" for i in range(n)],
        detected={m: RaggedArray(ones, offsets) for m in MODALITIES},
        special=RaggedArray(~ones, offsets),
        times={m: RaggedArray(np.zeros(2 * n), offsets) for m in MODALITIES},
    )
    splits, path = {"train": steps}, tmp_path / "masks"
    drawn = mask_corpus(splits, rate=0.5, params=make_mask_params())
    write_masks(drawn, splits, path)
    read_masks(path, splits)  # the first time, modules are loaded
    del drawn
    tracemalloc.start()
    drawn = mask_corpus(splits, rate=0.5, params=make_mask_params())
    held, _ = tracemalloc.get_traced_memory()
    assert held < 100 * n
    del drawn
    masks = read_masks(path, splits)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(masks.observed["train"]["visual"]) == n
    assert held < 100 * n
