"""Modality-invariant temporal representation: section 3.3, equations 9-12, 21 and 22."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mitfrnet.modalities import MODALITIES

Similarity = Literal["kl", "symmetric_kl", "gaussian_nll"]

# Eq. 22, as (p, q) of KL(p || q).
PAIRS: tuple[tuple[str, str], ...] = (
    ("text", "acoustic"),
    ("visual", "acoustic"),
    ("text", "visual"),
)

VARIANCE_FLOOR = 1e-4  # added to each variance: 1e-2 moves the loss by 9 %, 1e-8 lets it explode


def gaussian_kl(mean_p: Tensor, var_p: Tensor, mean_q: Tensor, var_q: Tensor) -> Tensor:
    r"""Return KL(p || q) of Gaussians with diagonal covariance; eq. 12, corrected.

    .. math::
        \frac12 \sum_j \left[ d_j - \ln(1 + d_j)
        + \frac{(\mu_{p,j} - \mu_{q,j})^2}{\sigma^2_{q,j}} \right], \quad
        d_j = \frac{\sigma^2_{p,j} - \sigma^2_{q,j}}{\sigma^2_{q,j}}

    Eq. 12 prints the quadratic term with the opposite sign and outside the factor 1/2, which
    has no lower bound. In the form above, near-equal variances do not cancel, so that rounding
    never makes the result negative, and no determinant can overflow.

    Args:
        mean_p: means of p, (..., t).
        var_p: variances of p, (..., t), above zero.
        mean_q: means of q, (..., t).
        var_q: variances of q, (..., t), above zero.

    Returns:
        (...), at least 0, in float32 or wider.
    """
    mean_p, var_p, mean_q, var_q = (_at_least_float32(x) for x in (mean_p, var_p, mean_q, var_q))
    d = (var_p - var_q) / var_q
    # Where var_p is far below var_q, 1 + d is mostly rounding error and may be 0.
    log_ratio = torch.where(d < -0.5, var_p.log() - var_q.log(), torch.log1p(d.clamp(min=-0.5)))
    return 0.5 * (d - log_ratio + (mean_p - mean_q).square() / var_q).sum(-1)


def gaussian_nll(z: Tensor, present: Tensor) -> Tensor:
    r"""Return how unlikely the modalities are given their mean; the loss of the released code.

    .. math::
        \frac{1}{|P|} \sum_{m \in P} \frac{1}{t d} \sum_{i,j} \frac12 \left[
        \ln \sigma_i^2 + \frac{(Z^m_{ij} - \bar Z_{ij})^2}{\sigma_i^2} \right]

    P are the modalities present, Z-bar is their mean and sigma_i^2 its variance over the features
    of timestamp i. Not in the paper, whose loss is a KL divergence. This loss can fall without
    better agreement: if all Z shrink by a factor s, it falls by ln(1/s), until `VARIANCE_FLOOR`
    stops it at ln(1e-4) / 2 = -4.6.

    Args:
        z: Z, (batch, modalities, timestamps, dim).
        present: whether an utterance has each modality, (batch, modalities) of bool.

    Returns:
        (batch,), zero where fewer than two modalities are present.
    """
    count = present.sum(1)  # (batch,)
    share = present / count.clamp(min=1)[:, None]  # (batch, modalities)
    mean = (z.masked_fill(~present[..., None, None], 0.0) * share[..., None, None]).sum(1)
    variance = mean.var(-1, correction=0) + VARIANCE_FLOOR  # (batch, timestamps)
    distance = F.gaussian_nll_loss(
        z,
        mean[:, None].expand_as(z),
        variance[:, None].expand(z.shape[:-1]),
        reduction="none",
    ).mean((2, 3))  # (batch, modalities)
    return (distance * share).sum(1).masked_fill(count < 2, 0.0)


def resample(x: Tensor, valid: Tensor, timestamps: int) -> Tensor:
    """Return `x` averaged over a common number of timestamps, (batch, timestamps, dim).

    Timestamp i of t is the mean of the steps [floor(i n / t), ceil((i + 1) n / t)), where n is
    the number of valid steps of the utterance: adaptive average pooling that never sees padding.

    Args:
        x: (batch, time, dim).
        valid: real steps, (batch, time) of bool; each row starts with at least one.
        timestamps: t.
    """
    n = valid.sum(1, keepdim=True)  # (batch, 1)
    i = torch.arange(timestamps, device=x.device)
    start = i * n // timestamps  # (batch, timestamps)
    stop = ((i + 1) * n + timestamps - 1) // timestamps
    step = torch.arange(x.shape[1], device=x.device)
    inside = (start[..., None] <= step) & (step < stop[..., None])  # (batch, timestamps, time)
    weight = inside.to(x.dtype) / (stop - start)[..., None]
    return weight @ x


class Invariance(nn.Module):
    r"""Pulls the modalities towards the same distribution at the same moment.

    H of each modality is resampled to t shared timestamps and projected linearly to a common
    space, Z. The mean and variance over features at each timestamp define a Gaussian with t
    independent components, eq. 9. The loss of an utterance is the mean of KL(l || a), KL(v || a)
    and KL(l || v), eq. 21-22.

    Not in the paper: how sequences of different lengths come to share timestamps (see
    `resample`), and the size of the common space. Pairs are left out unless both modalities have
    real steps. `symmetric_kl` averages both directions; `gaussian_nll` is what the released code
    minimises instead. Z is not normalised: a LayerNorm would make all means 0 and all variances 1.

    Everything is computed in float32 even under autocast. The projections have no weight decay,
    which would lower the loss by shrinking Z.

    Args:
        dim: features of a step of H.
        common_dim: features of a step of Z, at least 2 to have a variance.
        timestamps: t.
        similarity: `kl` (the paper), `symmetric_kl` or `gaussian_nll`.

    Raises:
        ValueError: `similarity` is none of these.
    """

    no_weight_decay = True

    def __init__(
        self, *, dim: int, common_dim: int, timestamps: int, similarity: Similarity = "kl"
    ) -> None:
        super().__init__()
        if similarity not in get_args(Similarity):
            raise ValueError(f"similarity is {similarity!r} (expected: {get_args(Similarity)})")
        self.timestamps = timestamps
        self.similarity = similarity
        self.projections = nn.ModuleDict({m: nn.Linear(dim, common_dim) for m in MODALITIES})

    def forward(
        self, encoded: dict[str, Tensor], valid: dict[str, Tensor], present: dict[str, Tensor]
    ) -> Tensor:
        """Return the loss of each utterance, (batch,); zero for one with no pair.

        Args:
            encoded: H by modality, (batch, time, dim).
            valid: real steps by modality, (batch, time) of bool.
            present: whether an utterance has each modality, (batch,) of bool each.
        """
        with torch.autocast(encoded[MODALITIES[0]].device.type, enabled=False):
            shared = {m: self._shared(m, encoded[m], valid[m]) for m in MODALITIES}
            if self.similarity == "gaussian_nll":
                return gaussian_nll(
                    torch.stack([shared[m] for m in MODALITIES], dim=1),
                    torch.stack([present[m] for m in MODALITIES], dim=1),
                )
            gaussians = {m: _moments(shared[m]) for m in MODALITIES}
            divergence = torch.stack(
                [self._divergence(gaussians[p], gaussians[q]) for p, q in PAIRS], dim=1
            )  # (batch, pairs)
            pairs = comparable(present)
            return divergence.masked_fill(~pairs, 0.0).sum(1) / pairs.sum(1).clamp(min=1)

    def _shared(self, m: str, encoded: Tensor, valid: Tensor) -> Tensor:
        """Return Z of one modality, (batch, timestamps, common_dim)."""
        return self.projections[m](resample(_at_least_float32(encoded), valid, self.timestamps))

    def _divergence(self, p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> Tensor:
        if self.similarity == "symmetric_kl":
            return 0.5 * (gaussian_kl(*p, *q) + gaussian_kl(*q, *p))
        return gaussian_kl(*p, *q)


def comparable(present: dict[str, Tensor]) -> Tensor:
    """Return for each pair whether an utterance has both modalities, (batch, pairs) of bool."""
    return torch.stack([present[p] & present[q] for p, q in PAIRS], dim=1)


def _moments(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and variance over features, both (..., timestamps); eq. 9."""
    return z.mean(-1), z.var(-1, correction=0) + VARIANCE_FLOOR


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
