"""Attention and the transformer of MulT, TFR-Net and MIT-FRNet; padding is never attended to."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mitfrnet.models import cpu
from mitfrnet.models.layers import Dropout, Linear, zero_padding


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
    """Return how many keys each query sees, (batch, query time or 1) of int64.

    A query sees the first keys of its clip, at least one and never padding. With `causal`, query i
    sees keys up to i + |n_q - n_k|, where n_q and n_k are the clip's own lengths: an offset from
    the padded lengths would make its result depend on its batch mates.

    Args:
        query_valid: real query steps, (batch, query time) of bool, in front of all padding.
        key_valid: real key steps, (batch, key time) of bool, in front of all padding.
        causal: hide later keys.
    """
    keys = key_valid.sum(1, keepdim=True)  # (batch, 1)
    if not causal:
        return keys
    offset = (query_valid.sum(1, keepdim=True) - keys).abs()
    query = torch.arange(1, query_valid.shape[1] + 1, device=query_valid.device)
    return torch.minimum(query + offset, keys)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    reach: Tensor,
    *,
    heads: int,
    dropout: float,
    training: bool,
) -> Tensor:
    r"""Return scaled dot-product attention in several heads, (batch, query time, dim).

    .. math:: \mathrm{dropout}(\mathrm{softmax}(q k^\top / \sqrt{dim / heads})) \, v

    Args:
        q: queries, (batch, query time, dim).
        k: keys, (batch, key time, dim).
        v: values, (batch, key time, dim).
        reach: how many keys each query sees, from `reach_of`.
        heads: how many heads share the features.
        dropout: probability that a weight is dropped in training.
        training: whether weights are dropped.
    """
    if cpu.runs_attention(q, heads=heads, training=training):
        return cpu.attention(q, k, v, reach, heads=heads, dropout=dropout)
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    # (batch, heads, query or key time, dim / heads)
    visible = torch.arange(k.shape[2], device=k.device) < reach[:, None, :, None]
    # (batch, 1, query time or 1, key time)
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=visible, dropout_p=dropout if training else 0.0
    )  # (batch, heads, query time, dim / heads)
    return out.transpose(1, 2).flatten(-2)  # (batch, query time, dim)


class MultiheadAttention(nn.Module):
    """`attention` between learnt projections of its inputs and its result.

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
            source: what keys and values come from, (batch, key time, dim); `query` itself for
                self-attention.
            reach: how many keys each query sees, from `reach_of`.
        """
        if source is query:
            q, k, v = self.project_in(query).chunk(3, dim=-1)  # (batch, time, dim) each
        else:
            weight, bias = self.project_in.weight, self.project_in.bias
            q = F.linear(query, weight[: self.dim], bias[: self.dim])
            k, v = F.linear(source, weight[self.dim :], bias[self.dim :]).chunk(2, dim=-1)
        context = attention(
            q, k, v, reach, heads=self.heads, dropout=self.dropout, training=self.training
        )
        return self.project_out(context)


class TransformerLayer(nn.Module):
    """Attention, then a feed-forward network; each has a LayerNorm before it and a shortcut.

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

    Inputs are multiplied by the square root of `dim`, and every step gets a position code. All
    layers of a cross-modal encoder read the same embedded source. (The code of TFR-Net, and of
    MulT when it adds positions, adds none to a step whose first feature is zero, such as a hidden
    one.)

    Args:
        dim: features of a step.
        heads: attention heads; divides `dim`.
        layers: how many layers.
        feedforward_dim: width of the feed-forward networks.
        attention_dropout: of attention weights.
        relu_dropout: inside the feed-forward networks.
        residual_dropout: of each block's output before the shortcut is added.
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
            query_valid: real query steps, (batch, query time) of bool.
            source: what keys and values come from, (batch, key time, dim); None for
                self-attention.
            source_valid: real source steps, (batch, key time) of bool.

        Raises:
            ValueError: a mask of real steps does not have the shape of its sequence.
        """
        key_valid = query_valid if source_valid is None else source_valid
        for name, x, valid in (
            ("query", query, query_valid),
            ("source", query if source is None else source, key_valid),
        ):
            if valid.shape != x.shape[:2]:
                raise ValueError(f"{name}_valid is {tuple(valid.shape)}, {name} {tuple(x.shape)}")
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
    """Return a linear layer that starts as in MulT: Xavier-uniform weights, biases of zero."""
    linear = Linear(in_dim, out_dim)
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
