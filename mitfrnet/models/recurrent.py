"""Recurrent layers over padded sequences, without packing.

Packing needs the lengths of sequences on the CPU, and so makes it wait for a GPU. Here the
backward direction reads each clip turned around within its own length, and what a direction
makes of the padding behind a clip is never read.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

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
            valid: real steps, (batch, time) of bool.
        """
        rows = _turned_rows(valid)
        run = _stacked_directions if x.device.type == "cpu" else _one_by_one
        x = zero_padding(x, valid).transpose(0, 1)  # (time, batch, in_dim)
        for layer in range(self.num_layers):
            weights = [self.all_weights[2 * layer], self.all_weights[2 * layer + 1]]
            forward, backward = run(x, _Turned.apply(x, rows), weights)
            x = torch.cat([forward, _Turned.apply(backward, rows)], dim=-1)
        return zero_padding(x.transpose(0, 1), valid)


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


def _one_by_one(x: Tensor, turned: Tensor, weights: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Return what each direction makes of its input, (time, batch, hidden) both, on a GPU."""
    out = []
    # Autocast would take float16 here, whatever its own type, and small gradients would be lost.
    with torch.autocast(x.device.type, enabled=False):
        for sequence, parameters in zip((x.float(), turned.float()), weights, strict=True):
            start = sequence.new_zeros(1, x.shape[1], parameters[1].shape[1])
            run = torch.gru(sequence, start, [*parameters], True, 1, 0.0, True, False, False)
            out.append(run[0])
    return out


def _stacked_directions(
    x: Tensor, turned: Tensor, weights: Sequence[Sequence[Tensor]]
) -> list[Tensor]:
    """Return the same on a CPU, where the two directions are stepped through together."""
    gates = torch.stack(
        [
            linear(sequence, w_in, b_in)
            for sequence, (w_in, _, b_in, _) in zip((x, turned), weights, strict=True)
        ]
    )  # (2, time, batch, 3 hidden)
    w_hidden = torch.stack([parameters[1] for parameters in weights])
    b_hidden = torch.stack([parameters[3] for parameters in weights])
    return _Recurrence.apply(gates, w_hidden, b_hidden[:, None]).unbind()


class _Recurrence(torch.autograd.Function):
    """The steps of a GRU in several directions, whose inputs are projected already.

    PyTorch on a CPU makes and differentiates some twenty small tensors in each step. Here the
    gradient of a step is the state's gradient times factors that are known for all steps at
    once, and a product with the weights.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, gates: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the states, (directions, time, batch, hidden).

        `gates` is W_i x + b_i of r, z and n, (directions, time, batch, 3 hidden); `weight` is
        W_h, (directions, 3 hidden, hidden), and `bias` b_h, (directions, 1, 3 hidden).
        """
        directions, time, batch, _ = gates.shape
        hidden = weight.shape[2]
        recurrent = torch.empty_like(gates)  # W_h h + b_h
        rz = gates.new_empty(directions, time, batch, 2 * hidden)
        n = gates.new_empty(directions, time, batch, hidden)
        states = gates.new_zeros(directions, time + 1, batch, hidden)  # one before the first
        weight_t = weight.transpose(1, 2)
        steps = zip(
            gates[..., : 2 * hidden].unbind(1),
            gates[..., 2 * hidden :].unbind(1),
            recurrent.unbind(1),
            recurrent[..., : 2 * hidden].unbind(1),
            recurrent[..., 2 * hidden :].unbind(1),
            rz.unbind(1),
            rz[..., :hidden].unbind(1),
            rz[..., hidden:].unbind(1),
            n.unbind(1),
            states[:, :-1].unbind(1),
            states[:, 1:].unbind(1),
            strict=True,
        )
        for in_rz, in_n, all_h, rz_h, n_h, rz_t, r_t, z_t, n_t, h, h_next in steps:
            torch.baddbmm(bias, h, weight_t, out=all_h)
            torch.add(in_rz, rz_h, out=rz_t).sigmoid_()
            torch.addcmul(in_n, r_t, n_h, out=n_t).tanh_()
            torch.lerp(n_t, h, z_t, out=h_next)
        ctx.save_for_backward(weight, recurrent[..., 2 * hidden :], rz, n, states)
        return states[:, 1:]

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weight, n_h, rz, n, states = ctx.saved_tensors
        hidden = weight.shape[2]
        r, z = rz.chunk(2, dim=-1)
        h = states[:, :-1]
        # How the inputs of tanh and of the sigmoids move with the next state.
        to_n = (1 - z) * (1 - n * n)
        factors = torch.cat([to_n * n_h * r * (1 - r), (h - n) * z * (1 - z), to_n * r], dim=-1)
        d_recurrent = torch.empty_like(factors)
        d_states = torch.empty_like(n)
        carried = torch.zeros_like(n[:, 0])
        steps = zip(
            gradient.unbind(1),
            factors.unflatten(-1, (3, hidden)).unbind(1),
            z.unbind(1),
            d_states.unbind(1),
            d_states.unsqueeze(-2).unbind(1),
            d_recurrent.unbind(1),
            d_recurrent.unflatten(-1, (3, hidden)).unbind(1),
            strict=True,
        )
        for g, factor, z_t, d_state, wide_d_state, d_all, d_three in reversed(list(steps)):
            torch.add(g, carried, out=d_state)
            torch.mul(wide_d_state, factor, out=d_three)
            torch.mul(d_state, z_t, out=carried)
            torch.baddbmm(carried, d_all, weight, out=carried)
        d_gates = torch.cat([d_recurrent[..., : 2 * hidden], d_states * to_n], dim=-1)
        d_rows = d_recurrent.flatten(1, 2)
        d_weight = d_rows.transpose(1, 2) @ h.flatten(1, 2)
        return d_gates, d_weight, d_rows.sum(1, keepdim=True)
