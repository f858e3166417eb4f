"""What decides how a model is trained: sections `train` and `model.<name>`, and the seed."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mitfrnet.errors import ParamsError
from mitfrnet.models import registry
from mitfrnet.params import PARAMS_FILE, StageParams, load_params, parse_params

MAX_SEED = 2**32 - 1  # of NumPy, which Lightning seeds too


class TrainParams(StageParams):
    """Section `train`: the same for every model of a comparison."""

    text: Literal["frozen", "finetuned"]  # whether the text encoder learns
    scale: Literal["standard", "none"]  # of acoustic and visual features
    max_epochs: int = Field(gt=0)
    precision: Literal["32-true", "bf16-mixed"]
    threads: int = Field(gt=0)  # of the CPU; another number gives other last bits


class OptimiserParams(StageParams):
    """Section `model.<name>.optimiser`: Adam, when its rate falls, and when it stops."""

    batch_size: int = Field(gt=0)
    accumulate: int = Field(gt=0)  # batches whose gradients make one step
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)  # never on biases and norms
    text_learning_rate: float = Field(gt=0)  # of a fine-tuned text encoder
    text_weight_decay: float = Field(ge=0)
    clip_value: float | None = Field(gt=0)  # no element of a gradient is larger; null: no limit
    plateau_factor: float = Field(gt=0, lt=1)  # of the rates, when validation stalls
    plateau_patience: int | None = Field(ge=0)  # epochs; null: the rates stay
    stop_patience: int = Field(gt=0)  # epochs without a better validation task loss


class ModelParams(StageParams):
    """Section `model.<name>`."""

    architecture: str  # of the registry
    network: dict[str, Any]
    optimiser: OptimiserParams


def load_model_params(name: str, path: Path = PARAMS_FILE) -> ModelParams:
    """Return the section of one model, its network's settings checked too.

    Args:
        name: of the section below `model`.
        path: of the parameter file.

    Raises:
        ParamsError: the model is unknown, or its section is not as it should be.
    """
    where = f"{path}: model.{name}"
    params = load_params(ModelParams, section=f"model.{name}", path=path)
    try:
        kind = registry.params_type(params.architecture)
    except ParamsError as error:
        raise ParamsError(f"{where}.architecture: {error}") from error
    parse_params(kind, params.network, where=f"{where}.network")
    return params


def check_seed(text: str) -> int:
    """Return a seed as a number.

    Raises:
        ParamsError: it is no whole number from 0 on.
    """
    if not text.isdecimal() or int(text) > MAX_SEED:
        raise ParamsError(f"grid.seeds: {text} (expected a whole number from 0 to {MAX_SEED})")
    return int(text)
