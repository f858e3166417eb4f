"""The whole of MIT-FRNet and its objective: section 3.5 of the paper, equations 19-24."""

from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from mitfrnet.data.batches import Batch
from mitfrnet.modalities import MODALITIES
from mitfrnet.models.base import SCORE, Loss, Model, Output, Task, task_loss
from mitfrnet.models.layers import Count, Weight
from mitfrnet.models.mitfrnet.extraction import Extraction
from mitfrnet.models.mitfrnet.fusion import Fusion, FusionParams
from mitfrnet.models.mitfrnet.invariance import Invariance, Similarity, comparable
from mitfrnet.models.mitfrnet.reconstruction import (
    Reconstruction,
    ReconstructionParams,
    reconstruction_counts,
    reconstruction_sums,
)
from mitfrnet.params import parse_params


class MITFRNetParams(ReconstructionParams, FusionParams):
    """Section `model.mitfrnet.network`; includes extraction, reconstruction and fusion."""

    mmr: bool  # whether there is a reconstruction (Table 7)
    # Invariance, whose docstring explains them
    mitr: bool  # whether there is an invariance loss (Table 7)
    timestamps: Count
    common_dim: Annotated[int, Field(ge=2)]
    similarity: Similarity
    # Fusion
    fuse: Literal["encoded", "reconstructed"]  # what is fused: H, or E_con
    # Objective, eq. 24
    reconstruction_weight: Weight
    invariance_weight: Weight
    task_weight: Annotated[Weight, Field(gt=0)]  # validation is judged by it
    aux_start_epoch: Count  # first epoch, counted from 1, with reconstruction and invariance

    @model_validator(mode="after")
    def _fused_exists(self) -> "MITFRNetParams":
        if self.fuse == "reconstructed" and not self.mmr:
            raise ValueError("fuse: reconstructed needs mmr: true")
        return self


class MITFRNet(Model):
    r"""Missing-modality sentiment regression with reconstruction and invariance.

    .. math::
        \mathcal{L} = \omega_1 \mathcal{L}_{con} + \omega_2 \mathcal{L}_{sim}
        + \omega_3 \mathcal{L}_{cls} \quad (24)

    L_con is the weighted sum over modalities of a smooth L1 distance (eq. 19-20), L_sim the
    mean of three KL divergences (eq. 21-22), L_cls the mean absolute error (eq. 23).

    Not in the paper: eq. 19 is averaged over the elements of detected steps, either those that
    the mask hides (`reconstruct: missing`) or all of them (`all`). A batch with nothing to score
    gives zero.

    `losses` holds `task`, `reconstruction_<modality>` with `mmr`, and `invariance` with `mitr`.

    Args:
        dims: features of a step by modality.
        task: what is predicted.
        settings: the fields of `MITFRNetParams`.

    Raises:
        ParamsError: a setting is unknown, absent or out of range.
    """

    def __init__(self, *, dims: dict[str, int], task: Task = SCORE, **settings: object) -> None:
        super().__init__()
        params = parse_params(MITFRNetParams, settings, where="model.mitfrnet.network")
        encoded_dim = 3 * params.dim
        self.extraction = Extraction.from_params(params, dims)
        self.reconstruction = Reconstruction.from_params(params, dims) if params.mmr else None
        self.invariance: Invariance | None = None
        if params.mitr:
            self.invariance = Invariance(
                dim=encoded_dim,
                common_dim=params.common_dim,
                timestamps=params.timestamps,
                similarity=params.similarity,
            )
        self.fusion = Fusion.from_params(params, in_dim=encoded_dim, outputs=task.outputs)
        self.task = task
        self.aux_start_epoch = params.aux_start_epoch
        self.reconstruct = params.reconstruct
        self.fuse_reconstructed = params.fuse == "reconstructed"
        self.weights = {
            "task": params.task_weight,
            "invariance": params.invariance_weight,
            **{
                f"reconstruction_{m}": params.reconstruction_weight * weight
                for m, weight in params.reconstruction_weights
            },
        }

    def forward(self, batch: Batch, *, aux: bool = True) -> Output:
        """Return scores, rebuilt features and losses.

        Args:
            batch: utterances; neither padding nor targets affect a score.
            aux: whether reconstruction and invariance count. If not, their losses are zero but
                part of the graph.
        """
        encoded = self.extraction(batch.values, batch.valid)  # H, (batch, time, 3 dim) each
        counts = self.loss_counts(batch)
        sums: dict[str, Tensor] = {}

        fused, rebuilt = encoded, {}
        if self.reconstruction is not None:
            context, rebuilt = self.reconstruction(encoded, batch.valid)
            fused = context if self.fuse_reconstructed else encoded
            sums |= reconstruction_sums(rebuilt, batch, self.reconstruct, aux=aux)
        if self.invariance is not None:
            present = {m: flags & aux for m, flags in _present(batch).items()}
            sums["invariance"] = self.invariance(encoded, batch.valid, present).sum()

        prediction = self.task.prediction(self.fusion(fused, batch.valid))
        losses = {"task": task_loss(prediction, batch.label, weight=self.weights["task"])}
        losses |= {name: Loss(sums[name], counts[name], self.weights[name]) for name in sums}
        return Output(prediction, rebuilt, losses)

    def loss_counts(self, batch: Batch) -> dict[str, Tensor]:
        """Return the count of each loss of `batch`, from its masks alone.

        `task` counts utterances, the reconstructions feature elements, and `invariance` utterances
        with a pair of modalities to compare.
        """
        counts = {"task": torch.ones_like(batch.label).sum()}
        if self.reconstruction is not None:
            counts |= reconstruction_counts(batch, self.reconstruct)
        if self.invariance is not None:
            counts["invariance"] = comparable(_present(batch)).any(1).sum()
        return counts


def _present(batch: Batch) -> dict[str, Tensor]:
    """Return which utterances have an observed or hidden step of each modality, (batch,) of bool.

    The null step of an absent modality is neither, nor is a step where nothing was detected.
    """
    return {m: (batch.observed[m] | batch.hidden[m]).any(1) for m in MODALITIES}
