import math

import pytest
import torch
from torch import Tensor, nn

from mitfrnet.models import compiled, layers
from mitfrnet.models.layers import (
    Dropout,
    Linear,
    MaskedConv1d,
    split_weight_decay,
    zero_padding,
)


def test_zero_padding_clears_nan():
    x = torch.tensor([[[1.0], [math.nan]]])
    assert zero_padding(x, torch.tensor([[True, False]])).tolist() == [[[1.0], [0.0]]]


def test_masked_conv_by_hand():
    """Weights 1, 2, 3 over 1, 10, padding 99: 2 + 30 = 32, 1 + 20 = 21, 0."""
    conv = MaskedConv1d(in_dim=1, out_dim=1, kernel=3, bias=False)
    conv.conv.weight.data = torch.tensor([[[1.0, 2.0, 3.0]]])
    x = torch.tensor([[[1.0], [10.0], [99.0]]])
    out = conv(x, torch.tensor([[True, True, False]]))
    assert out.flatten().tolist() == [32.0, 21.0, 0.0]


def test_unpadded_conv_by_hand():
    """Weights 1, 2, 3 over 1, 10, 100, padding 99: 1 + 20 + 300 = 321, then 1 step of padding.

    A clip of two steps is filled up with a zero to one window: 1 + 20 = 21.
    """
    conv = MaskedConv1d(in_dim=1, out_dim=1, kernel=3, bias=False, padded=False)
    conv.conv.weight.data = torch.tensor([[[1.0, 2.0, 3.0]]])
    x = torch.tensor([[[1.0], [10.0], [100.0], [99.0]]])
    for real, expected in ((3, 321.0), (2, 21.0)):
        valid = torch.arange(4)[None] < real
        assert conv(x, valid).flatten().tolist() == [expected, 0.0]
        assert conv.valid_after(valid).tolist() == [[True, False]]
        assert conv(x[:, :real], valid[:, :real]).flatten().tolist() == [expected]
    padded = MaskedConv1d(in_dim=1, out_dim=1, kernel=3, bias=False)
    assert padded.valid_after(valid).tolist() == valid.tolist()


def test_even_kernel_is_refused():
    with pytest.raises(ValueError, match="must be odd"):
        MaskedConv1d(in_dim=1, out_dim=1, kernel=2, bias=False)


def test_weight_decay_spares_biases_norms_marked_and_frozen_parameters():
    class Marked(nn.Linear):
        no_weight_decay = True

    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), Marked(2, 2), nn.Linear(2, 2))
    model[3].requires_grad_(False)
    decayed, spared = split_weight_decay(model)
    assert [id(p) for p in decayed] == [id(model[0].weight)]
    assert len(spared) == 5


def test_dropout_keeps_each_element_with_its_probability():
    """Of 400,000, 0.7 to within five deviations, 5 sqrt(0.21 / 4e5); of pairs, 0.49."""
    torch.manual_seed(0)
    kept = Dropout(0.3)(torch.ones(400_000)) != 0
    assert abs(kept.float().mean() - 0.7) < 5 * math.sqrt(0.21 / 4e5)
    for distance in (1, 2, 16, 64, compiled.BLOCK, compiled.BLOCK + 1):
        both = kept & kept.roll(distance)
        assert abs(both.float().mean() - 0.49) < 5 * math.sqrt(0.25 / 4e5)


def test_dropout_scales_what_it_keeps_and_follows_the_seed():
    """With one half, 1 becomes 0 or 2, and so does its gradient."""
    dropout, x = Dropout(0.5), torch.ones(3, 5, 7, requires_grad=True)
    torch.manual_seed(3)
    out = dropout(x)
    out.sum().backward()
    assert set(out.flatten().tolist()) == {0.0, 2.0}
    assert torch.equal(x.grad, out)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), out)
    assert not torch.equal(dropout(x), out)
    assert torch.equal(dropout.eval()(x), x)


def test_dropout_does_not_hide_what_is_not_a_number():
    x = torch.tensor([math.nan, math.inf, -math.inf]).repeat(100)
    assert not Dropout(0.5)(x).isfinite().any()


@pytest.mark.parametrize("shape", [(3, 7, 80), (1, 1, 80), (2, 1, 80), (1, 5, 80)])
def test_linear_is_that_of_torch(monkeypatch, shape):
    torch.manual_seed(0)
    layer, x = Linear(80, 70), torch.randn(shape, requires_grad=True)
    weight = torch.randn(*shape[:2], 70)

    def results() -> list[Tensor]:
        out = layer(x)
        return [out, *torch.autograd.grad((weight * out).sum(), [x, *layer.parameters()])]

    convolved = results()
    assert "Convolution" in repr(layer(x).grad_fn.next_functions[0][0].next_functions)
    monkeypatch.setattr(layers, "WORTH_A_CONVOLUTION", math.inf)
    for ours, plain in zip(convolved, results(), strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
