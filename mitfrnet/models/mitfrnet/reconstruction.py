"""Missing modal reconstruction: section 3.2 of the paper, equations 7-8, 19 and 20."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mitfrnet.modalities import MODALITIES
from mitfrnet.models.layers import TransformerEncoder, zero_padding


class Reconstruction(nn.Module):
    r"""Rebuilds the complete features of each modality from its encoding.

    .. math::
        E^{con}_m &= g(H_m, H_m, H_m) &(7) \\
        E_m &= \mathrm{linear}(E^{con}_m) &(8)

    g is a transformer over the time of one utterance. (The code published with TFR-Net and with
    the paper attends over the batch instead, so that utterances are rebuilt from each other.)

    Args:
        dims: features of a step to rebuild, by modality.
        dim: features of a step of H.
        heads: attention heads; divides `dim`.
        layers: layers of each transformer.
        feedforward_dim: width of their feed-forward networks.
        attention_dropout: of attention weights, by modality.
        relu_dropout: inside the feed-forward networks.
        residual_dropout: of what each block adds to its shortcut.
        embed_dropout: of the inputs.
    """

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
    r"""Return the smooth L1 distance of one modality, summed over the scored elements; eq. 19.

    .. math:: \sum_{t \in scored} \sum_i \mathrm{smoothL1}(E_{t,i} - X_{t,i})

    No gradient flows into the target: a target that can move would meet the prediction. With
    nothing scored the sum is zero and still part of the graph.

    Args:
        rebuilt: E, (batch, time, dim).
        target: complete features X, (batch, time, dim).
        scored: steps that count, (batch, time) of bool.

    Returns:
        A scalar, in float32 or wider.
    """
    # Clearing the difference rather than the loss keeps garbage on padding out of the gradient.
    difference = zero_padding(rebuilt - target.detach(), scored)
    difference = difference.to(torch.promote_types(difference.dtype, torch.float32))
    return F.smooth_l1_loss(difference, torch.zeros_like(difference), reduction="sum")
