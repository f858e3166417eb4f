import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mitfrnet.models.mitfrnet import gru as gru_module
from mitfrnet.models.mitfrnet.gru import BidirectionalGRU

LENGTHS = torch.tensor([7, 1, 4])


def packed(gru: nn.GRU, x: Tensor, valid: Tensor) -> Tensor:
    """The plain way: packed sequences through PyTorch's own GRU."""
    sequences = pack_padded_sequence(x, valid.sum(1), batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(
        nn.GRU.forward(gru, sequences)[0], batch_first=True, total_length=x.shape[1]
    )[0]


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_numbers_and_gradients_are_those_of_packed_sequences(monkeypatch, device):
    """The padded time is longer than any clip, and holds NaN."""
    if device == "gpu":  # what runs there is PyTorch's GRU, so that it runs here too
        monkeypatch.setattr(gru_module, "_stacked_directions", gru_module._one_by_one)
    torch.manual_seed(0)
    gru = BidirectionalGRU(in_dim=5, hidden=4, layers=3)
    valid = torch.arange(9) < LENGTHS[:, None]
    clean = torch.randn(3, 9, 5)
    dirty = clean.masked_fill(~valid[..., None], torch.nan).requires_grad_()
    clean.requires_grad_()
    weight = torch.randn(3, 9, 8)

    out, expected = gru(dirty, valid), packed(gru, clean, valid)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)
    inputs = list(gru.parameters())
    gradients = torch.autograd.grad((weight * out).sum(), [dirty, *inputs])
    plain = torch.autograd.grad((weight * expected).sum(), [clean, *inputs])
    for gradient, other in zip(gradients, plain, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-6, rtol=1e-5)


def test_weights_have_the_names_of_torch():
    """So that models saved before load."""
    ours = BidirectionalGRU(in_dim=5, hidden=4, layers=2)
    theirs = nn.GRU(5, 4, 2, bidirectional=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
