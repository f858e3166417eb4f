"""What models predict for a clip under every mask, and with modalities taken away."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from mitfrnet.data.masked_text import FrozenText
from mitfrnet.data.tensors import ModalityTensors, SplitTensors
from mitfrnet.errors import FeatureError
from mitfrnet.inspection.masking import ClipMasks
from mitfrnet.labels import ClassScale, LabelScale
from mitfrnet.missing import WHOLE_PATTERNS
from mitfrnet.modalities import MODALITIES
from mitfrnet.trained.model import TrainedModel

# A long grid has more models; each takes a fraction of a second, and space for its numbers.
MAX_MODELS = 8

# A subset of the modalities is a number: bit i stands for the i-th of MODALITIES.
ALL_GIVEN = 2 ** len(MODALITIES) - 1


@dataclass(frozen=True)
class ModelPredictions:
    """What one model predicts.

    Attributes:
        name: of the model, with what it was trained under.
        values: scores, or indices of classes, per mask, and per subset of modalities from 0 to
            ALL_GIVEN.
    """

    name: str
    values: Sequence[Sequence[float]]


def modalities_in(subset: int) -> list[str]:
    """Return the modalities in a subset."""
    return [m for i, m in enumerate(MODALITIES) if subset >> i & 1]


def text_encoder_of(tensors: SplitTensors) -> FrozenText:
    """Return the encoder that the text features come from; it is loaded when first needed."""
    return FrozenText(tensors.metadata["features"]["text"]["identity"])


def predict_all(
    models: Sequence[tuple[Path, TrainedModel]],
    text: FrozenText,
    tensors: SplitTensors,
    masks: ClipMasks,
) -> list[ModelPredictions]:
    """Return what each model predicts for an utterance.

    Args:
        models: with their folders.
        text: encodes its masked transcripts.
        tensors: a split of this one utterance.
        masks: of the utterance.

    Raises:
        FeatureError: a model was trained on other features; names its folder.
    """
    predictions = []
    for folder, model in models:
        try:
            values = _values(model, text, tensors, masks)
        except FeatureError as error:
            raise FeatureError(f"{folder}: {error}") from error
        predictions.append(ModelPredictions(_name(model), values))
    return predictions


def _values(
    model: TrainedModel, text: FrozenText, tensors: SplitTensors, masks: ClipMasks
) -> list[list[float]]:
    """Return predictions per mask and subset; a removed modality looks like one never recorded."""
    torch.set_num_threads(model.config["training"]["train"]["threads"])
    whole = masks.params.pattern in WHOLE_PATTERNS
    columns = []
    for subset in range(ALL_GIVEN + 1):
        kept = modalities_in(subset)
        split = _repeated(tensors, len(masks.masks), kept)
        observed = {
            m: [mask.observed[m][: None if m in kept else 0] for mask in masks.masks]
            for m in MODALITIES
        }
        columns.append(model.predict(split, observed, text, whole=whole))
    return np.stack(columns, axis=1).astype(float).tolist()


def _repeated(tensors: SplitTensors, times: int, kept: Sequence[str]) -> SplitTensors:
    """Return a split of the same utterance several times, with some of its modalities."""
    steps = {m: len(tensors.modalities[m].detected) if m in kept else 0 for m in MODALITIES}
    modalities = {
        m: ModalityTensors(
            values=np.tile(ragged.values[: steps[m]], (times, 1)),
            detected=np.tile(ragged.detected[: steps[m]], times),
            time_s=np.tile(ragged.time_s[: steps[m]], times),
            offsets=np.arange(times + 1, dtype=np.int64) * steps[m],
        )
        for m, ragged in tensors.modalities.items()
    }
    return replace(
        tensors,
        ids=[f"{tensors.ids[0]}#{i}" for i in range(times)],
        label=np.repeat(tensors.label, times),
        modalities=modalities,
        token_ids=np.tile(tensors.token_ids[: steps["text"]], times),
        special=np.tile(tensors.special[: steps["text"]], times),
    )


def _name(model: TrainedModel) -> str:
    training = model.config["training"]
    masks = training["masks"]
    trained = masks["protocol"] if masks["rate"] is None else f"rate {masks['rate']:g}"
    return f"{model.config['model']}, trained under {trained}, seed {training['seed']}"


def worded(value: float, scale: LabelScale) -> str:
    """Return a prediction or a label in words."""
    if isinstance(scale, ClassScale):
        return scale.classes[round(value)]
    side = np.sign(value - scale.neutral_point)
    return f"{value:+.2f} ({ {-1: 'negative', 0: 'neutral', 1: 'positive'}[int(side)] })"
