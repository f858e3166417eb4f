"""How certain a score is: intervals over test clips, and a paired test of two models.

Both treat the choice of test clips as random. Seeds of training and masks are fixed: all runs get
the same resampled clips, and the score is their mean. How much runs differ is not measured here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mitfrnet.labels import LabelScale, parse_scale
from mitfrnet.metrics import (
    Float32s,
    Floats,
    Measure,
    Score,
    as_scored,
    constant_limit,
    measures,
    metric_names,
    score,
)

# Equal differences may differ by rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Interval:
    """The mean of a score over runs, and its range with other test clips.

    Attributes:
        value: on the test clips as they are.
        low, high: percentiles over resampled test clips.
        skipped: resamples without a defined score, left out of the percentiles.
        constant_runs: runs that predict one value for all clips.
    """

    value: float
    low: float
    high: float
    skipped: int
    constant_runs: int


@dataclass(frozen=True)
class PairedTest:
    """Two models on the same test clips.

    Attributes:
        metric: the score that is compared.
        difference: between the means over runs, first model minus second.
        low, high: percentiles of the difference over resampled test clips.
        p_value: two-sided probability of a difference this large between models that are alike.
        skipped: exchanges without a defined score, left out of `p_value`.
        constant_runs: runs of each model that predict one value for all clips.
    """

    metric: str
    difference: float
    low: float
    high: float
    p_value: float
    skipped: int
    constant_runs: tuple[int, int]


def bootstrap_intervals(
    predictions: ArrayLike,
    target: ArrayLike,
    scale: str | Mapping[str, Any] | LabelScale,
    *,
    metrics: Sequence[str],
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
) -> dict[str, Interval | None]:
    """Return a percentile interval for the mean over runs of each score.

    Test clips are drawn with replacement, the same clips for every run and, with the same `seed`,
    for every model. Runs without a defined score are left out of its mean. SciPy's bootstrap would
    score each resample anew; here resampling is a product of counts and terms.

    Args:
        predictions: (runs, clips) of one model; a run is a training seed with a mask seed.
        target: (clips,).
        scale: of the labels.
        metrics: keys of `score`.
        seed: of the resamples.
        resamples: how many.
        level: share of resamples within the interval, in (0, 1).

    Returns:
        By metric; None if it is not defined on the clips themselves or on any resample.

    Raises:
        ValueError: as for `score`; an unknown metric; a level or count out of range.
    """
    scale = parse_scale(scale)
    predicted, true = _runs(predictions, target, scale)
    _check(metrics, scale, resamples, level)
    scores_of_runs = [score(run, true, scale) for run in predicted]
    counts = _resampled_counts(len(true), resamples, seed)
    intervals: dict[str, Interval | None] = {}
    for metric in metrics:
        defined = [i for i, scores in enumerate(scores_of_runs) if scores[metric] is not None]
        intervals[metric] = None
        if defined:
            drawn = _resampled_scores(predicted[defined], true, scale, metric, counts).mean(-1)
            kept = drawn[np.isfinite(drawn)]
            if len(kept):
                low, high = _percentiles(kept, level)
                intervals[metric] = Interval(
                    value=mean(_value(scores_of_runs[i], metric) for i in defined),
                    low=low,
                    high=high,
                    skipped=len(drawn) - len(kept),
                    constant_runs=_constant_runs(scores_of_runs),
                )
    return intervals


def paired_test(
    predictions_a: ArrayLike,
    predictions_b: ArrayLike,
    target: ArrayLike,
    scale: str | Mapping[str, Any] | LabelScale,
    *,
    metric: str,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
) -> PairedTest | None:
    """Return whether two models differ on the same test clips, by approximate randomisation.

    If the models were alike, their predictions for a clip could be exchanged. For each clip they
    are exchanged or not at random, all runs together, and p = (1 + exchanges with at least the
    observed difference) / (1 + exchanges). Run i of one model is exchanged with run i of the
    other; models with different numbers of runs are repeated to a common number, which leaves
    their means unchanged. A pair of runs is left out if one has no defined score. The interval is
    that of `bootstrap_intervals`, with the same resamples for both models.

    Args:
        predictions_a: (runs, clips) of one model.
        predictions_b: (runs, clips) of the other, on the same clips.
        target: (clips,).
        scale: of the labels.
        metric: a key of `score`.
        seed: of exchanges and resamples.
        resamples: how many of each.
        level: share of resamples within the interval, in (0, 1).

    Returns:
        The test; None if the score is defined for no pair of runs or no resample.

    Raises:
        ValueError: as for `bootstrap_intervals`.
    """
    scale = parse_scale(scale)
    (a, true), (b, _) = (_runs(p, target, scale) for p in (predictions_a, predictions_b))
    _check([metric], scale, resamples, level)
    scores_a, scores_b = ([score(run, true, scale) for run in runs] for runs in (a, b))
    constant_runs = (_constant_runs(scores_a), _constant_runs(scores_b))
    pairs = [
        (i % len(a), i % len(b))
        for i in range(math.lcm(len(a), len(b)))
        if scores_a[i % len(a)][metric] is not None and scores_b[i % len(b)][metric] is not None
    ]
    if not pairs:
        return None
    observed = mean(_value(scores_a[i], metric) - _value(scores_b[j], metric) for i, j in pairs)
    a, b = a[[i for i, _ in pairs]], b[[j for _, j in pairs]]

    exchanged = np.random.default_rng(seed).integers(0, 2, (resamples, len(true)), dtype=np.int8)
    chance = _exchanged_differences(a, b, true, scale, metric, exchanged.astype(bool)).mean(-1)
    counts = _resampled_counts(len(true), resamples, seed)
    of_a, of_b = (_resampled_scores(runs, true, scale, metric, counts) for runs in (a, b))
    drawn = (of_a - of_b).mean(-1)
    chance_kept, drawn = chance[np.isfinite(chance)], drawn[np.isfinite(drawn)]
    if not len(drawn):
        return None
    as_large = int((np.abs(chance_kept) >= abs(observed) - _ROUNDING).sum())
    low, high = _percentiles(drawn, level)
    return PairedTest(
        metric=metric,
        difference=observed,
        low=low,
        high=high,
        p_value=(1 + as_large) / (1 + len(chance_kept)),
        skipped=len(chance) - len(chance_kept),
        constant_runs=constant_runs,
    )


def _runs(
    predictions: ArrayLike, target: ArrayLike, scale: LabelScale
) -> tuple[Float32s, Float32s]:
    predicted, true = as_scored(predictions, target, scale)
    if predicted.ndim != 2:
        raise ValueError(f"predictions are {predicted.shape} (expected (runs, clips))")
    return predicted, true


def _check(metrics: Sequence[str], scale: LabelScale, resamples: int, level: float) -> None:
    names = metric_names(scale)
    for metric in metrics:
        if metric not in names:
            raise ValueError(f"metric {metric!r} is unknown (expected {', '.join(names)})")
    if resamples < 1:
        raise ValueError(f"resamples is {resamples} (expected at least 1)")
    if not 0 < level < 1:
        raise ValueError(f"level is {level} (expected within (0, 1))")


@lru_cache(maxsize=2)  # a report needs the same counts for every table
def _resampled_counts(clips: int, resamples: int, seed: int) -> Floats:
    """Return how often each resample holds each clip, (resamples, clips), read-only."""
    drawn = np.random.default_rng(seed).multinomial(clips, np.full(clips, 1 / clips), resamples)
    counts = drawn.astype(np.float64)
    counts.flags.writeable = False
    return counts


def _resampled_scores(
    predicted: Float32s, true: Float32s, scale: LabelScale, metric: str, counts: Floats
) -> Floats:
    """Return one score of every run on every resample, (resamples, runs); NaN: not defined.

    Args:
        predicted: (runs, clips), as `as_scored` gives them.
        true: (clips,), likewise.
        scale: of both.
        metric: a key of `score`.
        counts: of each clip, (resamples, clips).
    """
    measure = _measure(metric, scale)
    sums = np.tensordot(counts, measure.terms(predicted, true), axes=(1, 1))
    scores = measure.scores(sums)[metric]  # (resamples, runs)
    if metric == "corr":
        held = counts > 0
        ranges = [_range(np.where(held, run, np.nan)) for run in predicted]
        constant = np.stack(ranges, -1) <= constant_limit(scale)
        constant |= (_range(np.where(held, true, np.nan)) <= constant_limit(scale))[:, None]
        scores = np.where(constant, np.nan, scores)
    return scores


def _exchanged_differences(
    a: Float32s,
    b: Float32s,
    true: Float32s,
    scale: LabelScale,
    metric: str,
    exchanged: NDArray[np.bool_],
) -> Floats:
    """Return the score of `a` minus that of `b` with clips exchanged, (resamples, runs).

    Args:
        a: (runs, clips) of one model, as `as_scored` gives them.
        b: (runs, clips) of the other.
        true: (clips,), likewise.
        scale: of all.
        metric: a key of `score`.
        exchanged: clips for which `a` and `b` change places, (resamples, clips).
    """
    measure = _measure(metric, scale)
    terms_a, terms_b = measure.terms(np.stack([a, b]), true)  # (runs, clips, terms)
    moved = np.tensordot(exchanged.astype(np.float64), terms_b - terms_a, axes=(1, 1))
    of_a = measure.scores(terms_a.sum(1) + moved)[metric]
    of_b = measure.scores(terms_b.sum(1) - moved)[metric]
    difference = of_a - of_b
    if metric == "corr":
        for run, (one, other) in enumerate(zip(a, b, strict=True)):
            for mixed in (np.where(exchanged, other, one), np.where(exchanged, one, other)):
                difference[_range(mixed) <= constant_limit(scale), run] = np.nan
    return difference


def _measure(metric: str, scale: LabelScale) -> Measure:
    return next(m for m in measures(scale) if metric in m.names)


def _range(values: NDArray[np.floating[Any]]) -> Floats:
    """Return the range along the last axis, ignoring NaN."""
    values = values.astype(np.float64)
    return np.fmax.reduce(values, axis=-1) - np.fmin.reduce(values, axis=-1)


def _percentiles(values: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _value(scores: Mapping[str, Score], metric: str) -> float:
    value = scores[metric]
    assert value is not None  # callers pass runs with a defined score only
    return float(value)


def _constant_runs(runs: Any) -> int:
    return sum(bool(scores["constant_prediction"]) for scores in runs)
