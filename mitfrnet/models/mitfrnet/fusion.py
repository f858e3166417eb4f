"""Multi-modal fusion: section 3.4 of the paper, equations 13-18."""

from typing import Literal

import torch
from torch import Tensor, nn

from mitfrnet.modalities import MODALITIES
from mitfrnet.models.layers import (
    BatchNorm,
    Count,
    Dropout,
    MaskedConv1d,
    PerModality,
    Probability,
)
from mitfrnet.models.recurrent import BidirectionalGRU
from mitfrnet.params import StageParams

Gate = Literal["printed", "released"]
ClassifierNorm = Literal["batch", "layer"]


class FusionParams(StageParams):
    """Settings of `Fusion`, whose docstring explains them."""

    gate: Gate
    gru_hidden: PerModality[Count]
    gru_layers: Count
    fusion_dropout: Probability
    classifier_dim: Count
    classifier_dropout: Probability
    classifier_norm: ClassifierNorm


class GateEncoder(nn.Module):
    r"""Turns a sequence into one vector, through a gate that filters out irrelevant steps.

    .. math::
        F^{gru} &= \mathrm{BiGRU}(H) &(13) \\
        gate &= \mathrm{Conv1d}(F^{gru}) &(14) \\
        F^{hp} &= \tanh(F^{gru}) \odot \mathrm{sigmoid}(gate) &(15) \\
        F^{lin} &= \mathrm{linear}([F^{gru}; F^{hp}]) &(16) \\
        F &= \mathrm{maxpool}(F^{lin}) &(17)

    The gate is one number per step. `printed` is eq. 16; `released` is the published code,
    :math:`F^{lin} = \tanh(\mathrm{linear}([H; F^{hp}]))`. Not in the paper: neither the GRU nor
    the maximum sees padding.

    Args:
        in_dim: features of a step of H.
        hidden: units of the GRU in each direction, and features of the result.
        layers: layers of the GRU.
        gate: `printed` or `released`.
    """

    def __init__(self, *, in_dim: int, hidden: int, layers: int, gate: Gate) -> None:
        super().__init__()
        self.gru = BidirectionalGRU(in_dim=in_dim, hidden=hidden, layers=layers)
        self.gate = MaskedConv1d(in_dim=2 * hidden, out_dim=1, kernel=3, bias=True)
        self.printed = gate == "printed"
        self.linear = nn.Linear((2 * hidden if self.printed else in_dim) + 2 * hidden, hidden)

    def forward(self, encoded: Tensor, valid: Tensor) -> Tensor:
        """Return (batch, hidden).

        Args:
            encoded: H, (batch, time, in_dim).
            valid: real steps, (batch, time) of bool; at least one in each row.
        """
        recurrent = self.gru(encoded, valid)  # (batch, time, 2 hidden), zero on padding
        gated = recurrent.tanh() * self.gate(recurrent, valid).sigmoid()
        if self.printed:
            steps = self.linear(torch.cat([recurrent, gated], dim=-1))  # (batch, time, hidden)
        else:
            steps = self.linear(torch.cat([encoded, gated], dim=-1)).tanh()
        return steps.masked_fill(~valid[..., None], -torch.inf).amax(1)


class Fusion(nn.Module):
    r"""Scores an utterance from its three encoded sequences.

    .. math:: F = [F_l; F_a; F_v] \quad (17) \qquad F^{cls} = \mathrm{Classifier}(F) \quad (18)

    Not in the paper, but in TFR-Net: dropout on each modality's vector; the classifier is a
    norm, a hidden layer with LeakyReLU and dropout, and a linear layer. With the released gate
    it gives the numbers of MMSA 2.2.1 (`TFR_NET`) on clips of full length, to 1e-6. In shorter
    clips MMSA's maximum includes padding.

    Args:
        in_dim: features of a step of H.
        gru_hidden: units of each modality's GRU in each direction.
        gru_layers: layers of the GRUs.
        gate: `printed` (the paper) or `released` (its code); see `GateEncoder`.
        dropout: of each modality's vector.
        classifier_dim: width of the classifier's hidden layer.
        classifier_dropout: of that layer.
        classifier_norm: `batch` or `layer`; with `layer`, training does not depend on how
            `accumulate` splits a batch.
        outputs: numbers the classifier gives per utterance.
    """

    @classmethod
    def from_params(cls, params: FusionParams, *, in_dim: int, outputs: int) -> "Fusion":
        """Return a fusion with these settings."""
        return cls(
            in_dim=in_dim,
            gru_hidden=dict(params.gru_hidden),
            gru_layers=params.gru_layers,
            gate=params.gate,
            dropout=params.fusion_dropout,
            classifier_dim=params.classifier_dim,
            classifier_dropout=params.classifier_dropout,
            classifier_norm=params.classifier_norm,
            outputs=outputs,
        )

    def __init__(
        self,
        *,
        in_dim: int,
        gru_hidden: dict[str, int],
        gru_layers: int,
        gate: Gate,
        dropout: float,
        classifier_dim: int,
        classifier_dropout: float,
        classifier_norm: ClassifierNorm,
        outputs: int,
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(
            {
                m: GateEncoder(in_dim=in_dim, hidden=gru_hidden[m], layers=gru_layers, gate=gate)
                for m in MODALITIES
            }
        )
        self.dropout = Dropout(dropout)
        fused_dim = sum(gru_hidden.values())
        self.classifier = nn.Sequential(
            BatchNorm(fused_dim) if classifier_norm == "batch" else nn.LayerNorm(fused_dim),
            nn.Linear(fused_dim, classifier_dim),
            nn.LeakyReLU(),
            Dropout(classifier_dropout),
            nn.Linear(classifier_dim, outputs),
        )

    def forward(self, encoded: dict[str, Tensor], valid: dict[str, Tensor]) -> Tensor:
        """Return (batch, outputs).

        Args:
            encoded: H by modality, (batch, time, in_dim).
            valid: real steps by modality, (batch, time) of bool.
        """
        vectors = [self.dropout(self.encoders[m](encoded[m], valid[m])) for m in MODALITIES]
        return self.classifier(torch.cat(vectors, dim=-1))
