import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from mitfrnet.modalities import MODALITIES
from mitfrnet.models.mitfrnet.invariance import (
    VARIANCE_FLOOR,
    Invariance,
    comparable,
    gaussian_kl,
    gaussian_nll,
    resample,
)


def gaussians(t: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return means and variances of p and q, (50, t), with variances from 1e-4 to 1e2."""
    torch.manual_seed(0)
    mean_p, mean_q = torch.randn(2, 50, t, dtype=torch.float64)
    var_p, var_q = 10 ** torch.empty(2, 50, t, dtype=torch.float64).uniform_(-4, 2)
    return tuple(x.to(dtype) for x in (mean_p, var_p, mean_q, var_q))


def test_kl_by_hand():
    """With p = N(1, 2), q = N(0, 1): 1/2 [2 - 1 - ln 2 + 1] = 1 - ln(2) / 2.

    q || p: 1/2 [1/2 - 1 + ln 2 + 1/2] = ln(2) / 2. Two such timestamps give twice as much.
    """
    one, two, zero = (torch.full((2,), x, dtype=torch.float64) for x in (1.0, 2.0, 0.0))
    assert gaussian_kl(one, two, zero, one).item() == pytest.approx(2 - math.log(2))
    assert gaussian_kl(zero, one, one, two).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_kl_equals_torch_distributions(dtype, rtol):
    args = gaussians(64, dtype)
    mean_p, var_p, mean_q, var_q = (x.double() for x in args)
    p = Independent(Normal(mean_p, var_p.sqrt()), 1)
    q = Independent(Normal(mean_q, var_q.sqrt()), 1)
    kl = gaussian_kl(*args)
    assert kl.dtype == dtype
    torch.testing.assert_close(kl.double(), kl_divergence(p, q), rtol=rtol, atol=0)


def test_kl_is_never_negative_and_zero_for_equals():
    mean, var, _, _ = gaussians(1, torch.float32)
    assert (gaussian_kl(mean, var, mean, var) == 0).all()
    near = var * (1 + 1e-6 * torch.randn_like(var))
    assert (gaussian_kl(mean, near, mean, var) >= 0).all()


def test_kl_is_finite_for_long_sequences_and_vanishing_variances():
    args = [x.requires_grad_() for x in gaussians(500, torch.float32)]
    kl = gaussian_kl(*args)
    kl.sum().backward()
    assert kl.isfinite().all()
    assert all(x.grad.isfinite().all() for x in args)
    tiny, one = torch.full((1,), 1e-20), torch.ones(1)
    expected = 0.5 * (math.log(1e20) - 1)
    assert gaussian_kl(one, tiny, one, one).item() == pytest.approx(expected, rel=1e-6)


def test_kl_is_computed_in_float32():
    args = gaussians(500, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        kl = gaussian_kl(*args)
    assert kl.dtype == torch.float32
    assert kl.isfinite().all()
    assert torch.equal(kl, gaussian_kl(*(x.float() for x in args)))


def test_resample_by_hand():
    """Steps 1, 2, 6 on two timestamps: floor(0), ceil(1.5) -> 1, 2; floor(1.5), 3 -> 2, 6."""
    x = torch.tensor([[[1.0], [2.0], [6.0], [99.0]]])
    valid = torch.tensor([[True, True, True, False]])
    assert resample(x, valid, 2).flatten().tolist() == [1.5, 4.0]


@pytest.mark.parametrize("timestamps", [1, 7, 64])
def test_resample_equals_a_loop(timestamps):
    torch.manual_seed(0)
    lengths = [1, 2, 6, 7, 8, 63, 64, 65, 200]
    x = torch.randn(len(lengths), 200, 3, dtype=torch.float64)
    valid = torch.arange(200) < torch.tensor(lengths)[:, None]
    expected = torch.empty(len(lengths), timestamps, 3, dtype=torch.float64)
    for b, n in enumerate(lengths):
        for i in range(timestamps):
            start, stop = math.floor(i * n / timestamps), math.ceil((i + 1) * n / timestamps)
            expected[b, i] = x[b, start:stop].mean(0)
    torch.testing.assert_close(resample(x, valid, timestamps), expected)


def invariance(similarity: str = "kl") -> Invariance:
    """Return one whose projections are the identity, for H of two features."""
    model = Invariance(dim=2, common_dim=2, timestamps=2, similarity=similarity)
    for projection in model.projections.values():
        projection.weight.data = torch.eye(2)
        projection.bias.data.zero_()
    return model


def constant(**steps: tuple[float, float]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    encoded = {m: torch.tensor(steps[m]).expand(1, 3, 2).clone() for m in MODALITIES}
    return encoded, {m: torch.ones(1, 3, dtype=torch.bool) for m in MODALITIES}


def present(**flags: bool) -> dict[str, Tensor]:
    return {m: torch.tensor([flags.get(m, True)]) for m in MODALITIES}


def test_loss_by_hand():
    """Every timestamp: text (0, 2) is N(1, 1), acoustic (1, 3) N(2, 1), visual (-3, 3) N(0, 9).

    Over two timestamps, leaving the floor of 1e-4 aside: l || a: 1. v || a:
    2 x 1/2 [9 - 1 - ln 9 + 4] = 12 - ln 9. l || v: 2 x 1/2 [1/9 - 1 + ln 9 + 1/9] =
    ln 9 - 7/9. The mean is (1 + 12 - 7/9) / 3; without visual it is l || a alone.
    """
    data = constant(text=(0.0, 2.0), acoustic=(1.0, 3.0), visual=(-3.0, 3.0))
    assert invariance()(*data, present()).item() == pytest.approx((13 - 7 / 9) / 3, rel=1e-3)
    assert invariance()(*data, present(visual=False)).item() == pytest.approx(1, rel=1e-3)


def test_symmetric_loss_by_hand():
    """Of the same Gaussians, l || a = a || l = 1, so their average is 1.

    v || a = 12 - ln 9 and a || v = 1/9 - 1 + ln 9 + 4/9 = ln 9 - 4/9: half the sum is 52/9.
    """
    data = constant(text=(0.0, 2.0), acoustic=(1.0, 3.0), visual=(-3.0, 3.0))
    model = invariance("symmetric_kl")
    assert model(*data, present(visual=False)).item() == pytest.approx(1, rel=1e-3)
    assert model(*data, present(text=False)).item() == pytest.approx(52 / 9, rel=1e-3)


def test_loss_is_kl_towards_the_paper_s_second_modality():
    """Eq. 22 has (l, a), (v, a), (l, v): with N(0, 1) of text and N(0, 9) of the others.

    l || a = l || v = 1/2 [1/9 - 1 + ln 9] x 2 and v || a = 0; reversed it would be 8 - ln 9.
    """
    data = constant(text=(-1.0, 1.0), acoustic=(-3.0, 3.0), visual=(-3.0, 3.0))
    expected = 2 / 3 * (math.log(9) - 8 / 9)
    assert invariance()(*data, present()).item() == pytest.approx(expected, rel=1e-3)


def test_nll_by_hand():
    """Text (0, 2), acoustic (1, 3), visual (-1, 1): their mean is (0, 2), with variance 1.

    Squared distances 0, 1, 1 over 2 x variance: (0 + 1/2 + 1/2) / 3. Without acoustic the mean
    is (-1/2, 3/2) and both are 1/2 away: 1/8. Alone, text is compared with nothing.
    """
    data = constant(text=(0.0, 2.0), acoustic=(1.0, 3.0), visual=(-1.0, 1.0))
    model = invariance("gaussian_nll")
    assert model(*data, present()).item() == pytest.approx(1 / 3, rel=1e-3)
    assert model(*data, present(acoustic=False)).item() == pytest.approx(1 / 8, rel=1e-3)
    assert model(*data, present(acoustic=False, visual=False)).item() == 0


def test_nll_equals_torch_distributions():
    """Of complete utterances: minus the log density, without its constant ln(2 pi) / 2."""
    torch.manual_seed(0)
    z = torch.randn(4, 3, 5, 6, dtype=torch.float64)
    mean = z.mean(1, keepdim=True)
    variance = mean.var(-1, correction=0, keepdim=True) + VARIANCE_FLOOR
    density = Normal(mean, variance.sqrt()).log_prob(z) + math.log(2 * math.pi) / 2
    loss = gaussian_nll(z, torch.ones(4, 3, dtype=torch.bool))
    torch.testing.assert_close(loss, -density.mean((1, 2, 3)))


def test_nll_falls_when_features_shrink_and_kl_does_not():
    """Identical modalities of variance 1: 0, and ln(0.1) = -2.3 at a tenth of their size.

    The floor of the variance ends the fall at ln(1e-4) / 2 = -4.6. The KL stays 0.
    """
    nll, kl = invariance("gaussian_nll"), invariance("kl")
    for scale, expected in ((1.0, 0.0), (0.1, math.log(0.1)), (1e-6, math.log(1e-4) / 2)):
        data = constant(**dict.fromkeys(MODALITIES, (-scale, scale)))
        assert nll(*data, present()).item() == pytest.approx(expected, abs=0.01)
        assert kl(*data, present()).item() == 0


@pytest.mark.parametrize("similarity", ["kl", "symmetric_kl", "gaussian_nll"])
def test_loss_is_computed_in_float32_under_autocast(similarity):
    """To the bit as without autocast, from resampling and projection on."""
    torch.manual_seed(0)
    model = Invariance(dim=6, common_dim=4, timestamps=5, similarity=similarity)
    encoded = {m: torch.randn(2, 7, 6) for m in MODALITIES}
    valid = {m: torch.ones(2, 7, dtype=torch.bool) for m in MODALITIES}
    flags = {m: torch.tensor([True, True]) for m in MODALITIES}
    expected = model(encoded, valid, flags)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(encoded, valid, flags), expected)


@pytest.mark.parametrize("similarity", ["kl", "symmetric_kl", "gaussian_nll"])
def test_no_pair_is_zero_but_in_the_graph(similarity):
    model = invariance(similarity)
    data = constant(text=(0.0, 2.0), acoustic=(1.0, 3.0), visual=(-3.0, 3.0))
    flags = present(text=False, visual=False)
    loss = model(*data, flags).sum()
    loss.backward()
    assert loss == 0
    assert not comparable(flags).any()
    assert all((p.grad == 0).all() for p in model.parameters())


def test_unknown_similarity_is_refused():
    with pytest.raises(ValueError, match="symmetric_kl"):
        Invariance(dim=2, common_dim=2, timestamps=2, similarity="cmd")  # type: ignore[arg-type]
