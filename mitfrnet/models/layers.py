"""Building blocks that several models share; none lets padding or another utterance through."""

from typing import Annotated, Any, Generic, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mitfrnet.models import compiled
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


class _CompiledDropout(torch.autograd.Function):
    """Dropout of float32 on a CPU, which draws again for the gradient what it kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropout: float) -> Tensor:
        ctx.drawn = draw_seed(), compiled.threshold(dropout)
        return _dropped(x, *ctx.drawn)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _dropped(gradient, *ctx.drawn), None


def _dropped(x: Tensor, seed: np.uint64, threshold: np.uint32) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    arrays = compiled.arrays(x.view(-1), out.view(-1))
    compiled.dropout_kernel()(*arrays, seed, threshold)
    return out


def draw_seed() -> np.uint64:
    """Return a seed for the loops of `compiled`, from PyTorch's generator."""
    return np.uint64(torch.randint(2**63 - 1, (), device="cpu").item())


class Dropout(nn.Dropout):
    """Dropout by compiled loops on a CPU, in a tenth of the time that PyTorch takes there."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with elements lost, and the others scaled up, in training."""
        if self.training and self.p > 0 and x.device.type == "cpu" and x.dtype == torch.float32:
            return _CompiledDropout.apply(x, self.p)
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
