"""Scaling of acoustic and visual features."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mitfrnet.data.ragged import Observed, RaggedArray
from mitfrnet.data.tensors import SplitTensors
from mitfrnet.errors import FeatureError

# With fewer observed steps, the deviation of a column is too uncertain to scale by.
_MIN_STEPS = 32
_SUMMED_TOGETHER = 1 << 16  # steps
SCALED: tuple[str, ...] = ("acoustic", "visual")


@dataclass(frozen=True)
class Scaling:
    """Mean and deviation of acoustic and visual features; text is not scaled.

    Attributes:
        mean, scale: per modality, (dim,) of float32.
        unscored: modalities with too few observed training steps to scale by. Their
            reconstruction must not be scored: unscaled, it would outweigh all other losses.
    """

    mean: dict[str, Tensor]
    scale: dict[str, Tensor]
    unscored: tuple[str, ...] = ()

    def tensors(self) -> dict[str, Tensor]:
        """Return both as named tensors, for a file beside the weights."""
        parts = {"mean": self.mean, "scale": self.scale}
        return {f"{m}.{name}": part[m] for name, part in parts.items() for m in SCALED}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Scaling":
        """Return the scaling that these tensors hold."""
        mean, scale = ({m: tensors[f"{m}.{name}"] for m in SCALED} for name in ("mean", "scale"))
        return cls(mean, scale)


def fit_scaling(train: SplitTensors, observed: Observed) -> Scaling:
    """Return mean and deviation of every column over the observed training steps.

    Constant columns are not scaled. Neither are modalities with fewer than 32 observed steps,
    whose reconstruction is not scored.

    Raises:
        FeatureError: a value is NaN or infinite; names the first.
    """
    mean, scale = {}, {}
    unscored = []
    for modality in SCALED:
        values = train.modalities[modality].values
        kept = RaggedArray.of(observed[modality]).flat
        if kept.sum() < _MIN_STEPS:
            unscored.append(modality)
            centre, deviation = np.zeros(values.shape[1]), np.ones(values.shape[1])
        else:
            centre = _mean(values, kept)
            deviation = np.sqrt(_mean(values, kept, squared_from=centre))
            if not np.isfinite(deviation).all():
                raise FeatureError(_not_finite(train, modality))
        mean[modality] = torch.tensor(centre, dtype=torch.float32)
        scale[modality] = torch.tensor(np.where(deviation > 0, deviation, 1), dtype=torch.float32)
    return Scaling(mean, scale, tuple(unscored))


def _not_finite(split: SplitTensors, modality: str) -> str:
    ragged = split.modalities[modality]
    step, column = np.argwhere(~np.isfinite(ragged.values))[0]
    utterance = split.ids[int(np.searchsorted(ragged.offsets, step, side="right")) - 1]
    return (
        f"{modality} features: column {column} of {utterance} is {ragged.values[step, column]} "
        f"(expected a finite number; dvc repro -f extract@<corpus>-{modality})"
    )


def _mean(
    values: NDArray[np.float32],
    kept: NDArray[np.bool_],
    squared_from: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return the mean of the kept rows, or of their squared distances, in little memory."""
    total = np.zeros(values.shape[1])
    for start in range(0, len(values), _SUMMED_TOGETHER):
        rows = slice(start, start + _SUMMED_TOGETHER)
        steps = values[rows][kept[rows]].astype(np.float64)
        total += (steps if squared_from is None else (steps - squared_from) ** 2).sum(axis=0)
    return total / kept.sum()


def no_scaling(dims: Mapping[str, int]) -> Scaling:
    """Return the scaling that changes nothing."""
    return Scaling(
        {m: torch.zeros(dims[m]) for m in SCALED}, {m: torch.ones(dims[m]) for m in SCALED}
    )
