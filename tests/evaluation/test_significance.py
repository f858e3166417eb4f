import itertools

import numpy as np
import pytest

from mitfrnet.evaluation.significance import (
    _exchanged_differences,
    _resampled_counts,
    _resampled_scores,
    bootstrap_intervals,
    paired_test,
)
from mitfrnet.labels import SCALES
from mitfrnet.metrics import as_scored, metric_names, score
from tests.helpers.scales import EMOTIONS, STARS

SCALES_TRIED = [*SCALES.values(), STARS, EMOTIONS]


def draw_runs(scale, runs=3, clips=40, seed=0):
    """Return random predictions, (runs, clips), that resemble random labels, and these labels."""
    rng = np.random.default_rng(seed)
    if scale is EMOTIONS:
        true = rng.integers(0, 3, clips)
        other = rng.integers(0, 3, (runs, clips))
        return np.where(rng.random((runs, clips)) < 0.5, true, other), true
    true = np.round(rng.uniform(scale.low, scale.high, clips), 1)
    return true + scale.high * rng.normal(0, 0.5, (runs, clips)), true


def mean_score(predictions, true, scale, metric):
    """Return the mean over runs of a score of all clips."""
    return np.mean([score(run, true, scale)[metric] for run in predictions])


@pytest.mark.parametrize("scale", SCALES_TRIED)
def test_on_each_clip_once_resampling_gives_the_score(scale):
    predictions, true = draw_runs(scale)
    prepared = as_scored(predictions, true, scale)
    for metric in metric_names(scale):
        (got,) = _resampled_scores(*prepared, scale, metric, np.ones((1, 40)))
        expected = [score(run, true, scale)[metric] for run in predictions]
        if metric in ("mae", "corr"):  # sums of fractions, in another order
            assert got == pytest.approx(expected, abs=1e-12)
        else:
            assert got.tolist() == expected


@pytest.mark.parametrize("scale", SCALES_TRIED)
def test_a_resample_is_scored_like_a_list_of_its_clips(scale):
    """Six clips: some resamples lack a class, or hold one clip six times."""
    predictions, true = draw_runs(scale, clips=6)
    prepared = as_scored(predictions, true, scale)
    counts = np.concatenate([_resampled_counts(6, 30, seed=1), [[0, 0, 6, 0, 0, 0]]])
    for metric in metric_names(scale):
        drawn = _resampled_scores(*prepared, scale, metric, counts)
        for row, times in zip(drawn, counts.astype(int), strict=True):
            held = np.repeat(np.arange(6), times)
            expected = [score(run[held], true[held], scale)[metric] for run in predictions]
            nan = [np.nan if e is None else e for e in expected]
            assert row.tolist() == pytest.approx(nan, abs=1e-9, nan_ok=True)


NEARLY = [0.3, 0.3 + 1e-6, -1.0, 0.5]  # the first two count as the same on [-3, 3]


@pytest.mark.parametrize(
    ("predicted", "true"), [(NEARLY, [0.1, 0.2, 0.5, -0.5]), ([0.1, 0.2, 0.5, -0.5], NEARLY)]
)
def test_a_resample_of_nearly_equal_values_has_no_correlation(predicted, true):
    counts = np.array([[2.0, 2, 0, 0], [1, 1, 1, 1]])
    mosi = SCALES["mosi"]
    drawn = _resampled_scores(*as_scored([predicted], true, mosi), mosi, "corr", counts)
    assert np.isfinite(drawn[:, 0]).tolist() == [False, True]


def test_an_exchange_that_makes_a_model_nearly_constant_has_no_correlation():
    mosi = SCALES["mosi"]
    a, true = as_scored([[0.3, 1.0, 0.3]], [0.0, 1.0, 2.0], mosi)
    b, _ = as_scored([[0.0, 0.3 + 1e-6, 0.1]], true, mosi)
    exchanged = np.array([[False, True, False], [True, False, True], [False, False, True]])
    got = _exchanged_differences(a, b, true, mosi, "corr", exchanged)
    assert np.isfinite(got[:, 0]).tolist() == [False, False, True]


@pytest.mark.parametrize("scale", SCALES_TRIED)
def test_an_exchange_is_scored_like_exchanged_predictions(scale):
    (a, true), (b, _) = draw_runs(scale, seed=0), draw_runs(scale, seed=1)
    exchanged = np.random.default_rng(2).random((20, 40)) < 0.5
    first, prepared_true = as_scored(a, true, scale)
    second, _ = as_scored(b, true, scale)
    for metric in metric_names(scale):
        got = _exchanged_differences(first, second, prepared_true, scale, metric, exchanged)
        for row, here in zip(got, exchanged, strict=True):
            for run in range(3):
                mixed = np.where(here, b[run], a[run]), np.where(here, a[run], b[run])
                one, other = (score(p, true, scale)[metric] for p in mixed)
                assert row[run] == pytest.approx(one - other, abs=1e-9)


def test_the_interval_of_an_accuracy_is_that_of_a_proportion():
    """360 of 400 right: the share .9 has standard error .015, so 1.96 of it is .029."""
    true = np.ones(400)
    predictions = np.where(np.arange(400) < 360, 1.0, -1.0)[None]
    interval = bootstrap_intervals(
        predictions, true, "mosi", metrics=["acc2_has0"], seed=1, resamples=4000
    )["acc2_has0"]
    assert interval.value == 0.9
    assert interval.low == pytest.approx(0.9 - 0.029, abs=0.004)
    assert interval.high == pytest.approx(0.9 + 0.029, abs=0.004)
    assert interval.skipped == 0


def test_the_same_run_twice_is_no_second_sample():
    """Runs share their clips: repeating one must not narrow the interval."""
    predictions, true = draw_runs(SCALES["mosi"], runs=1)
    metrics = ["acc7", "mae", "corr", "f1_non0"]
    once = bootstrap_intervals(predictions, true, "mosi", metrics=metrics, seed=3)
    twice = bootstrap_intervals(np.repeat(predictions, 2, 0), true, "mosi", metrics=metrics, seed=3)
    for metric in metrics:
        for end in ("value", "low", "high"):
            assert getattr(once[metric], end) == pytest.approx(getattr(twice[metric], end))


def test_the_seed_alone_decides():
    predictions, true = draw_runs(SCALES["mosi"])

    def interval(seed):
        np.random.seed(seed)
        return bootstrap_intervals(predictions, true, "mosi", metrics=["mae"], seed=seed % 2)

    assert interval(0) == interval(2)
    assert interval(0) != interval(1)


def test_a_wider_level_holds_the_narrower():
    predictions, true = draw_runs(SCALES["sims"])
    wide, narrow = (
        bootstrap_intervals(predictions, true, "sims", metrics=["corr"], seed=1, level=level)
        for level in (0.99, 0.5)
    )
    assert wide["corr"].low < narrow["corr"].low < narrow["corr"].high < wide["corr"].high


def test_an_undefined_score_has_no_interval():
    """Constant runs are flagged; one beside others is left out of the mean of corr alone."""
    predictions, true = draw_runs(SCALES["mosi"])
    constant = np.zeros((1, 40))
    intervals = bootstrap_intervals(constant, true, "mosi", metrics=["corr", "mae"], seed=1)
    assert intervals["corr"] is None
    assert intervals["mae"].constant_runs == 1
    mixed = np.concatenate([predictions, constant])
    intervals = bootstrap_intervals(mixed, true, "mosi", metrics=["corr", "mae"], seed=1)
    assert intervals["corr"].value == pytest.approx(mean_score(predictions, true, "mosi", "corr"))
    assert intervals["mae"].value == pytest.approx(mean_score(mixed, true, "mosi", "mae"))
    assert intervals["corr"].constant_runs == 1


def test_resamples_without_the_score_are_counted():
    """Half of the resamples of two clips hold one clip twice, and have no correlation."""
    interval = bootstrap_intervals(
        [[0.1, 0.9]], [0.2, 0.8], "sims", metrics=["corr"], seed=1, resamples=1000
    )["corr"]
    assert interval.skipped == pytest.approx(500, abs=60)
    assert (interval.low, interval.high) == (pytest.approx(1), pytest.approx(1))
    intervals = bootstrap_intervals([[0.1]], [0.2], "sims", metrics=["corr"], seed=1)
    assert intervals["corr"] is None


def test_p_is_that_of_all_exchanges():
    """Eight clips have 256 exchanges: p is near the share with a difference at least as large."""
    (a, true), (b, _) = (draw_runs(SCALES["sims"], runs=1, clips=8, seed=s) for s in (0, 5))
    observed = mean_score(a, true, "sims", "mae") - mean_score(b, true, "sims", "mae")
    all_differences = []
    for here in itertools.product([False, True], repeat=8):
        one, other = np.where(here, b, a), np.where(here, a, b)
        all_differences.append(
            mean_score(one, true, "sims", "mae") - mean_score(other, true, "sims", "mae")
        )
    exact = np.mean(np.abs(all_differences) >= abs(observed) - 1e-12)
    test = paired_test(a, b, true, "sims", metric="mae", seed=1, resamples=20000)
    assert test.difference == pytest.approx(observed)
    assert test.p_value == pytest.approx(exact, abs=0.01)
    assert 0.02 < exact < 0.98


def test_a_model_does_not_differ_from_itself_and_the_smallest_p_is_one_over_all():
    predictions, true = draw_runs(SCALES["mosi"], clips=200)
    for metric in metric_names("mosi"):
        same = paired_test(predictions, predictions, true, "mosi", metric=metric, seed=1)
        assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    better = np.repeat(true[None], 3, 0)
    test = paired_test(better, predictions, true, "mosi", metric="mae", seed=1, resamples=99)
    assert test.p_value == 1 / 100
    assert test.high < 0


@pytest.mark.parametrize("metric", ["acc7", "mae", "corr"])
def test_exchanging_the_models_changes_the_sign_alone(metric):
    (a, true), (b, _) = draw_runs(SCALES["mosi"], seed=0), draw_runs(SCALES["mosi"], seed=1)
    ab, ba = (paired_test(*pair, true, "mosi", metric=metric, seed=1) for pair in [(a, b), (b, a)])
    assert ab.p_value == ba.p_value
    assert (ab.difference, ab.low, ab.high) == pytest.approx((-ba.difference, -ba.high, -ba.low))


def test_p_is_uniform_where_models_do_not_differ():
    """About 5 % of 200 pairs of equally good models have p <= .05: 10, deviation 3.1."""
    small = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        true = rng.uniform(-1, 1, 30)
        a, b = true + rng.normal(0, 0.5, (2, 1, 30))
        small += (
            paired_test(a, b, true, "sims", metric="mae", seed=1, resamples=200).p_value <= 0.05
        )
    assert 2 <= small <= 20


def test_models_may_have_different_numbers_of_runs():
    (a, true), (b, _) = (
        draw_runs(SCALES["mosi"], runs=3, seed=0),
        draw_runs(SCALES["mosi"], runs=2, seed=1),
    )
    test = paired_test(a, b, true, "mosi", metric="mae", seed=1)
    expected = mean_score(a, true, "mosi", "mae") - mean_score(b, true, "mosi", "mae")
    assert test.difference == pytest.approx(expected)
    assert test.low < expected < test.high


def test_a_constant_model_is_flagged_and_has_no_correlation_to_test():
    predictions, true = draw_runs(SCALES["mosi"], runs=2)
    constant = np.zeros((1, 40))
    assert paired_test(predictions, constant, true, "mosi", metric="corr", seed=1) is None
    test = paired_test(predictions, constant, true, "mosi", metric="mae", seed=1)
    assert test.constant_runs == (0, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": ["acc9"]}, "metric 'acc9' is unknown .expected acc2_has0"),
        ({"metrics": ["n"]}, "metric 'n' is unknown"),
        ({"level": 95}, "level is 95"),
        ({"resamples": 0}, "resamples is 0"),
        ({"predictions": [0.1, 0.2]}, r"predictions are \(2,\) .expected .runs, clips.*"),
        ({"predictions": [[0.1, np.nan]]}, "prediction: 1 values are NaN or infinite"),
        ({"predictions": np.zeros((0, 2))}, r"prediction is \(0, 2\)"),
        ({"target": [0.1]}, r"prediction is \(1, 2\), target is \(1,\)"),
    ],
)
def test_invalid_arguments_are_refused(change, message):
    arguments = {
        "predictions": [[0.1, 0.2]], "target": [0.1, 0.3], "scale": "mosi", "metrics": ["mae"],
        "seed": 1,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        bootstrap_intervals(**(arguments | change))
