import math

import pytest
import torch
from torch import nn

from mitfrnet.models.layers import Dropout, MaskedConv1d, split_weight_decay, zero_padding


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

    A clip of two steps is padded with a zero to one window: 1 + 20 = 21.
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
    decayed, exempt = split_weight_decay(model)
    assert [id(p) for p in decayed] == [id(model[0].weight)]
    assert len(exempt) == 5


def test_dropout_is_active_in_training_only():
    dropout, x = Dropout(0.5), torch.ones(100)
    assert set(dropout(x).tolist()) == {0.0, 2.0}
    assert torch.equal(dropout.eval()(x), x)
