"""MulT, the Multimodal Transformer for unaligned sequences.

Tsai, Bai, Liang, Kolter, Morency and Salakhutdinov, ACL 2019; section 3 of the paper.
"""

import torch
from torch import Tensor, nn

from mitfrnet.data.batches import Batch
from mitfrnet.modalities import MODALITIES
from mitfrnet.models.attention import TransformerEncoder
from mitfrnet.models.base import SCORE, Model, Output, Task, task_loss
from mitfrnet.models.layers import (
    Count,
    Dropout,
    HeadsParams,
    Kernel,
    MaskedConv1d,
    PerModality,
    Probability,
)
from mitfrnet.params import parse_params


class MulTParams(HeadsParams):
    """Section `model.mult.network`; `dim` is that of a step after the convolution."""

    cross_layers: Count  # of the six crossmodal transformers
    memory_layers: Count  # of the three transformers that read the crossmodal results
    feedforward_factor: Count  # width of feed-forward networks divided by that of their input
    kernels: PerModality[Kernel]
    padded_convolutions: bool  # whether convolutions keep the length
    positions: bool  # whether transformers add position codes
    causal: bool  # hide later steps from earlier ones
    text_dropout: Probability  # of the text features
    attention_dropout: PerModality[Probability]  # crossmodal: by the modality attended to
    memory_attention_dropout: Probability
    relu_dropout: Probability
    residual_dropout: Probability
    embed_dropout: Probability
    output_dropout: Probability  # inside the residual block


class MulT(Model):
    r"""Sentiment from crossmodal attention between sequences that need not be aligned.

    .. math::
        \hat X_m &= \mathrm{Conv1D}(X_m, k_m) \\
        Z_{s \to m} &= \mathrm{Crossmodal}(\hat X_m, \hat X_s) \\
        Z_m &= \mathrm{Memory}([Z_{s_1 \to m}; Z_{s_2 \to m}]) \\
        h &= [Z_l^{T_l}; Z_a^{T_a}; Z_v^{T_v}] \\
        \hat y &= W_3 (W_2 \, \mathrm{ReLU}(W_1 h) + h)

    Crossmodal transformers take queries from m and keys and values from s. s_1 and s_2 are the
    other modalities in the order of `MODALITIES`; the last step of each Z_m represents it.

    Not in the paper: padded keys are masked, the causal mask uses each clip's own lengths, and
    the last step is the last *real* one. The published code attends to padding and, on a batch
    padded at the end, takes its last step from the padding.

    Checked against MMSA 2.2.1 (`tests/parity/test_mult.py`) on clips of full length: the same
    predictions to 1e-6 with `positions` and `padded_convolutions` false and `causal` true. MMSA
    adds no positions, though the paper does (section 3.2); its convolutions lose kernel - 1 steps;
    it skips the convolution of a modality that already has `dim` features. Its memory transformers
    have max(cross_layers, 3) layers and text's attention dropout.

    `losses` holds `task`, the mean absolute error.

    Args:
        dims: features of a step by modality.
        task: what is predicted.
        settings: the fields of `MulTParams`.

    Raises:
        ParamsError: a setting is unknown, absent or out of range.
    """

    def __init__(self, *, dims: dict[str, int], task: Task = SCORE, **settings: object) -> None:
        super().__init__()
        params = parse_params(MulTParams, settings, where="model.mult.network")

        def encoder(dim: int, layers: int, attention_dropout: float) -> TransformerEncoder:
            return TransformerEncoder(
                dim=dim,
                heads=params.heads,
                layers=layers,
                feedforward_dim=params.feedforward_factor * dim,
                attention_dropout=attention_dropout,
                relu_dropout=params.relu_dropout,
                residual_dropout=params.residual_dropout,
                embed_dropout=params.embed_dropout,
                causal=params.causal,
                positions=params.positions,
            )

        kernels, attention_dropout = dict(params.kernels), dict(params.attention_dropout)
        self.text_dropout = Dropout(params.text_dropout)
        self.convolutions = nn.ModuleDict(
            {
                m: MaskedConv1d(
                    in_dim=dims[m],
                    out_dim=params.dim,
                    kernel=kernels[m],
                    bias=False,
                    padded=params.padded_convolutions,
                )
                for m in MODALITIES
            }
        )
        self.crossmodal = nn.ModuleDict(
            {
                f"{s}_to_{m}": encoder(params.dim, params.cross_layers, attention_dropout[s])
                for m in MODALITIES
                for s in MODALITIES
                if s != m
            }
        )
        self.memory = nn.ModuleDict(
            {
                m: encoder(2 * params.dim, params.memory_layers, params.memory_attention_dropout)
                for m in MODALITIES
            }
        )
        fused_dim = 2 * params.dim * len(MODALITIES)
        self.residual = nn.Sequential(
            nn.Linear(fused_dim, fused_dim),
            nn.ReLU(),
            Dropout(params.output_dropout),
            nn.Linear(fused_dim, fused_dim),
        )
        self.head = nn.Linear(fused_dim, task.outputs)
        self.task = task
        self.weights = {"task": 1.0}

    def forward(self, batch: Batch, *, aux: bool = True) -> Output:
        """Return scores and the task loss.

        Args:
            batch: utterances; padding does not affect a score.
            aux: ignored, as there is no auxiliary loss.
        """
        convolved, valid = {}, {}
        for m in MODALITIES:
            convolution = self.convolutions[m]
            assert isinstance(convolution, MaskedConv1d)
            x = self.text_dropout(batch.values[m]) if m == "text" else batch.values[m]
            convolved[m] = convolution(x, batch.valid[m])  # (batch, time, dim)
            valid[m] = convolution.valid_after(batch.valid[m])
        last = []
        for m in MODALITIES:
            crossed = [
                self.crossmodal[f"{s}_to_{m}"](convolved[m], valid[m], convolved[s], valid[s])
                for s in MODALITIES
                if s != m
            ]
            remembered = self.memory[m](torch.cat(crossed, dim=-1), valid[m])
            last.append(_last_step(remembered, valid[m]))
        h = torch.cat(last, dim=-1)  # (batch, 6 dim)
        prediction = self.task.prediction(self.head(self.residual(h) + h))
        loss = task_loss(prediction, batch.label, weight=self.weights["task"])
        return Output(prediction, {}, {"task": loss})


def _last_step(x: Tensor, valid: Tensor) -> Tensor:
    """Return the last real step of each row of `x`, (batch, time, dim): (batch, dim)."""
    rows = torch.arange(len(x), device=x.device)
    return x[rows, valid.sum(1) - 1]
