"""The devices that train one model, and their memory."""

import logging
import os
import resource
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException

from mitfrnet.data.tensors import SplitTensors
from mitfrnet.errors import ParamsError, TrainingError
from mitfrnet.params import PARAMS_FILE
from mitfrnet.training.settings import OptimiserParams
from mitfrnet.workers.params import RunParams, available_cores


def launch(precision: Literal["32-true", "bf16-mixed"], run: RunParams | None) -> Fabric:
    """Return Lightning's view of the devices, after it has started a process for each.

    Args:
        precision: of Lightning.
        run: how many devices; None: one.

    Raises:
        ParamsError: there are fewer devices than `run` asks for.
    """
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    # Makes a GPU add in the same order in each run; read when its library loads.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    devices, nodes, strategy = (run.devices, run.nodes, run.strategy) if run else (1, 1, "auto")
    on_gpu = torch.cuda.is_available()
    available = torch.cuda.device_count() if on_gpu else len(available_cores())
    launched_from_outside = "LOCAL_RANK" in os.environ or "SLURM_PROCID" in os.environ
    if devices > available and not launched_from_outside:
        kind = "GPUs" if on_gpu else "cores, since there is no GPU"
        raise ParamsError(
            f"{PARAMS_FILE}: run.devices: {devices} (expected at most {available}, the {kind})"
        )
    try:
        fabric = Fabric(
            accelerator="gpu" if on_gpu else "cpu",
            devices=devices,
            num_nodes=nodes,
            strategy=strategy,
            precision=precision,
        )
    except (MisconfigurationException, ValueError) as error:  # such as other tasks under SLURM
        reason = " ".join(str(error).split())
        raise ParamsError(f"{PARAMS_FILE}: run: {reason}") from error
    fabric.launch()
    return fabric


def device_for(splits: Mapping[str, SplitTensors], device: torch.device) -> torch.device:
    """Return where to keep the features: on a GPU if they fill a quarter of its memory at most.

    A batch is then made where it is used, and not copied from the CPU.
    """
    if device.type != "cuda":
        return device
    # Text is there twice, complete and encoded under the mask.
    size = sum(
        tensors.values.nbytes * (2 if modality == "text" else 1)
        for split in splits.values()
        for modality, tensors in split.modalities.items()
    )
    free, _ = torch.cuda.mem_get_info(device)
    return device if 4 * size <= free else torch.device("cpu")


@contextmanager
def explaining_memory(name: str, params: OptimiserParams, processes: int) -> Iterator[None]:
    """Turn a GPU that is out of memory into a `TrainingError` that names a batch that would fit."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        size, step_size = params.batch_size, params.batch_size * params.accumulate
        on_a_device = -(-size // processes)
        advice = "train with precision bf16-mixed, or a frozen text encoder"
        if on_a_device > 1:
            smaller = max(k for k in range(1, size) if step_size % k == 0)
            advice = (
                f"model.{name}.optimiser: batch_size {smaller} with accumulate "
                f"{step_size // smaller} makes steps of as many clips"
            )
        raise TrainingError(
            f"model {name!r}: a batch of {on_a_device} does not fit the memory of the GPU "
            f"({advice})"
        ) from error


def peak_memory(device: torch.device) -> dict[str, Any]:
    """Return `peak_memory_mb` and the name of the `device` that used it."""
    if device.type == "cuda":
        used, name = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_name(device)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        used, name = peak if sys.platform == "darwin" else 1024 * peak, "cpu"
    return {"peak_memory_mb": used / 2**20, "device": name}
