from dataclasses import replace

import pytest
import torch

from mitfrnet.data.batches import collate
from mitfrnet.errors import ParamsError
from mitfrnet.modalities import MODALITIES
from mitfrnet.models.baselines.misa import (
    MISA,
    StackedLSTM,
    TokenMean,
    auxiliary_losses,
    central_moment_discrepancy,
    overlap,
)


@pytest.fixture
def network(dims, misa_settings):
    def make(**settings: object) -> MISA:
        torch.manual_seed(0)
        return MISA(dims=dims, **{**misa_settings, **settings})

    return make


@pytest.fixture
def batch(make_utterance):
    return collate([make_utterance(i) for i in range(4)])


def test_moments_by_hand():
    """Of {0, 1} and {1/2, 1/2}: C_2 = 1/4 and 0, C_4 = 1/16 and 0, all else is equal.

    The means (0.3, 0.4) and (0, 0) of single rows are 1/2 apart, and all other moments zero.
    """
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.5], [0.5]])
    for moments, expected in ((1, 0.0), (2, 0.25), (3, 0.25), (5, 0.3125)):
        assert central_moment_discrepancy(x, y, moments=moments) == expected
    row = torch.tensor([[0.3, 0.4]])
    assert central_moment_discrepancy(row, torch.zeros(1, 2), moments=5).item() == pytest.approx(
        0.5
    )


def test_equal_samples_have_a_finite_gradient():
    """The root in the norm has none at zero."""
    x = torch.rand(3, 2, requires_grad=True)
    central_moment_discrepancy(x, x.detach().clone(), moments=5).backward()
    assert x.grad.tolist() == [[0.0, 0.0]] * 3


def test_overlap_by_hand():
    """X = (1, 0), (-1, 0) and Y = (0, 1), (0, -1) give X'Y = ((0, 2), (0, 0)): 4 / 2^2 = 1.

    A common shift and the lengths of rows change nothing. Signs + + - - and + - + - are
    orthogonal. A batch of one is its own mean.
    """
    x, y = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    assert overlap(x, y).item() == pytest.approx(1.0, abs=1e-5)
    assert overlap(3 * x + 5, 7 * y - 2).item() == pytest.approx(1.0, abs=1e-5)
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert overlap(signs[:, :1], signs[:, 1:]).item() == 0
    one = torch.rand(1, 2, requires_grad=True)
    loss = overlap(one, y[:1])
    loss.backward()
    assert loss == 0
    assert one.grad.tolist() == [[0.0, 0.0]]


def test_text_is_the_mean_of_real_tokens():
    x = torch.tensor([[[1.0], [5.0], [torch.nan]]])
    assert TokenMean()(x, torch.tensor([[True, True, False]])).tolist() == [[3.0]]


def test_sequences_end_with_their_own_last_step():
    torch.manual_seed(0)
    lstm = StackedLSTM(dim=3)
    short, long = torch.randn(1, 4, 3), torch.randn(1, 7, 3)
    batch = torch.cat([torch.nn.functional.pad(short, (0, 0, 0, 3)), long])
    valid = torch.tensor([[True] * 4 + [False] * 3, [True] * 7])
    alone = lstm(short, torch.ones(1, 4, dtype=torch.bool))
    torch.testing.assert_close(lstm(batch, valid)[:1], alone)
    assert alone.shape == (1, 12)


@pytest.mark.parametrize("m", ["acoustic", "visual"])
def test_steps_beyond_the_length_of_the_text_count(network, make_utterance, m):
    """MMSA would not read the last of 9 steps beside a text of 3."""
    lengths = {"text": 3, "acoustic": 9, "visual": 9}
    batch = collate([make_utterance(0, lengths=lengths)])
    values = batch.values[m].clone()
    values[:, -1] += 1
    changed = replace(batch, values={**batch.values, m: values})
    model = network().eval()
    assert model(changed).prediction != model(batch).prediction


def test_losses_of_constant_representations_by_hand(network, batch):
    """All shared and private encoders give sigmoid(0) = 1/2, so nothing differs or overlaps.

    Decoders give 0 for vectors that a LayerNorm scales to a mean square of 1. Scores of 0
    against labels 1, -2, 3 and 0 cost (1 + 4 + 9 + 0) / 4.
    """
    model = network().eval()
    for module in (model.shared, model.private, model.decoders, model.fusion[-1]):
        for parameter in module.parameters():
            parameter.data.zero_()
    losses = model(replace(batch, label=torch.tensor([1.0, -2.0, 3.0, 0.0]))).losses
    assert losses["similarity"].mean == losses["difference"].mean == 0
    assert losses["reconstruction"].mean.item() == pytest.approx(1, abs=2e-3)
    assert losses["task"].mean == 3.5


def test_every_pair_is_compared(network, batch):
    """A private encoder that differs from constants overlaps with nothing; two of them do."""
    for spared in (("text",), ("text", "acoustic"), ("text", "visual"), ("acoustic", "visual")):
        model = network().eval()
        for m in set(MODALITIES) - set(spared):
            for parameter in model.private[m].parameters():
                parameter.data.zero_()
        for parameter in model.shared.parameters():
            parameter.data.zero_()
        losses = model(batch).losses
        assert losses["similarity"].mean == 0
        assert (losses["difference"].mean > 1e-3) == (len(spared) == 2)


def test_losses_are_computed_in_float32_under_autocast():
    """To the bit as without autocast, also of representations in bfloat16."""
    torch.manual_seed(0)
    groups = [{m: torch.rand(5, 6).bfloat16() for m in MODALITIES} for _ in range(4)]
    wide = [{m: x.float() for m, x in group.items()} for group in groups]
    expected = auxiliary_losses(*wide, moments=5)
    with torch.autocast("cpu", torch.bfloat16):
        assert auxiliary_losses(*groups, moments=5) == expected
    assert len(set(expected.values())) == 3


def test_shared_parts_are_pulled_together(network, batch):
    """Minimising the similarity loss alone lowers it, through the shared encoder."""
    model = network().eval()
    before = model(batch).losses["similarity"].mean
    gradient = torch.autograd.grad(before, list(model.shared.parameters()))
    with torch.no_grad():
        for parameter, g in zip(model.shared.parameters(), gradient, strict=True):
            parameter -= 0.1 * g
    assert model(batch).losses["similarity"].mean < before


def test_weights_of_the_objective(network, batch):
    losses = network(similarity_weight=2, difference_weight=3, reconstruction_weight=0.5)(
        batch
    ).losses
    assert {name: loss.weight for name, loss in losses.items()} == {
        "task": 1,
        "similarity": 2,
        "difference": 3,
        "reconstruction": 0.5,
    }


def test_wrong_settings_are_refused(network):
    with pytest.raises(ParamsError, match=r"model.misa.network: heads: 5 does not divide dim = 12"):
        network(heads=5)
    with pytest.raises(ParamsError, match=r"model.misa.network.moment: unknown key"):
        network(moment=3)
