"""The training loop: epochs of steps, until validation no longer improves.

Read it from top to bottom: `train` prepares everything, `Loop.run` goes through the epochs,
`Loop.epoch` through the batches of one, `Loop.step` makes one step, `Loop.validate` measures.
"""

import math
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import lightning
import numpy as np
import torch
import transformers
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import clip_grad_value_
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mitfrnet.data.batches import Batch
from mitfrnet.data.masked import MaskedUtterances
from mitfrnet.data.masked_text import FrozenText, load_encoder
from mitfrnet.data.scaling import Scaling, fit_scaling, no_scaling
from mitfrnet.data.tensors import SplitTensors
from mitfrnet.errors import ParamsError, TrainingError
from mitfrnet.missing import Masks
from mitfrnet.modalities import MODALITIES
from mitfrnet.models import registry
from mitfrnet.models.base import Loss, objective
from mitfrnet.models.layers import split_weight_decay
from mitfrnet.params import PARAMS_FILE
from mitfrnet.trained.model import Network, TrainedModel, task_of
from mitfrnet.training import checkpoints, devices
from mitfrnet.training.batching import Utterances, shuffled_batches, sorted_batches
from mitfrnet.training.checkpoints import Checkpoint, Progress
from mitfrnet.training.curves import SECONDS, WATCHED, Curves
from mitfrnet.training.losses import EpochLosses
from mitfrnet.training.settings import ModelParams, OptimiserParams, TrainParams
from mitfrnet.workers.params import RunParams


class Trained(NamedTuple):
    """The result of a training.

    Attributes:
        model: the model of the best epoch.
        cost: `seconds_per_epoch` (median, with validation), `epochs`, `parameters`,
            `peak_memory_mb` (of the process, or of the GPU), `device` and `threads`. It differs
            from run to run, so it is not part of the model's folder.
        first: whether this is the first of the processes that train together; it alone writes.
        checkpoint: to be removed once the model is written; until then a killed run resumes
            from it.
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
    """Return the model of the epoch with the lowest validation task loss, and what it cost.

    Only the splits `train` and `valid` are read. Sets the global seeds and the number of
    threads. With several devices, each process calls this and gets the same model.

    Args:
        splits: complete features.
        masks: what is hidden of them; under `random_train` the training masks are drawn anew
            in each epoch.
        name: of the model in `params.yaml`.
        model_params: its network and optimiser.
        params: section `train`.
        seed: of weights, dropout and the order of utterances.
        curves: folder for the losses of every epoch.
        run: how many devices to use; None: one.
        text_cache: folder for text encoded under masks.
        unfinished: folder for the state after each epoch, from which the same call resumes after
            a crash and gives the same model. None: every call starts from the beginning.
        code: digest of the code that training runs through; another one does not resume.

    Raises:
        TrainingError: the corpus has no labels, a loss is NaN or infinite, or a batch does not
            fit the GPU.
        ParamsError: there are fewer devices, or fewer utterances in a batch than devices.
        FeatureError: a feature to scale by is NaN or infinite.
    """
    training = splits["train"]
    if training.metadata["scale"] is None:
        raise TrainingError(
            "the corpus has no labels to train on (task: unlabelled); take it out of grid.corpora, "
            "or give it a layout with labels and a scale or classes (docs/corpora.md)"
        )
    fabric = devices.launch(params.precision, run)
    torch.set_num_threads(params.threads)
    torch.use_deterministic_algorithms(True)
    if params.scale == "standard":
        scaling = fit_scaling(training, masks.observed["train"])
    else:
        scaling = no_scaling(training.dims)
    identity = training.metadata["features"]["text"]["identity"]
    frozen = redrawn = encoder = None
    if params.text == "frozen":
        # Masks redrawn each epoch are used once, so their text is not cached.
        frozen, redrawn = FrozenText(identity, text_cache), FrozenText(identity)
    else:
        encoder = load_encoder(identity).train()
    with fabric.rank_zero_first():  # the first process fills the cache for all
        utterances = Utterances(
            splits,
            masks,
            scaling,
            frozen=frozen,
            redrawn=redrawn,
            device=devices.device_for(splits, fabric.device),
        )
    # Not earlier: loading a text encoder may draw random numbers, and a full cache loads none.
    lightning.seed_everything(seed, verbose=False)
    network = Network(_build(training, scaling, model_params), encoder)
    settings = {
        "model": model_params.model_dump(),
        "train": params.model_dump(),
        "seed": seed,
        "code": code,
        "devices": [str(fabric.device), fabric.world_size],
    }
    inputs = "" if unfinished is None else checkpoints.digest_of(splits, masks, settings)
    checkpoint = Checkpoint(unfinished, inputs)
    with devices.explaining_memory(name, model_params.optimiser, fabric.world_size):
        loop = Loop(fabric, network, model_params.optimiser, utterances, seed=seed, name=name)
        progress = loop.run(checkpoint, curves, params.max_epochs)
    network.load_state_dict(progress.best)
    parameters = sum(p.numel() for p in network.parameters())
    config = {
        "model": name,
        "architecture": model_params.architecture,
        "settings": model_params.network,
        "dims": training.dims,
        "text": params.text,
        "features": training.metadata["features"],
        "scale": training.metadata["scale"],
        "language": training.metadata["language"],
        "training": {
            "seed": seed,
            "train": params.model_dump(),
            "optimiser": model_params.optimiser.model_dump(),
            "masks": masks.metadata,
            "clips": {split: len(splits[split].ids) for split in ("train", "valid")},
            "best_epoch": loop.best_epoch,
            "devices": fabric.world_size,
            "unscored_reconstructions": list(scaling.unscored),
            "best_valid_task_loss": loop.best_loss,
            "parameters": parameters,
        },
        "versions": {
            "torch": torch.__version__,
            "lightning": lightning.__version__,
            "transformers": transformers.__version__,
        },
    }
    cost = {
        "seconds_per_epoch": statistics.median(epoch[SECONDS] for epoch in progress.epochs),
        "epochs": len(progress.epochs),
        "parameters": parameters,
        "threads": params.threads,
        **devices.peak_memory(fabric.device),
    }
    model = TrainedModel(network.eval(), scaling, config)
    return Trained(model, cost, fabric.is_global_zero, checkpoint)


def _build(training: SplitTensors, scaling: Scaling, params: ModelParams) -> nn.Module:
    """Return a new model, which does not score the reconstruction of unscaled modalities."""
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


class Loop:
    """A network, its optimiser, and the utterances that it is trained on.

    Each batch is shared out to the processes that train together. Gradients are summed over
    them, and the losses of each share are divided by the counts of the whole batch: the step is
    that of one process, statistics of BatchNorm included.

    Args:
        fabric: the devices.
        network: trained in place.
        params: section `model.<name>.optimiser`.
        utterances: of training and validation.
        seed: of dropout and the order of utterances.
        name: of the model, for messages.

    Attributes:
        best_epoch, best_loss: the epoch with the lowest validation task loss so far, from 1.

    Raises:
        ParamsError: the smallest batch has fewer utterances than there are processes.
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
        self._fabric, self._network = fabric, fabric.to_device(network)
        self._params, self._utterances = params, utterances
        self._seed, self._name = seed, name
        self._optimiser = torch.optim.Adam(_parameter_groups(network, params))
        self._plateau = None
        if params.plateau_patience is not None:
            self._plateau = ReduceLROnPlateau(
                self._optimiser, factor=params.plateau_factor, patience=params.plateau_patience
            )
        self._step_size = params.batch_size * params.accumulate  # utterances
        self._validation = sorted_batches(utterances.valid.steps, params.batch_size)
        steps = math.ceil(utterances.training_clips / self._step_size)
        smallest = min(utterances.training_clips // steps, *map(len, self._validation))
        if smallest < fabric.world_size:
            raise ParamsError(
                f"{PARAMS_FILE}: run: {fabric.world_size} devices (expected at most {smallest}, "
                "the utterances of the smallest batch)"
            )
        self.best_epoch, self.best_loss = 0, math.inf

    def run(self, checkpoint: Checkpoint, curves: Path, max_epochs: int) -> Progress:
        """Train to the end, from the checkpoint if there is one; the first process writes.

        Training ends after `max_epochs`, or `stop_patience` epochs after the best one.

        Raises:
            TrainingError: a loss is NaN or infinite.
        """
        first = self._fabric.is_global_zero
        progress = cast(Progress, self._fabric.broadcast(checkpoint.load() if first else None))
        if progress.epochs:
            checkpoints.restore(progress, self._network, self._optimiser)
        with Curves(curves if first else None, max_epochs) as drawn:
            for number, epoch in enumerate(progress.epochs, 1):
                self._judge(number, epoch[WATCHED])
                drawn.add(epoch, self.best_epoch, self.best_loss)
            while not self._ended(len(progress.epochs), max_epochs):
                number = len(progress.epochs) + 1
                epoch = self.epoch(number)
                progress.epochs.append(epoch)
                if first:
                    if self.best_epoch == number:
                        progress.best = _copied(self._network)
                    progress.network = self._network.state_dict()
                    progress.optimiser = checkpoints.optimiser_tensors(self._optimiser)
                    checkpoint.save(progress)
                    drawn.add(epoch, self.best_epoch, self.best_loss)
        progress.best = self._fabric.broadcast(progress.best)
        return progress

    def epoch(self, number: int) -> dict[str, float]:
        """Train for an epoch, counted from 1; return its losses in training and validation."""
        start = time.perf_counter()
        model: Any = self._network.model
        aux = number >= model.aux_start_epoch
        utterances = self._utterances.train(number)
        batches = shuffled_batches(utterances.steps, self._step_size, seed=self._seed, epoch=number)
        losses = EpochLosses()
        self._network.train()
        for step, rows in enumerate(batches):
            # Dropout depends on nothing before it, so that a resumed run draws the same.
            key = [self._seed, number, step, self._fabric.global_rank]
            torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))
            losses.add(self.step(self.share(utterances, rows), aux=aux))
        trained = self.means(losses, f"epoch {number}", utterances, batches)
        validated = self.validate(number)
        self._judge(number, validated["task"])
        return {
            **{f"train/{term}": mean for term, mean in trained.items()},
            **{f"valid/{term}": mean for term, mean in validated.items()},
            "learning_rate": self._optimiser.param_groups[0]["lr"],
            "epoch": number,
            SECONDS: time.perf_counter() - start,
        }

    def share(self, utterances: MaskedUtterances, rows: NDArray[np.int64]) -> list[Batch]:
        """Return this process's share of each part of a batch; parts have `batch_size` rows.

        BatchNorm takes the statistics of a part, so parts do not depend on the processes, and
        none is a small one left over. Every process has a row of each, and waits for the others
        there.
        """
        processes = self._fabric.world_size
        count = min(math.ceil(len(rows) / self._params.batch_size), len(rows) // processes)
        return [
            utterances.batch(part[self._fabric.global_rank :: processes]).to(self._fabric.device)
            for part in np.array_split(rows, count)
        ]

    def step(self, parts: list[Batch], *, aux: bool) -> list[dict[str, Loss]]:
        """Make one optimiser step on the parts of a batch; return the losses of each."""
        self._optimiser.zero_grad()
        counts = self._counts(parts)
        losses_of_parts = []
        for part in parts:
            with self._fabric.autocast():
                losses = self._network(part, aux=aux).losses
            objective(losses, counts).backward()
            losses_of_parts.append(losses if aux else {"task": losses["task"]})
        self._share_gradients()
        if self._params.clip_value is not None:
            clip_grad_value_(self._network.parameters(), self._params.clip_value)
        self._optimiser.step()
        return losses_of_parts

    def _counts(self, parts: list[Batch]) -> dict[str, Tensor]:
        """Return how many items each loss scores in the whole batch, over all processes."""
        model: Any = self._network.model
        counts_of_parts = [model.loss_counts(part) for part in parts]
        counts = {name: sum(c[name] for c in counts_of_parts) for name in counts_of_parts[0]}
        if self._fabric.world_size > 1:
            summed = self._summed(torch.stack(list(counts.values())))
            counts = dict(zip(counts, summed.unbind(), strict=True))
        return counts

    def _share_gradients(self) -> None:
        """Sum gradients over processes: all at once, since most tensors are small."""
        if self._fabric.world_size == 1:
            return
        # Which parameters a step uses depends on the epoch alone, so these are the same in all.
        gradients = [p.grad for p in self._network.parameters() if p.grad is not None]
        flat = self._summed(torch.cat([g.flatten() for g in gradients]))
        parts = flat.split([g.numel() for g in gradients])
        for gradient, summed in zip(gradients, parts, strict=True):
            gradient.copy_(summed.view_as(gradient))

    def _summed(self, tensor: Tensor) -> Tensor:
        """Return the sum over processes."""
        return cast(Tensor, self._fabric.all_reduce(tensor, reduce_op="sum"))

    @torch.no_grad()
    def validate(self, number: int) -> dict[str, float]:
        """Return the mean task loss on the validation split, after epoch `number`."""
        self._network.eval()
        utterances, losses = self._utterances.valid, EpochLosses()
        for rows in self._validation:
            losses_of_parts = []
            for part in self.share(utterances, rows):
                with self._fabric.autocast():
                    task = self._network(part, aux=False).losses["task"]
                losses_of_parts.append({"task": task})
            losses.add(losses_of_parts)
        return self.means(losses, f"validation of epoch {number}", utterances, self._validation)

    def means(
        self,
        losses: EpochLosses,
        where: str,
        utterances: MaskedUtterances,
        batches: list[NDArray[np.int64]],
    ) -> dict[str, float]:
        """Return the mean of each loss over an epoch and all processes.

        Raises:
            TrainingError: a loss is NaN or infinite; names the step and its utterances.
        """
        sums_and_counts = self._summed(losses.steps()).cpu().numpy()
        broken = losses.broken(sums_and_counts)
        if broken is not None:
            step, terms = broken
            batch = utterances.batch(batches[step])
            raise TrainingError(
                f"model {self._name!r}: {where}, step {step + 1}: loss {', '.join(terms)} is NaN "
                f"or infinite ({_suspect(batch)}); the batch: {', '.join(batch.utterance_ids)}"
            )
        return losses.means(sums_and_counts)

    def _judge(self, number: int, loss: float) -> None:
        """Compare an epoch's validation loss with the best; lower the rates where it stalls."""
        if loss < self.best_loss:
            self.best_epoch, self.best_loss = number, loss
        if self._plateau is not None:
            self._plateau.step(loss)

    def _ended(self, epochs: int, max_epochs: int) -> bool:
        return epochs >= max_epochs or epochs - self.best_epoch >= self._params.stop_patience


def _parameter_groups(network: Network, params: OptimiserParams) -> list[dict[str, Any]]:
    """Return the parameters with their learning rates; weight decay acts on matrices alone."""
    parts: list[tuple[nn.Module | None, float, float]] = [
        (network.model, params.learning_rate, params.weight_decay),
        (network.text_encoder, params.text_learning_rate, params.text_weight_decay),
    ]
    groups = []
    for module, rate, decay in parts:
        if module is not None:
            decayed, spared = split_weight_decay(module)
            groups.append({"params": decayed, "lr": rate, "weight_decay": decay})
            groups.append({"params": spared, "lr": rate, "weight_decay": 0.0})
    return groups


def _copied(network: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the weights on the CPU, which later steps do not change."""
    return {k: v.detach().to("cpu", copy=True) for k, v in network.state_dict().items()}


def _suspect(batch: Batch) -> str:
    """Return what may have made a loss of this batch NaN or infinite."""
    for modality in MODALITIES:
        finite = batch.target[modality].isfinite() & batch.values[modality].isfinite()
        bad = torch.nonzero(~finite.flatten(1).all(1)).flatten().tolist()
        if bad:
            utterance = batch.utterance_ids[bad[0]]
            return f"{modality} features of {utterance} are NaN or infinite; extract again"
    return "a lower learning_rate may help"
