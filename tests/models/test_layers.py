import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mitfrnet.models import layers
from mitfrnet.models.layers import (
    Dropout,
    Linear,
    MaskedConv1d,
    MultiheadAttention,
    TransformerEncoder,
    _TiledAttention,
    attention_mask,
    draw_kept,
    sinusoidal_positions,
    split_weight_decay,
    zero_padding,
)


def encoder(*, causal: bool = False, positions: bool = True) -> TransformerEncoder:
    torch.manual_seed(0)
    return TransformerEncoder(
        dim=4,
        heads=2,
        layers=2,
        feedforward_dim=8,
        attention_dropout=0.0,
        relu_dropout=0.0,
        residual_dropout=0.0,
        embed_dropout=0.0,
        causal=causal,
        positions=positions,
    ).eval()


def test_zero_padding_clears_nan():
    x = torch.tensor([[[1.0], [math.nan]]])
    assert zero_padding(x, torch.tensor([[True, False]])).tolist() == [[[1.0], [0.0]]]


def test_sinusoidal_positions():
    """With dim 5, h = 2: frequencies 1 and 1/10000; step p has sin p, sin p/1e4, cos, cos, 0."""
    code = sinusoidal_positions(2, 5, like=torch.zeros(1, dtype=torch.float64))
    expected = [[math.sin(p), math.sin(p / 1e4), math.cos(p), math.cos(p / 1e4), 0] for p in (1, 2)]
    torch.testing.assert_close(code, torch.tensor(expected, dtype=torch.float64))


def test_attention_mask_hides_padding():
    key_valid = torch.tensor([[True, True, False]])
    mask = attention_mask(torch.ones(1, 2, dtype=torch.bool), key_valid, causal=False)
    assert mask.tolist() == [[[[True, True, False]]]]


def test_causal_offset_comes_from_own_lengths():
    """Padded to 3 queries and 4 keys: n_q 1, n_k 2 reaches i + 1; n_q 3, n_k 3 reaches i.

    An offset from the padded lengths would be 1 for both.
    """
    query_valid = torch.tensor([[True, False, False], [True, True, True]])
    key_valid = torch.tensor([[True, True, False, False], [True, True, True, False]])
    mask = attention_mask(query_valid, key_valid, causal=True)
    first, second = mask[:, 0].int().tolist()
    assert first == [[1, 1, 0, 0]] * 3
    assert second == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]


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


def test_heads_must_divide():
    with pytest.raises(ValueError, match="4 heads do not divide 6"):
        MultiheadAttention(dim=6, heads=4, dropout=0.0)


@pytest.mark.parametrize("cross", [False, True])
def test_attention_equals_torch(cross):
    """The same weights in torch's own attention give the same numbers."""
    torch.manual_seed(0)
    ours = MultiheadAttention(dim=6, heads=3, dropout=0.0)
    theirs = nn.MultiheadAttention(6, 3, batch_first=True)
    theirs.in_proj_weight.data = ours.project_in.weight.data
    theirs.in_proj_bias.data = ours.project_in.bias.data.normal_()
    theirs.out_proj.load_state_dict(ours.project_out.state_dict())
    query = torch.randn(2, 4, 6)
    source = torch.randn(2, 5, 6) if cross else query
    valid = torch.ones(2, source.shape[1], dtype=torch.bool)
    valid[0, 3:] = False
    expected, _ = theirs(query, source, source, key_padding_mask=~valid)
    mask = attention_mask(torch.ones(2, 4, dtype=torch.bool), valid, causal=False)
    torch.testing.assert_close(ours(query, source, mask), expected)


def test_encoder_sees_order():
    """Positions stand at every step, zeros included: equal steps come out different."""
    out = encoder()(torch.zeros(1, 3, 4), torch.ones(1, 3, dtype=torch.bool))
    assert (out[0, 0] - out[0, 1]).abs().max() > 1e-3


def test_encoder_without_positions_sees_no_order():
    """Steps in another order give the same results in that order; with positions, others."""
    torch.manual_seed(1)
    x, order = torch.randn(1, 3, 4), torch.tensor([2, 0, 1])
    valid = torch.ones(1, 3, dtype=torch.bool)
    for positions in (False, True):
        model = encoder(positions=positions)
        moved, fixed = model(x[:, order], valid), model(x, valid)[:, order]
        assert torch.allclose(moved, fixed, atol=1e-6) is not positions


def test_encoder_is_zero_on_padding():
    valid = torch.tensor([[True, True, False]])
    out = encoder()(torch.randn(1, 3, 4), valid)
    assert (out[0, 2] == 0).all()
    assert (out[0, :2] != 0).all()


def test_causal_encoder_hides_the_future():
    valid = torch.ones(1, 4, dtype=torch.bool)
    x = torch.randn(1, 4, 4)
    later = x.clone()
    later[0, 3] = torch.randn(4)
    change = (encoder(causal=True)(later, valid) - encoder(causal=True)(x, valid)).abs().sum(-1)
    assert change[0, :3].max() == 0
    assert change[0, 3] > 0
    change = (encoder()(later, valid) - encoder()(x, valid)).abs().sum(-1)
    assert (change > 0).all()


def test_causal_encoder_is_independent_of_padding():
    torch.manual_seed(1)
    model, query, source = encoder(causal=True), torch.randn(1, 3, 4), torch.randn(1, 5, 4)
    own = torch.ones(1, 3, dtype=torch.bool), torch.ones(1, 5, dtype=torch.bool)
    wide = (
        torch.tensor([[True] * 3 + [False] * 4]),
        torch.tensor([[True] * 5 + [False] * 1]),
    )
    padded = [nn.functional.pad(x, (0, 0, 0, n)) for x, n in ((query, 4), (source, 1))]
    expected = model(query, own[0], source, own[1])
    torch.testing.assert_close(model(padded[0], wide[0], padded[1], wide[1])[:, :3], expected)


def test_weight_decay_spares_biases_norms_marked_and_frozen_parameters():
    class Marked(nn.Linear):
        no_weight_decay = True

    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), Marked(2, 2), nn.Linear(2, 2))
    model[3].requires_grad_(False)
    decayed, spared = split_weight_decay(model)
    assert [id(p) for p in decayed] == [id(model[0].weight)]
    assert len(spared) == 5


def test_dropout_keeps_each_element_with_its_probability():
    """Of 400,000 in four lanes of 16 bits, 0.7 to within five deviations, 5 sqrt(0.21 / 1e5)."""
    torch.manual_seed(0)
    kept, probability = draw_kept(torch.Size([100_000, 4]), 0.3, torch.device("cpu"))
    assert abs(probability - 0.7) < 2**-16
    assert (kept.float().mean(0) - 0.7).abs().max() < 5 * math.sqrt(0.21 / 1e5)
    together = kept[:, :1] & kept[:, 1:]  # lanes of one random number are independent
    assert (together.float().mean(0) - 0.49).abs().max() < 5 * math.sqrt(0.25 / 1e5)


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


def heads_of(batch: int, time: int) -> Tensor:
    return torch.randn(batch, 2, time, 5, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_tiled_attention_is_attention(monkeypatch, causal, dropout):
    """The same numbers and gradients as the formula written out, in tiles of two clips of five.

    Its 4 keys are filled up to 16.
    """
    monkeypatch.setattr(_TiledAttention, "TILE", 2 * 2 * 6 * 16 // torch.get_num_threads())
    torch.manual_seed(0)
    inputs = [heads_of(5, 6), heads_of(5, 4), heads_of(5, 4)]
    query_valid = torch.arange(6) < torch.tensor([6, 2, 3, 1, 5])[:, None]
    key_valid = torch.arange(4) < torch.tensor([1, 4, 3, 2, 4])[:, None]
    mask = attention_mask(query_valid, key_valid, causal=causal)
    kept, probability = None, 1.0

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (q @ k.transpose(2, 3) / math.sqrt(5)).masked_fill(~mask, -torch.inf)
        return scores.softmax(-1) * kept[:, :, :4].unflatten(0, (5, 2)) / probability @ v

    torch.manual_seed(1)
    kept, probability = draw_kept(torch.Size([10, 6, 16]), dropout, torch.device("cpu"))
    torch.manual_seed(1)
    out, expected = _TiledAttention.apply(*inputs, mask, dropout), plain(*inputs)
    torch.testing.assert_close(out, expected)
    weight = torch.randn_like(out)
    gradients = torch.autograd.grad((weight * out).sum(), inputs)
    for gradient, other in zip(
        gradients, torch.autograd.grad((weight * expected).sum(), inputs), strict=True
    ):
        torch.testing.assert_close(gradient, other)
    if not dropout:
        fused = F.scaled_dot_product_attention(*inputs, attn_mask=mask)
        torch.testing.assert_close(out, fused)


def test_attention_drops_weights_in_training_only():
    torch.manual_seed(0)
    attention = MultiheadAttention(dim=6, heads=3, dropout=0.5)
    x, mask = torch.randn(2, 4, 6), torch.ones(2, 1, 1, 4, dtype=torch.bool)
    assert not torch.equal(attention(x, x, mask), attention(x, x, mask))
    attention.eval()
    assert torch.equal(attention(x, x, mask), attention(x, x, mask))
