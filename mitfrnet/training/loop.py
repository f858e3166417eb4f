"""The training loop: epochs of steps, until validation no longer improves."""

import logging
import math
import os
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, cast

import lightning
import numpy as np
import torch
import transformers
from dvclive import Live
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn
from torch.nn.utils import clip_grad_value_
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mitfrnet.data.batches import Batch
from mitfrnet.data.tensors import SplitTensors
from mitfrnet.data.utterances import (
    FrozenText,
    MaskedUtterances,
    Scaling,
    fit_scaling,
    load_encoder,
    no_scaling,
)
from mitfrnet.errors import ParamsError, TrainingError
from mitfrnet.missing import Masks
from mitfrnet.modalities import MODALITIES
from mitfrnet.models import registry
from mitfrnet.models.layers import split_weight_decay
from mitfrnet.models.output import objective
from mitfrnet.params import PARAMS_FILE
from mitfrnet.run import RunParams, available_cores
from mitfrnet.trained import Network, TrainedModel, task_of
from mitfrnet.training import checkpoints
from mitfrnet.training.checkpoints import Checkpoint
from mitfrnet.training.epochs import Utterances, batches, device_for, sorted_batches
from mitfrnet.training.losses import EpochLosses
from mitfrnet.training.settings import ModelParams, OptimiserParams, TrainParams

WATCHED = "valid/task"
# Of an epoch, but none of its losses: it stays out of the curves, which are the same in each run.
SECONDS = "seconds"


class Trained(NamedTuple):
    """What training gives.

    Attributes:
        model: the one of the best epoch.
        cost: `seconds_per_epoch` (median, with validation), `epochs`, `parameters`,
            `peak_memory_mb` (of the process, or of the GPU), `device` and `threads`. It differs
            from run to run and stays out of the model's folder.
        first: whether this is the first of the processes that train together: it alone writes.
    """

    model: TrainedModel
    cost: dict[str, Any]
    first: bool


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
    with fabric.rank_zero_first(local=True):  # which fills the cache
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
        "devices": [str(fabric.device), fabric.world_size],
    }
    inputs = "" if unfinished is None else checkpoints.digest_of(splits, masks, settings)
    checkpoint = Checkpoint(unfinished, inputs)
    fit = _Fit(fabric, network, optimiser, utterances, seed=seed, name=name)
    with _explained(name, optimiser):
        progress = _run(fit, checkpoint, curves, params.max_epochs)
    checkpoint.remove()
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
    return Trained(TrainedModel(network.eval(), scaling, config), cost, fabric.is_global_zero)


def _launched(params: TrainParams, run: RunParams | None) -> Fabric:
    """Return Lightning's view of the devices, after it has started a process for each."""
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    # For sums in the same order in each run on a GPU; read when its library loads.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    devices, nodes, strategy = (run.devices, run.nodes, run.strategy) if run else (1, 1, "auto")
    on_gpu = torch.cuda.is_available()
    there = torch.cuda.device_count() if on_gpu else len(available_cores())
    if devices > there:
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
def _explained(name: str, params: OptimiserParams) -> Iterator[None]:
    """Say which batch would fit a GPU whose memory ran out."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        size = params.batch_size
        advice = "train with precision bf16-mixed, or a frozen text encoder"
        if size > 1:
            part = max(k for k in range(1, size) if size % k == 0)
            advice = (
                f"model.{name}.optimiser: batch_size {part} with accumulate "
                f"{params.accumulate * size // part} makes the same steps"
            )
        raise TrainingError(
            f"model {name!r}: a batch of {size} does not fit the memory of the GPU ({advice})"
        ) from error


def _run(
    fit: "_Fit", checkpoint: Checkpoint, curves: Path, max_epochs: int
) -> checkpoints.Progress:
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


def _draw(live: Live | None, epoch: Mapping[str, float], bar: "_Bar", fit: "_Fit") -> None:
    """Add an epoch to the curves, which a resumed training draws again, and to the bar."""
    if live is not None:
        for name, value in epoch.items():
            if name != SECONDS:
                live.log_metric(name, value)
        live.next_step()
    bar.advance(epoch[WATCHED], fit.best_loss, fit.best_epoch)


class _Fit:
    """Network and optimiser, one step per batch, losses normalised over all its utterances.

    A batch is shared out to the processes that train together. Gradients are summed over them,
    and each part's losses are divided by the counts of the whole batch: the step is that of one
    process, but for the statistics of BatchNorm, which each takes of its own share.

    Attributes:
        fabric: the devices.
        optimiser: Adam with separate rates for the text encoder, none decaying norms or biases.
        best_epoch, best_loss: of the validation task loss so far; epochs count from 1.
        stalled: whether that was too long ago.
    """

    def __init__(
        self,
        fabric: Fabric,
        network: Network,
        params: OptimiserParams,
        utterances: Utterances,
        *,
        seed: int,
        name: str,
    ) -> None:
        self.fabric = fabric
        self._network = fabric.to_device(network)
        self._params, self._utterances = params, utterances
        self._seed, self._name = seed, name
        self.optimiser = torch.optim.Adam(_groups(network, params))
        self._plateau = None
        if params.plateau_patience is not None:
            self._plateau = ReduceLROnPlateau(
                self.optimiser, factor=params.plateau_factor, patience=params.plateau_patience
            )
        self.best_epoch, self.best_loss = 0, math.inf
        self._epoch = 0
        self._shared = fabric.world_size > 1

    @property
    def stalled(self) -> bool:
        """Return whether there was no better epoch for so long that training ends."""
        return self._epoch - self.best_epoch >= self._params.stop_patience

    def weights(self, *, copy: bool = False) -> dict[str, Tensor]:
        """Return the weights as they are; a copy on the CPU stays so."""
        state = self._network.state_dict()
        return {k: v.detach().to("cpu", copy=True) if copy else v for k, v in state.items()}

    def resume(self, progress: checkpoints.Progress) -> None:
        """Go where training has come."""
        checkpoints.restore(progress, self._network, self.optimiser)
        for epoch in progress.epochs:
            self._judge(epoch[WATCHED])

    def epoch(self, number: int) -> dict[str, float]:
        """Train for an epoch, counted from 1, and return what it and validation measured."""
        start = time.perf_counter()
        model: Any = self._network.model
        aux = number >= model.aux_start_epoch
        utterances = self._utterances.train(number)
        params = self._params
        order = batches(
            utterances.steps, params.batch_size * params.accumulate, seed=self._seed, epoch=number
        )
        self._check_shares(order)
        losses = EpochLosses()
        self._network.train()
        for step, rows in enumerate(order):
            # Dropout that depends on nothing before it, so that a resumed run draws the same.
            key = [self._seed, number, step, self.fabric.global_rank]
            torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))
            self._step(self._parts(utterances, rows), losses, aux=aux)
        measured = self._means(losses, f"epoch {number}", "train", utterances, order)
        measured |= self._validate(number)
        self._judge(measured[WATCHED])
        measured["learning_rate"] = self.optimiser.param_groups[0]["lr"]
        return measured | {"epoch": number, SECONDS: time.perf_counter() - start}

    def _check_shares(self, order: list[NDArray[np.int64]]) -> None:
        smallest = min(map(len, order))
        if smallest < self.fabric.world_size:
            raise ParamsError(
                f"{PARAMS_FILE}: run: {self.fabric.world_size} devices (expected at most "
                f"{smallest}, the utterances of the smallest batch)"
            )

    def _parts(self, utterances: MaskedUtterances, rows: NDArray[np.int64]) -> list[Batch]:
        """Return this process's share of a batch, in parts of at most `batch_size`."""
        share = rows[self.fabric.global_rank :: self.fabric.world_size]
        size = self._params.batch_size
        starts = range(0, len(share), size)
        return [utterances.batch(share[i : i + size]).to(self.fabric.device) for i in starts]

    def _step(self, parts: list[Batch], losses: EpochLosses, *, aux: bool) -> None:
        self.optimiser.zero_grad()
        model: Any = self._network.model
        counted = [model.loss_counts(part) for part in parts]
        counts = {name: sum(c[name] for c in counted) for name in counted[0]}
        if self._shared:
            summed = self._summed(torch.stack(list(counts.values())))
            counts = dict(zip(counts, summed.unbind(), strict=True))
        scored = []
        for part in parts:
            with self.fabric.autocast():
                found = self._network(part, aux=aux).losses
            objective(found, counts).backward()
            scored.append(found if aux else {"task": found["task"]})
        losses.add(scored)
        if self._shared:
            self._share_gradients()
        if self._params.clip_value is not None:
            clip_grad_value_(self._network.parameters(), self._params.clip_value)
        self.optimiser.step()

    def _summed(self, tensor: Tensor) -> Tensor:
        """Return the sum over processes."""
        return cast(Tensor, self.fabric.all_reduce(tensor, reduce_op="sum"))

    def _share_gradients(self) -> None:
        """Sum gradients over processes: all at once, since most tensors are small."""
        # Which parameters a step uses depends on the epoch alone, so these are the same in all.
        gradients = [p.grad for p in self._network.parameters() if p.grad is not None]
        flat = self._summed(torch.cat([g.flatten() for g in gradients]))
        parts = flat.split([g.numel() for g in gradients])
        for gradient, summed in zip(gradients, parts, strict=True):
            gradient.copy_(summed.view_as(gradient))

    @torch.no_grad()
    def _validate(self, number: int) -> dict[str, float]:
        if self._shared:
            for buffer in self._network.buffers():  # running statistics, of each process its own
                if buffer.is_floating_point():
                    buffer.copy_(self._summed(buffer) / self.fabric.world_size)
        self._network.eval()
        utterances, losses = self._utterances.valid, EpochLosses()
        order = sorted_batches(utterances.steps, self._params.batch_size * self.fabric.world_size)
        self._check_shares(order)
        for rows in order:
            found = []
            for part in self._parts(utterances, rows):
                with self.fabric.autocast():
                    found.append({"task": self._network(part, aux=False).losses["task"]})
            losses.add(found)
        return self._means(losses, f"validation of epoch {number}", "valid", utterances, order)

    def _means(
        self,
        losses: EpochLosses,
        where: str,
        prefix: str,
        utterances: MaskedUtterances,
        order: list[NDArray[np.int64]],
    ) -> dict[str, float]:
        """Return the means over processes.

        Raises:
            TrainingError: a term was no finite number in some step, named with its utterances.
        """
        steps = self._summed(losses.steps()).cpu().numpy()
        broken = losses.broken(steps)
        if broken is not None:
            step, terms = broken
            batch = utterances.batch(order[step])
            raise TrainingError(
                f"model {self._name!r}: {where}, step {step + 1}: loss {', '.join(terms)} is no "
                f"finite number ({_suspect(batch)}); the batch: {', '.join(batch.utterance_ids)}"
            )
        return {f"{prefix}/{name}": mean for name, mean in losses.means(steps).items()}

    def _judge(self, loss: float) -> None:
        """Note an epoch's validation loss, and lower the learning rates where it stalls."""
        self._epoch += 1
        if loss < self.best_loss:
            self.best_epoch, self.best_loss = self._epoch, loss
        if self._plateau is not None:
            self._plateau.step(loss)


def _suspect(batch: Batch) -> str:
    """Return what may have made a loss of this batch infinite."""
    for modality in MODALITIES:
        finite = batch.target[modality].isfinite() & batch.values[modality].isfinite()
        bad = torch.nonzero(~finite.flatten(1).all(1)).flatten().tolist()
        if bad:
            return f"{modality} features of {batch.utterance_ids[bad[0]]} are none; extract again"
    return "a lower learning_rate may help"


def _groups(network: Network, params: OptimiserParams) -> list[dict[str, Any]]:
    """Return the parameters with their rates, weight decay acting on matrices alone."""
    parts: list[tuple[nn.Module | None, float, float]] = [
        (network.model, params.learning_rate, params.weight_decay),
        (network.text_encoder, params.text_learning_rate, params.text_weight_decay),
    ]
    groups = []
    for module, rate, decay in parts:
        if module is not None:
            decayed, kept = split_weight_decay(module)
            groups.append({"params": decayed, "lr": rate, "weight_decay": decay})
            groups.append({"params": kept, "lr": rate, "weight_decay": 0.0})
    return groups


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
