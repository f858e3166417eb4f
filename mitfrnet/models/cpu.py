"""What makes a CPU fast: when PyTorch's own operations are replaced, and by what.

`linear` and `dropout` choose by themselves. `attention` and `gru_layer` are for inputs that
`runs_attention` and `runs_gru` accept; the modules that call them hold the plain version.
"""

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mitfrnet.models import compiled

CONVOLUTION_WEIGHTS = 2**12  # a linear layer of so many is faster as a convolution
WIDEST_HEAD = 32  # features of a head up to which compiled attention is faster than PyTorch's


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return `F.linear(x, weight, bias)`, on a CPU as a convolution over one step.

    PyTorch leaves matrix products to MKL, which uses half the vector width of processors that
    Intel did not make, and convolutions to oneDNN, which uses all of it. Small layers gain less
    than oneDNN needs to prepare for each new length.
    """
    if x.ndim != 3 or x.device.type != "cpu" or weight.numel() < CONVOLUTION_WEIGHTS:
        return F.linear(x, weight, bias)
    # (batch, dim, 1, time), in memory still (batch, time, dim), so that nothing is copied
    image = x.transpose(1, 2).unsqueeze(2)
    kernel = weight[:, :, None, None].contiguous(memory_format=torch.channels_last)
    return F.conv2d(image, kernel, bias).squeeze(2).transpose(1, 2)


def dropout(x: Tensor, p: float) -> Tensor:
    """Return `F.dropout(x, p)`; on a CPU by a compiled loop, in a tenth of PyTorch's time."""
    if p == 0 or x.device.type != "cpu" or x.dtype != torch.float32:
        return F.dropout(x, p)
    return _Dropout.apply(x, p)


class _Dropout(torch.autograd.Function):
    """Dropout that draws its mask again for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        ctx.seed, ctx.threshold = _draw_seed(), compiled.threshold(p)
        return _drop(x, ctx.seed, ctx.threshold)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _drop(gradient, ctx.seed, ctx.threshold), None


def _drop(x: Tensor, seed: np.uint64, threshold: np.uint32) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    compiled.dropout_kernel()(*_arrays(x.view(-1), out.view(-1)), seed, threshold)
    return out


def runs_attention(q: Tensor, *, heads: int, training: bool) -> bool:
    """Return whether `attention` is faster than PyTorch's for queries (batch, time, dim).

    Without gradients PyTorch needs no dropout, and its fused attention is as fast.
    """
    on_cpu = q.device.type == "cpu" and q.dtype != torch.float64
    return training and on_cpu and q.shape[-1] <= WIDEST_HEAD * heads


def attention(
    q: Tensor, k: Tensor, v: Tensor, reach: Tensor, *, heads: int, dropout: float
) -> Tensor:
    """Return attention with dropout, (batch, query time, dim), in the type of `q`.

    The arguments are those of `mitfrnet.models.attention.attention`.
    """
    out = _Attention.apply(q.float(), k.float(), v.float(), reach, heads, dropout)
    return out.to(q.dtype)


class _Attention(torch.autograd.Function):
    """Attention in float32; see `compiled.attention_kernels`."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, reach: Tensor, heads: int, dropout: float
    ) -> Tensor:
        batch, time, dim = q.shape
        forward, ctx.kernel = compiled.attention_kernels(dim // heads)
        ctx.settings = heads, _draw_seed(), compiled.threshold(dropout)
        inputs = q, k, v, reach.expand(batch, time)
        results = q.new_empty(batch, time, dim), q.new_empty(batch, heads, time)  # out, norm
        _over_threads(forward, batch, *_arrays(*inputs), *ctx.settings, *_arrays(*results))
        ctx.save_for_backward(*inputs, *results)
        return results[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, out, norm = ctx.saved_tensors
        gradients = [x.new_empty(x.shape) for x in inputs[:3]]
        results = _arrays(out, norm, gradient, *gradients)
        _over_threads(ctx.kernel, len(out), *_arrays(*inputs), *ctx.settings, *results)
        return *gradients, None, None, None


def runs_gru(x: Tensor) -> bool:
    """Return whether `gru_layer` takes `x`: on a CPU it always does."""
    return x.device.type == "cpu"


def gru_layer(x: Tensor, lengths: Tensor, weights: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return the states of a bidirectional GRU layer, (batch, time, 2 hidden), zero on padding.

    Args:
        x: (batch, time, in_dim).
        lengths: real steps of each clip, (batch,).
        weights: W_i, W_h, b_i and b_h of each direction, as `nn.GRU` holds them.
    """
    w_in, w_hidden, b_in, b_hidden = (list(kind) for kind in zip(*weights, strict=True))
    gates = linear(x, torch.cat(w_in), torch.cat(b_in)).unflatten(-1, (2, -1))
    # (batch, time, 2, 3 hidden)
    hidden = torch.stack(w_hidden).float(), torch.stack(b_hidden).float()
    # Autocast does not change the type of weights, so states stay in float32 under it.
    return _Recurrence.apply(gates.float(), *hidden, lengths).to(w_hidden[0].dtype)


class _Recurrence(torch.autograd.Function):
    """The steps of a bidirectional GRU in float32; see `compiled.recurrence_kernels`.

    PyTorch creates and differentiates some twenty small tensors in each step on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor) -> Tensor:
        """Return the states, (batch, time, 2 hidden).

        `gates` is W_i x + b_i of r, z and n, (batch, time, 2, 3 hidden); `weight` is W_h,
        (2, 3 hidden, hidden); `bias` is b_h, (2, 3 hidden).
        """
        batch, time, sides, _ = gates.shape
        hidden = weight.shape[2]
        out = gates.new_zeros(batch, time, sides, hidden)
        rz, n, n_h = (gates.new_empty(batch, time, sides, k * hidden) for k in (2, 1, 1))
        forward, ctx.kernel = compiled.recurrence_kernels()
        ctx.groups = sides * -(-batch // compiled.TOGETHER)
        saved = weight.transpose(1, 2), lengths, out, rz, n, n_h
        arrays = _arrays(gates.contiguous(), saved[0], bias, *saved[1:])
        _over_threads(forward, ctx.groups, *arrays)
        ctx.save_for_backward(*saved)
        return out.flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        out, rz = ctx.saved_tensors[2:4]
        d_gates = rz.new_zeros(*out.shape[:3], 3 * out.shape[3])
        d_recurrent = torch.zeros_like(d_gates)
        d_out = gradient.reshape(out.shape).contiguous()
        arrays = _arrays(d_out, *ctx.saved_tensors, d_gates, d_recurrent)
        _over_threads(ctx.kernel, ctx.groups, *arrays)
        before = torch.stack(
            [F.pad(out[:, :-1, 0], (0, 0, 1, 0)), F.pad(out[:, 1:, 1], (0, 0, 0, 1))]
        )  # the state before each step: (2, batch, time, hidden)
        d_rows = d_recurrent.flatten(0, 1).transpose(0, 1)  # (2, batch x time, 3 hidden)
        d_weight = d_rows.transpose(1, 2) @ before.flatten(1, 2)
        return d_gates, d_weight, d_rows.sum(1), None


def _draw_seed() -> np.uint64:
    """Return a seed for a compiled loop, from PyTorch's generator."""
    return np.uint64(torch.randint(2**63 - 1, (), device="cpu").item())


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    """Return tensors on a CPU as arrays that share their memory."""
    return [tensor.detach().numpy() for tensor in tensors]


def _over_threads(function: Callable, count: int, *arguments: Any) -> None:
    """Call `function(start, stop, *arguments)` for ranges that cover `count`, one per thread.

    Results do not depend on the number of threads, as each item is computed by itself.
    """
    threads = max(min(torch.get_num_threads(), count), 1)
    cuts = [count * i // threads for i in range(threads + 1)]
    first, *others = itertools.pairwise(cuts)
    futures = [_pool().submit(function, *span, *arguments) for span in others]
    function(*first, *arguments)
    for future in futures:
        future.result()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count())
