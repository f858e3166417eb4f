"""The models that can be named in `params.yaml`; each is imported when it is asked for.

A model takes `dims`, `task` and the settings of its section `model.<name>.network`, and offers:

- `forward(batch, *, aux=True) -> Output`; with `aux=False` the auxiliary losses are zero but
  still part of the graph, so that every parameter has a gradient;
- `aux_start_epoch`: the first epoch, counted from 1, that is trained with `aux=True`;
- `loss_counts(batch) -> dict[str, Tensor]`: the counts of its losses, from the masks alone, by
  which accumulated batches are normalised before the first of them is run;
- `batch_losses`: the names of losses that compare the utterances of a batch with each other, so
  that those of its parts do not add up to that of the whole.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from mitfrnet.errors import ParamsError
from mitfrnet.modalities import MODALITIES
from mitfrnet.params import StageParams

if TYPE_CHECKING:  # without torch, which takes seconds to load
    from torch import nn

    from mitfrnet.models.base import Task


class Entry(NamedTuple):
    """Where a model lives: a module, its `nn.Module` and the type of its settings; and its name.

    Attributes:
        label: the name in the model's paper.
    """

    module: str
    model: str
    params: str
    label: str


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
    """Return which parts of MIT-FRNet are switched off in a model's config: `mmr`, `mitr`."""
    if config["architecture"] != "mitfrnet":
        return ()
    return tuple(part for part in ("mmr", "mitr") if not config["settings"].get(part, True))


def full_name(config: Mapping[str, Any]) -> str:
    """Return a model's name as its paper writes it, and what a variant lacks."""
    entry = MODELS.get(config["architecture"])
    name = entry.label if entry else config["architecture"]
    return " ".join([name, *(f"without {part.upper()}" for part in lacking(config))])


def params_type(name: str) -> type[StageParams]:
    """Return the type of a model's settings.

    Raises:
        ParamsError: no model has this name.
    """
    entry = _entry(name)
    return getattr(import_module(entry.module), entry.params)


def build(
    name: str, *, dims: dict[str, int], task: "Task | None" = None, **settings: object
) -> "nn.Module":
    """Return a new model.

    Args:
        name: one of `MODELS`.
        dims: features of a step by modality.
        task: what it predicts; None: a score on the scale of CMU-MOSI.
        settings: what section `model.<name>.network` of `params.yaml` holds.

    Raises:
        ParamsError: no model has this name, or a setting is unknown, absent or out of range.
        ValueError: `dims` lacks a modality, has another one, or a number below 1.
    """
    entry = _entry(name)
    if set(dims) != set(MODALITIES) or min(dims.values()) < 1:
        raise ValueError(f"dims is {dims}, and needs a positive number for each of {MODALITIES}")
    given: dict[str, Any] = {} if task is None else {"task": task}
    return getattr(import_module(entry.module), entry.model)(dims=dims, **given, **settings)


def module_of(name: str) -> str:
    """Return the module of an architecture.

    Raises:
        ParamsError: no model has this name.
    """
    return _entry(name).module


def _entry(name: str) -> Entry:
    if name not in MODELS:
        raise ParamsError(f"unknown model {name!r} (expected: {', '.join(MODELS)})")
    return MODELS[name]
