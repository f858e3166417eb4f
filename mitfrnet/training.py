"""Train one model on one corpus at one missing rate."""

import logging
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

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
from mitfrnet.data.utterances import FrozenText, fit_scaling, load_encoder, no_scaling
from mitfrnet.errors import ParamsError, TrainingError
from mitfrnet.missing import Masks
from mitfrnet.models import registry
from mitfrnet.models.layers import split_weight_decay
from mitfrnet.models.output import Loss, objective
from mitfrnet.params import PARAMS_FILE, StageParams, load_params, parse_params
from mitfrnet.trained import Network, TrainedModel, prepare

WATCHED = "valid/task"
MAX_SEED = 2**32 - 1  # of NumPy, which Lightning seeds too


class TrainParams(StageParams):
    """Section `train`: the same for every model of a comparison."""

    text: Literal["frozen", "finetuned"]  # whether the text encoder learns
    scale: Literal["standard", "none"]  # of acoustic and visual features
    max_epochs: int = Field(gt=0)
    stop_patience: int = Field(gt=0)  # epochs without a better validation task loss
    precision: Literal["32-true", "bf16-mixed"]


class OptimiserParams(StageParams):
    """Section `model.<name>.optimiser`: Adam, and when its rate falls."""

    batch_size: int = Field(gt=0)
    accumulate: int = Field(gt=0)  # batches whose gradients make one step
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)  # never on biases and norms
    text_learning_rate: float = Field(gt=0)  # of a fine-tuned text encoder
    text_weight_decay: float = Field(ge=0)
    clip_value: float = Field(gt=0)  # no element of a gradient is larger
    plateau_factor: float = Field(gt=0, lt=1)  # of the rates, when validation stalls
    plateau_patience: int = Field(ge=0)  # epochs


class ModelParams(StageParams):
    """Section `model.<name>`."""

    network: dict[str, Any]
    optimiser: OptimiserParams


def load_model_params(name: str, path: Path = PARAMS_FILE) -> ModelParams:
    """Return the section of one model, its network's settings checked too.

    Raises:
        ParamsError: the model is unknown, or its section is not as it should be.
    """
    kind = registry.params_type(name)
    params = load_params(ModelParams, section=f"model.{name}", path=path)
    parse_params(kind, params.network, where=f"{path}: model.{name}.network")
    return params


def check_seed(text: str) -> int:
    """Return a seed as a number.

    Raises:
        ParamsError: it is no whole number from 0 on.
    """
    if not text.isdecimal() or int(text) > MAX_SEED:
        raise ParamsError(f"grid.seeds: {text} (expected a whole number from 0 to {MAX_SEED})")
    return int(text)


def train(
    splits: Mapping[str, SplitTensors],
    masks: Masks,
    *,
    model: str,
    model_params: ModelParams,
    params: TrainParams,
    seed: int,
    curves: Path,
    text_cache: Path | None = None,
) -> TrainedModel:
    """Return the model of the epoch with the lowest validation task loss.

    Only the splits `train` and `valid` are looked at. Sets the global seeds.

    Args:
        splits: complete features.
        masks: what is hidden of them, in training and validation alike.
        model: a name of the registry.
        model_params: its network and optimiser.
        params: of training.
        seed: of weights, dropout and the order of utterances.
        curves: folder for the losses of every epoch.
        text_cache: folder for text encoded under masks.

    Raises:
        TrainingError: no epoch had a finite validation loss.
    """
    training, validation = splits["train"], splits["valid"]
    observed = masks.observed
    scaling = (
        fit_scaling(training, observed["train"])
        if params.scale == "standard"
        else no_scaling(training.dims)
    )
    features = training.metadata["features"]
    frozen = encoder = None
    if params.text == "frozen":
        frozen = FrozenText(features["text"]["identity"], text_cache)
    else:
        encoder = load_encoder(features["text"]["identity"]).train()
    utterances = {
        name: prepare(split, observed[name], scaling, frozen)
        for name, split in (("train", training), ("valid", validation))
    }
    # Only now: loading a text encoder may draw numbers, and a warm cache loads none.
    lightning.seed_everything(seed, verbose=False)
    network = Network(registry.build(model, dims=training.dims, **model_params.network), encoder)

    optimiser = model_params.optimiser
    best = _KeepBest()
    trainer = _trainer(params, best, curves)
    _fit(trainer, _Learner(network, optimiser), utterances, optimiser, seed)
    if not best.state:
        raise TrainingError(
            f"model {model!r}: the validation loss was not a number from the first epoch on "
            "(a lower learning_rate may help)"
        )
    network.load_state_dict(best.state)
    config = {
        "model": model,
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
            "clips": {name: len(u) for name, u in utterances.items()},
            "best_epoch": best.epoch,
            "unscored_reconstructions": list(scaling.unscored),
            "best_valid_task_loss": best.loss,
            "parameters": sum(p.numel() for p in network.parameters()),
        },
        "versions": {
            "torch": torch.__version__,
            "lightning": lightning.__version__,
            "transformers": transformers.__version__,
        },
    }
    return TrainedModel(network.eval(), scaling, config)


def _trainer(params: TrainParams, best: "_KeepBest", curves: Path) -> Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    return Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=1,
        precision=params.precision,
        max_epochs=params.max_epochs,
        callbacks=[best, EarlyStopping(WATCHED, patience=params.stop_patience), _ProgressBar(best)],
        # Otherwise DVCLive writes into the repository's own dvc.yaml and makes an experiment.
        logger=DVCLiveLogger(dir=str(curves), dvcyaml=None, save_dvc_exp=False),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        deterministic=True,
        log_every_n_steps=1,
    )


def _fit(
    trainer: Trainer,
    learner: "_Learner",
    utterances: Mapping[str, list[Utterance]],
    optimiser: OptimiserParams,
    seed: int,
) -> None:
    batches: DataLoader[Any] = DataLoader(
        cast(Any, utterances["train"]),
        batch_size=optimiser.batch_size * optimiser.accumulate,
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
        collate_fn=_Parts(optimiser.batch_size),
    )
    validation: DataLoader[Any] = DataLoader(
        cast(Any, utterances["valid"]),
        batch_size=optimiser.batch_size,
        collate_fn=_Parts(optimiser.batch_size),
    )
    with warnings.catch_warnings():
        for known in (".*does not have many workers.*", ".*LeafSpec.*"):
            warnings.filterwarnings("ignore", known)
        trainer.fit(learner, batches, validation)


class _Parts:
    """Collates utterances into batches of at most `size` that make one optimiser step."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, utterances: list[Utterance]) -> list[Batch]:
        starts = range(0, len(utterances), self._size)
        return [collate(utterances[i : i + self._size]) for i in starts]


class _EpochMeans:
    """Means of loss terms over an epoch, exact whatever the sizes of its batches."""

    def __init__(self) -> None:
        self._sums: dict[str, list[Tensor]] = {}

    def add(self, losses: Mapping[str, Loss]) -> None:
        for name, loss in losses.items():
            self._sums.setdefault(name, []).append(torch.stack([loss.sum, loss.count]).detach())

    def collect(self, prefix: str) -> dict[str, Tensor]:
        """Return and forget the means; a term that had nothing to score is left out."""
        totals = {name: torch.stack(parts).sum(0) for name, parts in self._sums.items()}
        self._sums.clear()
        return {f"{prefix}/{name}": t[0] / t[1] for name, t in totals.items() if t[1] > 0}


class _Learner(LightningModule):
    """One optimiser step per batch of parts, losses normalised over all of them."""

    def __init__(self, network: Network, params: OptimiserParams) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self._params = params
        self._means = {"train": _EpochMeans(), "valid": _EpochMeans()}

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
            self._means["train"].add(losses)
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
        scheduler = cast(ReduceLROnPlateau, self.lr_schedulers())
        scheduler.step(float(means[WATCHED]))
        self.log("learning_rate", scheduler.get_last_lr()[0])

    def configure_optimizers(self) -> Any:
        """Return Adam with separate rates for the text encoder, none decaying norms or biases."""
        params = self._params
        groups = _groups(self.network.model, params.learning_rate, params.weight_decay)
        if self.network.text_encoder is not None:
            groups += _groups(
                self.network.text_encoder, params.text_learning_rate, params.text_weight_decay
            )
        optimiser = torch.optim.Adam(groups)
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
