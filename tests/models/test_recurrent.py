from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mitfrnet.models import cpu
from mitfrnet.models.recurrent import LSTM, BidirectionalGRU

LENGTHS = torch.tensor([7, 1, 4])


def packed(rnn: nn.RNNBase, x: Tensor, valid: Tensor) -> tuple[Tensor, Any]:
    """Return the results and last states of PyTorch's own layer, from packed sequences."""
    sequences = pack_padded_sequence(x, valid.sum(1), batch_first=True, enforce_sorted=False)
    plain = nn.GRU if isinstance(rnn, nn.GRU) else nn.LSTM
    steps, states = plain.forward(rnn, sequences)
    padded, _ = pad_packed_sequence(steps, batch_first=True, total_length=x.shape[1])
    return padded, states


@pytest.mark.parametrize("compiled_here", [True, False])
def test_numbers_and_gradients_are_those_of_packed_sequences(monkeypatch, compiled_here):
    """Compiled and as on a GPU; padding, beyond the longest clip too, holds NaN."""
    monkeypatch.setattr(cpu, "runs_gru", lambda x: compiled_here)
    torch.manual_seed(0)
    gru = BidirectionalGRU(in_dim=5, hidden=4, layers=3)
    valid = torch.arange(9) < LENGTHS[:, None]
    clean = torch.randn(3, 9, 5)
    dirty = clean.masked_fill(~valid[..., None], torch.nan).requires_grad_()
    clean.requires_grad_()
    weight = torch.randn(3, 9, 8)

    out, expected = gru(dirty, valid), packed(gru, clean, valid)[0]
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)
    inputs = list(gru.parameters())
    gradients = torch.autograd.grad((weight * out).sum(), [dirty, *inputs])
    plain = torch.autograd.grad((weight * expected).sum(), [clean, *inputs])
    for gradient, other in zip(gradients, plain, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-6, rtol=1e-5)


def test_many_clips_long_steps_and_large_gates_are_those_of_torch():
    """13 clips are three groups of four, and one more."""
    torch.manual_seed(0)
    gru = BidirectionalGRU(in_dim=5, hidden=21, layers=2)
    valid = torch.arange(40) < torch.randint(1, 41, (13, 1))
    x = (50 * torch.randn(13, 40, 5)).requires_grad_()  # gates of some hundred
    weight = torch.randn(13, 40, 42)
    out, expected = gru(x, valid), packed(gru, x, valid)[0]
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    inputs = [x, *gru.parameters()]
    gradients = torch.autograd.grad((weight * out).sum(), inputs)
    plain = torch.autograd.grad((weight * expected).sum(), inputs)
    for gradient, other in zip(gradients, plain, strict=True):
        scale = other.abs().max().item()
        torch.testing.assert_close(gradient, other, atol=1e-5 * scale, rtol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-4, 1e-8])
def test_small_signals_pass(scale):
    """Without biases the state is proportional to a small input."""
    torch.manual_seed(0)
    gru = BidirectionalGRU(in_dim=5, hidden=4, layers=1)
    with torch.no_grad():
        for name, parameter in gru.named_parameters():
            if name.startswith("bias"):
                parameter.zero_()
    valid, x = torch.ones(2, 6, dtype=torch.bool), scale * torch.randn(2, 6, 5)
    exact = nn.GRU.forward(gru.double(), x.double())[0]
    out = gru.float()(x, valid).double()
    torch.testing.assert_close(out, exact, atol=1e-5 * exact.abs().max().item(), rtol=1e-4)


def test_numbers_do_not_depend_on_threads():
    torch.manual_seed(0)
    gru, x = BidirectionalGRU(in_dim=5, hidden=4, layers=1), torch.randn(9, 12, 5)
    valid = torch.arange(12) < torch.randint(1, 13, (9, 1))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            out = gru(x, valid)
            results.append([out, *torch.autograd.grad(out.square().sum(), gru.weight_hh_l0)])
    finally:
        torch.set_num_threads(before)
    for one, three in zip(*results, strict=True):
        torch.testing.assert_close(one, three, atol=1e-6, rtol=1e-5)


def test_real_steps_of_another_shape_are_refused():
    gru, x = BidirectionalGRU(in_dim=5, hidden=4, layers=1), torch.randn(3, 4, 5)
    with pytest.raises(ValueError, match="valid is"):
        gru(x, torch.ones(1, 4, dtype=torch.bool))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_gru_takes_other_types(dtype):
    torch.manual_seed(0)
    gru, x = BidirectionalGRU(in_dim=5, hidden=4, layers=2), torch.randn(3, 9, 5)
    valid = torch.arange(9) < LENGTHS[:, None]
    expected = gru(x, valid)
    out = gru.to(dtype)(x.to(dtype), valid)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_lstm_reads_each_clip_to_its_own_end(bidirectional):
    torch.manual_seed(0)
    lstm = LSTM(in_dim=5, hidden=4, bidirectional=bidirectional)
    valid = torch.arange(9) < LENGTHS[:, None]
    clean = torch.randn(3, 9, 5)
    dirty = clean.masked_fill(~valid[..., None], torch.nan).requires_grad_()
    clean.requires_grad_()

    steps, last = lstm(dirty, valid)
    expected, (states, _) = packed(lstm, clean, valid)
    torch.testing.assert_close(steps[valid], expected[valid], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(last, torch.cat([*states], dim=-1), atol=1e-6, rtol=1e-5)
    weight = torch.randn(3, last.shape[1])
    inputs = list(lstm.parameters())
    ours = (weight * last).sum() + steps[valid].square().sum()
    theirs = (weight * torch.cat([*states], dim=-1)).sum() + expected[valid].square().sum()
    gradients = torch.autograd.grad(ours, [dirty, *inputs])
    plain = torch.autograd.grad(theirs, [clean, *inputs])
    for gradient, other in zip(gradients, plain, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-6, rtol=1e-5)


def test_an_lstm_is_computed_in_float32_under_autocast():
    torch.manual_seed(0)
    lstm, x = LSTM(in_dim=5, hidden=4), torch.randn(3, 9, 5)
    valid = torch.arange(9) < LENGTHS[:, None]
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = lstm(x, valid)
    for under, plain in zip(under_autocast, lstm(x, valid), strict=True):
        assert under.equal(plain)


def test_weights_have_the_names_of_torch():
    """So that models saved earlier can be loaded."""
    gru, lstm = BidirectionalGRU(in_dim=5, hidden=4, layers=2), LSTM(in_dim=5, hidden=4)
    assert list(gru.state_dict()) == list(nn.GRU(5, 4, 2, bidirectional=True).state_dict())
    assert list(lstm.state_dict()) == list(nn.LSTM(5, 4).state_dict())
