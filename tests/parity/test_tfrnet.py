"""TFR-Net against MMSA 2.2.1: the same weights in, the same scores out.

Both read the same text features and have the published settings for MOSI (`causal`, the released
gate), but theirs has one temporal head, since 25 would have to divide every length. The rebuilt
features cannot be compared: their transformers attend over the batch, as the second test shows.
"""

import pytest
import torch

from mitfrnet.models.baselines.tfrnet import TFRNet
from tests.helpers import mmsa_models as mmsa

pytestmark = pytest.mark.parity


@pytest.fixture
def theirs(monkeypatch):
    return mmsa.tfrnet(monkeypatch)


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
    batch = mmsa.dense_batch(60)
    with torch.no_grad():
        scores = ours(batch).prediction
    difference = (scores - mmsa.tfrnet_scores(theirs, batch)).abs().max().item()
    record_property("largest_difference", difference)
    assert scores.std() > 1e-2
    assert difference < 1e-5


def test_mmsa_rebuilds_utterances_from_each_other(theirs):
    """Why reconstructions are not compared: utterance 0 changes those of utterances 1 to 3.

    Their encoded features, and so their scores, do not change.
    """
    align = theirs.align_subnet.Model
    values = mmsa.dense_batch(4).values
    other = {m: torch.cat([-x[:1], x[1:]]) for m, x in values.items()}
    with torch.no_grad():
        before, after = align(*values.values()), align(*other.values())
    change = [(y - x)[1:].abs().max().item() for x, y in zip(before, after, strict=True)]
    assert max(change[:3]) == 0
    assert min(change[3:]) > 1e-3
