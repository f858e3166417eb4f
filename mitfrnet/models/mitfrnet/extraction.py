"""Multi-modal feature extraction: section 3.1 of the paper, equations 1-6."""

from typing import Any

import torch
from torch import Tensor, nn

from mitfrnet.modalities import MODALITIES
from mitfrnet.models.attention import TransformerEncoder
from mitfrnet.models.layers import (
    Count,
    Dropout,
    HeadsParams,
    Kernel,
    MaskedConv1d,
    PerModality,
    Probability,
)


class ExtractionParams(HeadsParams):
    """Settings of `Extraction`, whose docstring explains them."""

    intra_layers: Count
    cross_layers: Count
    feedforward_factor: Count  # width of feed-forward networks divided by that of their input
    kernels: PerModality[Kernel]
    text_dropout: Probability
    attention_dropout: PerModality[Probability]
    relu_dropout: Probability
    residual_dropout: Probability
    embed_dropout: Probability
    causal: bool

    @property
    def encoder_dropouts(self) -> dict[str, Any]:
        """Return the dropout arguments that all encoders of a model share."""
        return {
            "attention_dropout": dict(self.attention_dropout),
            "relu_dropout": self.relu_dropout,
            "residual_dropout": self.residual_dropout,
            "embed_dropout": self.embed_dropout,
        }


class Extraction(nn.Module):
    r"""Encodes each modality from itself and from the other two, at its own steps.

    .. math::
        C_m &= \mathrm{Conv1d}(X_m) &(1) \\
        X_{s \to m} &= f^{s,m}(C_m, C_s, C_s) &(2\text{-}5) \\
        H_m &= [X_{m \to m}; X_{s_1 \to m}; X_{s_2 \to m}] &(6)

    f is a transformer with queries from m and keys and values from s; s = m is the intra-modal
    encoder. s_1 and s_2 are the other modalities in the order of `MODALITIES`, as in eq. 6.

    Not in the paper: padded keys are masked, every step has a position, and the attention dropout
    of an encoder is that of the modality it attends to (as in MulT).

    TFR-Net has the same extraction. With `causal` it gives the numbers of MMSA 2.2.1 (`TFR_NET`)
    on clips of full length, to 1e-6. MMSA attends to padding, gives no position to a step whose
    first feature is zero, and skips a convolution that would not change the number of features.

    Args:
        dims: features of a step by modality.
        dim: features of a step after the convolution.
        heads: attention heads; divides `dim`.
        intra_layers: layers of the three intra-modal encoders.
        cross_layers: layers of the six inter-modal encoders.
        feedforward_dim: width of the encoders' feed-forward networks.
        kernels: steps each modality's convolution spans, odd.
        text_dropout: of the text features before their convolution.
        attention_dropout: of attention weights, by the modality attended to.
        relu_dropout: inside the encoders' feed-forward networks.
        residual_dropout: of each encoder block's output before the shortcut is added.
        embed_dropout: of the encoders' inputs.
        causal: hide later steps from earlier ones (TFR-Net); see `reach_of`.
    """

    @classmethod
    def from_params(cls, params: ExtractionParams, dims: dict[str, int]) -> "Extraction":
        """Return an extraction with these settings."""
        return cls(
            dims=dims,
            dim=params.dim,
            heads=params.heads,
            intra_layers=params.intra_layers,
            cross_layers=params.cross_layers,
            feedforward_dim=params.feedforward_factor * params.dim,
            kernels=dict(params.kernels),
            text_dropout=params.text_dropout,
            causal=params.causal,
            **params.encoder_dropouts,
        )

    def __init__(
        self,
        *,
        dims: dict[str, int],
        dim: int,
        heads: int,
        intra_layers: int,
        cross_layers: int,
        feedforward_dim: int,
        kernels: dict[str, int],
        text_dropout: float,
        attention_dropout: dict[str, float],
        relu_dropout: float,
        residual_dropout: float,
        embed_dropout: float,
        causal: bool,
    ) -> None:
        super().__init__()
        self.text_dropout = Dropout(text_dropout)
        self.convolutions = nn.ModuleDict(
            {
                m: MaskedConv1d(in_dim=dims[m], out_dim=dim, kernel=kernels[m], bias=False)
                for m in MODALITIES
            }
        )
        self.encoders = nn.ModuleDict(
            {
                f"{source}_to_{m}": TransformerEncoder(
                    dim=dim,
                    heads=heads,
                    layers=intra_layers if source == m else cross_layers,
                    feedforward_dim=feedforward_dim,
                    attention_dropout=attention_dropout[source],
                    relu_dropout=relu_dropout,
                    residual_dropout=residual_dropout,
                    embed_dropout=embed_dropout,
                    causal=causal,
                )
                for m in MODALITIES
                for source in MODALITIES
            }
        )

    def forward(self, values: dict[str, Tensor], valid: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return H by modality, (batch, time, 3 dim), zero on padding.

        Args:
            values: X by modality, (batch, time, dims).
            valid: real steps by modality, (batch, time) of bool.
        """
        convolved = {}
        for m in MODALITIES:
            x = self.text_dropout(values[m]) if m == "text" else values[m]
            convolved[m] = self.convolutions[m](x, valid[m])  # (batch, time, dim)
        encoded = {}
        for m in MODALITIES:
            parts = [self.encoders[f"{m}_to_{m}"](convolved[m], valid[m])]
            parts += [
                self.encoders[f"{s}_to_{m}"](convolved[m], valid[m], convolved[s], valid[s])
                for s in MODALITIES
                if s != m
            ]
            encoded[m] = torch.cat(parts, dim=-1)
        return encoded
