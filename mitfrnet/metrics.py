"""Scores of predictions on a label scale or over class labels, and their means over missing rates.

Definitions follow MMSA's reports except where published tables are wrong: F1 takes (true,
predicted), and the published order is kept beside it as `f1_*_swapped`. docs/metrics.md lists
every score.
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

# A prediction that moves by less than this share of the label range is constant.
CONSTANT_RANGE = 1e-6

PAPER_RATES = tuple(i / 10 for i in range(11))


def score(
    prediction: ArrayLike, target: ArrayLike, scale: str | Mapping[str, Any] | LabelScale
) -> dict[str, Score]:
    """Return the scores of one set of predictions, as unrounded fractions.

    `mosi`: `acc2_has0`, `f1_has0` (>= 0 against < 0, all clips), `acc2_non0`, `f1_non0` (> 0
    against the rest, clips with a label other than 0), `acc5`, `acc7` (clipped to +-2 and +-3,
    halves rounded to even), `mae`, `corr`. `sims`: `acc2`, `acc3`, `acc5`, `f1`, `mae`, `corr`.
    A scale of its own: `acc2`, `f1` (`acc2_non_neutral`, `f1_non_neutral` where the neutral point
    is excluded), one `acc<k>` per cut, `mae`, `corr`. All of them: `f1_*_swapped` with the
    arguments the wrong way round, as in published tables. Class labels: `accuracy`, `f1_macro`,
    `f1_weighted`, `recall_macro`. Always: `n`; `constant_prediction`, under which `corr` is null.
    A score that is not defined is null; `why_null` says why.

    Args:
        prediction: (clips,), finite; of class labels the indices.
        target: (clips,), within the scale.
        scale: `mosi`, `sims`, a scale, or its stored form.

    Raises:
        ValueError: different or empty shapes, a value that is not finite, an index without a
            class, an unknown scale.
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
    """Return why `metric` of `scores` is not defined; None: it is."""
    if scores[metric] is not None:
        return None
    if metric != "corr":
        return "no clip has a label other than the neutral one"
    if scores["n"] == 1:
        return "a correlation needs at least two clips"
    return "constant prediction" if scores["constant_prediction"] else "all labels are the same"


def as_scored(
    prediction: ArrayLike, target: ArrayLike, scale: LabelScale
) -> tuple[Float32s, Float32s]:
    """Return predictions and labels as they are scored: checked, float32, clipped if need be.

    Args:
        prediction: (clips,) or (runs, clips).
        target: (clips,).
        scale: of both.

    Raises:
        ValueError: as for `score`.
    """
    # In float64 a SIMS label of 0.1 would stand above its own edge.
    predicted, true = (np.asarray(x, dtype=np.float32) for x in (prediction, target))
    if predicted.shape[-1:] != true.shape or not true.size or not predicted.size:
        raise ValueError(f"prediction is {predicted.shape}, target is {true.shape} (expected (n,))")
    for name, values in (("prediction", predicted), ("target", true)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: {(~np.isfinite(values)).sum()} values are not finite")
        if isinstance(scale, ClassScale):
            known = np.isin(values, np.arange(len(scale.classes)))
            if not known.all():
                raise ValueError(
                    f"{name}: {values[~known][0]:g} is no class "
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
    """Scores that depend on the clips through sums alone, so that resampling is a product."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the keys of the scores."""

    def terms(self, predicted: Float32s, true: Float32s) -> Floats:
        """Return what is summed over clips, (..., clips, terms).

        Args:
            predicted: (..., clips), as `as_scored` gives them.
            true: (clips,), likewise.
        """

    def scores(self, sums: Floats) -> dict[str, Floats]:
        """Return the scores of sums, (..., terms), each (...); NaN where not defined."""


def measures(scale: LabelScale) -> tuple[Measure, ...]:
    """Return what is scored on `scale`."""
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


# A score of counts per class, (..., classes): right ones, true ones, predicted ones.
CountScore = Callable[[Floats, Floats, Floats], Floats]


@dataclass(frozen=True)
class ClassCounts:
    """Scores from how often each class is true, predicted, and both.

    Attributes:
        classes: how many.
        to_class: values to class indices.
        count_scores: by key.
        left_out: clips with this label do not count.
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
        """Return per clip its memberships: right, true and predicted, (..., clips, 3 classes)."""
        each = np.arange(self.classes)
        p, t = (self.to_class(x)[..., None] == each for x in (predicted, true))
        if self.left_out is not None:
            kept = (true != np.float32(self.left_out))[:, None]
            p, t = p & kept, t & kept
        return np.concatenate([p & t, np.broadcast_to(t, p.shape), p], axis=-1).astype(np.float64)

    def scores(self, sums: Floats) -> dict[str, Floats]:
        """Return the scores of sums, (..., 3 classes), each (...); NaN without a clip."""
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
    """Return the mean over the classes that are true or predicted at least once."""
    occurring = (true + predicted > 0).sum(-1)
    return _ratio(_f1_per_class(right, true, predicted).sum(-1), occurring, math.nan)


def _recall_macro(right: Floats, true: Floats, predicted: Floats) -> Floats:
    """Return the mean over the classes that are true at least once."""
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
    """Return accuracy and F1 of negative against positive."""
    names = (f"acc2{suffix}", f"f1{suffix}", f"f1{suffix}_swapped")
    scores = dict(zip(names, (_accuracy, _f1_weighted, _f1_swapped), strict=True))
    return ClassCounts(2, _between(Edges(edges=(neutral,), closed=closed)), scores, left_out)


def _multiclass(classes: int, cut: Cut, neutral: float) -> ClassCounts:
    """Return the accuracy of three or more classes."""
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
        """Return per clip its count, error, values and products, (..., clips, 7).

        Values are taken from their mean over all of `predicted`: sums of squares of values far
        from zero would cancel.
        """
        p = predicted.astype(np.float64)
        t = np.broadcast_to(true.astype(np.float64), p.shape)
        error = np.abs(p - t)
        p, t = p - p.mean(), t - t.mean()
        return np.stack([np.ones_like(p), error, p, t, p * p, t * t, p * t], axis=-1)

    def scores(self, sums: Floats) -> dict[str, Floats]:
        """Return the scores of sums, (..., 7), each (...); `corr` NaN without variance."""
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
        by_rate: the score at each missing rate in [0, 1]; None where it is not defined.

    Returns:
        `mwa_paper` and `mwa_normalised`, see `mwa`; `auilc_normalised`, the area under the line
        through the scores, by trapezoids, over the range of rates it covers (None with one
        rate); `mean`, unweighted; `skipped`, the rates without a defined score, which all of
        these leave out.
    """
    known = _defined(by_rate)
    area = sum((b - a) * (known[a] + known[b]) / 2 for a, b in pairwise(known))
    covered = max(known) - min(known) if known else 0
    return {
        "mwa_paper": mwa(by_rate),
        "mwa_normalised": mwa(by_rate, normalised=True),
        "auilc_normalised": area / covered if covered else None,
        "mean": sum(known.values()) / len(known) if known else None,
        "skipped": sorted(set(by_rate) - set(known)),
    }


def mwa(by_rate: Mapping[float, float | None], normalised: bool = False) -> float | None:
    r"""Return the missing-weighted average of a score over missing rates, eq. 25.

    .. math:: MWA = \frac{1}{10} \sum_{i=0}^{10} V_i (1 - i \cdot 10\%)

    As printed, the weights add up to 5.5, not to 1: a perfect 100 gives 55.

    Args:
        by_rate: the score at each missing rate in [0, 1]; None where it is not defined.
        normalised: divide by the sum of the weights instead, over whatever rates are there.

    Returns:
        The average; None where the printed form lacks one of its eleven rates, or no weight
        is left.

    Raises:
        ValueError: a rate outside [0, 1].
    """
    known = _defined(by_rate)
    weighted = sum(value * (1 - rate) for rate, value in known.items())
    if normalised:
        weights = sum(1 - rate for rate in known)
        return weighted / weights if weights > 0 else None
    if [round(rate, 6) for rate in known] != list(PAPER_RATES):
        return None
    return weighted / 10


def _defined(by_rate: Mapping[float, float | None]) -> dict[float, float]:
    """Return the rates that have a score, rising."""
    if wrong := [rate for rate in by_rate if not 0 <= rate <= 1]:
        raise ValueError(f"{wrong[0]} is no missing rate (expected within [0, 1])")
    pairs = sorted(by_rate.items(), key=lambda pair: pair[0])
    return {rate: v for rate, v in pairs if v is not None and math.isfinite(v)}
