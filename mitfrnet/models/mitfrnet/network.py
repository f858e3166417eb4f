"""MIT-FRNet as a whole, and its objective: section 3.5 of the paper, equations 19-24."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mitfrnet.data.batches import Batch
from mitfrnet.modalities import MODALITIES
from mitfrnet.models.layers import PerModality
from mitfrnet.models.mitfrnet.extraction import Extraction
from mitfrnet.models.mitfrnet.fusion import ClassifierNorm, Fusion, Gate
from mitfrnet.models.mitfrnet.invariance import Invariance, Similarity, comparable
from mitfrnet.models.mitfrnet.reconstruction import Reconstruction, smooth_l1_sum
from mitfrnet.models.output import SCORE, Loss, Output, Task, task_loss
from mitfrnet.params import StageParams, parse_params

Count = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(ge=0, lt=1)]  # of dropping something
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class MITFRNetParams(StageParams):
    """Section `model.mitfrnet`; the classes named in comments say what each setting does."""

    # Extraction
    dim: Count
    heads: Count
    intra_layers: Count
    cross_layers: Count
    feedforward_factor: Count  # width of feed-forward networks over that of their input
    kernels: PerModality[Count]
    text_dropout: Probability
    attention_dropout: PerModality[Probability]  # Reconstruction too, as the next three
    relu_dropout: Probability
    residual_dropout: Probability
    embed_dropout: Probability
    causal: bool
    # Reconstruction
    mmr: bool  # whether there is a reconstruction at all (Table 7)
    reconstruction_layers: Count
    reconstruction_heads: Count
    reconstruct: Literal["missing", "all"]  # which detected steps are scored
    reconstruction_weights: PerModality[Weight]  # eq. 20
    # Invariance
    mitr: bool  # whether there is an invariance loss at all (Table 7)
    timestamps: Count
    common_dim: Annotated[int, Field(ge=2)]
    similarity: Similarity
    # Fusion
    fuse: Literal["encoded", "reconstructed"]  # what is fused: H, or E_con
    gate: Gate
    gru_hidden: PerModality[Count]
    gru_layers: Count
    fusion_dropout: Probability
    classifier_dim: Count
    classifier_dropout: Probability
    classifier_norm: ClassifierNorm
    # Objective, eq. 24
    reconstruction_weight: Weight
    invariance_weight: Weight
    task_weight: Weight
    aux_start_epoch: Count  # first epoch, counted from 1, with reconstruction and invariance

    @model_validator(mode="after")
    def _fits_together(self) -> "MITFRNetParams":
        if self.dim % self.heads:
            raise ValueError(f"heads: {self.heads} does not divide dim = {self.dim}")
        if 3 * self.dim % self.reconstruction_heads:
            raise ValueError(
                f"reconstruction_heads: {self.reconstruction_heads} does not divide "
                f"3 dim = {3 * self.dim}"
            )
        for modality, kernel in self.kernels:
            if kernel % 2 == 0:
                raise ValueError(f"kernels.{modality}: {kernel} is even, and must be odd")
        if self.fuse == "reconstructed" and not self.mmr:
            raise ValueError("fuse: reconstructed needs mmr: true")
        return self


class MITFRNet(nn.Module):
    r"""Missing-modality sentiment regression with reconstruction and invariance.

    .. math::
        \mathcal{L} = \omega_1 \mathcal{L}_{con} + \omega_2 \mathcal{L}_{sim}
        + \omega_3 \mathcal{L}_{cls} \quad (24)

    L_con is the weighted sum over modalities of a smooth L1 distance (eq. 19-20), L_sim the
    mean of three KL divergences (eq. 21-22), L_cls the mean absolute error (eq. 23).

    Not in the paper: eq. 19 is averaged over the elements of detected steps that the mask hides
    (`reconstruct: missing`) or of all detected steps (`all`). A batch with nothing to score
    gives zero.

    `losses` holds `task`, `reconstruction_<modality>` with `mmr`, and `invariance` with `mitr`.

    Args:
        dims: features of a step by modality.
        task: what is predicted.
        settings: the fields of `MITFRNetParams`.

    Raises:
        ParamsError: a setting is unknown, absent or out of range.
    """

    batch_losses: tuple[str, ...] = ()

    def __init__(self, *, dims: dict[str, int], task: Task = SCORE, **settings: object) -> None:
        super().__init__()
        params = parse_params(MITFRNetParams, settings, where="model.mitfrnet.network")
        dropouts: dict[str, Any] = {
            "attention_dropout": dict(params.attention_dropout),
            "relu_dropout": params.relu_dropout,
            "residual_dropout": params.residual_dropout,
            "embed_dropout": params.embed_dropout,
        }
        encoded_dim = 3 * params.dim
        self.extraction = Extraction(
            dims=dims,
            dim=params.dim,
            heads=params.heads,
            intra_layers=params.intra_layers,
            cross_layers=params.cross_layers,
            feedforward_dim=params.feedforward_factor * params.dim,
            kernels=dict(params.kernels),
            text_dropout=params.text_dropout,
            causal=params.causal,
            **dropouts,
        )
        self.reconstruction: Reconstruction | None = None
        if params.mmr:
            self.reconstruction = Reconstruction(
                dims=dims,
                dim=encoded_dim,
                heads=params.reconstruction_heads,
                layers=params.reconstruction_layers,
                feedforward_dim=params.feedforward_factor * encoded_dim,
                **dropouts,
            )
        self.invariance: Invariance | None = None
        if params.mitr:
            self.invariance = Invariance(
                dim=encoded_dim,
                common_dim=params.common_dim,
                timestamps=params.timestamps,
                similarity=params.similarity,
            )
        self.fusion = Fusion(
            in_dim=encoded_dim,
            gru_hidden=dict(params.gru_hidden),
            gru_layers=params.gru_layers,
            gate=params.gate,
            dropout=params.fusion_dropout,
            classifier_dim=params.classifier_dim,
            classifier_dropout=params.classifier_dropout,
            classifier_norm=params.classifier_norm,
            outputs=task.outputs,
        )
        self.task = task
        self.aux_start_epoch = params.aux_start_epoch
        self.score_all = params.reconstruct == "all"
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
            batch: utterances; nothing on padding and no target affects a score.
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
            for m, scored in self._scored(batch).items():
                sums[f"reconstruction_{m}"] = smooth_l1_sum(
                    rebuilt[m], batch.target[m], scored & aux
                )
        if self.invariance is not None:
            present = {m: real & aux for m, real in _present(batch).items()}
            sums["invariance"] = self.invariance(encoded, batch.valid, present).sum()

        prediction = self.task.prediction(self.fusion(fused, batch.valid))
        losses = {"task": task_loss(prediction, batch.label, weight=self.weights["task"])}
        losses |= {name: Loss(sums[name], counts[name], self.weights[name]) for name in sums}
        return Output(prediction, rebuilt, losses)

    def loss_counts(self, batch: Batch) -> dict[str, Tensor]:
        """Return the count of each loss of `batch`, from its masks alone.

        Utterances for `task`, feature elements for the reconstructions, and utterances with a
        pair of modalities to compare for `invariance`.
        """
        counts = {"task": torch.ones_like(batch.label).sum()}
        if self.reconstruction is not None:
            for m, scored in self._scored(batch).items():
                counts[f"reconstruction_{m}"] = scored.sum() * batch.target[m].shape[-1]
        if self.invariance is not None:
            counts["invariance"] = comparable(_present(batch)).any(1).sum()
        return counts

    def _scored(self, batch: Batch) -> dict[str, Tensor]:
        """Return the steps whose reconstruction is scored, (batch, time) of bool."""
        if self.score_all:
            return {m: batch.hidden[m] | batch.observed[m] for m in MODALITIES}
        return {m: batch.hidden[m] for m in MODALITIES}


def _present(batch: Batch) -> dict[str, Tensor]:
    """Return which utterances have a real step, seen or hidden, (batch,) of bool.

    The null step of an absent modality is neither, and so is a step where nothing was detected.
    """
    return {m: (batch.observed[m] | batch.hidden[m]).any(1) for m in MODALITIES}
