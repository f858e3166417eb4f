"""MIT-FRNet's extraction and fusion against those of TFR-Net in MMSA 2.2.1.

The code that its authors released cannot be imported, but these two parts of it are TFR-Net's.
They are compared with `causal: true` and `gate: released`, on clips of full length.
"""

from typing import Any

import pytest
import torch

from mitfrnet.modalities import MODALITIES
from mitfrnet.models.mitfrnet.network import MITFRNet
from tests.helpers import mmsa_models as mmsa

pytestmark = pytest.mark.parity

SETTINGS: dict[str, Any] = {
    **mmsa.EXTRACTION,
    **mmsa.RECONSTRUCTION,
    **mmsa.FUSION,
    "mmr": True,
    "mitr": True,
    "timestamps": 64,
    "common_dim": 64,
    "similarity": "kl",
    "fuse": "encoded",
    "reconstruction_weight": 1.0,
    "invariance_weight": 0.001,
    "task_weight": 1.0,
    "aux_start_epoch": 2,
}


@pytest.fixture
def theirs(monkeypatch):
    return mmsa.tfrnet(monkeypatch)


@pytest.fixture
def ours(theirs):
    model = MITFRNet(dims=mmsa.DIMS, **SETTINGS).eval()
    mmsa.copy_extraction(theirs.align_subnet.Model, model.extraction)
    mmsa.copy_fusion(theirs.fusion_subnet.Model, model.fusion)
    return model


def test_extraction_is_that_of_tfrnet(ours, theirs, record_property):
    batch = mmsa.dense_batch(60)
    with torch.no_grad():
        encoded = ours.extraction(batch.values, batch.valid)
        expected = theirs.align_subnet.Model(*batch.values.values())[:3]
    differences = [
        (encoded[m] - h).abs().max().item() for m, h in zip(MODALITIES, expected, strict=True)
    ]
    record_property("largest_difference", max(differences))
    assert max(differences) < 1e-5


def test_fusion_is_that_of_tfrnet(ours, theirs, record_property):
    batch = mmsa.dense_batch(60)
    torch.manual_seed(2)
    encoded = {m: torch.randn(60, mmsa.LENGTHS[m], 90) for m in MODALITIES}
    with torch.no_grad():
        scores = ours.fusion(encoded, batch.valid)
        expected = theirs.fusion_subnet(*((encoded[m], batch.valid[m].float()) for m in MODALITIES))
    difference = (scores - expected).abs().max().item()
    record_property("largest_difference", difference)
    assert difference < 1e-5


def test_predictions_are_those_of_tfrnet(ours, theirs, record_property):
    batch = mmsa.dense_batch(60)
    with torch.no_grad():
        scores = ours(batch).prediction
    difference = (scores - mmsa.tfrnet_scores(theirs, batch)).abs().max().item()
    record_property("largest_difference", difference)
    assert difference < 1e-5


def test_our_causal_default_differs_from_tfrnet(ours, theirs):
    """The default in `params.yaml` gives other numbers, so the setting above matters."""
    other = MITFRNet(dims=mmsa.DIMS, **{**SETTINGS, "causal": False}).eval()
    other.load_state_dict(ours.state_dict())
    batch = mmsa.dense_batch(4)
    with torch.no_grad():
        difference = other(batch).prediction - mmsa.tfrnet_scores(theirs, batch)
    assert difference.abs().max() > 1e-3
