"""What models make of a clip under every mask, and with modalities taken away."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch

from mitfrnet.data.masked_text import FrozenText
from mitfrnet.data.tensors import ModalityTensors, SplitTensors
from mitfrnet.errors import FeatureError, ParamsError
from mitfrnet.grid import GridParams
from mitfrnet.inspection.masking import ClipMasks
from mitfrnet.labels import ClassScale, LabelScale
from mitfrnet.missing import WHOLE_PATTERNS
from mitfrnet.modalities import MODALITIES
from mitfrnet.params import load_params
from mitfrnet.trained.model import TrainedModel

_MODELS = Path("models")
# Of a long grid; each takes a fraction of a second, and its numbers a place in the page.
MAX_MODELS = 8

# What is given of a clip, as numbers of which bit i stands for the i-th of MODALITIES.
ALL_GIVEN = 2 ** len(MODALITIES) - 1


@dataclass(frozen=True)
class ModelPredictions:
    """What one model predicts.

    Attributes:
        name: of the model, with what it was trained under.
        values: scores, or indices of classes, per mask, and per what is given (as ALL_GIVEN).
    """

    name: str
    values: Sequence[Sequence[float]]


def given(number: int) -> list[str]:
    """Return the modalities that a number stands for."""
    return [m for i, m in enumerate(MODALITIES) if number >> i & 1]


def predict(
    model: TrainedModel, text: FrozenText, tensors: SplitTensors, masks: ClipMasks
) -> list[list[float]]:
    """Return what the model makes of an utterance, per mask and per what is given.

    A modality that is taken away looks as if it had never been there.

    Raises:
        FeatureError: the features are not of the kind the model was trained on.
    """
    torch.set_num_threads(model.config["training"]["train"]["threads"])
    whole = masks.recipe.pattern in WHOLE_PATTERNS
    columns = []
    for number in range(ALL_GIVEN + 1):
        kept = given(number)
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


def of_folders(
    folders: Sequence[Path], tensors: SplitTensors, masks: ClipMasks
) -> list[ModelPredictions]:
    """Return what the models of some folders predict.

    Raises:
        FeatureError: one of them cannot be used.
    """
    text = FrozenText(tensors.metadata["features"]["text"]["identity"])
    found = []
    for folder in folders:
        model = TrainedModel.load(folder)
        try:
            found.append(of_model(model, text, tensors, masks))
        except FeatureError as error:
            raise FeatureError(f"{folder}: {error}") from error
    return found


def of_model(
    model: TrainedModel, text: FrozenText, tensors: SplitTensors, masks: ClipMasks
) -> ModelPredictions:
    """Return what a model predicts of an utterance, under its name.

    Raises:
        FeatureError: the features are not of the kind the model was trained on.
    """
    return ModelPredictions(_name(model), predict(model, text, tensors, masks))


def _name(model: TrainedModel) -> str:
    training = model.config["training"]
    masks = training["masks"]
    trained = masks["protocol"] if masks["rate"] is None else f"rate {masks['rate']:g}"
    return f"{model.config['model']}, trained under {trained}, seed {training['seed']}"


def of_grid(
    corpus: str, tensors: SplitTensors, masks: ClipMasks, root: Path = Path()
) -> tuple[list[ModelPredictions], str | None]:
    """Return what the models of the grid predict, and what is to be said of those left out.

    Of each model and condition the first seed is taken.
    """
    try:
        grid = load_params(GridParams, section="grid", path=root / "params.yaml")
    except ParamsError as error:
        return [], f"The grid says which models there are, and cannot be read: {error}"
    cells = list(product(grid.models, grid.missing_rates))
    folders = [root / _MODELS / corpus / m / str(c) / str(grid.seeds[0]) for m, c in cells]
    trained = [folder for folder in folders if (folder / "config.json").exists()]
    if not trained:
        return [], (
            f"No model of the grid is trained on corpus {corpus}: run dvc repro, or name one with "
            "--model."
        )
    found, broken = [], []
    for folder in trained[:MAX_MODELS]:
        try:
            found += of_folders([folder], tensors, masks)
        except FeatureError as error:
            broken.append(f"Left out: {error}.")
    more = len(trained) - MAX_MODELS
    if more > 0:
        broken.append(f"{more} more models of the grid are not shown: name one with --model.")
    return found, " ".join(broken) or None


def worded(value: float, scale: LabelScale) -> str:
    """Return a prediction or a label as a person reads it."""
    if isinstance(scale, ClassScale):
        return scale.classes[round(value)]
    side = np.sign(value - scale.neutral_point)
    return f"{value:+.2f} ({ {-1: 'negative', 0: 'neutral', 1: 'positive'}[int(side)] })"
