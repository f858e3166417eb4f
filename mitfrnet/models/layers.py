"""Building blocks that several models share; none lets padding or another utterance through."""

import math
from typing import Annotated, Any, Generic, TypeVar, cast

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mitfrnet.params import StageParams


def _odd(kernel: int) -> int:
    if kernel % 2 == 0:
        raise ValueError(f"{kernel} is even, and must be odd")
    return kernel


T = TypeVar("T")
Count = Annotated[int, Field(ge=1)]
Kernel = Annotated[Count, AfterValidator(_odd)]  # steps that a convolution spans
Probability = Annotated[float, Field(ge=0, lt=1)]  # of dropping something
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # of a loss


class PerModality(StageParams, Generic[T]):
    """One setting for each modality; `dict(setting)` is keyed by modality."""

    text: T
    acoustic: T
    visual: T


def zero_padding(x: Tensor, valid: Tensor) -> Tensor:
    """Return `x`, (batch, time, dim), with zeros wherever `valid`, (batch, time), is False.

    Unlike a product with the mask, this also clears NaN and infinity.
    """
    return x.masked_fill(~valid[..., None], 0.0)


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


def attention_mask(query_valid: Tensor, key_valid: Tensor, *, causal: bool) -> Tensor:
    """Return which keys each query may attend to, (batch, 1, 1 or query time, key time) of bool.

    Padded keys never are. With `causal`, query i of a clip sees keys up to i + |n_q - n_k|,
    where n_q and n_k are that clip's own lengths: offsets from the padded lengths would make
    its result depend on its batch mates. Every query sees at least the first key.

    Args:
        query_valid: real query steps, (batch, query time) of bool.
        key_valid: real key steps, (batch, key time) of bool.
        causal: hide the keys that come later.
    """
    allowed = key_valid[:, None, :]  # (batch, 1, key time)
    if causal:
        offset = (query_valid.sum(1) - key_valid.sum(1)).abs()  # (batch,)
        query = torch.arange(query_valid.shape[1], device=query_valid.device)
        key = torch.arange(key_valid.shape[1], device=key_valid.device)
        reach = query[None, :, None] + offset[:, None, None]  # (batch, query time, 1)
        allowed = allowed & (key[None, None, :] <= reach)
    return allowed[:, None]


class MaskedConv1d(nn.Module):
    """Convolution over time that keeps the length and gives zero on padding.

    What stands on padding is cleared before the convolution, since it lies within the reach
    of the last real steps, and again after it, for the layers that follow.

    Args:
        in_dim: features of a step before.
        out_dim: features of a step after.
        kernel: steps a filter spans, odd.
        bias: whether filters have a bias.
        padded: False for a result that is shorter by kernel - 1 steps, since no filter leaves
            its clip; of a clip shorter than the filter, one step remains. See `valid_after`.

    Raises:
        ValueError: `kernel` is even.
    """

    def __init__(
        self, *, in_dim: int, out_dim: int, kernel: int, bias: bool, padded: bool = True
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel is {kernel}, and must be odd to keep the length")
        self.conv = nn.Conv1d(
            in_dim, out_dim, kernel, padding=kernel // 2 if padded else 0, bias=bias
        )
        self.lost = 0 if padded else kernel - 1  # steps

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return (batch, time, out_dim) for `x`, (batch, time, in_dim)."""
        x = zero_padding(x, valid).transpose(1, 2)  # (batch, in_dim, time)
        x = F.pad(x, (0, max(self.lost + 1 - x.shape[2], 0)))
        return zero_padding(self.conv(x).transpose(1, 2), self.valid_after(valid))

    def valid_after(self, valid: Tensor) -> Tensor:
        """Return the real steps of the result, (batch, time) of bool.

        Args:
            valid: those of the input, (batch, time) of bool.
        """
        if not self.lost:
            return valid
        time = max(valid.shape[1] - self.lost, 1)
        lengths = (valid.sum(1, keepdim=True) - self.lost).clamp(min=1)
        return torch.arange(time, device=valid.device) < lengths


def draw_kept(shape: torch.Size, dropout: float, device: torch.device) -> tuple[Tensor, float]:
    """Return what dropout keeps, of bool, and the probability with which it does.

    The probability is `1 - dropout` to 16 bits: four elements share one random number of 64
    bits, which on a CPU takes a quarter of the time of a Bernoulli number for each.

    Args:
        shape: of the tensor to draw for.
        dropout: probability of losing an element, in [0, 1).
        device: where the tensor is.
    """
    count = shape.numel()
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=device)
    words.random_(-(2**63), None)  # all 64 bits; without arguments the sign is never drawn
    lost = min(round(dropout * 2**16), 2**16 - 1)
    kept = words.view(torch.int16)[:count].view(shape) >= lost - 2**15
    return kept, 1 - lost / 2**16


class _CPUDropout(torch.autograd.Function):
    """Dropout by `draw_kept`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropout: float) -> Tensor:
        kept, ctx.probability = draw_kept(x.shape, dropout, x.device)
        ctx.save_for_backward(kept)
        return (x * kept).div_(ctx.probability)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return (gradient * kept).div_(ctx.probability), None


class Dropout(nn.Dropout):
    """Dropout whose random numbers are cheap on a CPU; see `draw_kept`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with elements lost, and the others scaled up, in training."""
        if self.training and self.p > 0 and x.device.type == "cpu":
            return _CPUDropout.apply(x, self.p)
        return super().forward(x)


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation whose batch is that of all processes that train together.

    A batch of one is trained on too, with the running statistics.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, dim) for `x` of that shape."""
        if self.training and _processes() > 1:
            return self._over_processes(x.float())
        if self.training and len(x) == 1:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)

    def _over_processes(self, x: Tensor) -> Tensor:
        """Return the same for this process's rows, of which it has at least one.

        PyTorch's own SyncBatchNorm is for GPUs alone.
        """
        total = _SumOverProcesses.apply(torch.cat([x.sum(0), x.new_full((1,), len(x))]))
        mean, count = total[:-1] / total[-1], total[-1]
        variance = _SumOverProcesses.apply((x - mean).square().sum(0)) / count
        unbiased = variance * count / (count - 1)
        with torch.no_grad():
            for running, now in ((self.running_mean, mean), (self.running_var, unbiased)):
                cast(Tensor, running).lerp_(now, cast(float, self.momentum))
        return (x - mean) * (variance + self.eps).rsqrt() * self.weight + self.bias


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _summed(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(total)
    return total


def _processes() -> int:
    """Return how many processes train together."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return 1


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return `F.linear(x, weight, bias)`, fast on the CPUs of every maker.

    PyTorch leaves products of matrices to MKL, which uses half the width of other makers'
    processors, but convolutions to oneDNN, which uses it all. A convolution over one step is the
    same product. Small ones gain less than oneDNN takes to prepare for each new length.
    """
    if x.ndim != 3 or x.device.type != "cpu" or weight.numel() < WORTH_A_CONVOLUTION:
        return F.linear(x, weight, bias)
    # (batch, dim, 1, time) in memory as (batch, time, dim), so that nothing is copied
    image = x.transpose(1, 2).unsqueeze(2)
    kernel = weight[:, :, None, None].contiguous(memory_format=torch.channels_last)
    return F.conv2d(image, kernel, bias).squeeze(2).transpose(1, 2)


WORTH_A_CONVOLUTION = 2**12  # weights of a linear layer


class Linear(nn.Linear):
    """A linear layer by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out_features) for `x`, (..., in_features)."""
        return linear(x, self.weight, self.bias)


class _TiledAttention(torch.autograd.Function):
    r"""Attention with dropout on a CPU, a few clips at a time.

    PyTorch's fused attention has no dropout on a CPU, and its plain one writes every weight of
    every clip to memory several times. Here the weights of a tile stay in the cache, and are
    computed again for the gradient, as in FlashAttention; only what was kept is stored.

    With a the softmax of the scores, m what is kept with probability p, and o the result,

    .. math::
        o = (a \odot m) v / p, \qquad
        \partial s = a \odot (\partial o \, v^T \odot m / p - \partial o \cdot o)
    """

    TILE = 2**17  # weights for each thread: half a megabyte
    # Products of 16 columns take half the time of those of 5, a softmax of 16 keys a tenth of
    # that of 15: features and keys are filled up to whole multiples.
    LANES = 16

    @staticmethod
    def _filled(x: Tensor) -> Tensor:
        """Return (batch x heads, time, dim) with features of zeros up to whole `LANES`."""
        return F.pad(x, (0, -x.shape[-1] % _TiledAttention.LANES)).flatten(0, 1)

    @staticmethod
    def _softmax(q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
        """Return the weights of a tile, (clips x heads, query time, key time)."""
        scores = torch.bmm(q, k.transpose(1, 2))
        scores.unflatten(0, (len(bias), -1)).add_(bias)
        return scores.softmax(-1)

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, dropout: float
    ) -> Tensor:
        """Return (batch, heads, query time, dim) for tensors of such shapes."""
        batch, heads, time, dim = query.shape
        scale = dim**-0.5
        more_keys = -key.shape[2] % _TiledAttention.LANES
        bias = F.pad(mask.to(query.dtype), (0, more_keys)).log()  # 0, or -infinity where hidden
        key, value = (F.pad(x, (0, 0, 0, more_keys)) for x in (key, value))
        q, k, v = (_TiledAttention._filled(x) for x in (query * scale, key, value))
        weights_per_clip = heads * time * k.shape[1]
        tile = _TiledAttention.TILE * torch.get_num_threads()
        clips = max(tile // weights_per_clip, 1)
        tiles = [
            (slice(start, start + clips), slice(start * heads, (start + clips) * heads))
            for start in range(0, batch, clips)
        ]
        kept, probability = None, 1.0
        if dropout > 0:
            shape = torch.Size([batch * heads, time, k.shape[1]])
            kept, probability = draw_kept(shape, dropout, q.device)
        out = torch.empty_like(q)
        for some, rows in tiles:
            weights = _TiledAttention._softmax(q[rows, :, :dim], k[rows, :, :dim], bias[some])
            if kept is not None:
                weights *= kept[rows]
            torch.bmm(weights, v[rows], out=out[rows])
        out /= probability
        ctx.save_for_backward(q, k, v, bias, kept, out)
        ctx.tiles, ctx.scale, ctx.probability = tiles, scale, probability
        ctx.dim, ctx.keys = dim, k.shape[1] - more_keys
        return out[..., :dim].unflatten(0, (batch, heads))

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, bias, kept, out = ctx.saved_tensors
        dim, batch = ctx.dim, len(gradient)
        g = _TiledAttention._filled(gradient.to(q.dtype))
        along = (g * out).sum(-1, keepdim=True)
        g /= ctx.probability
        d_q, d_k, d_v = (torch.empty_like(x) for x in (q, k, v))
        for some, rows in ctx.tiles:
            weights = _TiledAttention._softmax(q[rows, :, :dim], k[rows, :, :dim], bias[some])
            d_scores = torch.bmm(g[rows, :, :dim], v[rows, :, :dim].transpose(1, 2))
            if kept is None:
                d_scores.sub_(along[rows]).mul_(weights)
            else:
                kept_here = kept[rows].to(q.dtype)  # once, not in each product
                d_scores.mul_(kept_here).sub_(along[rows]).mul_(weights)
                weights *= kept_here
            torch.bmm(weights.transpose(1, 2), g[rows], out=d_v[rows])
            torch.bmm(d_scores, k[rows], out=d_q[rows])
            torch.bmm(d_scores.transpose(1, 2), q[rows], out=d_k[rows])
        d_q *= ctx.scale
        d_q, d_k, d_v = (x[..., :dim].unflatten(0, (batch, -1)) for x in (d_q, d_k, d_v))
        return d_q, d_k[:, :, : ctx.keys], d_v[:, :, : ctx.keys], None, None


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

    def forward(self, query: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        """Return (batch, query time, dim).

        Args:
            query: (batch, query time, dim).
            source: gives keys and values, (batch, key time, dim); `query` itself for
                self-attention.
            mask: True where attention is allowed, as from `attention_mask`.
        """
        if source is query:
            q, k, v = self.project_in(query).chunk(3, dim=-1)
        else:
            weight, bias = self.project_in.weight, self.project_in.bias
            q = F.linear(query, weight[: self.dim], bias[: self.dim])
            k, v = F.linear(source, weight[self.dim :], bias[self.dim :]).chunk(2, dim=-1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        dropout = self.dropout if self.training else 0.0
        # (batch, heads, query time, dim / heads)
        if self.training and q.device.type == "cpu":
            context = _TiledAttention.apply(q, k, v, mask, dropout)
        else:
            context = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
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

    def forward(self, x: Tensor, source: Tensor | None, mask: Tensor) -> Tensor:
        """Return (batch, time, dim) for `x` of that shape; `source` None is self-attention."""
        query = self.attention_norm(x)
        keys = query if source is None else self.attention_norm(source)
        x = x + self.dropout(self.attention(query, keys, mask))
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
        causal: see `attention_mask`.
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
        """
        key_valid = query_valid if source_valid is None else source_valid
        mask = attention_mask(query_valid, key_valid, causal=self.causal)
        x = self._embed(query)
        keys = None if source is None else self._embed(source)
        for layer in self.layers:
            x = layer(x, keys, mask)
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


def split_weight_decay(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the trainable parameters that weight decay acts on, and those it leaves alone.

    Left alone are biases and the weights of norms (all that are not at least matrices), and
    everything inside a module whose attribute `no_weight_decay` is true.
    """
    spared = {
        id(parameter)
        for module in model.modules()
        if getattr(module, "no_weight_decay", False)
        for parameter in module.parameters()
    }
    decayed: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        matrix = parameter.ndim >= 2 and id(parameter) not in spared
        (decayed if matrix else undecayed).append(parameter)
    return decayed, undecayed
