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

from importlib import import_module
from typing import NamedTuple

from torch import nn

from mitfrnet.errors import ParamsError
from mitfrnet.modalities import MODALITIES
from mitfrnet.models.output import SCORE, Task
from mitfrnet.params import StageParams


class Entry(NamedTuple):
    """Where a model lives: a module, its `nn.Module` and the type of its settings."""

    module: str
    model: str
    params: str


MODELS: dict[str, Entry] = {
    "mitfrnet": Entry("mitfrnet.models.mitfrnet.network", "MITFRNet", "MITFRNetParams"),
    "tfn": Entry("mitfrnet.models.baselines.tfn", "TFN", "TFNParams"),
    "mult": Entry("mitfrnet.models.baselines.mult", "MulT", "MulTParams"),
    "misa": Entry("mitfrnet.models.baselines.misa", "MISA", "MISAParams"),
    "tfrnet": Entry("mitfrnet.models.baselines.tfrnet", "TFRNet", "TFRNetParams"),
}


def params_type(name: str) -> type[StageParams]:
    """Return the type of a model's settings.

    Raises:
        ParamsError: no model has this name.
    """
    entry = _entry(name)
    return getattr(import_module(entry.module), entry.params)


def build(name: str, *, dims: dict[str, int], task: Task = SCORE, **settings: object) -> nn.Module:
    """Return a new model.

    Args:
        name: one of `MODELS`.
        dims: features of a step by modality.
        task: what it predicts.
        settings: what section `model.<name>.network` of `params.yaml` holds.

    Raises:
        ParamsError: no model has this name, or a setting is unknown, absent or out of range.
        ValueError: `dims` lacks a modality, has another one, or a number below 1.
    """
    entry = _entry(name)
    if set(dims) != set(MODALITIES) or min(dims.values()) < 1:
        raise ValueError(f"dims is {dims}, and needs a positive number for each of {MODALITIES}")
    return getattr(import_module(entry.module), entry.model)(dims=dims, task=task, **settings)


def _entry(name: str) -> Entry:
    if name not in MODELS:
        raise ParamsError(f"unknown model {name!r} (expected: {', '.join(MODELS)})")
    return MODELS[name]
