import math

import pytest
import torch
from torch import nn

from mitfrnet.models.layers import BatchNorm
from mitfrnet.models.mitfrnet.fusion import Fusion, GateEncoder


def gate_encoder(gate: str) -> GateEncoder:
    """Return one on one feature whose GRU answers (s, -s) to every step, s = tanh(h) / 2.

    Update gates of sigmoid(0) = 1/2 and no recurrence but the average with the last state.
    """
    encoder = GateEncoder(in_dim=1, hidden=1, layers=1, gate=gate)
    for parameter in encoder.parameters():
        parameter.data.zero_()
    encoder.gru.weight_ih_l0.data[2] = 1.0
    encoder.gru.weight_ih_l0_reverse.data[2] = -1.0
    return encoder


def test_gate_of_one_step_by_hand():
    """H = 1: s = tanh(1) / 2. Gate: bias b, so F_hp = tanh(+-s) sigmoid(b).

    `printed` with weights 1, 0, 10, 0 gives s + 10 tanh(s) sigmoid(b); `released` with 1, 10, 0
    gives tanh(1 + 10 tanh(s) sigmoid(b)).
    """
    s, b = math.tanh(1.0) / 2, 0.3
    gated = 10 * math.tanh(s) / (1 + math.exp(-b))
    x, valid = torch.ones(1, 1, 1), torch.ones(1, 1, dtype=torch.bool)
    for gate, weights, expected in (
        ("printed", [1.0, 0.0, 10.0, 0.0], s + gated),
        ("released", [1.0, 10.0, 0.0], math.tanh(1 + gated)),
    ):
        encoder = gate_encoder(gate)
        encoder.gate.conv.bias.data.fill_(b)
        encoder.linear.weight.data = torch.tensor([weights])
        assert encoder(x, valid).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("gate", ["printed", "released"])
def test_maximum_is_over_real_steps_only(gate):
    """Negative results at every real step must not lose against zeros on padding."""
    encoder = gate_encoder(gate)
    encoder.linear.bias.data.fill_(-2.0)
    out = encoder(torch.zeros(1, 3, 1), torch.tensor([[True, False, False]]))
    assert out.item() == pytest.approx(-2.0 if gate == "printed" else math.tanh(-2.0))


def test_both_directions_skip_padding():
    torch.manual_seed(0)
    encoder = GateEncoder(in_dim=2, hidden=3, layers=3, gate="printed")
    short, long = torch.randn(1, 4, 2), torch.randn(1, 7, 2)
    batch = torch.cat([nn.functional.pad(short, (0, 0, 0, 3)), long])
    valid = torch.tensor([[True] * 4 + [False] * 3, [True] * 7])
    alone = encoder(short, torch.ones(1, 4, dtype=torch.bool))
    torch.testing.assert_close(encoder(batch, valid)[:1], alone)


def test_batch_norm_of_one_uses_running_statistics():
    """Mean 2 and variance 4 make (6 - 2) / 2 = 2 of 6, and stay as they are."""
    norm = BatchNorm(1, eps=1e-9).train()
    norm.running_mean.fill_(2.0)
    norm.running_var.fill_(4.0)
    assert norm(torch.tensor([[6.0]])).item() == pytest.approx(2.0)
    assert (norm.running_mean.item(), norm.running_var.item()) == (2.0, 4.0)
    two = norm(torch.tensor([[6.0], [8.0]]))
    assert two.flatten().tolist() == pytest.approx([-1.0, 1.0])
    assert norm.running_mean.item() != 2.0


@pytest.mark.parametrize(("norm", "kind"), [("batch", BatchNorm), ("layer", nn.LayerNorm)])
def test_classifier(norm, kind):
    """As in the paper's settings: 36 + 20 + 48 = 104 features, then 128, then the score."""
    fusion = Fusion(
        in_dim=90,
        gru_hidden={"text": 36, "acoustic": 20, "visual": 48},
        gru_layers=3,
        gate="printed",
        dropout=0.0,
        classifier_dim=128,
        classifier_dropout=0.0,
        classifier_norm=norm,
        outputs=1,
    )
    assert isinstance(fusion.classifier[0], kind)
    assert fusion.classifier[1].weight.shape == (128, 104)
    assert fusion.encoders["visual"].linear.weight.shape == (48, 4 * 48)
    assert fusion.encoders["visual"].gate.conv.weight.shape == (1, 96, 3)
