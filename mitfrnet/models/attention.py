"""Attention and the transformer of MulT, TFR-Net and MIT-FRNet; padding is never attended to."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mitfrnet.models import compiled
from mitfrnet.models.layers import Dropout, Linear, draw_seed, zero_padding


def sinusoidal_positions(time: int, dim: int, *, like: Tensor) -> Tensor:
    r"""Return the position code of each step, (time, dim), on the device and in the type of `like`.

    With h = dim // 2 and steps counted from p = 1, column i < h is
    :math:`\sin(p \, 10000^{-i / (h - 1)})` and column h + i the cosine of the same; the last
    column of an odd `dim` is zero. This is the variant of tensor2tensor and MulT.
    """
    half = dim // 2
    column = torch.arange(half, device=like.device, dtype=torch.float32)
    frequency = torch.exp(column * (-math.log(10000.0) / max(half - 1, 1)))
    step = torch.arange(1, time + 1, device=like.device, dtype=torch.float32)
    angle = step[:, None] * frequency  # (time, half)
    code = F.pad(torch.cat([angle.sin(), angle.cos()], dim=1), (0, dim - 2 * half))
    return code.to(like.dtype)


def reach_of(query_valid: Tensor, key_valid: Tensor, *, causal: bool) -> Tensor:
    """Return how many keys, from the first on, each query sees, (batch, query time or 1) of int64.

    Padded keys never are seen. With `causal`, query i of a clip sees keys up to i + |n_q - n_k|,
    where n_q and n_k are that clip's own lengths: offsets from the padded lengths would make
    its result depend on its batch mates. Every query sees the first key, as every clip has a step.

    Args:
        query_valid: real query steps, (batch, query time) of bool, in front of all padding.
        key_valid: real key steps, (batch, key time) of bool, in front of all padding.
        causal: hide the keys that come later.
    """
    keys = key_valid.sum(1, keepdim=True)  # (batch, 1)
    if not causal:
        return keys
    offset = (query_valid.sum(1, keepdim=True) - keys).abs()
    query = torch.arange(1, query_valid.shape[1] + 1, device=query_valid.device)
    return torch.minimum(query + offset, keys)


class _CompiledAttention(torch.autograd.Function):
    """Attention with dropout on a CPU; see `compiled.attention_kernels`."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        reach: Tensor,
        heads: int,
        dropout: float,
    ) -> Tensor:
        """Return (batch, query time, dim); the tensors are not yet cut into heads."""
        batch, time, dim = query.shape
        forward, ctx.kernel = compiled.attention_kernels(dim // heads)
        ctx.drawn = heads, draw_seed(), compiled.threshold(dropout)
        inputs = query, key, value, reach.expand(batch, time)
        out, norm = query.new_empty(batch, time, dim), query.new_empty(batch, heads, time)
        arrays, results = compiled.arrays(*inputs), compiled.arrays(out, norm)
        compiled.over_threads(forward, batch, *arrays, *ctx.drawn, *results)
        ctx.save_for_backward(*inputs, out, norm)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, out, norm = ctx.saved_tensors
        gradients = [x.new_empty(x.shape) for x in inputs[:3]]
        arrays, results = compiled.arrays(*inputs), compiled.arrays(out, norm, gradient, *gradients)
        compiled.over_threads(ctx.kernel, len(out), *arrays, *ctx.drawn, *results)
        return *gradients, None, None, None


WIDEST = 32  # features of a head for which compiled loops are faster than PyTorch


class MultiheadAttention(nn.Module):
    """Scaled dot-product attention in several heads.

    Args:
        dim: features of a query, a key and the result.
        heads: how many heads share them.
        dropout: probability that an attention weight is dropped in training.

    Raises:
        ValueError: `heads` does not divide `dim`.
    """

    def __init__(self, *, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide {dim} features")
        self.dim, self.heads, self.dropout = dim, heads, dropout
        self.project_in = _xavier_linear(dim, 3 * dim)  # queries, keys, values
        self.project_out = _xavier_linear(dim, dim)

    def forward(self, query: Tensor, source: Tensor, reach: Tensor) -> Tensor:
        """Return (batch, query time, dim).

        Args:
            query: (batch, query time, dim).
            source: gives keys and values, (batch, key time, dim); `query` itself for
                self-attention.
            reach: how many keys each query sees, from `reach_of`.
        """
        if source is query:
            q, k, v = self.project_in(query).chunk(3, dim=-1)
        else:
            weight, bias = self.project_in.weight, self.project_in.bias
            q = F.linear(query, weight[: self.dim], bias[: self.dim])
            k, v = F.linear(source, weight[self.dim :], bias[self.dim :]).chunk(2, dim=-1)
        dropout = self.dropout if self.training else 0.0
        # Without gradients PyTorch's own attention, which then needs no dropout, is as fast.
        compiled_here = self.training and q.device.type == "cpu" and q.dtype != torch.float64
        if compiled_here and self.dim <= WIDEST * self.heads:
            context = _CompiledAttention.apply(
                q.float(), k.float(), v.float(), reach, self.heads, dropout
            )
            return self.project_out(context.to(q.dtype))
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        seen = torch.arange(source.shape[1], device=source.device) < reach[:, None, :, None]
        # (batch, heads, query time, dim / heads)
        context = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout)
        return self.project_out(context.transpose(1, 2).flatten(-2))


class TransformerLayer(nn.Module):
    """Attention and a feed-forward network, each behind a LayerNorm and beside a shortcut.

    The arguments are those of `TransformerEncoder`.
    """

    def __init__(
        self,
        *,
        dim: int,
        heads: int,
        feedforward_dim: int,
        attention_dropout: float,
        relu_dropout: float,
        residual_dropout: float,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = MultiheadAttention(dim=dim, heads=heads, dropout=attention_dropout)
        self.feedforward = nn.Sequential(
            nn.LayerNorm(dim),
            _xavier_linear(dim, feedforward_dim),
            nn.ReLU(),
            Dropout(relu_dropout),
            _xavier_linear(feedforward_dim, dim),
        )
        self.dropout = Dropout(residual_dropout)

    def forward(self, x: Tensor, source: Tensor | None, reach: Tensor) -> Tensor:
        """Return (batch, time, dim) for `x` of that shape; `source` None is self-attention."""
        query = self.attention_norm(x)
        keys = query if source is None else self.attention_norm(source)
        x = x + self.dropout(self.attention(query, keys, reach))
        return x + self.dropout(self.feedforward(x))


class TransformerEncoder(nn.Module):
    """Pre-norm transformer over time, within a sequence or from another one (MulT, TFR-Net).

    Inputs are multiplied by the square root of `dim` and position codes are added at every
    step. In every layer of a cross-modal encoder the keys are the same embedded source.
    (The code of TFR-Net, and of MulT where it has positions, adds none at a step whose first
    feature happens to be zero, such as a hidden one.)

    Args:
        dim: features of a step.
        heads: attention heads; divides `dim`.
        layers: how many layers.
        feedforward_dim: width of the feed-forward networks.
        attention_dropout: of attention weights.
        relu_dropout: inside the feed-forward networks.
        residual_dropout: of what each block adds to its shortcut.
        embed_dropout: of the inputs with their positions.
        causal: see `reach_of`.
        positions: whether position codes are added.
    """

    def __init__(
        self,
        *,
        dim: int,
        heads: int,
        layers: int,
        feedforward_dim: int,
        attention_dropout: float,
        relu_dropout: float,
        residual_dropout: float,
        embed_dropout: float,
        causal: bool,
        positions: bool = True,
    ) -> None:
        super().__init__()
        self.causal, self.positions = causal, positions
        self.embed_dropout = Dropout(embed_dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(
                dim=dim,
                heads=heads,
                feedforward_dim=feedforward_dim,
                attention_dropout=attention_dropout,
                relu_dropout=relu_dropout,
                residual_dropout=residual_dropout,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        query: Tensor,
        query_valid: Tensor,
        source: Tensor | None = None,
        source_valid: Tensor | None = None,
    ) -> Tensor:
        """Return (batch, query time, dim), zero on padding.

        Args:
            query: (batch, query time, dim).
            query_valid: its real steps, (batch, query time) of bool.
            source: where keys and values come from, (batch, key time, dim); None for
                self-attention.
            source_valid: its real steps, (batch, key time) of bool.

        Raises:
            ValueError: real steps and sequences differ in shape.
        """
        key_valid = query_valid if source_valid is None else source_valid
        given = (query if source is None else source).shape[:2]
        if key_valid.shape != given or query_valid.shape != query.shape[:2]:
            raise ValueError("the real steps are not those of the sequences")
        reach = reach_of(query_valid, key_valid, causal=self.causal)
        x = self._embed(query)
        keys = None if source is None else self._embed(source)
        for layer in self.layers:
            x = layer(x, keys, reach)
        return zero_padding(self.norm(x), query_valid)

    def _embed(self, x: Tensor) -> Tensor:
        """Return `x` scaled and with positions, (batch, time, dim)."""
        time, dim = x.shape[1:]
        x = math.sqrt(dim) * x
        if self.positions:
            x = x + sinusoidal_positions(time, dim, like=x)
        return self.embed_dropout(x)


def _xavier_linear(in_dim: int, out_dim: int) -> Linear:
    """Return a linear layer with Xavier-uniform weights and no bias at the start, as in MulT."""
    linear = Linear(in_dim, out_dim)
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
