"""Network and optimiser at work: one step per batch, then the validation loss."""

import math
import time
from typing import Any, cast

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import clip_grad_value_
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mitfrnet.data.batches import Batch
from mitfrnet.data.masked import MaskedUtterances
from mitfrnet.errors import ParamsError, TrainingError
from mitfrnet.modalities import MODALITIES
from mitfrnet.models.base import objective
from mitfrnet.models.layers import split_weight_decay
from mitfrnet.params import PARAMS_FILE
from mitfrnet.trained.model import Network
from mitfrnet.training import checkpoints
from mitfrnet.training.batching import Utterances, batches, sorted_batches
from mitfrnet.training.losses import EpochLosses
from mitfrnet.training.settings import OptimiserParams

WATCHED = "valid/task"
# Of an epoch, but none of its losses: it stays out of the curves, which are the same in each run.
SECONDS = "seconds"


class Fit:
    """Network and optimiser, one step per batch, losses normalised over all its utterances.

    A batch is shared out to the processes that train together. Gradients are summed over them,
    and each part's losses are divided by the counts of the whole batch: the step is that of one
    process, statistics of BatchNorm included.

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
        processes = fabric.world_size
        self._validation = sorted_batches(utterances.valid.steps, params.batch_size)
        training = params.batch_size * params.accumulate
        smallest = min(
            utterances.training_clips // -(-utterances.training_clips // training),
            *map(len, self._validation),
        )
        if smallest < processes:
            raise ParamsError(
                f"{PARAMS_FILE}: run: {processes} devices (expected at most {smallest}, the "
                "utterances of the smallest batch)"
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

    def _parts(self, utterances: MaskedUtterances, rows: NDArray[np.int64]) -> list[Batch]:
        """Return this process's share of each part of a batch; parts have `batch_size` rows.

        BatchNorm takes the statistics of a part, so parts do not depend on the processes, and none
        is a small one left over. Every process has a row of each, and waits for the others there.
        """
        processes = self.fabric.world_size
        count = min(-(-len(rows) // self._params.batch_size), len(rows) // processes)
        return [
            utterances.batch(part[self.fabric.global_rank :: processes]).to(self.fabric.device)
            for part in np.array_split(rows, count)
        ]

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
        self._network.eval()
        utterances, losses = self._utterances.valid, EpochLosses()
        for rows in self._validation:
            found = []
            for part in self._parts(utterances, rows):
                with self.fabric.autocast():
                    found.append({"task": self._network(part, aux=False).losses["task"]})
            losses.add(found)
        return self._means(
            losses, f"validation of epoch {number}", "valid", utterances, self._validation
        )

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
