"""Scores of sentiment predictions on a label scale, and their means over missing rates.

Definitions follow MMSA's reports except where those are wrong: F1 takes (true, predicted), and
the published order is kept beside it as `f1_*_swapped`.
"""

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import model_validator

from mitfrnet.params import StageParams

Float32s = NDArray[np.float32]
Score = float | int | bool | None

# A prediction that moves by less than this share of the label range is constant.
CONSTANT_RANGE = 1e-6

PAPER_RATES = tuple(i / 10 for i in range(11))


class Scale(StageParams):
    """The range of the labels, and how scores are cut into classes.

    Attributes:
        low, high: bounds of a label.
        family: `mosi`: signs with and without zero, 5 and 7 classes by rounding, nothing
            clipped for `mae` and `corr`; `sims`: right-closed bins, everything clipped first.
    """

    low: float
    high: float
    family: Literal["mosi", "sims"]

    @model_validator(mode="after")
    def _bounds_in_order(self) -> "Scale":
        if not self.low < 0 < self.high:
            raise ValueError("low must be below 0 and high above it")
        return self


SCALES = {
    "mosi": Scale(low=-3, high=3, family="mosi"),
    "sims": Scale(low=-1, high=1, family="sims"),
}

# Upper edges of the classes, each belonging to the class below it: 0 is negative.
_SIMS_EDGES = {"acc2": (0.0,), "acc3": (-0.1, 0.1), "acc5": (-0.7, -0.1, 0.1, 0.7)}


def score(prediction: ArrayLike, target: ArrayLike, scale: str | Scale) -> dict[str, Score]:
    """Return the scores of one set of predictions, as unrounded fractions.

    `mosi`: `acc2_has0`, `f1_has0` (>= 0 against < 0, all clips), `acc2_non0`, `f1_non0` (> 0
    against the rest, clips with a label other than 0), `acc5`, `acc7` (clipped to +-2 and +-3,
    halves rounded to even), `mae`, `corr`. `sims`: `acc2`, `acc3`, `acc5`, `f1`, `mae`, `corr`.
    Both: `f1_*_swapped` with the arguments the wrong way round, as in published tables;
    `n`; `constant_prediction`, under which `corr` is null.

    Args:
        prediction: (clips,), finite.
        target: (clips,), within the scale.
        scale: `mosi`, `sims` or a `Scale`.

    Raises:
        ValueError: different or empty shapes, a value that is not finite, an unknown scale.
    """
    # In float64 a SIMS label of 0.1 would stand above its own edge.
    predicted, true = (np.asarray(x, dtype=np.float32) for x in (prediction, target))
    if predicted.shape != true.shape or predicted.ndim != 1 or not len(true):
        raise ValueError(f"prediction is {predicted.shape}, target is {true.shape} (expected (n,))")
    for name, values in (("prediction", predicted), ("target", true)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: {(~np.isfinite(values)).sum()} values are not finite")
    scale = named_scale(scale)
    family = _score_mosi if scale.family == "mosi" else _score_sims
    return family(predicted, true, scale) | {"n": len(true)}


def named_scale(scale: str | Scale) -> Scale:
    """Return the scale of that name.

    Raises:
        ValueError: the name is unknown.
    """
    if isinstance(scale, Scale):
        return scale
    if scale not in SCALES:
        raise ValueError(f"scale: {scale!r} is unknown (expected {', '.join(SCALES)})")
    return SCALES[scale]


def _score_mosi(predicted: Float32s, true: Float32s, scale: Scale) -> dict[str, Score]:
    scores: dict[str, Score] = {}
    scores |= _binary(predicted >= 0, true >= 0, "_has0")
    signed = true != 0
    scores |= _binary(predicted[signed] > 0, true[signed] > 0, "_non0")
    for name, limit in (("acc5", 2), ("acc7", 3)):
        a, b = (np.round(np.clip(x, -limit, limit)) for x in (predicted, true))
        scores[name] = _share(a == b)
    return scores | _continuous(predicted, true, scale)


def _score_sims(predicted: Float32s, true: Float32s, scale: Scale) -> dict[str, Score]:
    predicted, true = (np.clip(x, scale.low, scale.high) for x in (predicted, true))
    scores: dict[str, Score] = {}
    for name, edges in _SIMS_EDGES.items():
        upper = np.asarray(edges, dtype=np.float32)
        a, b = (np.searchsorted(upper, x, side="left") for x in (predicted, true))
        scores |= _binary(a, b, "") if name == "acc2" else {name: _share(a == b)}
    return scores | _continuous(predicted, true, scale)


def _binary(predicted: NDArray, true: NDArray, suffix: str) -> dict[str, Score]:
    """Return accuracy and weighted F1 of two classes; null where there is no clip."""
    from sklearn.metrics import f1_score  # a second to import, and most callers need a scale only

    names = (f"acc2{suffix}", f"f1{suffix}", f"f1{suffix}_swapped")
    if not len(true):
        return dict.fromkeys(names)
    return {
        names[0]: _share(predicted == true),
        names[1]: float(f1_score(true, predicted, average="weighted", zero_division=0)),
        names[2]: float(f1_score(predicted, true, average="weighted", zero_division=0)),
    }


def _continuous(predicted: Float32s, true: Float32s, scale: Scale) -> dict[str, Score]:
    predicted64, true64 = predicted.astype(np.float64), true.astype(np.float64)
    constant = bool(np.ptp(predicted64) <= CONSTANT_RANGE * (scale.high - scale.low))
    correlates = len(true) > 1 and not constant and np.ptp(true64) > 0
    return {
        "mae": float(np.abs(predicted64 - true64).mean()),
        "corr": float(np.corrcoef(predicted64, true64)[0, 1]) if correlates else None,
        "constant_prediction": constant,
    }


def _share(correct: NDArray) -> float:
    return float(np.mean(correct))


def mwa(by_rate: dict[float, float], normalised: bool = False) -> float | None:
    r"""Return the missing-weighted average of a score over missing rates, eq. 25.

    .. math:: MWA = \frac{1}{10} \sum_{i=0}^{10} V_i (1 - i \cdot 10\%)

    As printed, the weights add up to 5.5, not to 1: a perfect 100 gives 55.

    Args:
        by_rate: the score at each missing rate in [0, 1].
        normalised: divide by the sum of the weights instead, over whatever rates are there.

    Returns:
        The average; None where the printed form lacks one of its eleven rates, or no weight
        is left.
    """
    known = {r: v for r, v in by_rate.items() if v is not None and math.isfinite(v)}
    weighted = sum(value * (1 - rate) for rate, value in known.items())
    if normalised:
        weights = sum(1 - rate for rate in known)
        return weighted / weights if weights > 0 else None
    if sorted(round(rate, 6) for rate in known) != list(PAPER_RATES):
        return None
    return weighted / 10
