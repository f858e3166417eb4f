"""Building blocks that several models share; padding and other utterances change no result."""

from typing import Annotated, Any, Generic, TypeVar, cast

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mitfrnet.models import cpu
from mitfrnet.params import StageParams


def _odd(kernel: int) -> int:
    if kernel % 2 == 0:
        raise ValueError(f"{kernel} is even, but must be odd")
    return kernel


T = TypeVar("T")
Count = Annotated[int, Field(ge=1)]
Kernel = Annotated[Count, AfterValidator(_odd)]  # steps that a convolution spans
Probability = Annotated[float, Field(ge=0, lt=1)]  # of dropping an element
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # of a loss


class PerModality(StageParams, Generic[T]):
    """One setting for each modality; `dict(setting)` is keyed by modality."""

    text: T
    acoustic: T
    visual: T


class HeadsParams(StageParams):
    """Settings of a model with attention."""

    dim: Count  # features of a step
    heads: Count  # attention heads; divides dim

    @model_validator(mode="after")
    def _heads_divide(self) -> "HeadsParams":
        if self.dim % self.heads:
            raise ValueError(f"heads: {self.heads} does not divide dim = {self.dim}")
        return self


def zero_padding(x: Tensor, valid: Tensor) -> Tensor:
    """Return `x`, (batch, time, dim), with zeros wherever `valid`, (batch, time), is False.

    Unlike a product with the mask, this also clears NaN and infinity.
    """
    return x.masked_fill(~valid[..., None], 0.0)


class MaskedConv1d(nn.Module):
    """Convolution over time that keeps the length and gives zero on padding.

    Padding is cleared before the convolution, as it lies within the reach of the last real steps,
    and again after it, for the layers that follow.

    Args:
        in_dim: features of an input step.
        out_dim: features of an output step.
        kernel: steps that a filter spans, odd.
        bias: whether filters have a bias.
        padded: False to keep filters inside their clip, so that the result is kernel - 1 steps
            shorter; a clip shorter than the filter leaves one step. See `valid_after`.

    Raises:
        ValueError: `kernel` is even.
    """

    def __init__(
        self, *, in_dim: int, out_dim: int, kernel: int, bias: bool, padded: bool = True
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel is {kernel}, but must be odd to keep the length")
        self.conv = nn.Conv1d(
            in_dim, out_dim, kernel, padding=kernel // 2 if padded else 0, bias=bias
        )
        self.lost_steps = 0 if padded else kernel - 1

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return (batch, time, out_dim) for `x`, (batch, time, in_dim)."""
        x = zero_padding(x, valid).transpose(1, 2)  # (batch, in_dim, time)
        x = F.pad(x, (0, max(self.lost_steps + 1 - x.shape[2], 0)))
        return zero_padding(self.conv(x).transpose(1, 2), self.valid_after(valid))

    def valid_after(self, valid: Tensor) -> Tensor:
        """Return the real steps of the result, (batch, time) of bool.

        Args:
            valid: the real steps of the input, (batch, time) of bool.
        """
        if not self.lost_steps:
            return valid
        time = max(valid.shape[1] - self.lost_steps, 1)
        lengths = (valid.sum(1, keepdim=True) - self.lost_steps).clamp(min=1)
        return torch.arange(time, device=valid.device) < lengths


class Dropout(nn.Dropout):
    """Dropout by `cpu.dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`; in training, with some elements dropped and the others scaled up."""
        return cpu.dropout(x, self.p) if self.training else x


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation over the rows of all processes that train together.

    In training, a batch of one is normalised with the running statistics.
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
        """Return this process's rows, at least one, normalised over all processes.

        PyTorch's own SyncBatchNorm needs a GPU.
        """
        total = _SumOverProcesses.apply(torch.cat([x.sum(0), x.new_full((1,), len(x))]))
        mean, count = total[:-1] / total[-1], total[-1]
        variance = _SumOverProcesses.apply((x - mean).square().sum(0)) / count
        unbiased = variance * count / (count - 1)
        with torch.no_grad():
            for running, current in ((self.running_mean, mean), (self.running_var, unbiased)):
                cast(Tensor, running).lerp_(current, cast(float, self.momentum))
        return (x - mean) * (variance + self.eps).rsqrt() * self.weight + self.bias


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over processes; its gradient is summed over them too."""

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


class Linear(nn.Linear):
    """A linear layer by `cpu.linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out_features) for `x`, (..., in_features)."""
        return cpu.linear(x, self.weight, self.bias)


def split_weight_decay(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the trainable parameters with weight decay, and those without.

    Biases, the weights of norms (everything with fewer than two axes) and everything inside a
    module whose attribute `no_weight_decay` is true are not decayed.
    """
    exempt = {
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
        matrix = parameter.ndim >= 2 and id(parameter) not in exempt
        (decayed if matrix else undecayed).append(parameter)
    return decayed, undecayed
