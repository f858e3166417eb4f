from dataclasses import replace

import pytest
import torch

from mitfrnet.data.batches import collate
from mitfrnet.errors import ParamsError
from mitfrnet.modalities import MODALITIES
from mitfrnet.models.base import objective
from mitfrnet.models.layers import split_weight_decay
from mitfrnet.models.mitfrnet.network import MITFRNet


@pytest.fixture
def network(dims, mitfrnet_settings):
    def make(**settings: object) -> MITFRNet:
        torch.manual_seed(0)
        return MITFRNet(dims=dims, **{**mitfrnet_settings, **settings})

    return make


@pytest.fixture
def batch(make_utterance):
    return collate([make_utterance(i) for i in range(5)])  # odd: signs cannot cancel


RECONSTRUCTION = {f"reconstruction_{m}" for m in MODALITIES}


@pytest.mark.parametrize("mmr", [False, True])
@pytest.mark.parametrize("mitr", [False, True])
def test_mmr_and_mitr_are_independent(network, batch, mmr, mitr):
    model = network(mmr=mmr, mitr=mitr)
    output = model(batch)
    expected = {"task"} | (RECONSTRUCTION if mmr else set()) | ({"invariance"} if mitr else set())
    assert output.losses.keys() == expected == model.loss_counts(batch).keys()
    assert set(output.reconstructed) == (set(MODALITIES) if mmr else set())
    objective(output.losses).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_reconstruction_scores_hidden_or_all_detected_steps(network, batch):
    """The count is of elements; a real step where nothing was detected is never scored."""
    m = "acoustic"
    observed = batch.observed[m].clone()
    undetected = batch.valid[m] & (torch.arange(observed.shape[1]) == 1)
    observed &= ~undetected
    hidden = batch.hidden[m] & ~undetected
    batch = replace(
        batch, observed={**batch.observed, m: observed}, hidden={**batch.hidden, m: hidden}
    )
    for reconstruct, scored in (("missing", hidden), ("all", hidden | observed)):
        loss = network(reconstruct=reconstruct).eval()(batch).losses[f"reconstruction_{m}"]
        rebuilt = network(reconstruct=reconstruct).eval()(batch).reconstructed[m]
        distance = torch.nn.functional.smooth_l1_loss(rebuilt[scored], batch.target[m][scored])
        assert loss.count == 5 * scored.sum()
        torch.testing.assert_close(loss.mean, distance)


def test_nothing_missing_gives_zero_reconstruction_loss(network, make_utterance):
    model = network()
    losses = model(collate([make_utterance(i, missing_rate=0.0) for i in range(2)])).losses
    assert all(losses[name].mean == 0 and losses[name].count == 0 for name in RECONSTRUCTION)
    objective(losses).backward()
    assert all((p.grad == 0).all() for p in model.reconstruction.parameters())


def test_invariance_leaves_out_absent_modalities(network, make_utterance):
    """Visual absent: what its null step becomes is not compared; two absent: no pair is left."""
    model = network().eval()
    one = collate([make_utterance(0, absent=("visual",))])
    before = model(one).losses["invariance"]
    assert before.count == 1
    assert before.sum > 0
    with torch.no_grad():
        model.invariance.projections["visual"].weight.mul_(7)
    assert model(one).losses["invariance"].sum == before.sum
    two = model(collate([make_utterance(0, absent=("visual", "text"))])).losses["invariance"]
    assert (two.sum, two.count) == (0, 0)


def test_weights_of_the_objective(network, batch):
    """Eq. 20 and 24: 2 x {5, 2, 20} for the reconstructions, 0.5 and 3 for the others."""
    losses = network(
        reconstruction_weights={"text": 5, "acoustic": 2, "visual": 20},
        reconstruction_weight=2,
        invariance_weight=0.5,
        task_weight=3,
    )(batch).losses
    assert {name: loss.weight for name, loss in losses.items()} == {
        "reconstruction_text": 10,
        "reconstruction_acoustic": 4,
        "reconstruction_visual": 40,
        "invariance": 0.5,
        "task": 3,
    }


def test_fuse_reconstructed_feeds_the_prediction(network, batch):
    for fuse, fed in (("encoded", False), ("reconstructed", True)):
        model = network(fuse=fuse)
        model(batch).prediction.sum().backward()
        gradient = model.reconstruction.encoders["text"].norm.weight.grad
        assert (gradient is not None and bool(gradient.any())) is fed


def test_causal_and_fuse_change_what_is_predicted(network, batch):
    """The weights are the same."""
    usual = network().eval()
    for switch in ({"causal": True}, {"fuse": "reconstructed"}):
        other = network(**switch).eval()
        other.load_state_dict(usual.state_dict())
        difference = other(batch).prediction - usual(batch).prediction
        assert difference.abs().max() > 1e-3


def test_gate_reaches_the_fusion(network):
    """`printed` reads [F_gru; F_hp], 8 + 8 features; `released` [H; F_hp], 18 + 8."""
    for gate, features in (("printed", 16), ("released", 26)):
        assert network(gate=gate).fusion.encoders["text"].linear.in_features == features


def test_similarity_changes_the_loss_and_not_the_score(network, batch):
    losses = set()
    for similarity in ("kl", "symmetric_kl", "gaussian_nll"):
        output = network(similarity=similarity).eval()(batch)
        losses.add(round(output.losses["invariance"].sum.item(), 5))
        assert torch.equal(output.prediction, network().eval()(batch).prediction)
    assert len(losses) == 3


@pytest.mark.parametrize("similarity", ["symmetric_kl", "gaussian_nll"])
def test_every_parameter_learns_under_every_similarity(network, batch, similarity):
    model = network(similarity=similarity)
    objective(model(batch).losses).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_auxiliary_losses_do_not_touch_the_prediction(network, batch):
    model = network().eval()
    assert torch.equal(model(batch, aux=True).prediction, model(batch, aux=False).prediction)


def test_projections_of_the_invariance_are_not_decayed(network):
    model = network()
    decayed = {id(p) for p in split_weight_decay(model)[0]}
    assert not decayed & {id(p) for p in model.invariance.parameters()}
    assert id(model.reconstruction.linears["text"].weight) in decayed


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dmi": 3}, r"model\.mitfrnet\.network\.dmi: unknown key \(expected: dim\)"),
        ({"heads": 4}, "heads: 4 does not divide dim = 6"),
        ({"reconstruction_heads": 4}, "does not divide 3 dim = 18"),
        ({"kernels": {"text": 2, "acoustic": 5, "visual": 3}}, r"kernels\.text: 2 is even"),
        ({"kernels": {"text": 1, "acoustic": 5}}, r"kernels\.visual: key is absent"),
        ({"gru_hidden": {"text": 1, "acoustic": 1, "visual": 0}}, r"gru_hidden\.visual"),
        ({"text_dropout": 1.0}, "text_dropout"),
        ({"invariance_weight": float("nan")}, "invariance_weight"),
        ({"similarity": "cmd"}, "similarity"),
        ({"fuse": "reconstructed", "mmr": False}, "fuse: reconstructed needs mmr: true"),
        ({"aux_start_epoch": 0}, "aux_start_epoch"),
    ],
)
def test_wrong_settings_are_refused(network, wrong, message):
    with pytest.raises(ParamsError, match=message):
        network(**wrong)
