import math

import pytest
import torch
from torch import nn

from mitfrnet.models.attention import (
    MultiheadAttention,
    TransformerEncoder,
    reach_of,
    sinusoidal_positions,
)
from mitfrnet.models.cpu import WIDEST_HEAD


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


def test_sinusoidal_positions():
    """With dim 5, h = 2: frequencies 1 and 1/10000; step p has sin p, sin p/1e4, cos, cos, 0."""
    code = sinusoidal_positions(2, 5, like=torch.zeros(1, dtype=torch.float64))
    expected = [[math.sin(p), math.sin(p / 1e4), math.cos(p), math.cos(p / 1e4), 0] for p in (1, 2)]
    torch.testing.assert_close(code, torch.tensor(expected, dtype=torch.float64))


def test_padded_keys_are_out_of_reach():
    key_valid = torch.tensor([[True, True, False]])
    assert reach_of(torch.ones(1, 2, dtype=torch.bool), key_valid, causal=False).tolist() == [[2]]


def test_causal_offset_comes_from_own_lengths():
    """Padded to 3 queries and 4 keys: n_q 1, n_k 2 reaches i + 1; n_q 3, n_k 3 reaches i.

    An offset from the padded lengths would be 1 for both.
    """
    query_valid = torch.tensor([[True, False, False], [True, True, True]])
    key_valid = torch.tensor([[True, True, False, False], [True, True, True, False]])
    reach = reach_of(query_valid, key_valid, causal=True)
    assert reach.tolist() == [[2, 2, 2], [1, 2, 3]]


def test_heads_must_divide():
    with pytest.raises(ValueError, match="4 heads do not divide 6"):
        MultiheadAttention(dim=6, heads=4, dropout=0.0)


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("dim", [6, 3 * WIDEST_HEAD, 3 * (WIDEST_HEAD + 1)])
def test_attention_equals_torch(cross, dim):
    """The same weights in torch's own attention give the same numbers."""
    torch.manual_seed(0)
    ours = MultiheadAttention(dim=dim, heads=3, dropout=0.0)
    theirs = nn.MultiheadAttention(dim, 3, batch_first=True)
    theirs.in_proj_weight.data = ours.project_in.weight.data
    theirs.in_proj_bias.data = ours.project_in.bias.data.normal_()
    theirs.out_proj.load_state_dict(ours.project_out.state_dict())
    query = torch.randn(2, 4, dim)
    source = torch.randn(2, 5, dim) if cross else query
    valid = torch.ones(2, source.shape[1], dtype=torch.bool)
    valid[0, 3:] = False
    expected, _ = theirs(query, source, source, key_padding_mask=~valid)
    reach = reach_of(torch.ones(2, 4, dtype=torch.bool), valid, causal=False)
    for training in (True, False):  # with compiled loops, and with PyTorch's own attention
        torch.testing.assert_close(ours.train(training)(query, source, reach), expected)


def test_encoder_sees_order():
    """Every step has a position, zeros included, so that equal steps give different results."""
    out = encoder()(torch.zeros(1, 3, 4), torch.ones(1, 3, dtype=torch.bool))
    assert (out[0, 0] - out[0, 1]).abs().max() > 1e-3


def test_encoder_without_positions_sees_no_order():
    """Without positions, reordered steps give the same results, reordered; with them, others."""
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_attention_takes_other_types(dtype):
    torch.manual_seed(0)
    attention = MultiheadAttention(dim=6, heads=3, dropout=0.0)
    x, reach = torch.randn(2, 4, 6), torch.full((2, 1), 4)
    expected = attention(x, x, reach)
    out = attention.to(dtype)(x.to(dtype), x.to(dtype), reach)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), expected, atol=0.05, rtol=0.05)


def test_real_steps_of_another_sequence_are_refused():
    valid = torch.ones(1, 5, dtype=torch.bool)
    for query_valid, key_valid, name in (
        (valid[:, :3], valid, r"source_valid is \(1, 5\), source \(1, 4, 4\)"),
        (valid, valid[:, :4], "query_valid is"),
    ):
        with pytest.raises(ValueError, match=name):
            encoder()(torch.randn(1, 3, 4), query_valid, torch.randn(1, 4, 4), key_valid)


def test_attention_drops_weights_in_training_only():
    torch.manual_seed(0)
    attention = MultiheadAttention(dim=6, heads=3, dropout=0.5)
    x, reach = torch.randn(2, 4, 6), torch.full((2, 1), 4)
    assert not torch.equal(attention(x, x, reach), attention(x, x, reach))
    attention.eval()
    assert torch.equal(attention(x, x, reach), attention(x, x, reach))
