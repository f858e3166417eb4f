"""The state of an unfinished training, from which a killed run resumes."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mitfrnet.data.tensors import SplitTensors
from mitfrnet.files import METADATA_KEY, replacing
from mitfrnet.missing import Masks


@dataclass
class Progress:
    """The state of a training after its last finished epoch.

    Attributes:
        epochs: the losses of each finished epoch.
        best: weights of the best epoch, on the CPU.
        network, optimiser: state after the last epoch; empty before the first.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    network: dict[str, Tensor] = field(default_factory=dict)
    optimiser: dict[str, Tensor] = field(default_factory=dict)


class Checkpoint:
    """A file that holds the progress of one training.

    It holds tensors and JSON, no pickle. Learning rates, and when to stop, follow from the losses
    of the epochs; random numbers follow from the seed and the step.

    Args:
        folder: for such files; None: nothing is kept.
        inputs: digest of all that decides the result, from `digest_of`; it names the file.
    """

    def __init__(self, folder: Path | None, inputs: str) -> None:
        self._path = None if folder is None else folder / f"{inputs[:32]}.safetensors"

    def load(self) -> Progress:
        """Return the progress; an empty one if there is no readable file."""
        progress = Progress()
        if self._path is None or not self._path.exists():
            return progress
        try:
            with safe_open(self._path, framework="pt") as file:
                progress.epochs = json.loads(file.metadata()[METADATA_KEY])
                for key in file.keys():  # noqa: SIM118
                    part, name = key.split("/", 1)
                    getattr(progress, part)[name] = file.get_tensor(key)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError):
            return Progress()
        return progress

    def save(self, progress: Progress) -> None:
        """Write the progress over the one before."""
        if self._path is None:
            return
        tensors = {
            f"{part}/{name}": tensor.detach().cpu().contiguous()
            for part in ("best", "network", "optimiser")
            for name, tensor in getattr(progress, part).items()
        }
        with replacing(self._path) as temporary:
            save_file(tensors, temporary, metadata={METADATA_KEY: json.dumps(progress.epochs)})

    def remove(self) -> None:
        """Delete the file of a finished training, and temporary files of killed runs."""
        if self._path is not None:
            for path in (self._path, *self._path.parent.glob(f".{self._path.name}.*")):
                path.unlink(missing_ok=True)


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's state, without its learning rates, as named tensors."""
    state = optimiser.state_dict()["state"]
    return {f"{i}/{name}": tensor for i, values in state.items() for name, tensor in values.items()}


def restore(progress: Progress, network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Set network and optimiser to the state after the last epoch."""
    network.load_state_dict(progress.network)
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in progress.optimiser.items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = tensor.clone()  # not the mapped file
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def digest_of(splits: Mapping[str, SplitTensors], masks: Masks, settings: Any) -> str:
    """Return a digest of all that decides the result of a training.

    Args:
        splits: complete features.
        masks: what is hidden of them.
        settings: everything else, as JSON.
    """
    digest = hashlib.sha256()
    versions = [torch.__version__, transformers.__version__]
    for name, split in sorted(splits.items()):
        text = [name, split.ids, split.metadata]
        digest.update(json.dumps(text, sort_keys=True).encode())
        arrays = [split.label, split.token_ids, split.special]
        for modality, ragged in split.modalities.items():
            arrays += [ragged.values, ragged.detected, ragged.offsets]
            arrays += masks.observed[name][modality]
        for array in arrays:
            digest.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    digest.update(json.dumps([versions, masks.metadata, settings], sort_keys=True).encode())
    return digest.hexdigest()
