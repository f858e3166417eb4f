"""TFN against MMSA 2.2.1: the same weights in, the same scores out."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mitfrnet.data.batches import Batch
from mitfrnet.modalities import MODALITIES
from mitfrnet.models.base import Task
from mitfrnet.models.baselines.tfn import TFN
from tests.helpers import mmsa_models as mmsa

pytestmark = pytest.mark.parity

DIMS = {"text": 24, "acoustic": 5, "visual": 20}
LENGTHS = {"text": 9, "acoustic": 30, "visual": 20}
HIDDEN = {"text": 16, "acoustic": 6, "visual": 12}
TEXT_OUT, POST = 10, 8


def dense_batch(n: int) -> Batch:
    return mmsa.dense_batch(n, dims=DIMS, lengths=LENGTHS)


@pytest.fixture
def module() -> Any:
    return mmsa.load("singleTask.TFN")


def build_theirs(module: Any, *, classes: int = 0) -> Any:
    torch.manual_seed(0)
    theirs = module.TFN(
        SimpleNamespace(
            feature_dims=tuple(DIMS.values()),
            hidden_dims=tuple(HIDDEN.values()),
            text_out=TEXT_OUT,
            post_fusion_dim=POST,
            dropouts=(0.3, 0.3, 0.3, 0.5),
            train_mode="classification" if classes else "regression",
            num_classes=classes,
        )
    )
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:  # not the bounds of the scale
                parameter *= 2  # a fresh model hardly depends on its input
    for norm in (theirs.audio_subnet.norm, theirs.video_subnet.norm):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return theirs.eval()


def build_ours(theirs: Any, task: Task) -> TFN:
    """Return our model with their weights."""
    ours = TFN(
        dims=DIMS,
        task=task,
        hidden_dims=HIDDEN,
        text_out=TEXT_OUT,
        dropout=dict.fromkeys(MODALITIES, 0.3),
        post_fusion_dim=POST,
        post_fusion_dropout=0.5,
    ).eval()
    ours.text.lstm.load_state_dict(theirs.text_subnet.rnn.state_dict())
    ours.text.linear.load_state_dict(theirs.text_subnet.linear_1.state_dict())
    for m, subnet in (("acoustic", theirs.audio_subnet), ("visual", theirs.video_subnet)):
        layers = ours.means[m].layers
        for i, name in ((0, "norm"), (2, "linear_1"), (4, "linear_2"), (6, "linear_3")):
            layers[i].load_state_dict(getattr(subnet, name).state_dict())
    for i in (1, 2, 3):
        layer = getattr(theirs, f"post_fusion_layer_{i}")
        ours.post_fusion[2 * i - 1].load_state_dict(layer.state_dict())
    # Their tensor is acoustic x visual x text, each with its 1 in front.
    sizes = (HIDDEN["acoustic"] + 1, HIDDEN["visual"] + 1, TEXT_OUT + 1)
    weight = theirs.post_fusion_layer_1.weight.detach().unflatten(1, sizes)
    weight = weight.roll((-1, -1, -1), dims=(1, 2, 3)).permute(0, 3, 1, 2)
    ours.post_fusion[1].weight.data = weight.flatten(1)
    return ours


def their_output(theirs: Any, batch: Batch) -> Tensor:
    """Return their scores or logits, (batch, outputs)."""
    # Their loader, not their model, averages over time.
    means = {m: batch.values[m].mean(1, keepdim=True) for m in ("acoustic", "visual")}
    return theirs(batch.values["text"], means["acoustic"], means["visual"])["M"]


@torch.no_grad()
@pytest.mark.parametrize("classes", [0, 3])
def test_same_weights_same_scores(module, record_property, classes):
    task = Task(classes=classes)
    theirs = build_theirs(module, classes=classes)
    batch = dense_batch(64)
    expected = task.prediction(their_output(theirs, batch))
    assert expected.std() > 0.02
    difference = (build_ours(theirs, task)(batch).prediction - expected).abs().max().item()
    record_property("largest_difference", difference)
    assert difference < 1e-5


@torch.no_grad()
def test_their_scores_leave_the_scale_of_sims(module):
    """For labels in [-1, 1], their scores are three times ours."""
    theirs = build_theirs(module)
    batch = dense_batch(8)
    scores = build_ours(theirs, Task(low=-1.0, high=1.0))(batch).prediction
    torch.testing.assert_close(3 * scores, their_output(theirs, batch).squeeze(1))


def test_theirs_never_drops_text(module):
    theirs = build_theirs(module)
    assert theirs.text_prob == 0.3
    assert theirs.text_subnet.dropout.p == 0
