"""MulT against MMSA 2.2.1: the same weights in, the same scores out.

Ours gets the settings of theirs: no positions, convolutions that lose kernel - 1 steps, a causal
mask. Clips have full length, since theirs attends to padding and reads its last step.
"""

from typing import Any

import pytest
import torch

from mitfrnet.modalities import MODALITIES
from mitfrnet.models.baselines.mult import MulT
from tests.helpers import mmsa_models as mmsa

pytestmark = pytest.mark.parity

# MMSA's settings for MOSI.
SETTINGS: dict[str, Any] = {
    "dim": 40,
    "heads": 10,
    "cross_layers": 4,
    "memory_layers": 4,
    "feedforward_factor": 4,
    "kernels": {"text": 1, "acoustic": 5, "visual": 1},
    "padded_convolutions": False,
    "positions": False,
    "causal": True,
    "text_dropout": 0.2,
    "attention_dropout": {"text": 0.1, "acoustic": 0.1, "visual": 0.2},
    "memory_attention_dropout": 0.1,
    "relu_dropout": 0.2,
    "residual_dropout": 0.2,
    "embed_dropout": 0.1,
    "output_dropout": 0.1,
}


def theirs_with(module: Any, layers: int) -> Any:
    args = mmsa.Args(
        use_bert=False,
        train_mode="regression",
        dst_feature_dim_nheads=(40, 10),
        feature_dims=tuple(mmsa.DIMS.values()),
        nlevels=layers,
        attn_dropout=0.1,
        attn_dropout_a=0.1,
        attn_dropout_v=0.2,
        relu_dropout=0.2,
        embed_dropout=0.1,
        res_dropout=0.2,
        output_dropout=0.1,
        text_dropout=0.2,
        attn_mask=True,
        conv1d_kernel_size_l=1,
        conv1d_kernel_size_a=5,
        conv1d_kernel_size_v=1,
    )
    torch.manual_seed(0)
    return mmsa.lively(module.MULT(args))


@pytest.fixture
def module():
    return mmsa.load("singleTask.MULT")


def ours_like(theirs: Any, **settings: Any) -> MulT:
    ours = MulT(dims=mmsa.DIMS, **{**SETTINGS, **settings}).eval()
    mmsa.copy_convolutions(theirs, ours.convolutions)
    mmsa.copy_crossmodal(theirs, ours.crossmodal)
    for m in MODALITIES:
        mmsa.copy_encoder(getattr(theirs, f"trans_{mmsa.LETTERS[m]}_mem"), ours.memory[m])
    ours.residual[0].load_state_dict(theirs.proj1.state_dict())
    ours.residual[3].load_state_dict(theirs.proj2.state_dict())
    ours.head.load_state_dict(theirs.out_layer.state_dict())
    return ours


def largest_difference(ours: MulT, theirs: Any) -> float:
    batch = mmsa.dense_batch(60)
    with torch.no_grad():
        expected = theirs(*batch.values.values())["M"].squeeze(-1)
        return (ours(batch).prediction - expected).abs().max().item()


@pytest.mark.parametrize(
    "layers", [{"cross_layers": 4, "memory_layers": 4}, {"cross_layers": 2, "memory_layers": 3}]
)
def test_predictions_are_those_of_mmsa(module, layers, record_property):
    """The layers for MOSI and SIMS; memory transformers have at least 3."""
    theirs = theirs_with(module, layers["cross_layers"])
    difference = largest_difference(ours_like(theirs, **layers), theirs)
    record_property("largest_difference", difference)
    assert difference < 1e-5


@pytest.mark.parametrize(
    "switch", [{"positions": True}, {"padded_convolutions": True}, {"causal": False}]
)
def test_each_setting_is_needed(module, switch):
    theirs = theirs_with(module, 4)
    assert largest_difference(ours_like(theirs, **switch), theirs) > 1e-3


def test_dropouts_go_to_the_same_places(module):
    theirs = theirs_with(module, 4)
    ours = ours_like(theirs)
    for m in MODALITIES:
        pairs = [(f"trans_{mmsa.LETTERS[m]}_mem", ours.memory[m])]
        pairs += [
            (f"trans_{mmsa.LETTERS[m]}_with_{mmsa.LETTERS[s]}", ours.crossmodal[f"{s}_to_{m}"])
            for s in MODALITIES
            if s != m
        ]
        for name, encoder in pairs:
            attention = getattr(theirs, name).layers[0].self_attn
            assert encoder.layers[0].attention.dropout == attention.attn_dropout
