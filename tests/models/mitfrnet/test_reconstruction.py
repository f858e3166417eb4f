import math

import torch

from mitfrnet.modalities import MODALITIES
from mitfrnet.models.mitfrnet.reconstruction import Reconstruction, smooth_l1_sum


def reconstruction() -> Reconstruction:
    torch.manual_seed(0)
    return Reconstruction(
        dims={"text": 3, "acoustic": 2, "visual": 4},
        dim=6,
        heads=3,
        layers=1,
        feedforward_dim=12,
        attention_dropout=dict.fromkeys(MODALITIES, 0.0),
        relu_dropout=0.0,
        residual_dropout=0.0,
        embed_dropout=0.0,
    ).eval()


def test_attends_over_time_within_an_utterance():
    """A change in one step of utterance 0 reaches all its steps, and no other utterance.

    The published code attends over the batch: there it reaches utterances 1 and 2.
    """
    torch.manual_seed(1)
    model = reconstruction()
    valid = {m: torch.ones(3, 4, dtype=torch.bool) for m in MODALITIES}
    encoded = {m: torch.randn(3, 4, 6) for m in MODALITIES}
    other = {m: h.clone() for m, h in encoded.items()}
    for h in other.values():
        h[0, 3] += torch.randn(6)
    before, after = model(encoded, valid)[1], model(other, valid)[1]
    for m in MODALITIES:
        change = (after[m] - before[m]).abs().amax(-1)
        assert (change[0] > 0).all()
        assert change[1:].max() == 0


def test_shapes_and_zero_padding():
    model = reconstruction()
    valid = {m: torch.tensor([[True, True, False]]) for m in MODALITIES}
    context, rebuilt = model({m: torch.randn(1, 3, 6) for m in MODALITIES}, valid)
    assert {m: x.shape[-1] for m, x in rebuilt.items()} == {"text": 3, "acoustic": 2, "visual": 4}
    for m in MODALITIES:
        assert context[m].shape == (1, 3, 6)
        assert (context[m][:, 2] == 0).all()
        assert (rebuilt[m][:, 2] == 0).all()


def test_smooth_l1_sum_by_hand():
    """Differences 0.5 and 3 score 0.125 and 2.5; the unscored step, off by 100, scores none."""
    rebuilt = torch.tensor([[[0.5, 3.0], [100.0, 100.0]]])
    loss = smooth_l1_sum(rebuilt, torch.zeros(1, 2, 2), torch.tensor([[True, False]]))
    assert loss.item() == 2.625


def test_no_gradient_into_the_target_nor_from_unscored_steps():
    rebuilt = torch.ones(1, 2, 1, requires_grad=True)
    target = torch.tensor([[[0.5], [math.nan]]], requires_grad=True)
    smooth_l1_sum(rebuilt, target, torch.tensor([[True, False]])).backward()
    assert target.grad is None
    assert rebuilt.grad.flatten().tolist() == [0.5, 0.0]


def test_nothing_scored_is_zero_but_in_the_graph():
    rebuilt = torch.ones(1, 2, 1, requires_grad=True)
    loss = smooth_l1_sum(rebuilt, torch.zeros(1, 2, 1), torch.zeros(1, 2, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert rebuilt.grad.flatten().tolist() == [0.0, 0.0]
