import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mitfrnet.models import compiled, cpu
from mitfrnet.models.attention import reach_of

HEADS, HEAD_DIM = 2, 5


def is_convolved(out: Tensor) -> bool:
    """Return whether a convolution is among the operations that made `out`."""
    nodes = [out.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is not None:
            if "Convolution" in node.name():
                return True
            nodes += [previous for previous, _ in node.next_functions]
    return False


@pytest.mark.parametrize("shape", [(3, 7, 80), (1, 1, 80), (2, 1, 80), (1, 5, 80)])
def test_linear_equals_torch(shape):
    torch.manual_seed(0)
    inputs = [torch.randn(size, requires_grad=True) for size in (shape, (70, 80), (70,))]
    upstream = torch.randn(*shape[:2], 70)
    convolved, plain = cpu.linear(*inputs), F.linear(*inputs)
    assert is_convolved(convolved)
    torch.testing.assert_close(convolved, plain, atol=1e-5, rtol=1e-5)
    gradients, expected = (torch.autograd.grad(out, inputs, upstream) for out in (convolved, plain))
    torch.testing.assert_close(gradients, expected, atol=1e-5, rtol=1e-5)


def test_small_and_flat_layers_are_not_convolved():
    """63 x 65 = 4095 weights are one too few; a vector has no time axis."""
    for x, weight in ((torch.zeros(2, 3, 63), (65, 63)), (torch.zeros(2, 80), (70, 80))):
        assert not is_convolved(cpu.linear(x, torch.zeros(weight, requires_grad=True), None))


def test_dropout_keeps_each_element_with_its_probability():
    """Keeps 0.7 of 400,000, within five deviations, 5 sqrt(0.21 / 4e5), and 0.49 of pairs."""
    torch.manual_seed(0)
    kept = cpu.dropout(torch.ones(400_000), 0.3) != 0
    assert abs(kept.float().mean() - 0.7) < 5 * math.sqrt(0.21 / 4e5)
    for distance in (1, 2, 16, 64, compiled.BLOCK, compiled.BLOCK + 1):
        pairs = kept & kept.roll(distance)
        assert abs(pairs.float().mean() - 0.49) < 5 * math.sqrt(0.25 / 4e5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dropout_scales_what_it_keeps_and_follows_the_seed(dtype):
    """At one half, 1 becomes 0 or 2, and so does its gradient."""
    x = torch.ones(3, 5, 7, dtype=dtype, requires_grad=True)
    torch.manual_seed(3)
    out = cpu.dropout(x, 0.5)
    out.sum().backward()
    assert set(out.flatten().tolist()) == {0.0, 2.0}
    assert torch.equal(x.grad, out)
    torch.manual_seed(3)
    assert torch.equal(cpu.dropout(x, 0.5), out)
    assert not torch.equal(cpu.dropout(x, 0.5), out)


def test_dropout_of_zero_keeps_everything():
    x = torch.randn(3, 5)
    assert torch.equal(cpu.dropout(x, 0.0), x)


def test_dropout_does_not_hide_nan_and_infinity():
    x = torch.tensor([math.nan, math.inf, -math.inf]).repeat(100)
    assert not cpu.dropout(x, 0.5).isfinite().any()


@pytest.mark.parametrize(
    ("dim", "dtype", "training", "compiled_here"),
    [
        (64, torch.float32, True, True),
        (64, torch.bfloat16, True, True),
        (66, torch.float32, True, False),  # 33 features a head
        (64, torch.float64, True, False),
        (64, torch.float32, False, False),
    ],
)
def test_when_attention_is_compiled(dim, dtype, training, compiled_here):
    q = torch.zeros(1, 1, dim, dtype=dtype)
    assert cpu.runs_attention(q, heads=2, training=training) is compiled_here


def test_nothing_is_compiled_for_another_device():
    x = torch.zeros(1, 1, 4, device="meta")
    assert not cpu.runs_attention(x, heads=2, training=True)
    assert not cpu.runs_gru(x)


def draw_clips(batch: int, time: int, scale: float = 1) -> Tensor:
    return (scale * torch.randn(batch, time, HEADS * HEAD_DIM)).requires_grad_()


def by_head(x: Tensor) -> Tensor:
    """Return (batch, heads, time, features of a head)."""
    return x.unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2)


def kept_weights(shape: tuple[int, int, int], reach: Tensor, dropout: float) -> Tensor:
    """Return 1 where dropout keeps a weight, (batch, heads, query time, key time).

    Queries of zero make all weights equal. One call for each key, with values of zero at all
    others, shows its weights alone.
    """
    batch, time, keys = shape
    kept = torch.empty(batch, HEADS, time, keys)
    query = torch.zeros(batch, time, HEADS * HEAD_DIM)
    key = torch.zeros(batch, keys, HEADS * HEAD_DIM)
    for j in range(keys):
        value = torch.zeros_like(key)
        value[:, j] = 1
        torch.manual_seed(1)
        out = cpu.attention(query, key, value, reach, heads=HEADS, dropout=dropout)
        kept[..., j] = by_head(out)[..., 0] != 0
    return kept


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_attention_equals_its_formula(causal, dropout):
    """The same numbers and gradients as the formula written out.

    6 queries are one and a half groups of four, and 19 keys more than a vector of 16.
    """
    torch.manual_seed(0)
    inputs = [draw_clips(5, 6), draw_clips(5, 19), draw_clips(5, 19)]
    query_valid = torch.arange(6) < torch.tensor([6, 2, 3, 1, 5])[:, None]
    key_valid = torch.arange(19) < torch.tensor([1, 19, 16, 17, 4])[:, None]
    reach = reach_of(query_valid, key_valid, causal=causal)
    kept = kept_weights((5, 6, 19), reach, dropout)
    visible = torch.arange(19) < reach[:, None, :, None]
    kept_share = kept[visible.expand_as(kept)].mean()
    assert kept_share == 1 if dropout == 0 else abs(kept_share - 0.6) < 0.1

    torch.manual_seed(1)
    out = cpu.attention(*inputs, reach, heads=HEADS, dropout=dropout)
    q, k, v = (by_head(x) for x in inputs)
    scores = (q @ k.transpose(2, 3) / math.sqrt(HEAD_DIM)).masked_fill(~visible, -torch.inf)
    plain = (scores.softmax(-1) * kept / (1 - dropout) @ v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(out, plain, atol=1e-6, rtol=1e-5)
    upstream = torch.randn_like(out)
    gradients, expected = (torch.autograd.grad(x, inputs, upstream) for x in (out, plain))
    torch.testing.assert_close(gradients, expected, atol=1e-6, rtol=1e-5)


def test_weights_are_dropped_independently():
    """At dropout 0.4 two weights are both kept in 0.36 of all cases, within five deviations.

    Compares a weight with those of other clips, heads, queries and keys.
    """
    kept = kept_weights((8, 64, 16), torch.full((8, 1), 16), 0.4)
    assert abs(kept.mean() - 0.6) < 5 * math.sqrt(0.24 / kept.numel())
    for axis, distance in ((0, 1), (1, 1), (2, 1), (2, 2), (2, 4), (3, 1)):
        pairs = kept * kept.roll(distance, axis)
        assert abs(pairs.mean() - 0.36) < 5 * math.sqrt(0.25 / kept.numel())


def test_a_reach_beyond_the_keys_ends_at_the_last():
    torch.manual_seed(0)
    inputs = [draw_clips(2, 9) for _ in range(3)]
    exact, beyond = (
        cpu.attention(*inputs, torch.full((2, 1), reach), heads=HEADS, dropout=0.0)
        for reach in (9, 1000)
    )
    assert exact.equal(beyond)


def test_large_scores_are_as_exact_as_in_torch():
    """With scores of some hundred all weight is on one key, and nothing overflows."""
    torch.manual_seed(0)
    inputs = [draw_clips(3, 40, scale=20) for _ in range(3)]
    reach = torch.full((3, 1), 40)
    out = cpu.attention(*inputs, reach, heads=HEADS, dropout=0.0)
    exact = F.scaled_dot_product_attention(*(by_head(x.double()) for x in inputs))
    torch.testing.assert_close(by_head(out).double(), exact, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_attention_does_not_hide_nan_and_infinity(broken):
    """A query with NaN or infinity gives NaN, and no other query does."""
    torch.manual_seed(0)
    q, k, v = (draw_clips(1, 9).detach() for _ in range(3))
    q[0, 4, 0] = broken
    out = cpu.attention(q, k, v, torch.full((1, 1), 9), heads=HEADS, dropout=0.0)
    assert out.isnan().any(-1).tolist() == [[i == 4 for i in range(9)]]


def test_numbers_do_not_depend_on_threads():
    torch.manual_seed(0)
    inputs = [draw_clips(5, 30) for _ in range(3)]
    reach, before = torch.full((5, 1), 30), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(1)
            out = cpu.attention(*inputs, reach, heads=HEADS, dropout=0.4)
            results.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    finally:
        torch.set_num_threads(before)
    assert all(one.equal(three) for one, three in zip(*results, strict=True))
