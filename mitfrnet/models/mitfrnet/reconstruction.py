"""Missing modal reconstruction: section 3.2 of the paper, equations 7-8, 19 and 20."""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from mitfrnet.data.batches import Batch
from mitfrnet.modalities import MODALITIES
from mitfrnet.models.attention import TransformerEncoder
from mitfrnet.models.layers import Count, PerModality, Weight, zero_padding
from mitfrnet.models.mitfrnet.extraction import ExtractionParams

Reconstruct = Literal["missing", "all"]


class ReconstructionParams(ExtractionParams):
    """Settings of `Reconstruction`, its losses and the extraction before it."""

    reconstruction_layers: Count
    reconstruction_heads: Count
    reconstruct: Reconstruct  # which detected steps are scored
    reconstruction_weights: PerModality[Weight]  # eq. 20

    @model_validator(mode="after")
    def _reconstruction_heads_divide(self) -> "ReconstructionParams":
        if 3 * self.dim % self.reconstruction_heads:
            raise ValueError(
                f"reconstruction_heads: {self.reconstruction_heads} does not divide "
                f"3 dim = {3 * self.dim}"
            )
        return self


class Reconstruction(nn.Module):
    r"""Rebuilds the complete features of each modality from its encoded steps.

    .. math::
        E^{con}_m &= g(H_m, H_m, H_m) &(7) \\
        E_m &= \mathrm{linear}(E^{con}_m) &(8)

    g is a transformer over the steps of one utterance. (The code published with TFR-Net and with
    the paper attends over the batch instead, so that utterances are rebuilt from each other.)

    Args:
        dims: features of a rebuilt step by modality.
        dim: features of a step of H.
        heads: attention heads; divides `dim`.
        layers: layers of each transformer.
        feedforward_dim: width of the feed-forward networks.
        attention_dropout: of attention weights, by modality.
        relu_dropout: inside the feed-forward networks.
        residual_dropout: of each block's output before the shortcut is added.
        embed_dropout: of the inputs.
    """

    @classmethod
    def from_params(cls, params: ReconstructionParams, dims: dict[str, int]) -> "Reconstruction":
        """Return a reconstruction with these settings."""
        dim = 3 * params.dim
        return cls(
            dims=dims,
            dim=dim,
            heads=params.reconstruction_heads,
            layers=params.reconstruction_layers,
            feedforward_dim=params.feedforward_factor * dim,
            **params.encoder_dropouts,
        )

    def __init__(
        self,
        *,
        dims: dict[str, int],
        dim: int,
        heads: int,
        layers: int,
        feedforward_dim: int,
        attention_dropout: dict[str, float],
        relu_dropout: float,
        residual_dropout: float,
        embed_dropout: float,
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(
            {
                m: TransformerEncoder(
                    dim=dim,
                    heads=heads,
                    layers=layers,
                    feedforward_dim=feedforward_dim,
                    attention_dropout=attention_dropout[m],
                    relu_dropout=relu_dropout,
                    residual_dropout=residual_dropout,
                    embed_dropout=embed_dropout,
                    causal=False,
                )
                for m in MODALITIES
            }
        )
        self.linears = nn.ModuleDict({m: nn.Linear(dim, dims[m]) for m in MODALITIES})

    def forward(
        self, encoded: dict[str, Tensor], valid: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return E_con, (batch, time, dim), and E, (batch, time, dims), by modality.

        Both are zero on padding.

        Args:
            encoded: H by modality, (batch, time, dim).
            valid: real steps by modality, (batch, time) of bool.
        """
        context = {m: self.encoders[m](encoded[m], valid[m]) for m in MODALITIES}
        rebuilt = {m: zero_padding(self.linears[m](context[m]), valid[m]) for m in MODALITIES}
        return context, rebuilt


def smooth_l1_sum(rebuilt: Tensor, target: Tensor, scored: Tensor) -> Tensor:
    r"""Return the smooth L1 distance of one modality, summed over scored elements; eq. 19.

    .. math:: \sum_{t \in scored} \sum_i \mathrm{smoothL1}(E_{t,i} - X_{t,i})

    No gradient flows into the target, or the target would move towards the prediction. With
    nothing to score the sum is zero but part of the graph.

    Args:
        rebuilt: E, (batch, time, dim).
        target: complete features X, (batch, time, dim).
        scored: steps to score, (batch, time) of bool.

    Returns:
        A scalar, in float32 or wider.
    """
    # Clearing the difference, not the loss, keeps garbage on padding out of the gradient.
    difference = zero_padding(rebuilt - target.detach(), scored)
    difference = difference.to(torch.promote_types(difference.dtype, torch.float32))
    return F.smooth_l1_loss(difference, torch.zeros_like(difference), reduction="sum")


def reconstruction_sums(
    rebuilt: dict[str, Tensor], batch: Batch, reconstruct: Reconstruct, *, aux: bool
) -> dict[str, Tensor]:
    """Return the sums of the losses `reconstruction_<modality>`, scalars.

    Args:
        rebuilt: E by modality, (batch, time, dim).
        batch: the utterances that were rebuilt.
        reconstruct: score the detected steps that the mask hides (`missing`), or all detected
            steps (`all`).
        aux: if False, nothing is scored.
    """
    return {
        f"reconstruction_{m}": smooth_l1_sum(rebuilt[m], batch.target[m], scored & aux)
        for m, scored in _scored(batch, reconstruct).items()
    }


def reconstruction_counts(batch: Batch, reconstruct: Reconstruct) -> dict[str, Tensor]:
    """Return how many elements each `reconstruction_<modality>` scores, scalars."""
    return {
        f"reconstruction_{m}": scored.sum() * batch.target[m].shape[-1]
        for m, scored in _scored(batch, reconstruct).items()
    }


def _scored(batch: Batch, reconstruct: Reconstruct) -> dict[str, Tensor]:
    """Return the steps to score by modality, (batch, time) of bool."""
    if reconstruct == "all":
        return {m: batch.hidden[m] | batch.observed[m] for m in MODALITIES}
    return batch.hidden
