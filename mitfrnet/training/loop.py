"""The training loop: epochs of steps, until validation no longer improves."""

import logging
import os
import resource
import statistics
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, cast

import lightning
import torch
import transformers
from dvclive import Live
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import nn

from mitfrnet.data.masked_text import FrozenText, load_encoder
from mitfrnet.data.scaling import Scaling, fit_scaling, no_scaling
from mitfrnet.data.tensors import SplitTensors
from mitfrnet.errors import ParamsError, TrainingError
from mitfrnet.missing import Masks
from mitfrnet.models import registry
from mitfrnet.params import PARAMS_FILE
from mitfrnet.trained.model import Network, TrainedModel, task_of
from mitfrnet.training import checkpoints
from mitfrnet.training.batching import Utterances, device_for
from mitfrnet.training.checkpoints import Checkpoint
from mitfrnet.training.fit import SECONDS, WATCHED, Fit
from mitfrnet.training.settings import ModelParams, OptimiserParams, TrainParams
from mitfrnet.workers.params import RunParams, available_cores


class Trained(NamedTuple):
    """What training gives.

    Attributes:
        model: the one of the best epoch.
        cost: `seconds_per_epoch` (median, with validation), `epochs`, `parameters`,
            `peak_memory_mb` (of the process, or of the GPU), `device` and `threads`. It differs
            from run to run and stays out of the model's folder.
        first: whether this is the first of the processes that train together: it alone writes.
        checkpoint: to be removed once the model is written; until then a run that is killed
            comes back to it.
    """

    model: TrainedModel
    cost: dict[str, Any]
    first: bool
    checkpoint: Checkpoint


def train(
    splits: Mapping[str, SplitTensors],
    masks: Masks,
    *,
    name: str,
    model_params: ModelParams,
    params: TrainParams,
    seed: int,
    curves: Path,
    run: RunParams | None = None,
    text_cache: Path | None = None,
    unfinished: Path | None = None,
    code: str = "",
) -> Trained:
    """Return the model of the epoch with the lowest validation task loss, and what it took.

    Only the splits `train` and `valid` are looked at. Sets the global seeds and the number of
    threads. With several devices, each process calls this and gets the same model.

    Args:
        splits: complete features.
        masks: what is hidden of them; under `random_train` the training masks are drawn anew
            in each epoch.
        name: of the model in `params.yaml`.
        model_params: its network and optimiser.
        params: of training.
        seed: of weights, dropout and the order of utterances.
        curves: folder for the losses of every epoch.
        run: on how many devices; None: on one.
        text_cache: folder for text encoded under masks.
        unfinished: folder for the state after each epoch: after a crash, the same call goes on
            from there and gives the same model. None: it starts anew.
        code: digest of the code that training runs through; an unfinished training goes on only
            under the same.

    Raises:
        TrainingError: the corpus has no labels, a loss was no finite number, or a batch does
            not fit the GPU.
        ParamsError: there are not so many devices, or more than utterances in a batch.
        FeatureError: a feature to scale by is no finite number.
    """
    training = splits["train"]
    if training.metadata["scale"] is None:
        raise TrainingError(
            "the corpus has no labels to train on (task: unlabelled); take it out of grid.corpora, "
            "or give it a layout with labels and a scale or classes (docs/corpora.md)"
        )
    fabric = _launched(params, run)
    torch.set_num_threads(params.threads)
    torch.use_deterministic_algorithms(True)
    scaling = (
        fit_scaling(training, masks.observed["train"])
        if params.scale == "standard"
        else no_scaling(training.dims)
    )
    features = training.metadata["features"]
    identity = features["text"]["identity"]
    frozen = redrawn = encoder = None
    if params.text == "frozen":
        frozen, redrawn = FrozenText(identity, text_cache), FrozenText(identity)
    else:
        encoder = load_encoder(identity).train()
    with fabric.rank_zero_first():  # which fills the cache, common to all machines
        utterances = Utterances(
            splits,
            masks,
            scaling,
            frozen=frozen,
            redrawn=redrawn,
            device=device_for(splits, fabric.device),
        )
    # Only now: loading a text encoder may draw numbers, and a warm cache loads none.
    lightning.seed_everything(seed, verbose=False)
    network = Network(_build(training, scaling, model_params), encoder)
    optimiser = model_params.optimiser
    settings = {
        "model": model_params.model_dump(),
        "train": params.model_dump(),
        "seed": seed,
        "code": code,
        "devices": [str(fabric.device), fabric.world_size],
    }
    inputs = "" if unfinished is None else checkpoints.digest_of(splits, masks, settings)
    checkpoint = Checkpoint(unfinished, inputs)
    with _explained(name, optimiser, fabric.world_size):
        fit = Fit(fabric, network, optimiser, utterances, seed=seed, name=name)
        progress = _run(fit, checkpoint, curves, params.max_epochs)
    best = fit.best_epoch
    network.load_state_dict(progress.best)
    parameters = sum(p.numel() for p in network.parameters())
    config = {
        "model": name,
        "architecture": model_params.architecture,
        "settings": model_params.network,
        "dims": training.dims,
        "text": params.text,
        "features": features,
        "scale": training.metadata["scale"],
        "language": training.metadata["language"],
        "training": {
            "seed": seed,
            "train": params.model_dump(),
            "optimiser": optimiser.model_dump(),
            "masks": masks.metadata,
            "clips": {split: len(splits[split].ids) for split in ("train", "valid")},
            "best_epoch": best,
            "devices": fabric.world_size,
            "unscored_reconstructions": list(scaling.unscored),
            "best_valid_task_loss": progress.epochs[best - 1][WATCHED],
            "parameters": parameters,
        },
        "versions": {
            "torch": torch.__version__,
            "lightning": lightning.__version__,
            "transformers": transformers.__version__,
        },
    }
    cost = {
        "seconds_per_epoch": statistics.median(e[SECONDS] for e in progress.epochs),
        "epochs": len(progress.epochs),
        "parameters": parameters,
        "threads": params.threads,
        **_memory(fabric.device),
    }
    return Trained(
        TrainedModel(network.eval(), scaling, config), cost, fabric.is_global_zero, checkpoint
    )


def _launched(params: TrainParams, run: RunParams | None) -> Fabric:
    """Return Lightning's view of the devices, after it has started a process for each."""
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    # For sums in the same order in each run on a GPU; read when its library loads.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    devices, nodes, strategy = (run.devices, run.nodes, run.strategy) if run else (1, 1, "auto")
    on_gpu = torch.cuda.is_available()
    there = torch.cuda.device_count() if on_gpu else len(available_cores())
    launched_from_outside = "LOCAL_RANK" in os.environ or "SLURM_PROCID" in os.environ
    if devices > there and not launched_from_outside:
        kind = "GPUs" if on_gpu else "cores, since there is no GPU"
        raise ParamsError(
            f"{PARAMS_FILE}: run.devices: {devices} (expected at most {there}, the {kind})"
        )
    try:
        fabric = Fabric(
            accelerator="gpu" if on_gpu else "cpu",
            devices=devices,
            num_nodes=nodes,
            strategy=strategy,
            precision=params.precision,
        )
    except (MisconfigurationException, ValueError) as error:  # such as what SLURM started
        reason = " ".join(str(error).split())
        raise ParamsError(f"{PARAMS_FILE}: run: {reason}") from error
    fabric.launch()
    return fabric


def _build(training: SplitTensors, scaling: Scaling, params: ModelParams) -> nn.Module:
    model = registry.build(
        params.architecture,
        dims=training.dims,
        task=task_of(training.metadata["scale"]),
        **params.network,
    )
    weights = cast(dict[str, float], model.weights)
    for modality in scaling.unscored:
        if f"reconstruction_{modality}" in weights:
            weights[f"reconstruction_{modality}"] = 0.0
    return model


@contextmanager
def _explained(name: str, params: OptimiserParams, processes: int) -> Iterator[None]:
    """Say which batch would fit a GPU whose memory ran out."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        size, whole = params.batch_size, params.batch_size * params.accumulate
        computed = -(-size // processes)  # by each device at once
        advice = "train with precision bf16-mixed, or a frozen text encoder"
        if computed > 1:
            part = max(k for k in range(1, size) if whole % k == 0)
            advice = (
                f"model.{name}.optimiser: batch_size {part} with accumulate {whole // part} makes "
                "steps of as many clips"
            )
        raise TrainingError(
            f"model {name!r}: a batch of {computed} does not fit the memory of the GPU ({advice})"
        ) from error


def _run(fit: Fit, checkpoint: Checkpoint, curves: Path, max_epochs: int) -> checkpoints.Progress:
    """Train to the end, from where the checkpoint is; the first process writes."""
    fabric = fit.fabric
    progress = fabric.broadcast(checkpoint.load() if fabric.is_global_zero else None)
    assert progress is not None
    if progress.epochs:
        fit.resume(progress)
    first = fabric.is_global_zero
    # Otherwise DVCLive writes into the repository's own dvc.yaml and makes an experiment.
    live = Live(str(curves), dvcyaml=None, save_dvc_exp=False) if first else None
    with live if live is not None else nullcontext(), _Bar(max_epochs, shown=first) as bar:
        for epoch in progress.epochs:
            _draw(live, epoch, bar, fit)
        while len(progress.epochs) < max_epochs and not fit.stalled:
            epoch = fit.epoch(len(progress.epochs) + 1)
            progress.epochs.append(epoch)
            if first:
                if fit.best_epoch == len(progress.epochs):
                    progress.best = fit.weights(copy=True)
                progress.network = fit.weights()
                progress.optimiser = checkpoints.optimiser_tensors(fit.optimiser)
                checkpoint.save(progress)
                _draw(live, epoch, bar, fit)
    progress.best = fabric.broadcast(progress.best)
    return progress


def _draw(live: Live | None, epoch: Mapping[str, float], bar: "_Bar", fit: Fit) -> None:
    """Add an epoch to the curves, which a resumed training draws again, and to the bar."""
    if live is not None:
        for name, value in epoch.items():
            if name != SECONDS:
                live.log_metric(name, value)
        live.next_step()
    bar.advance(epoch[WATCHED], fit.best_loss, fit.best_epoch)


def _memory(device: torch.device) -> dict[str, Any]:
    """Return `peak_memory_mb` and the `device` it is of."""
    if device.type == "cuda":
        used, name = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_name(device)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        used, name = peak if sys.platform == "darwin" else 1024 * peak, "cpu"
    return {"peak_memory_mb": used / 2**20, "device": name}


class _Bar:
    """One bar over epochs on stderr, with the last and the best validation loss."""

    def __init__(self, max_epochs: int, *, shown: bool) -> None:
        self._bar = Progress(
            TextColumn("train {task.description}"),
            BarColumn(),
            TextColumn("epoch {task.completed:.0f} of at most {task.total:.0f}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not shown,
        )
        self._task = self._bar.add_task("", total=max_epochs)

    def __enter__(self) -> "_Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, loss: float, best_loss: float, best_epoch: int) -> None:
        """Count an epoch."""
        best = f"best {best_loss:.3f} in epoch {best_epoch}"
        self._bar.update(self._task, advance=1, description=f"valid {loss:.3f}, {best}")
