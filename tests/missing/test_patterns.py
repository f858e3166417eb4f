import hashlib
import itertools
import json
from typing import get_args

import numpy as np
import pytest

from mitfrnet.errors import ParamsError
from mitfrnet.missing import (
    WHOLE_PATTERNS,
    Pattern,
    check_rate,
    draw_masks,
    draw_rates,
    legacy_masks,
)
from mitfrnet.modalities import MODALITIES

IDS = [f"video/{i}" for i in range(40)]
LENGTHS = [i % 23 for i in range(40)]
PATTERNS = get_args(Pattern)
KEYED = [p for p in PATTERNS if p != "legacy"]  # each clip draws from a stream of its own
# Clip i has text unless i % 5 is 0, and sound unless i % 7 is 0.
PRESENT = {
    "text": [i % 5 > 0 for i in range(40)],
    "acoustic": [i % 7 > 0 for i in range(40)],
    "visual": [True] * 40,
}


def times_of(lengths, step_s=0.05):
    return [(np.arange(n) + 0.5) * step_s for n in lengths]


def draw(rate, ids=IDS, lengths=LENGTHS, **changes):
    settings = {"seed": 7, "split": "train", "modality": "acoustic"} | changes
    if settings.get("pattern") == "structured":
        settings = {"times": times_of(lengths)} | settings
    return dict(zip(ids, draw_masks(lengths, ids, rate=rate, **settings), strict=True))


@pytest.mark.parametrize("pattern", [p for p in PATTERNS if p != "modality_random"])
def test_rate_0_hides_nothing_and_rate_1_everything(pattern):
    assert all(kept.all() for kept in draw(0.0, pattern=pattern).values())
    assert not any(kept.any() for kept in draw(1.0, pattern=pattern).values())


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("modality", MODALITIES)
def test_what_is_hidden_stays_hidden_at_every_higher_rate(pattern, modality):
    changes = {"pattern": pattern, "modality": modality}
    if pattern == "modality_random":
        changes["present"] = PRESENT
    drawn = [draw(rate, **changes) for rate in np.linspace(0, 1, 101)]
    for low, high in itertools.pairwise(drawn):
        assert all((~low[u] <= ~high[u]).all() for u in IDS)
    assert any(not np.array_equal(drawn[10][u], drawn[90][u]) for u in IDS)


@pytest.mark.parametrize("pattern", KEYED)
def test_a_mask_depends_neither_on_order_nor_on_other_clips(pattern):
    rates = np.linspace(0.1, 0.9, 40)
    whole = draw(rates, pattern=pattern)
    shuffled = draw(rates[::-1], pattern=pattern, ids=IDS[::-1], lengths=LENGTHS[::-1])
    alone = draw(rates[30], pattern=pattern, ids=IDS[30:31], lengths=LENGTHS[30:31])
    assert all(np.array_equal(whole[u], shuffled[u]) for u in IDS)
    assert np.array_equal(alone[IDS[30]], whole[IDS[30]])


@pytest.mark.parametrize("pattern", ["random", "structured"])
def test_a_longer_clip_begins_with_the_same_mask(pattern):
    short, long = (draw(0.5, pattern=pattern, ids=["a"], lengths=[n])["a"] for n in (10, 50))
    assert np.array_equal(short, long[:10])


@pytest.mark.parametrize("pattern", KEYED)
@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"split": "test"}, {"modality": "visual"}, {"epoch": 1}]
)
def test_seed_split_epoch_and_but_for_joint_patterns_modality_give_other_masks(pattern, change):
    first, other = draw(0.5, pattern=pattern), draw(0.5, pattern=pattern, **change)
    same = all(np.array_equal(first[u], other[u]) for u in IDS)
    assert same == ("modality" in change and pattern in ("structured", "modality"))


def test_random_hides_step_i_where_the_ith_draw_of_its_stream_is_at_most_the_rate():
    """The stream is rebuilt here from its key."""
    digest = hashlib.sha256(json.dumps([7, "train", "acoustic", "a"]).encode()).digest()
    stream = np.random.Generator(np.random.Philox(int.from_bytes(digest[:16], "big")))
    uniform = stream.random(30)
    assert (
        draw(uniform[4], ids=["a"], lengths=[30])["a"].tolist() == (uniform > uniform[4]).tolist()
    )


def test_the_share_of_hidden_steps_is_the_rate():
    """40 x 500 steps: the standard error of a share near .3 is .0032."""
    masks = draw_masks([500] * 40, IDS, rate=0.3, seed=1, split="test", modality="visual")
    assert np.mean(np.concatenate(masks)) == pytest.approx(0.7, abs=0.013)


@pytest.mark.parametrize("pattern", [p for p in KEYED if p not in WHOLE_PATTERNS])
def test_only_maskable_steps_are_hidden(pattern):
    changes = {"pattern": pattern, "maskable": [np.array([False, True, True, False])]}
    kept = draw(1.0, ids=["a"], lengths=[4], modality="text", **changes)["a"]
    assert kept.tolist() == [True, False, False, True]


@pytest.mark.parametrize("pattern", WHOLE_PATTERNS)
def test_a_wholly_hidden_modality_loses_its_special_tokens_too(pattern):
    maskable = [np.array([False, True, False])] * 40
    drawn = draw(0.6, lengths=[3] * 40, modality="text", pattern=pattern, maskable=maskable)
    assert {tuple(kept) for kept in drawn.values()} == {(True,) * 3, (False,) * 3}


def test_each_utterance_may_have_a_rate_of_its_own():
    rates = [i / 39 for i in range(40)]
    together = draw(rates)
    assert all(np.array_equal(together[u], draw(r)[u]) for u, r in zip(IDS, rates, strict=True))
    with pytest.raises(ValueError, match="shape"):
        draw(rates[:-1])


def test_structured_hides_the_same_moments_in_modalities_of_different_step_rates():
    """Cells of .1 s hold two acoustic steps of .05 s and one visual step of .1 s each."""
    settings = {"pattern": "structured", "cell_seconds": 0.1}
    lengths = [40] * 40
    fast = draw(0.4, lengths=lengths, times=times_of(lengths, 0.05), **settings)
    lengths = [20] * 40
    slow = draw(0.4, lengths=lengths, times=times_of(lengths, 0.1), modality="visual", **settings)
    for u in IDS:
        assert np.array_equal(fast[u], slow[u].repeat(2))
    share = np.mean(np.concatenate(list(slow.values())))
    assert share == pytest.approx(0.6, abs=0.07)  # four standard errors


def test_structured_needs_times():
    with pytest.raises(ValueError, match="structured needs the times"):
        draw(0.5, pattern="structured", times=None)


@pytest.mark.parametrize(("n", "rate", "length"), [(7, 0.5, 4), (7, 0.3, 2), (7, 0.05, 0)])
def test_a_block_has_exactly_the_asked_length_and_every_legal_start(n, rate, length):
    """floor(3.5 + .5) = 4, floor(2.1 + .5) = 2, floor(.35 + .5) = 0; starts 0 to 7 - k.

    The first and last of the steps may not be hidden. There are at most 6 starts; the chance
    that 200 ids miss one is about 1e-15.
    """
    ids = [f"v/{i}" for i in range(200)]
    maskable = [np.array([False, *[True] * n, False])] * 200
    drawn = draw(rate, ids=ids, lengths=[n + 2] * 200, pattern="block", maskable=maskable)
    starts = set()
    for kept in drawn.values():
        hidden = np.flatnonzero(~kept)
        assert len(hidden) == length
        if length:
            assert hidden[-1] - hidden[0] == length - 1
            starts.add(hidden[0])
    assert starts == (set(range(1, n - length + 2)) if length else set())


def test_blocks_do_not_accumulate_over_seeds():
    for seed in range(5):
        for kept in draw(0.3, lengths=[20] * 40, pattern="block", seed=seed).values():
            assert (~kept).sum() == 6


def test_a_block_skips_steps_that_were_not_detected():
    """4 of 6 steps are detected; half of them are 2 that follow one another among those 4."""
    maskable = [np.array([True, False, True, True, False, True])] * 40
    allowed = [{0, 2}, {2, 3}, {3, 5}]
    for kept in draw(0.5, lengths=[6] * 40, pattern="block", maskable=maskable).values():
        assert set(np.flatnonzero(~kept)) in allowed


def test_the_listed_modalities_are_hidden_together_in_a_share_of_the_clips():
    """400 clips: four standard errors of a share of .3 are .092."""
    ids = [f"v/{i}" for i in range(400)]
    settings = {"ids": ids, "lengths": [2] * 400, "pattern": "modality"}
    settings |= {"modalities": ["text", "visual"]}
    text, acoustic, visual = (draw(0.3, modality=m, **settings) for m in MODALITIES)
    assert all(kept.all() for kept in acoustic.values())
    assert all(np.array_equal(text[u], visual[u]) for u in ids)
    assert np.mean([not kept.any() for kept in text.values()]) == pytest.approx(0.3, abs=0.092)


@pytest.mark.parametrize("rate", [0.2, 0.5, 2 / 3])
def test_random_modalities_meet_the_rate_on_average_and_one_is_always_kept(rate):
    """2000 clips of three modalities: hidden ones are floor(3 r) or one more in each clip.

    The standard error of their share is at most .5 / 3 / sqrt(2000) = .0037; which of the
    three, at most sqrt(2) / 3 / sqrt(2000) = .0106.
    """
    ids = [f"v/{i}" for i in range(2000)]
    settings = {"ids": ids, "lengths": [1] * 2000, "pattern": "modality_random"}
    hidden = np.array(
        [[not k[0] for k in draw(rate, modality=m, **settings).values()] for m in MODALITIES]
    )
    assert set(hidden.sum(0)) <= {np.floor(3 * rate), np.floor(3 * rate) + 1}
    assert hidden.sum(0).max() <= 2
    assert hidden.mean() == pytest.approx(rate, abs=0.015)
    assert hidden.mean(1) == pytest.approx([rate] * 3, abs=0.043)


def test_random_modalities_meet_the_rate_where_two_are_present():
    """2000 clips hide none or one of two modalities: four standard errors of .3 are .022."""
    ids = [f"v/{i}" for i in range(2000)]
    settings = {"ids": ids, "lengths": [1] * 2000, "pattern": "modality_random"}
    settings["present"] = {
        "text": [True] * 2000,
        "acoustic": [False] * 2000,
        "visual": [True] * 2000,
    }
    hidden = [[not k[0] for k in draw(0.3, modality=m, **settings).values()] for m in MODALITIES]
    assert not any(hidden[1])
    assert np.mean([hidden[0], hidden[2]]) == pytest.approx(0.3, abs=0.022)


def test_random_modalities_count_present_ones_alone_and_keep_one_at_rate_1():
    drawn = [draw(1.0, modality=m, pattern="modality_random", present=PRESENT) for m in MODALITIES]
    for i, u in enumerate(IDS):
        if not LENGTHS[i]:
            continue
        kept = [m for m, k in zip(MODALITIES, drawn, strict=True) if k[u].all()]
        assert len([m for m in kept if PRESENT[m][i]]) == 1


def generated(lengths, steps, rate, seed, *, text):
    """Return what TFR-Net's generator keeps, drawn with NumPy's global generator.

    Uniform numbers of the padded shape, one seed per modality; a step is kept where its number
    is above the rate. Text also keeps its first position and its last real one.
    """
    state = np.random.get_state()
    np.random.seed(seed)
    numbers = np.random.uniform(size=(len(lengths), steps))
    np.random.set_state(state)
    expected = []
    for row, length in zip(numbers, lengths, strict=True):
        kept = [u > rate and i < length for i, u in enumerate(row)]
        if text:
            kept[0] = kept[length - 1] = True
        expected.append(kept)
    return np.array(expected)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize(("modality", "seed"), [*zip(MODALITIES, [111, 1111, 11111], strict=True)])
def test_legacy_is_tfr_nets_generator_bit_for_bit(modality, seed, rate):
    """Lengths from 2 to all 9 padded positions."""
    lengths = [2, 9, 5, 3, 9, 7]
    text = modality == "text"
    expected = generated(lengths, 9, rate, seed, text=text)
    valid = np.arange(9) < np.array(lengths)[:, None]
    assert np.array_equal(legacy_masks(valid, rate, seed, text=text), expected)
    drawn = draw(rate, ids=IDS[:6], lengths=lengths, seed=seed, modality=modality, pattern="legacy")
    for kept, row, length in zip(drawn.values(), expected, lengths, strict=True):
        assert np.array_equal(kept, row[:length])


def test_legacy_keeps_only_what_is_strictly_above_the_rate():
    """NumPy documents that seed 0 begins with 0.5488135: hidden at exactly that rate."""
    first = np.random.RandomState(0).uniform()
    assert first == pytest.approx(0.5488135)
    valid = np.ones((1, 1), dtype=bool)
    assert not legacy_masks(valid, first, 0)[0, 0]
    assert legacy_masks(valid, np.nextafter(first, 0), 0)[0, 0]


def test_legacy_leaves_the_global_generator_alone():
    before = np.random.get_state()
    legacy_masks(np.ones((3, 4), dtype=bool), 0.5, 111, text=True)
    after = np.random.get_state()
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]


def test_legacy_takes_clips_without_a_step_and_splits_of_only_such_clips():
    drawn = draw(0.5, ids=IDS[:3], lengths=[0, 4, 0], modality="text", pattern="legacy")
    assert [len(kept) for kept in drawn.values()] == [0, 4, 0]
    drawn = draw(0.5, ids=IDS[:2], lengths=[0, 0], modality="text", pattern="legacy")
    assert [len(kept) for kept in drawn.values()] == [0, 0]
    assert draw(0.5, ids=[], lengths=[], modality="text", pattern="legacy") == {}


def test_drawn_rates_are_uniform_and_depend_on_seed_split_id_and_epoch():
    """2000 rates: the standard error of their mean is .0065."""
    ids = [f"v/{i}" for i in range(2000)]
    rates = draw_rates(ids, seed=1, split="train", epoch=3)
    assert np.mean(rates) == pytest.approx(0.5, abs=0.026)
    assert min(rates) < 0.01 < 0.99 < max(rates)
    assert draw_rates(ids[5:6], seed=1, split="train", epoch=3) == rates[5:6]
    for change in ({"seed": 2}, {"split": "valid"}, {"epoch": 4}, {"epoch": None}):
        others = draw_rates(ids, **({"seed": 1, "split": "train", "epoch": 3} | change))
        assert not set(others) & set(rates)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), [0.5] * 39 + [1.1]])
def test_a_rate_outside_0_to_1_is_refused(rate):
    with pytest.raises(ParamsError, match=r"expected a number in \[0, 1\]"):
        draw(rate)


def test_a_rate_that_is_no_number_is_refused():
    assert check_rate("0.3") == 0.3
    with pytest.raises(ParamsError, match="missing rate is much"):
        check_rate("much")


def test_an_unknown_pattern_is_refused():
    with pytest.raises(ValueError, match=r"pattern: 'blok' is unknown \(expected random, struct"):
        draw(0.5, pattern="blok")
