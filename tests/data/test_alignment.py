"""Alignment of single utterances, in which every step is known."""

from itertools import pairwise

import numpy as np
import pytest

from mitfrnet.corpus.transcripts.words import Word
from mitfrnet.data.alignment import (
    TensorParams,
    Timeline,
    align,
    mean_steps,
    segment_timeline,
    token_timeline,
    word_times,
)
from mitfrnet.data.tensors import ModalityTensors
from mitfrnet.errors import ParamsError
from mitfrnet.params import parse_params

# The tokens [CLS] so , very good [SEP] of `so, very good`.
CHARS = np.array([[0, 0], [0, 2], [2, 3], [4, 8], [9, 13], [0, 0]])
SPECIAL = np.array([True, False, False, False, False, True])


def ragged(*utterances, step_s=0.5):
    """Return a modality of one column; None stands for an undetected step."""
    flat = [value for values in utterances for value in values]
    times = [(i + 0.5) * step_s for values in utterances for i in range(len(values))]
    return ModalityTensors(
        values=np.array([[v or 0] for v in flat], dtype=np.float32).reshape(-1, 1),
        detected=np.array([v is not None for v in flat], dtype=bool),
        time_s=np.array(times, dtype=np.float32),
        offsets=np.cumsum([0, *map(len, utterances)]),
    )


def shown(result):
    """Return the steps of each utterance, with None for undetected ones."""
    steps = [
        value if detected else None
        for value, detected in zip(result.values[:, 0].tolist(), result.detected, strict=True)
    ]
    assert not result.values[~result.detected].any()
    return [steps[a:b] for a, b in pairwise(result.offsets)]


def spans(*rows):
    return Timeline(
        np.zeros(len(rows), np.float32), np.ones(len(rows), bool), np.array(rows, float)
    )


def aligned(values, *rows, step_s=0.5):
    return shown(align(ragged(values, step_s=step_s), [spans(*rows)]))[0]


def test_a_word_gets_the_mean_of_the_detected_steps_in_its_time():
    """Centres are .25, .75, 1.25, 1.75; the words contain two steps, one, none, and none."""
    values = [1, 4, 7, None]
    assert aligned(values, (0, 1), (1, 2), (1.5, 2), (2, 3)) == [2.5, 7, None, None]


def test_a_step_on_the_border_belongs_to_the_word_that_starts_there():
    """Even if float32 rounds the centre .35 to a little less."""
    assert aligned([1, 2, 3, 4], (0, 0.25), (0.25, 0.75), (0.75, 1)) == [None, 1, 2]
    assert aligned([0, 1, 2, 3], (0.25, 0.35), (0.35, 0.45), step_s=0.1) == [2, 3]
    assert float(np.float32(0.35)) < 0.35


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(1, 2), (0, 1)], [3.5, 1.5]),  # out of order
        ([(0, 1.5), (0.5, 2)], [2, 3]),  # overlapping
        ([(0.75, 0.75), (0, 1)], [None, 1.5]),  # of no length, at a centre
        ([(1, 0)], None),  # swapped
        ([(1.5, 99), (5, 6), (-3, -1)], [4, None, None]),  # too long, too late, too early
        ([(np.nan, np.nan), (0, 9)], [None, 2.5]),  # outside words
        ([], None),
    ],
)
def test_odd_times_are_accepted(rows, expected):
    rows = np.array(rows, dtype=float).reshape(-1, 2)
    result = align(ragged([1, 2, 3, 4]), [spans(*rows) if len(rows) else spans_of_none()])
    assert shown(result)[0] == (expected or [])


def spans_of_none():
    return Timeline(np.empty(0, np.float32), np.empty(0, bool), np.empty((0, 2)))


def test_a_modality_that_loses_all_steps_is_missing_and_one_without_steps_stays_missing():
    timelines = [spans((0, 0.5)), spans((0, 0.5), (0.5, 1)), spans((0, 1))]
    result = align(ragged([None, 2], [3], []), timelines)
    assert shown(result) == [[], [3, None], []]
    assert result.offsets.tolist() == [0, 0, 2, 2]
    assert result.offsets.dtype == np.int64
    assert len(result.time_s) == 2


def test_an_empty_split_keeps_its_dims():
    result = align(ragged(), [])
    assert result.values.shape == (0, 1)
    assert result.values.dtype == result.time_s.dtype == np.float32
    assert result.offsets.tolist() == [0]


@pytest.mark.parametrize(
    ("steps", "shares", "expected"),
    [
        (6, 3, [0.5, 2.5, 4.5]),
        (5, 2, [1, 3]),  # 0:3 and 2:5
        (8, 5, [0.5, 2, 3.5, 5, 6.5]),  # 0:2, 1:4, 3:5, 4:7, 6:8
        (2, 5, [0, 0, 0.5, 1, 1]),  # 0:1, 0:1, 0:2, 1:2, 1:2
        (1, 3, [0, 0, 0]),
        (4, 1, [1.5]),
    ],
)
def test_equal_shares_are_those_of_adaptive_average_pooling(steps, shares, expected):
    result = align(ragged(list(range(steps))), [segment_timeline(shares, 1.0)])
    assert shown(result)[0] == expected


@pytest.mark.parametrize("how", ["pool", "words"])
def test_special_tokens_take_no_share_and_undetected_steps_do_not_count(how):
    """Four tokens share eight steps: 0:2, 2:4, 4:6, 6:8."""
    timeline = token_timeline(CHARS, SPECIAL, words=(), characters=13, duration_s=4.0, align=how)
    result = align(ragged([0, 1, None, 3, None, None, 6, 8]), [timeline])
    assert shown(result)[0] == [None, 0.5, 3, None, 7, None]
    assert np.array_equal(result.time_s, timeline.time_s)


def test_segments_are_centred_in_equal_parts():
    assert segment_timeline(4, 2.0).time_s.tolist() == [0.25, 0.75, 1.25, 1.75]


def test_tokens_are_at_the_centre_of_their_word_or_else_of_their_characters():
    """The comma belongs to no word and is at 2.5 of 13 characters; the last word ends too late."""
    timed = [Word(0, 2, 0.5, 1.5), Word(4, 8, 2.0, 2.5), Word(9, 13, 12.0, 99.0)]
    timeline = token_timeline(
        CHARS, SPECIAL, words=timed, characters=13, duration_s=13.0, align="words"
    )
    np.testing.assert_allclose(timeline.time_s, [0, 1, 2.5, 2.25, 12.5, 0])
    assert timeline.spans_s is not None
    expected = [[np.nan] * 2, [0.5, 1.5], [np.nan] * 2, [2.0, 2.5], [12.0, 99.0], [np.nan] * 2]
    np.testing.assert_array_equal(timeline.spans_s, expected)


def test_parts_of_a_word_share_it_and_words_may_come_in_any_order():
    """Tokens un ##believ ##able ! x of `unbelievable! x`, then one that covers two words."""
    timed = [Word(14, 15, 3, 4), Word(0, 12, 1, 2)]
    chars = np.array([[0, 2], [2, 8], [8, 12], [12, 13], [14, 15], [10, 15], [0, 0], [20, 22]])
    none = [np.nan, np.nan]
    expected = [[1, 2], [1, 2], [1, 2], none, [3, 4], [1, 2], none, none]
    np.testing.assert_array_equal(word_times(chars, timed), expected)
    assert np.isnan(word_times(chars, [])).all()


def test_sums_are_in_float64_and_no_step_outside_an_interval_counts():
    """In float32, 2**24 + 1 is 2**24; the huge value would absorb a running sum."""
    values = np.array([1, 2.0**24, 1, 3e38], dtype=np.float32)[:, None]
    means, filled = mean_steps(
        values, np.ones(4, dtype=bool), np.array([0, 2, 4, 3]), np.array([3, 3, 4, 4])
    )
    assert means[:, 0].tolist() == [np.float32((2**24 + 2) / 3), 1, 0, np.float32(3e38)]
    assert filled.tolist() == [True, True, False, True]
    assert means.dtype == np.float32


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"align": "word", "segments": 50}, "align"),
        ({"align": "pool", "segments": 0}, "segments"),
        ({"align": "pool"}, "segments: key is absent"),
    ],
)
def test_settings_are_checked(values, message):
    with pytest.raises(ParamsError, match=message):
        parse_params(TensorParams, values, where="params.yaml: tensors")
