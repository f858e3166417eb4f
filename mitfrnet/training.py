"""Train one model on one corpus at one missing rate."""

import logging
import math
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import lightning
import torch
import transformers
from dvclive.lightning import DVCLiveLogger
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.core.optimizer import LightningOptimizer
from pydantic import Field
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn
from torch.nn.utils import clip_grad_value_
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from mitfrnet.data.batches import Batch, Utterance, collate
from mitfrnet.data.tensors import SplitTensors
from mitfrnet.data.utterances import (
    FrozenText,
    Observed,
    Scaling,
    fit_scaling,
    load_encoder,
    no_scaling,
)
from mitfrnet.errors import ParamsError, TrainingError
from mitfrnet.missing import WHOLE_PATTERNS, MaskParams, Masks, mask_steps
from mitfrnet.models import registry
from mitfrnet.models.layers import split_weight_decay
from mitfrnet.models.output import Loss, objective
from mitfrnet.params import PARAMS_FILE, StageParams, load_params, parse_params
from mitfrnet.trained import Network, TrainedModel, prepare, task_of

WATCHED = "valid/task"
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


def load_model_params(name: str, *, baseline: bool, path: Path = PARAMS_FILE) -> ModelParams:
    """Return the section of one model, its network's settings checked too.

    Args:
        name: of the section below `model`.
        baseline: whether it is named in `grid.baselines`, and not in `grid.models`. DVC watches
            the file of the baseline's name, and the folder of MIT-FRNet for all others.
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
    expected = name if baseline else "mitfrnet"
    if params.architecture != expected:
        axis = "grid.baselines" if baseline else "grid.models"
        raise ParamsError(
            f"{where}.architecture: {params.architecture} (expected {expected} for an entry of "
            f"{axis}: DVC would not notice a change to another model's code)"
        )
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


class Trained(NamedTuple):
    """What training gives.

    Attributes:
        model: the one of the best epoch.
        cost: `seconds_per_epoch` (median, with validation), `epochs`, `parameters`,
            `peak_memory_mb` (of the process, or of the GPU), `device` and `threads`. It differs
            from run to run and stays out of the model's folder.
    """

    model: TrainedModel
    cost: dict[str, Any]


def train(
    splits: Mapping[str, SplitTensors],
    masks: Masks,
    *,
    name: str,
    model_params: ModelParams,
    params: TrainParams,
    seed: int,
    curves: Path,
    text_cache: Path | None = None,
) -> Trained:
    """Return the model of the epoch with the lowest validation task loss, and what it took.

    Only the splits `train` and `valid` are looked at. Sets the global seeds and the number of
    threads.

    Args:
        splits: complete features.
        masks: what is hidden of them; under `random_train` the training masks are drawn anew
            in each epoch.
        name: of the model in `params.yaml`.
        model_params: its network and optimiser.
        params: of training.
        seed: of weights, dropout and the order of utterances.
        curves: folder for the losses of every epoch.
        text_cache: folder for text encoded under masks.

    Raises:
        TrainingError: the corpus has no labels, or no epoch had a finite validation loss.
    """
    training = splits["train"]
    if training.metadata["scale"] is None:
        raise TrainingError(
            "the corpus has no labels to train on (task: unlabelled); take it out of grid.corpora, "
            "or give it a layout with labels and a scale or classes (docs/corpora.md)"
        )
    torch.set_num_threads(params.threads)
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
    utterances = Utterances(splits, masks, scaling, frozen=frozen, redrawn=redrawn)
    # Only now: loading a text encoder may draw numbers, and a warm cache loads none.
    lightning.seed_everything(seed, verbose=False)
    model = registry.build(
        model_params.architecture,
        dims=training.dims,
        task=task_of(training.metadata["scale"]),
        **model_params.network,
    )
    weights = cast(dict[str, float], model.weights)
    for modality in scaling.unscored:
        if f"reconstruction_{modality}" in weights:
            weights[f"reconstruction_{modality}"] = 0.0
    network = Network(model, encoder)

    optimiser = model_params.optimiser
    best, clock = _KeepBest(), _Clock()
    trainer = _trainer(params, optimiser, best, clock, curves)
    with warnings.catch_warnings():
        for known in (".*does not have many workers.*", ".*LeafSpec.*"):
            warnings.filterwarnings("ignore", known)
        trainer.fit(_Learner(network, optimiser, utterances, seed))
    if not best.state:
        raise TrainingError(
            f"model {name!r}: the validation loss was not a number from the first epoch on "
            "(a lower learning_rate may help)"
        )
    network.load_state_dict(best.state)
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
            "best_epoch": best.epoch,
            "unscored_reconstructions": list(scaling.unscored),
            "best_valid_task_loss": best.loss,
            "parameters": parameters,
        },
        "versions": {
            "torch": torch.__version__,
            "lightning": lightning.__version__,
            "transformers": transformers.__version__,
        },
    }
    cost = clock.cost() | {"parameters": parameters, "threads": params.threads}
    return Trained(TrainedModel(network.eval(), scaling, config), cost)


class Utterances:
    """The utterances of training and validation under their masks.

    Args:
        splits: complete features.
        masks: what is hidden of them.
        scaling: of acoustic and visual features.
        frozen: encodes masked transcripts; None: the network does it from the token ids.
        redrawn: as `frozen`, for masks that are used in one epoch only.
    """

    def __init__(
        self,
        splits: Mapping[str, SplitTensors],
        masks: Masks,
        scaling: Scaling,
        *,
        frozen: FrozenText | None,
        redrawn: FrozenText | None,
    ) -> None:
        self._split, self._scaling, self._redrawn = splits["train"], scaling, redrawn
        self._params = MaskParams(**masks.metadata["params"])
        self._whole = masks.metadata["pattern"] in WHOLE_PATTERNS
        self._each_epoch = masks.metadata["protocol"] == "random_train"
        self.valid = self._prepare(splits["valid"], masks.observed["valid"], frozen)
        if self._each_epoch:
            self._epoch, self._train = 1, self._draw(1)
        else:
            self._train = self._prepare(self._split, masks.observed["train"], frozen)

    def train(self, epoch: int) -> list[Utterance]:
        """Return the training utterances of an epoch, counted from 1."""
        if self._each_epoch and epoch != self._epoch:
            self._epoch, self._train = epoch, self._draw(epoch)
        return self._train

    def _draw(self, epoch: int) -> list[Utterance]:
        observed = mask_steps(
            self._split.steps, rate=None, split="train", params=self._params, epoch=epoch
        )
        return self._prepare(self._split, observed, self._redrawn)

    def _prepare(
        self, split: SplitTensors, observed: Observed, text: FrozenText | None
    ) -> list[Utterance]:
        return prepare(split, observed, self._scaling, text, whole=self._whole)


def _trainer(
    params: TrainParams,
    optimiser: OptimiserParams,
    best: "_KeepBest",
    clock: "_Clock",
    curves: Path,
) -> Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    stop = EarlyStopping(WATCHED, patience=optimiser.stop_patience)
    return Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=1,
        precision=params.precision,
        max_epochs=params.max_epochs,
        callbacks=[best, stop, clock, _ProgressBar(best)],
        # Otherwise DVCLive writes into the repository's own dvc.yaml and makes an experiment.
        logger=DVCLiveLogger(dir=str(curves), dvcyaml=None, save_dvc_exp=False),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        deterministic=True,
        log_every_n_steps=1,
        # The masks of an epoch may be its own.
        reload_dataloaders_every_n_epochs=1,
    )


class _Parts:
    """Collates utterances into batches of at most `size` that make one optimiser step."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, utterances: list[Utterance]) -> list[Batch]:
        starts = range(0, len(utterances), self._size)
        return [collate(utterances[i : i + self._size]) for i in starts]


class _EpochMeans:
    """Means of loss terms over an epoch, exact whatever the sizes of its batches.

    Terms without weight are left out.
    """

    def __init__(self) -> None:
        self._sums: dict[str, list[Tensor]] = {}

    def add(self, losses: Mapping[str, Loss]) -> None:
        for name, loss in losses.items():
            if loss.weight == 0:
                continue
            self._sums.setdefault(name, []).append(torch.stack([loss.sum, loss.count]).detach())

    def collect(self, prefix: str) -> dict[str, Tensor]:
        """Return and forget the means; a term that had nothing to score is left out."""
        totals = {name: torch.stack(parts).sum(0) for name, parts in self._sums.items()}
        self._sums.clear()
        return {f"{prefix}/{name}": t[0] / t[1] for name, t in totals.items() if t[1] > 0}


class _Learner(LightningModule):
    """One optimiser step per batch of parts, losses normalised over all of them."""

    def __init__(
        self, network: Network, params: OptimiserParams, utterances: Utterances, seed: int
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self._params = params
        self._utterances = utterances
        self._order = torch.Generator().manual_seed(seed)
        self._means = {"train": _EpochMeans(), "valid": _EpochMeans()}

    def train_dataloader(self) -> Any:
        """Return the batches of an epoch, each of the parts that make one step."""
        size, accumulate = self._params.batch_size, self._params.accumulate
        return DataLoader(
            cast(Any, self._utterances.train(self.current_epoch + 1)),
            batch_size=size * accumulate,
            shuffle=True,
            generator=self._order,
            collate_fn=_Parts(size),
        )

    def val_dataloader(self) -> Any:
        """Return the batches of validation."""
        size = self._params.batch_size
        return DataLoader(cast(Any, self._utterances.valid), size, collate_fn=_Parts(size))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, index: int) -> Any:
        """Move the parts of a batch."""
        return [part.to(device) for part in batch]

    def training_step(self, parts: list[Batch], index: int) -> None:
        """Make one step."""
        optimiser = cast(LightningOptimizer, self.optimizers())
        optimiser.zero_grad()
        model: Any = self.network.model
        aux = self.current_epoch + 1 >= model.aux_start_epoch
        counted = [model.loss_counts(part) for part in parts]
        counts = {name: sum(c[name] for c in counted) for name in counted[0]}
        for part in parts:
            losses = self.network(part, aux=aux).losses
            self.manual_backward(objective(losses, counts))
            self._means["train"].add(losses if aux else {"task": losses["task"]})
        if self._params.clip_value is not None:
            clip_grad_value_(self.network.parameters(), self._params.clip_value)
        optimiser.step()

    def on_train_epoch_end(self) -> None:
        """Log the epoch's losses."""
        self.log_dict(self._means["train"].collect("train"))

    def validation_step(self, parts: list[Batch], index: int) -> None:
        """Add a batch to the validation losses."""
        for part in parts:
            self._means["valid"].add({"task": self.network(part, aux=False).losses["task"]})

    def on_validation_epoch_end(self) -> None:
        """Log the task loss, and lower the learning rates where it stalls."""
        means = self._means["valid"].collect("valid")
        self.log_dict(means)
        if self._params.plateau_patience is not None:
            cast(ReduceLROnPlateau, self.lr_schedulers()).step(float(means[WATCHED]))
        optimiser = cast(LightningOptimizer, self.optimizers())
        self.log("learning_rate", optimiser.param_groups[0]["lr"])

    def configure_optimizers(self) -> Any:
        """Return Adam with separate rates for the text encoder, none decaying norms or biases."""
        params = self._params
        groups = _groups(self.network.model, params.learning_rate, params.weight_decay)
        if self.network.text_encoder is not None:
            groups += _groups(
                self.network.text_encoder, params.text_learning_rate, params.text_weight_decay
            )
        optimiser = torch.optim.Adam(groups)
        if params.plateau_patience is None:
            return optimiser
        scheduler = ReduceLROnPlateau(
            optimiser, factor=params.plateau_factor, patience=params.plateau_patience
        )
        return [optimiser], [scheduler]


def _groups(module: nn.Module, rate: float, decay: float) -> list[dict[str, Any]]:
    decayed, kept = split_weight_decay(module)
    return [
        {"params": decayed, "lr": rate, "weight_decay": decay},
        {"params": kept, "lr": rate, "weight_decay": 0.0},
    ]


class _KeepBest(Callback):
    """Keeps the weights of the best epoch in memory; Lightning's checkpoints are pickles."""

    def __init__(self) -> None:
        self.loss = math.inf
        self.epoch = 0
        self.state: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss = float(trainer.callback_metrics[WATCHED])
        if loss < self.loss:
            self.loss, self.epoch = loss, trainer.current_epoch + 1
            state = cast(_Learner, pl_module).network.state_dict()
            self.state = {k: v.detach().to("cpu", copy=True) for k, v in state.items()}


class _Clock(Callback):
    """Measures what epochs take, with their batches and validation."""

    def __init__(self) -> None:
        self._start = 0.0
        self._seconds: list[float] = []
        self._bytes = 0
        self._device = ""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if pl_module.device.type == "cuda":
            self._device = torch.cuda.get_device_name(pl_module.device)
            used = torch.cuda.max_memory_allocated(pl_module.device)
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            self._device, used = "cpu", peak if sys.platform == "darwin" else 1024 * peak
        now = time.perf_counter()
        self._seconds.append(now - self._start)
        self._start, self._bytes = now, used

    def cost(self) -> dict[str, Any]:
        """Return what was measured."""
        return {
            "seconds_per_epoch": statistics.median(self._seconds),
            "epochs": len(self._seconds),
            "peak_memory_mb": self._bytes / 2**20,
            "device": self._device,
        }


class _ProgressBar(Callback):
    """One bar over epochs on stderr, with the last and the best validation loss."""

    def __init__(self, best: _KeepBest) -> None:
        self._best = best
        self._bar = Progress(
            TextColumn("train {task.description}"),
            BarColumn(),
            TextColumn("epoch {task.completed:.0f} of at most {task.total:.0f}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("", total=None)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._bar.update(self._task, total=trainer.max_epochs)
        self._bar.start()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss = float(trainer.callback_metrics[WATCHED])
        best = f"best {self._best.loss:.3f} in epoch {self._best.epoch}"
        self._bar.update(self._task, advance=1, description=f"valid {loss:.3f}, {best}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._bar.stop()
