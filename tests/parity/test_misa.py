"""MISA against MMSA 2.2.1: the same weights in, the same scores and losses out."""

from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mitfrnet.data.batches import Batch
from mitfrnet.modalities import MODALITIES
from mitfrnet.models.baselines.misa import MISA
from tests.helpers import mmsa_models as mmsa

pytestmark = pytest.mark.parity

DIMS = {"text": 768, "acoustic": 5, "visual": 20}  # their code has 768 written in
STEPS = 11  # of all modalities: theirs cuts sound and picture to the length of the text
DIM = 16
LETTERS = {"text": "t", "acoustic": "a", "visual": "v"}
THEIR_ORDER = ("text", "visual", "acoustic")


def dense_batch(n: int) -> Batch:
    batch = mmsa.dense_batch(n, dims=DIMS, lengths=dict.fromkeys(MODALITIES, STEPS))
    return replace(batch, label=torch.linspace(-3, 3, n))


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return their trainer, which computes the losses; its `model.Model` is their model."""
    module = mmsa.load("singleTask.MISA")
    monkeypatch.setattr(module, "BertTextEncoder", mmsa.GivenText)
    config = SimpleNamespace(
        use_bert=True,
        use_finetune=False,
        transformers="bert",
        pretrained="",
        feature_dims=tuple(DIMS.values()),
        hidden_size=DIM,
        dropout=0.2,
        rnncell="lstm",
        use_cmd_sim=True,
        train_mode="regression",
        dataset_name="mosi",
    )
    torch.manual_seed(0)
    trainer = import_module("MMSA.trains.singleTask.MISA").MISA(config)
    trainer.model = SimpleNamespace(Model=mmsa.lively(module.MISA(config)))
    return trainer


def their_scores(theirs: Any, batch: Batch, *, tokens: int = STEPS) -> Tensor:
    """Return the scores of their model, (batch,), for texts with that many real tokens."""
    model = theirs.model.Model
    model.bertmodel.features = batch.values["text"]
    text = torch.ones(len(batch), 3, STEPS)  # ids, mask, segments
    text[:, 1, tokens:] = 0
    return model(text, batch.values["acoustic"], batch.values["visual"])["M"].squeeze(1)


def reorder(weight: Tensor, blocks: list[int]) -> Tensor:
    """Return `weight` with its columns, cut into equal blocks, in the order of `blocks`."""
    parts = weight.detach().chunk(len(blocks), dim=1)
    return torch.cat([parts[i] for i in blocks], dim=1)


def build_ours(trainer: Any) -> MISA:
    """Return our model with their weights."""
    theirs = trainer.model.Model
    ours = MISA(
        dims=DIMS,
        dim=DIM,
        heads=2,
        feedforward_dim=2048,
        transformer_dropout=0.1,
        dropout=0.2,
        moments=5,
        similarity_weight=0.8,
        difference_weight=0.3,
        reconstruction_weight=0.8,
    ).eval()
    for m, x in LETTERS.items():
        for i, layer in enumerate(getattr(theirs, f"project_{x}")):
            ours.projections[m][i].load_state_dict(layer.state_dict())
        ours.private[m][0].load_state_dict(getattr(theirs, f"private_{x}")[0].state_dict())
        ours.decoders[m].load_state_dict(getattr(theirs, f"recon_{x}")[0].state_dict())
    for m in ("acoustic", "visual"):
        x, summary = LETTERS[m], ours.summaries[m]
        summary.first.load_state_dict(getattr(theirs, f"{x}rnn1").state_dict())
        summary.norm.load_state_dict(getattr(theirs, f"{x}layer_norm").state_dict())
        summary.second.load_state_dict(getattr(theirs, f"{x}rnn2").state_dict())
        # Theirs: forward states of both LSTMs, then backward states; ours: LSTM by LSTM.
        linear = ours.projections[m][0]
        linear.weight.data = reorder(linear.weight, [0, 2, 1, 3])
    ours.shared[0].load_state_dict(theirs.shared[0].state_dict())
    ours.transformer.load_state_dict(theirs.transformer_encoder.layers[0].state_dict())
    ours.fusion[0].load_state_dict(theirs.fusion[0].state_dict())
    ours.fusion[3].load_state_dict(theirs.fusion[3].state_dict())
    places = [THEIR_ORDER.index(m) for m in MODALITIES]
    places += [3 + place for place in places]  # shared after private in both
    ours.fusion[0].weight.data = reorder(ours.fusion[0].weight, places)
    return ours


@torch.no_grad()
def test_same_weights_same_scores_and_losses(theirs, record_property):
    batch = dense_batch(64)
    expected = their_scores(theirs, batch)
    assert expected.std() > 0.05
    output = build_ours(theirs)(batch)
    means = {name: loss.mean for name, loss in output.losses.items()}
    pairs = {
        "scores": (output.prediction, expected),
        "task": (means["task"], theirs.criterion(expected, batch.label)),
        "similarity": (means["similarity"], theirs.get_cmd_loss()),
        "difference": (means["difference"], theirs.get_diff_loss()),
        "reconstruction": (means["reconstruction"], theirs.get_recon_loss()),
    }
    for name, (ours, reference) in pairs.items():
        difference = (ours - reference).abs().max().item()
        record_property(f"largest_difference_{name}", difference)
        assert difference < 1e-5


def test_same_gradients(theirs):
    """In the shared encoder, from each auxiliary loss: the lengths of rows are constants."""
    ours, batch = build_ours(theirs), dense_batch(8)
    their_scores(theirs, batch)
    losses = ours(batch).losses
    for name, loss in (
        ("similarity", theirs.get_cmd_loss()),
        ("difference", theirs.get_diff_loss()),
        ("reconstruction", theirs.get_recon_loss()),
    ):
        source, copy = theirs.model.Model.shared[0].weight, ours.shared[0].weight
        (expected,) = torch.autograd.grad(loss, source, retain_graph=True)
        (gradient,) = torch.autograd.grad(losses[name].mean, copy, retain_graph=True)
        assert expected.any()
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("m", ["acoustic", "visual"])
def test_theirs_reads_no_step_beyond_the_length_of_the_text(theirs, m):
    batch = dense_batch(8)
    before = their_scores(theirs, batch, tokens=4)
    batch.values[m][:, 4:] += 1
    assert torch.equal(their_scores(theirs, batch, tokens=4), before)
