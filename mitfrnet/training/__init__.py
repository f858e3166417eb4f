"""Train one model on one corpus at one missing rate."""

from mitfrnet.training.loop import Trained, train
from mitfrnet.training.settings import (
    ModelParams,
    OptimiserParams,
    TrainParams,
    check_seed,
    load_model_params,
)

__all__ = [
    "ModelParams",
    "OptimiserParams",
    "TrainParams",
    "Trained",
    "check_seed",
    "load_model_params",
    "train",
]
