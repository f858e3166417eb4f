"""Recurrent layers over padded sequences, without packing.

Packing needs the lengths of sequences on the CPU, and so makes it wait for a GPU. Here the
backward direction reads each clip turned around within its own length, and what a direction
makes of the padding behind a clip is never read. On a CPU the GRU steps through each clip by
itself, in compiled loops.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mitfrnet.models import compiled
from mitfrnet.models.layers import linear, zero_padding


class BidirectionalGRU(nn.GRU):
    r"""The GRU of PyTorch, bidirectional, for section 3.4 of the paper, equation 13.

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
            ValueError: `valid` is not of the shape of `x`.
        """
        if valid.shape != x.shape[:2]:
            raise ValueError(f"valid is {tuple(valid.shape)}, and x {tuple(x.shape)}")
        x = zero_padding(x, valid)
        on_cpu = x.device.type == "cpu"
        run = _compiled_layer if on_cpu else _layer
        order = valid.sum(1) if on_cpu else _turned_rows(valid)
        for layer in range(self.num_layers):
            x = run(x, order, self.all_weights[2 * layer : 2 * layer + 2])
        return zero_padding(x, valid)


class LSTM(nn.LSTM):
    """The LSTM of PyTorch, of one layer, in which padding reaches no real step.

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
        """Return every step, (batch, time, directions x hidden), and the last of each direction.

        That is (batch, directions x hidden): what a direction made of the whole clip. Steps on
        padding are of no use. Both are in float32 even under autocast.

        Args:
            x: (batch, time, in_dim).
            valid: real steps, (batch, time) of bool; at least one in each row.
        """
        rows = _turned_rows(valid)
        last = rows[: len(valid)]  # where a clip turned around begins
        x = zero_padding(x, valid).transpose(0, 1)  # (time, batch, in_dim)
        start = x.new_zeros(1, len(valid), self.hidden_size, dtype=torch.float32)
        steps, ends = [], []
        # Autocast would take float16 on a GPU, whatever its own type.
        with torch.autocast(x.device.type, enabled=False):
            for direction, weights in enumerate(self.all_weights):
                read = _Turned.apply(x.float(), rows) if direction else x.float()
                out = torch.lstm(
                    read, [start, start], [*weights], True, 1, 0.0, self.training, False, False
                )[0]
                ends.append(out.flatten(0, 1).index_select(0, last))
                steps.append(_Turned.apply(out, rows) if direction else out)
        return torch.cat(steps, dim=-1).transpose(0, 1), torch.cat(ends, dim=-1)


def _turned_rows(valid: Tensor) -> Tensor:
    """Return which row each step comes from if every clip is read backwards, (time x batch,).

    Rows are those of (time, batch) flattened; padding, `valid` False, stays where it is.
    """
    batch, time = valid.shape
    step = torch.arange(time, device=valid.device)[:, None]
    lengths = valid.sum(1)
    turned = torch.where(step < lengths, lengths - 1 - step, step)  # (time, batch)
    return (turned * batch + torch.arange(batch, device=valid.device)).flatten()


class _Turned(torch.autograd.Function):
    """Steps of each clip in another order that, done twice, is the first one.

    Indexing would have to add up gradients, as a row could be read twice.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        """Return `x`, (time, batch, dim), with its time and batch axes read as `rows` says."""
        ctx.save_for_backward(rows)
        return x.flatten(0, 1).index_select(0, rows).view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return gradient.flatten(0, 1).index_select(0, rows).view(gradient.shape), None


def _layer(x: Tensor, rows: Tensor, weights: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return what a layer makes of `x`, (batch, time, in_dim): (batch, time, 2 hidden).

    `rows` are those of `_turned_rows`.
    """
    out = []
    # Autocast would take float16 here, whatever its own type, and small gradients would be lost.
    with torch.autocast(x.device.type, enabled=False):
        x = x.float().transpose(0, 1)  # (time, batch, in_dim)
        for direction, parameters in enumerate(weights):
            start = x.new_zeros(1, x.shape[1], parameters[1].shape[1])
            read = _Turned.apply(x, rows) if direction else x
            steps = torch.gru(read, start, [*parameters], True, 1, 0.0, True, False, False)[0]
            out.append(_Turned.apply(steps, rows) if direction else steps)
    return torch.cat(out, dim=-1).transpose(0, 1)


def _compiled_layer(x: Tensor, lengths: Tensor, weights: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return the same on a CPU, zero behind the `lengths` of the clips, (batch,)."""
    w_in, w_hidden, b_in, b_hidden = (list(kind) for kind in zip(*weights, strict=True))
    gates = linear(x, torch.cat(w_in), torch.cat(b_in)).unflatten(-1, (2, -1))
    hidden = torch.stack(w_hidden).float(), torch.stack(b_hidden).float()
    # Autocast leaves weights as they are, so that states stay in float32 under it.
    return _Recurrence.apply(gates.float(), *hidden, lengths).to(w_hidden[0].dtype)


class _Recurrence(torch.autograd.Function):
    """The steps of a bidirectional GRU; see `compiled.recurrence_kernels`.

    PyTorch on a CPU makes and differentiates some twenty small tensors in each step.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor) -> Tensor:
        """Return the states, (batch, time, 2 hidden).

        `gates` is W_i x + b_i of r, z and n, (batch, time, 2, 3 hidden); `weight` is W_h,
        (2, 3 hidden, hidden), `bias` b_h, (2, 3 hidden), and `lengths` real steps, (batch,).
        """
        batch, time, sides, _ = gates.shape
        hidden = weight.shape[2]
        out = gates.new_zeros(batch, time, sides, hidden)
        rz, n, n_h = (gates.new_empty(batch, time, sides, k * hidden) for k in (2, 1, 1))
        forward, ctx.kernel = compiled.recurrence_kernels()
        ctx.groups = sides * -(-batch // compiled.TOGETHER)
        saved = weight.transpose(1, 2), lengths, out, rz, n, n_h
        arrays = compiled.arrays(gates.contiguous(), saved[0], bias, *saved[1:])
        compiled.over_threads(forward, ctx.groups, *arrays)
        ctx.save_for_backward(*saved)
        return out.flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        out, rz = ctx.saved_tensors[2:4]
        d_gates = rz.new_zeros(*out.shape[:3], 3 * out.shape[3])
        d_recurrent = torch.zeros_like(d_gates)
        d_out = gradient.reshape(out.shape).contiguous()
        arrays = compiled.arrays(d_out, *ctx.saved_tensors, d_gates, d_recurrent)
        compiled.over_threads(ctx.kernel, ctx.groups, *arrays)
        before = torch.stack(
            [F.pad(out[:, :-1, 0], (0, 0, 1, 0)), F.pad(out[:, 1:, 1], (0, 0, 0, 1))]
        )  # the state that a step begins with: (2, batch, time, hidden)
        d_rows = d_recurrent.flatten(0, 1).transpose(0, 1)  # (2, batch x time, 3 hidden)
        d_weight = d_rows.transpose(1, 2) @ before.flatten(1, 2)
        return d_gates, d_weight, d_rows.sum(1), None
