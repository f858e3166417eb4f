"""The settings of a model straight from `params.yaml`; a training reads them from its plan."""

from pathlib import Path

from mitfrnet.models.variants import resolve
from mitfrnet.params import PARAMS_FILE, read_section
from mitfrnet.training.settings import ModelParams, parse_model_params


def load_model_params(name: str, path: Path = PARAMS_FILE) -> ModelParams:
    """Return the settings of one model or variant, checked.

    Args:
        name: of the section below `model`.
        path: of the parameter file.

    Raises:
        ParamsError: there is no such section, or something in it is wrong.
    """
    section = resolve(name, read_section("model", path), where=f"{path}: model")
    return parse_model_params(section, where=f"{path}: model.{name}")
