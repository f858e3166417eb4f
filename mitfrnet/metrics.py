"""Scores of predictions on a label scale or over classes, and their means over missing rates.

Definitions follow MMSA's reports, with one exception: F1 takes (true, predicted). Published tables
have the arguments swapped; that score is kept as `f1_*_swapped`. docs/metrics.md lists all scores.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mitfrnet.labels import ClassScale, Cut, Edges, LabelScale, Scale, parse_scale, rounding_limits

Float32s = NDArray[np.float32]
Floats = NDArray[np.float64]
Score = float | int | bool | None
# Scores by missing rate of the test masks, then by their seed.
ScoresByMask = Mapping[float, Mapping[int, Mapping[str, Score]]]

# Predictions whose range is below this share of the label range count as constant.
CONSTANT_RANGE = 1e-6

PAPER_RATES = tuple(i / 10 for i in range(11))


def score(
    prediction: ArrayLike, target: ArrayLike, scale: str | Mapping[str, Any] | LabelScale
) -> dict[str, Score]:
    """Return the scores of one set of predictions, as unrounded fractions.

    `mosi`: `acc2_has0`, `f1_has0` (>= 0 against < 0, all clips), `acc2_non0`, `f1_non0` (> 0
    against the rest, clips with a label other than 0), `acc5`, `acc7` (clipped to +-2 and +-3,
    halves rounded to even), `mae`, `corr`. `sims`: `acc2`, `acc3`, `acc5`, `f1`, `mae`, `corr`.
    Other scales: `acc2`, `f1` (`acc2_non_neutral`, `f1_non_neutral` if the neutral point is
    excluded), one `acc<k>` per cut, `mae`, `corr`. All of these: `f1_*_swapped`, with the arguments
    swapped as in published tables. Classes: `accuracy`, `f1_macro`, `f1_weighted`, `recall_macro`.
    Always: `n`, and `constant_prediction`, which makes `corr` None. A score that is not defined is
    None; `why_null` says why.

    Args:
        prediction: (clips,), finite; for classes their indices.
        target: (clips,), within the scale.
        scale: `mosi`, `sims`, a scale, or a stored scale.

    Raises:
        ValueError: shapes differ or are empty, a value is NaN or infinite, an index has no class,
            or the scale is unknown.
    """
    scale = parse_scale(scale)
    predicted, true = as_scored(prediction, target, scale)
    if predicted.ndim != 1:
        raise ValueError(f"prediction is {predicted.shape} (expected one value per clip)")
    scores: dict[str, Score] = {}
    for measure in measures(scale):
        values = measure.scores(measure.terms(predicted, true).sum(0))
        scores |= {n: float(v) if np.isfinite(v) else None for n, v in values.items()}
    constant = bool(np.ptp(predicted.astype(np.float64)) <= constant_limit(scale))
    if "corr" in scores and (constant or np.ptp(true.astype(np.float64)) <= constant_limit(scale)):
        scores["corr"] = None
    return scores | {"n": len(true), "constant_prediction": constant}


def metric_names(scale: str | Mapping[str, Any] | LabelScale) -> tuple[str, ...]:
    """Return the keys of `score` that are scores, in its order."""
    return tuple(name for measure in measures(parse_scale(scale)) for name in measure.names)


def why_null(metric: str, scores: Mapping[str, Score]) -> str | None:
    """Return why `metric` is not defined in `scores`; None if it is defined."""
    if scores[metric] is not None:
        return None
    if metric != "corr":
        return "all labels are neutral"
    if scores["n"] == 1:
        return "a correlation needs at least two clips"
    return "constant prediction" if scores["constant_prediction"] else "all labels are the same"


def as_scored(
    prediction: ArrayLike, target: ArrayLike, scale: LabelScale
) -> tuple[Float32s, Float32s]:
    """Return predictions and labels as they are scored: checked, float32, clipped on some scales.

    Args:
        prediction: (clips,) or (runs, clips).
        target: (clips,).
        scale: of both.

    Raises:
        ValueError: as for `score`.
    """
    # In float64 a SIMS label of 0.1 would lie above the edge 0.1.
    predicted, true = (np.asarray(x, dtype=np.float32) for x in (prediction, target))
    if predicted.shape[-1:] != true.shape or not true.size or not predicted.size:
        raise ValueError(f"prediction is {predicted.shape}, target is {true.shape} (expected (n,))")
    for name, values in (("prediction", predicted), ("target", true)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: {(~np.isfinite(values)).sum()} values are NaN or infinite")
        if isinstance(scale, ClassScale):
            valid = np.isin(values, np.arange(len(scale.classes)))
            if not valid.all():
                raise ValueError(
                    f"{name}: {values[~valid][0]:g} is not a class "
                    f"(expected an index from 0 to {len(scale.classes) - 1})"
                )
    if isinstance(scale, Scale) and scale.clips:
        low, high = np.float32(scale.low), np.float32(scale.high)
        return np.clip(predicted, low, high), np.clip(true, low, high)
    return predicted, true


def constant_limit(scale: LabelScale) -> float:
    """Return the range up to which predictions or labels count as constant."""
    return CONSTANT_RANGE * (scale.high - scale.low) if isinstance(scale, Scale) else 0.0


class Measure(Protocol):
    """Scores that are functions of sums over clips, so that resampling is a matrix product."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the keys of the scores."""

    def terms(self, predicted: Float32s, true: Float32s) -> Floats:
        """Return the terms that are summed over clips, (..., clips, terms).

        Args:
            predicted: (..., clips), as `as_scored` gives them.
            true: (clips,), likewise.
        """

    def scores(self, sums: Floats) -> dict[str, Floats]:
        """Return the scores of sums, (..., terms), each (...); NaN if not defined."""


def measures(scale: LabelScale) -> tuple[Measure, ...]:
    """Return the measures of a scale."""
    if isinstance(scale, ClassScale):
        return (ClassCounts(len(scale.classes), lambda x: x.astype(np.intp), _CLASS_SCORES),)
    if scale.family == "mosi":
        return (
            _signs("_has0", 0, "left"),
            _signs("_non0", 0, "right", left_out=0),
            _multiclass(5, "round", 0),
            _multiclass(7, "round", 0),
            Errors(),
        )
    if scale.family == "sims":
        return (
            _signs("", 0, "right"),
            _multiclass(3, Edges(edges=(-0.1, 0.1), closed="right"), 0),
            _multiclass(5, Edges(edges=(-0.7, -0.1, 0.1, 0.7), closed="right"), 0),
            Errors(),
        )
    neutral = scale.neutral_point
    if scale.neutral_is == "excluded":
        signs = _signs("_non_neutral", neutral, "right", left_out=neutral)
    else:
        signs = _signs("", neutral, "left" if scale.neutral_is == "positive" else "right")
    cuts = (_multiclass(k, cut, neutral) for k, cut in sorted((scale.cuts or {}).items()))
    return (signs, *cuts, Errors())


# A score from counts per class, (..., classes): correct, true, predicted.
CountScore = Callable[[Floats, Floats, Floats], Floats]


@dataclass(frozen=True)
class ClassCounts:
    """Scores from how often each class is true, predicted, or both.

    Attributes:
        classes: number of classes.
        to_class: turns values into class indices.
        count_scores: scores by key.
        left_out: clips with this label are not scored.
    """

    classes: int
    to_class: Callable[[Float32s], NDArray[np.intp]]
    count_scores: Mapping[str, CountScore]
    left_out: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Return the keys of the scores."""
        return tuple(self.count_scores)

    def terms(self, predicted: Float32s, true: Float32s) -> Floats:
        """Return whether a class is correct, true and predicted, (..., clips, 3 classes)."""
        each = np.arange(self.classes)
        p, t = (self.to_class(x)[..., None] == each for x in (predicted, true))
        if self.left_out is not None:
            kept = (true != np.float32(self.left_out))[:, None]
            p, t = p & kept, t & kept
        return np.concatenate([p & t, np.broadcast_to(t, p.shape), p], axis=-1).astype(np.float64)

    def scores(self, sums: Floats) -> dict[str, Floats]:
        """Return the scores of sums, (..., 3 classes), each (...); NaN without clips."""
        right, true, predicted = np.split(sums, 3, axis=-1)
        return {name: get(right, true, predicted) for name, get in self.count_scores.items()}


def _ratio(part: Floats, whole: Floats, otherwise: float) -> Floats:
    return np.divide(part, whole, out=np.full(np.shape(part), otherwise), where=whole > 0)


def _accuracy(right: Floats, true: Floats, predicted: Floats) -> Floats:
    return _ratio(right.sum(-1), true.sum(-1), math.nan)


def _f1_per_class(right: Floats, true: Floats, predicted: Floats) -> Floats:
    return _ratio(2 * right, true + predicted, 0.0)


def _f1_weighted(right: Floats, true: Floats, predicted: Floats) -> Floats:
    weighted = true * _f1_per_class(right, true, predicted)
    return _ratio(weighted.sum(-1), true.sum(-1), math.nan)


def _f1_swapped(right: Floats, true: Floats, predicted: Floats) -> Floats:
    return _f1_weighted(right, predicted, true)


def _f1_macro(right: Floats, true: Floats, predicted: Floats) -> Floats:
    """Return the mean F1 of the classes that are true or predicted at least once."""
    occurring = (true + predicted > 0).sum(-1)
    return _ratio(_f1_per_class(right, true, predicted).sum(-1), occurring, math.nan)


def _recall_macro(right: Floats, true: Floats, predicted: Floats) -> Floats:
    """Return the mean recall of the classes that are true at least once."""
    return _ratio(_ratio(right, true, 0.0).sum(-1), (true > 0).sum(-1), math.nan)


_CLASS_SCORES: dict[str, CountScore] = {
    "accuracy": _accuracy,
    "f1_macro": _f1_macro,
    "f1_weighted": _f1_weighted,
    "recall_macro": _recall_macro,
}


def _signs(
    suffix: str, neutral: float, closed: Literal["left", "right"], left_out: float | None = None
) -> ClassCounts:
    """Return the measure of accuracy and F1, negative against positive."""
    names = (f"acc2{suffix}", f"f1{suffix}", f"f1{suffix}_swapped")
    scores = dict(zip(names, (_accuracy, _f1_weighted, _f1_swapped), strict=True))
    return ClassCounts(2, _between(Edges(edges=(neutral,), closed=closed)), scores, left_out)


def _multiclass(classes: int, cut: Cut, neutral: float) -> ClassCounts:
    """Return the measure of accuracy over three or more classes."""
    to_class = _between(cut) if isinstance(cut, Edges) else _rounded(classes, neutral)
    return ClassCounts(classes, to_class, {f"acc{classes}": _accuracy})


def _between(cut: Edges) -> Callable[[Float32s], NDArray[np.intp]]:
    edges = np.asarray(cut.edges, dtype=np.float32)
    side: Literal["left", "right"] = "left" if cut.closed == "right" else "right"
    return lambda values: np.searchsorted(edges, values, side=side)


def _rounded(classes: int, neutral: float) -> Callable[[Float32s], NDArray[np.intp]]:
    low, high = rounding_limits(classes, neutral)
    return lambda values: (np.round(np.clip(values, low, high)) - low).astype(np.intp)


class Errors:
    """Mean absolute error and Pearson's correlation."""

    names = ("mae", "corr")

    def terms(self, predicted: Float32s, true: Float32s) -> Floats:
        """Return count, error, values and products of each clip, (..., clips, 7).

        Values are centred first: differences between large sums of squares would lose digits.
        """
        p = predicted.astype(np.float64)
        t = np.broadcast_to(true.astype(np.float64), p.shape)
        error = np.abs(p - t)
        p, t = p - p.mean(), t - t.mean()
        return np.stack([np.ones_like(p), error, p, t, p * p, t * t, p * t], axis=-1)

    def scores(self, sums: Floats) -> dict[str, Floats]:
        """Return the scores of sums, (..., 7), each (...); `corr` is NaN without variance."""
        n = sums[..., 0]
        error, p, t, pp, tt, pt = np.moveaxis(sums[..., 1:] / n[..., None], -1, 0)
        variances = np.maximum(pp - p * p, 0) * np.maximum(tt - t * t, 0)
        return {
            "mae": error,
            "corr": np.clip(_ratio(pt - p * t, np.sqrt(variances), math.nan), -1, 1),
        }


def over_rates(by_rate: Mapping[float, float | None]) -> dict[str, Any]:
    r"""Return the means of a score over missing rates.

    Args:
        by_rate: the score at each missing rate in [0, 1]; None if it is not defined.

    Returns:
        `mwa_paper` and `mwa_normalised`, see `mwa`; `auilc_normalised`, the area under the line
        through the scores (trapezoids), divided by the range of rates (None with one rate);
        `mean`, unweighted; `skipped`, the rates without a defined score, which the others leave
        out.
    """
    scores = _defined(by_rate)
    area = sum((b - a) * (scores[a] + scores[b]) / 2 for a, b in pairwise(scores))
    covered = max(scores) - min(scores) if scores else 0
    return {
        "mwa_paper": mwa(by_rate),
        "mwa_normalised": mwa(by_rate, normalised=True),
        "auilc_normalised": area / covered if covered else None,
        "mean": sum(scores.values()) / len(scores) if scores else None,
        "skipped": sorted(set(by_rate) - set(scores)),
    }


def mwa(by_rate: Mapping[float, float | None], normalised: bool = False) -> float | None:
    r"""Return the missing-weighted average of a score over missing rates, eq. 25.

    .. math:: MWA = \frac{1}{10} \sum_{i=0}^{10} V_i (1 - i \cdot 10\%)

    The printed weights add up to 5.5, not to 1: perfect scores of 100 give 55.

    Args:
        by_rate: the score at each missing rate in [0, 1]; None if it is not defined.
        normalised: divide by the sum of the weights instead, over the rates that are given.

    Returns:
        The average; None if the printed form lacks one of its eleven rates, or the weights add
        up to 0.

    Raises:
        ValueError: a rate outside [0, 1].
    """
    scores = _defined(by_rate)
    weighted = sum(value * (1 - rate) for rate, value in scores.items())
    if normalised:
        weights = sum(1 - rate for rate in scores)
        return weighted / weights if weights > 0 else None
    if [round(rate, 6) for rate in scores] != list(PAPER_RATES):
        return None
    return weighted / 10


def _defined(by_rate: Mapping[float, float | None]) -> dict[float, float]:
    """Return the rates that have a score, in rising order."""
    if wrong := [rate for rate in by_rate if not 0 <= rate <= 1]:
        raise ValueError(f"{wrong[0]} is not a missing rate (expected a number in [0, 1])")
    pairs = sorted(by_rate.items(), key=lambda pair: pair[0])
    return {rate: v for rate, v in pairs if v is not None and math.isfinite(v)}
