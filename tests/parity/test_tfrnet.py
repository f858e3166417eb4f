"""Our TFR-Net beside that of MMSA 2.2.1, with the same weights.

Both read the same given text features. Published settings for MOSI (`causal`, the released gate),
but one temporal head in theirs, since 25 must divide every length. What it rebuilds cannot be
compared: its transformers attend over the batch, as the second test shows.
"""

import pytest
import torch

from mitfrnet.models.baselines.tfrnet import TFRNet
from tests.helpers import mmsa_tfrnet as mmsa

pytestmark = pytest.mark.parity


@pytest.fixture
def theirs(monkeypatch):
    module = pytest.importorskip(
        "MMSA.models.missingTask.TFR_NET.model", reason="needs MMSA (run: make parity)"
    )
    monkeypatch.setattr(module, "BertTextEncoder", mmsa.GivenText)
    return mmsa.tfrnet(module)


def test_predictions_are_those_of_mmsa(theirs, record_property):
    ours = TFRNet(
        dims=mmsa.DIMS,
        **mmsa.EXTRACTION,
        **mmsa.RECONSTRUCTION,
        **mmsa.FUSION,
        aux_start_epoch=2,
    ).eval()
    mmsa.copy_extraction(theirs.align_subnet.Model, ours.extraction)
    mmsa.copy_fusion(theirs.fusion_subnet.Model, ours.fusion)
    batch = mmsa.dense_batch(60, seed=0)
    with torch.no_grad():
        scores = ours(batch).prediction
    difference = (scores - mmsa.tfrnet_scores(theirs, batch)).abs().max().item()
    record_property("largest_difference", difference)
    assert scores.std() > 1e-2
    assert difference < 1e-5


def test_mmsa_rebuilds_utterances_from_each_other(theirs):
    """Why reconstructions are left out: utterance 0 changes what is made of utterances 1 to 3.

    What it is made from, and so the prediction, does not change.
    """
    align = theirs.align_subnet.Model
    values = mmsa.dense_batch(4, seed=0).values
    other = {m: torch.cat([-x[:1], x[1:]]) for m, x in values.items()}
    with torch.no_grad():
        before, after = align(*values.values()), align(*other.values())
    change = [(y - x)[1:].abs().max().item() for x, y in zip(before, after, strict=True)]
    assert max(change[:3]) == 0
    assert min(change[3:]) > 1e-3
