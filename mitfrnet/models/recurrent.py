"""Recurrent layers over padded sequences, without packing.

Packing needs the lengths on the CPU, which would have to wait for the GPU. Here the backward
direction reads each clip reversed within its own length, and no result on the padding behind a
clip is ever read.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mitfrnet.models import cpu
from mitfrnet.models.layers import zero_padding


class BidirectionalGRU(nn.GRU):
    r"""PyTorch's GRU, bidirectional; section 3.4 of the paper, equation 13.

    .. math::
        r &= \sigma(W_{ir} x + W_{hr} h + b_r), \quad z = \sigma(W_{iz} x + W_{hz} h + b_z) \\
        n &= \tanh(W_{in} x + b_{in} + r \odot (W_{hn} h + b_{hn})) \\
        h' &= n + z \odot (h - n)

    Args:
        in_dim: features of a step.
        hidden: units in each direction.
        layers: how many layers.
    """

    def __init__(self, *, in_dim: int, hidden: int, layers: int) -> None:
        super().__init__(in_dim, hidden, layers, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:  # type: ignore[override]
        """Return (batch, time, 2 hidden), zero on padding.

        Args:
            x: (batch, time, in_dim).
            valid: real steps, (batch, time) of bool, in front of all padding.

        Raises:
            ValueError: `valid` does not have the shape of `x`.
        """
        if valid.shape != x.shape[:2]:
            raise ValueError(f"valid is {tuple(valid.shape)}, x {tuple(x.shape)}")
        x = zero_padding(x, valid)
        on_cpu = cpu.runs_gru(x)
        layer = cpu.gru_layer if on_cpu else gru_layer
        lengths_or_rows = valid.sum(1) if on_cpu else _reversed_rows(valid)
        for i in range(self.num_layers):
            x = layer(x, lengths_or_rows, self.all_weights[2 * i : 2 * i + 2])
        return zero_padding(x, valid)


class LSTM(nn.LSTM):
    """PyTorch's LSTM with one layer; padding changes no real step.

    Args:
        in_dim: features of a step.
        hidden: units in each direction.
        bidirectional: whether there is a backward direction too.
    """

    def __init__(self, *, in_dim: int, hidden: int, bidirectional: bool = False) -> None:
        super().__init__(in_dim, hidden, batch_first=True, bidirectional=bidirectional)

    def forward(  # type: ignore[override]
        self, x: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the states, (batch, time, directions x hidden), and each direction's last one.

        The last states are (batch, directions x hidden), one of the whole clip per direction.
        States on padding are meaningless. Everything is in float32 even under autocast.

        Args:
            x: (batch, time, in_dim).
            valid: real steps, (batch, time) of bool; at least one in each row.
        """
        rows = _reversed_rows(valid)
        last = rows[: len(valid)]  # a reversed clip begins at its last step
        x = zero_padding(x, valid).transpose(0, 1)  # (time, batch, in_dim)
        start = x.new_zeros(1, len(valid), self.hidden_size, dtype=torch.float32)
        steps, ends = [], []
        # Under autocast torch.lstm would run in float16 on a GPU, even if autocast is bfloat16.
        with torch.autocast(x.device.type, enabled=False):
            for direction, weights in enumerate(self.all_weights):
                read = _Reversed.apply(x.float(), rows) if direction else x.float()
                out = torch.lstm(
                    read, [start, start], [*weights], True, 1, 0.0, self.training, False, False
                )[0]
                ends.append(out.flatten(0, 1).index_select(0, last))
                steps.append(_Reversed.apply(out, rows) if direction else out)
        return torch.cat(steps, dim=-1).transpose(0, 1), torch.cat(ends, dim=-1)


def _reversed_rows(valid: Tensor) -> Tensor:
    """Return the row that each step is read from when clips are reversed, (time x batch,) of int64.

    Rows count through (time, batch) flattened. Padding, `valid` False, stays where it is.
    """
    batch, time = valid.shape
    step = torch.arange(time, device=valid.device)[:, None]
    lengths = valid.sum(1)
    source = torch.where(step < lengths, lengths - 1 - step, step)  # (time, batch)
    return (source * batch + torch.arange(batch, device=valid.device)).flatten()


class _Reversed(torch.autograd.Function):
    """The steps of each clip in reverse; applied to the gradient, this reverses them back.

    Plain indexing would add up gradients, in case a row is read twice.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        """Return the steps of `x`, (time, batch, dim), in the order of `rows`."""
        ctx.save_for_backward(rows)
        return x.flatten(0, 1).index_select(0, rows).view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return gradient.flatten(0, 1).index_select(0, rows).view(gradient.shape), None


def gru_layer(x: Tensor, rows: Tensor, weights: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return the states of a bidirectional GRU layer, (batch, time, 2 hidden).

    Args:
        x: (batch, time, in_dim).
        rows: from `_reversed_rows`, (time x batch,).
        weights: W_i, W_h, b_i and b_h of each direction, as `nn.GRU` holds them.
    """
    out = []
    # Under autocast torch.gru would run in float16, and small gradients would be lost.
    with torch.autocast(x.device.type, enabled=False):
        x = x.float().transpose(0, 1)  # (time, batch, in_dim)
        for direction, parameters in enumerate(weights):
            start = x.new_zeros(1, x.shape[1], parameters[1].shape[1])
            read = _Reversed.apply(x, rows) if direction else x
            steps = torch.gru(read, start, [*parameters], True, 1, 0.0, True, False, False)[0]
            out.append(_Reversed.apply(steps, rows) if direction else steps)
    return torch.cat(out, dim=-1).transpose(0, 1)
