"""The models that `params.yaml` can name; each is imported when it is first needed.

A model is a `base.Model` that takes `dims`, `task` and the settings of its section
`model.<name>.network`.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from mitfrnet.errors import ParamsError
from mitfrnet.modalities import MODALITIES
from mitfrnet.params import StageParams

if TYPE_CHECKING:  # without torch, which takes seconds to load
    from mitfrnet.models.base import Model, Task


class Entry(NamedTuple):
    """Where a model is defined, and what its paper calls it."""

    module: str
    model: str  # the class in that module
    params: str  # the type of its settings, in that module too
    label: str  # the name in its paper


MODELS: dict[str, Entry] = {
    "mitfrnet": Entry(
        "mitfrnet.models.mitfrnet.network", "MITFRNet", "MITFRNetParams", "MIT-FRNet"
    ),
    "tfn": Entry("mitfrnet.models.baselines.tfn", "TFN", "TFNParams", "TFN"),
    "mult": Entry("mitfrnet.models.baselines.mult", "MulT", "MulTParams", "MulT"),
    "misa": Entry("mitfrnet.models.baselines.misa", "MISA", "MISAParams", "MISA"),
    "tfrnet": Entry("mitfrnet.models.baselines.tfrnet", "TFRNet", "TFRNetParams", "TFR-Net"),
}


def lacking(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the parts of MIT-FRNet that a model's config switches off: `mmr`, `mitr`."""
    if config["architecture"] != "mitfrnet":
        return ()
    return tuple(part for part in ("mmr", "mitr") if not config["settings"].get(part, True))


def full_name(config: Mapping[str, Any]) -> str:
    """Return a model's name as in its paper, followed by the parts that it lacks."""
    entry = MODELS.get(config["architecture"])
    name = entry.label if entry else config["architecture"]
    return " ".join([name, *(f"without {part.upper()}" for part in lacking(config))])


def params_type(name: str) -> type[StageParams]:
    """Return the type of a model's settings.

    Raises:
        ParamsError: no model has this name.
    """
    entry = entry_of(name)
    return getattr(import_module(entry.module), entry.params)


def build(
    name: str, *, dims: dict[str, int], task: "Task | None" = None, **settings: object
) -> "Model":
    """Return a new model.

    Args:
        name: one of `MODELS`.
        dims: features of a step by modality.
        task: what it predicts; None: a score on the scale of CMU-MOSI.
        settings: section `model.<name>.network` of `params.yaml`.

    Raises:
        ParamsError: no model has this name, or a setting is unknown, absent or out of range.
        ValueError: `dims` lacks a modality, has an unknown one, or holds a number below 1.
    """
    entry = entry_of(name)
    if set(dims) != set(MODALITIES) or min(dims.values()) < 1:
        raise ValueError(f"dims is {dims}, but needs a positive number for each of {MODALITIES}")
    if task is not None:
        settings["task"] = task
    return getattr(import_module(entry.module), entry.model)(dims=dims, **settings)


def entry_of(name: str) -> Entry:
    """Return the entry of an architecture.

    Raises:
        ParamsError: no model has this name.
    """
    if name not in MODELS:
        raise ParamsError(f"unknown model {name!r} (expected: {', '.join(MODELS)})")
    return MODELS[name]
