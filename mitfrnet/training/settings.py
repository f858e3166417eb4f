"""The settings of a training: sections `train` and `model.<name>`, and the seed."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mitfrnet.errors import ParamsError
from mitfrnet.models import registry
from mitfrnet.params import PARAMS_FILE, StageParams, parse_params

MAX_SEED = 2**32 - 1  # of NumPy, which Lightning seeds too


class TrainParams(StageParams):
    """Section `train`, which is the same for all models of a comparison."""

    text: Literal["frozen", "finetuned"]  # whether the text encoder learns
    scale: Literal["standard", "none"]  # of acoustic and visual features
    max_epochs: int = Field(gt=0)
    precision: Literal["32-true", "bf16-mixed"]
    threads: int = Field(gt=0)  # of the CPU; the last bits of results depend on it


class OptimiserParams(StageParams):
    """Section `model.<name>.optimiser`: Adam, when its rate falls, and when it stops."""

    batch_size: int = Field(gt=0)
    accumulate: int = Field(gt=0)  # batches per step
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)  # never on biases and norms
    text_learning_rate: float = Field(gt=0)  # of a fine-tuned text encoder
    text_weight_decay: float = Field(ge=0)
    clip_value: float | None = Field(gt=0)  # limit on each element of a gradient; null: none
    plateau_factor: float = Field(gt=0, lt=1)  # of the rates, when validation stalls
    plateau_patience: int | None = Field(ge=0)  # epochs; null: constant rates
    stop_patience: int = Field(gt=0)  # epochs without a better validation task loss


class ModelParams(StageParams):
    """Section `model.<name>`, after `mitfrnet.models.variants.resolve`."""

    architecture: str  # of the registry
    network: dict[str, Any]
    optimiser: OptimiserParams


def read_planned_model(plan: Path, name: str) -> ModelParams:
    """Return the settings of a model from its plan, in which variants are resolved.

    Args:
        plan: what stage `plan` wrote for the training.
        name: of the model.

    Raises:
        ParamsError: there is no such plan, or something in it is wrong.
    """
    try:
        section = json.loads(plan.read_text(encoding="utf-8"))["model"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ParamsError(
            f"{plan}: not the plan of a training ({error}); run stage plan"
        ) from error
    return parse_model_params(section, where=f"{PARAMS_FILE}: model.{name}")


def parse_model_params(section: Any, *, where: str) -> ModelParams:
    """Return a resolved section `model.<name>` as checked settings; errors begin with `where`.

    Raises:
        ParamsError: something in it is wrong.
    """
    params = parse_params(ModelParams, section, where=where)
    try:
        kind = registry.params_type(params.architecture)
    except ParamsError as error:
        raise ParamsError(f"{where}.architecture: {error}") from error
    parse_params(kind, params.network, where=f"{where}.network")
    return params


def check_seed(text: str) -> int:
    """Return a seed as a number.

    Raises:
        ParamsError: it is not a whole number, 0 or more.
    """
    if not text.isdecimal() or int(text) > MAX_SEED:
        raise ParamsError(f"grid.seeds: {text} (expected a whole number from 0 to {MAX_SEED})")
    return int(text)
