import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mitfrnet.models.attention import (
    WIDEST,
    MultiheadAttention,
    TransformerEncoder,
    _CompiledAttention,
    reach_of,
    sinusoidal_positions,
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
@pytest.mark.parametrize("dim", [6, 3 * WIDEST, 3 * (WIDEST + 1)])
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
    for training in (True, False):  # by compiled loops, and by PyTorch's own attention
        torch.testing.assert_close(ours.train(training)(query, source, reach), expected)


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


HEADS, DIM = 2, 5


def clips_of(batch: int, time: int) -> Tensor:
    return torch.randn(batch, time, HEADS * DIM, requires_grad=True)


def kept_weights(shape: tuple[int, int, int], reach: Tensor, dropout: float) -> Tensor:
    """Which weights dropout keeps, (batch, heads, query time, key time), asked key by key.

    With queries of zero all weights are alike, and with values of zero but for one key only its
    weight is seen.
    """
    batch, time, keys = shape
    kept = torch.empty(batch, HEADS, time, keys)
    query, key = torch.zeros(batch, time, HEADS * DIM), torch.zeros(batch, keys, HEADS * DIM)
    for j in range(keys):
        value = torch.zeros_like(key)
        value[:, j] = 1
        torch.manual_seed(1)
        out = _CompiledAttention.apply(query, key, value, reach, HEADS, dropout)
        kept[..., j] = (out.unflatten(-1, (HEADS, DIM))[..., 0] != 0).transpose(1, 2)
    return kept


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_compiled_attention_is_attention(causal, dropout):
    """The same numbers and gradients as the formula written out.

    6 queries are one and a half times what goes together, 19 keys more than a vector.
    """
    torch.manual_seed(0)
    q, k, v = inputs = [clips_of(5, 6), clips_of(5, 19), clips_of(5, 19)]
    query_valid = torch.arange(6) < torch.tensor([6, 2, 3, 1, 5])[:, None]
    key_valid = torch.arange(19) < torch.tensor([1, 19, 16, 17, 4])[:, None]
    reach = reach_of(query_valid, key_valid, causal=causal)
    kept = kept_weights((5, 6, 19), reach, dropout)
    seen = torch.arange(19) < reach[:, None, :, None]
    of_seen = kept[seen.expand_as(kept)].mean()
    assert of_seen == 1 if dropout == 0 else abs(of_seen - 0.6) < 0.1

    torch.manual_seed(1)
    out = _CompiledAttention.apply(*inputs, reach, HEADS, dropout)
    split = (x.unflatten(-1, (HEADS, DIM)).transpose(1, 2) for x in (q, k, v))
    query, key, value = split
    scores = (query @ key.transpose(2, 3) / math.sqrt(DIM)).masked_fill(~seen, -torch.inf)
    plain = (scores.softmax(-1) * kept / (1 - dropout) @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(out, plain, atol=1e-6, rtol=1e-5)
    weight = torch.randn_like(out)
    gradients = torch.autograd.grad((weight * out).sum(), inputs)
    for gradient, other in zip(
        gradients, torch.autograd.grad((weight * plain).sum(), inputs), strict=True
    ):
        torch.testing.assert_close(gradient, other, atol=1e-6, rtol=1e-5)
    if not dropout:
        fused = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        torch.testing.assert_close(out, fused.transpose(1, 2).flatten(2))


def test_weights_are_dropped_independently():
    """Of two weights at dropout 0.4, both are kept in 0.36 of all cases, up to five deviations.

    Neighbours are those of the same key in other queries, heads and clips, and other keys.
    """
    kept = kept_weights((8, 64, 16), torch.full((8, 1), 16), 0.4)
    assert abs(kept.mean() - 0.6) < 5 * math.sqrt(0.24 / kept.numel())
    for axis, distance in ((0, 1), (1, 1), (2, 1), (2, 2), (2, 4), (3, 1)):
        both = kept * kept.roll(distance, axis)
        assert abs(both.mean() - 0.36) < 5 * math.sqrt(0.25 / kept.numel())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_attention_takes_other_types(dtype):
    torch.manual_seed(0)
    attention = MultiheadAttention(dim=6, heads=3, dropout=0.0)
    x, reach = torch.randn(2, 4, 6), torch.full((2, 1), 4)
    expected = attention(x, x, reach)
    found = attention.to(dtype)(x.to(dtype), x.to(dtype), reach)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, atol=0.05, rtol=0.05)


def test_real_steps_of_another_sequence_are_refused():
    valid = torch.ones(1, 5, dtype=torch.bool)
    for query_valid, key_valid in ((valid[:, :3], valid), (valid, valid[:, :3])):
        with pytest.raises(ValueError, match="real steps"):
            encoder().train()(torch.randn(1, 3, 4), query_valid, torch.randn(1, 4, 4), key_valid)


def test_a_reach_beyond_the_keys_ends_at_the_last():
    torch.manual_seed(0)
    q, k, v = (clips_of(2, 9) for _ in range(3))
    found = [
        _CompiledAttention.apply(q, k, v, torch.full((2, 1), reach), HEADS, 0.0)
        for reach in (9, 1000)
    ]
    assert found[0].equal(found[1])


def test_large_scores_are_as_exact_as_in_torch():
    """With scores of some hundred all weight is on one key, and nothing overflows."""
    torch.manual_seed(0)
    q, k, v = (20 * clips_of(3, 40) for _ in range(3))
    reach = torch.full((3, 1), 40)
    out = _CompiledAttention.apply(q, k, v, reach, HEADS, 0.0)
    split = (x.double().unflatten(-1, (HEADS, DIM)).transpose(1, 2) for x in (q, k, v))
    exact = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
    torch.testing.assert_close(out.double(), exact, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_nan_and_infinity_are_not_hidden(broken):
    """A query that cannot be compared with a key gives NaN, and no other query does."""
    torch.manual_seed(0)
    q, k, v = (clips_of(1, 9).detach() for _ in range(3))
    q[0, 4, 0] = broken
    out = _CompiledAttention.apply(q, k, v, torch.full((1, 1), 9), HEADS, 0.0)
    assert out.isnan().any(-1).tolist() == [[i == 4 for i in range(9)]]


def test_numbers_do_not_depend_on_threads():
    torch.manual_seed(0)
    inputs = [clips_of(5, 30), clips_of(5, 30), clips_of(5, 30)]
    reach, before = torch.full((5, 1), 30), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(1)
            out = _CompiledAttention.apply(*inputs, reach, HEADS, 0.4)
            found.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    finally:
        torch.set_num_threads(before)
    assert all(one.equal(three) for one, three in zip(*found, strict=True))


def test_attention_drops_weights_in_training_only():
    torch.manual_seed(0)
    attention = MultiheadAttention(dim=6, heads=3, dropout=0.5)
    x, reach = torch.randn(2, 4, 6), torch.full((2, 1), 4)
    assert not torch.equal(attention(x, x, reach), attention(x, x, reach))
    attention.eval()
    assert torch.equal(attention(x, x, reach), attention(x, x, reach))
