import pytest
import torch
import torch.nn.functional as F

from mitfrnet.data.batches import collate
from mitfrnet.errors import ParamsError
from mitfrnet.modalities import MODALITIES
from mitfrnet.models.baselines.tfrnet import TFRNet


@pytest.fixture
def network(dims, tfrnet_settings):
    def make(**settings: object) -> TFRNet:
        torch.manual_seed(0)
        return TFRNet(dims=dims, **{**tfrnet_settings, **settings}).eval()

    return make


@pytest.fixture
def batch(make_utterance):
    return collate([make_utterance(i) for i in range(4)])


def test_weights_of_the_objective(network, batch):
    """As published for MOSI: 5, 2 and 20 beside the task's 1."""
    losses = network(reconstruction_weights={"text": 5, "acoustic": 2, "visual": 20})(batch).losses
    assert {name: loss.weight for name, loss in losses.items()} == {
        "task": 1,
        "reconstruction_text": 5,
        "reconstruction_acoustic": 2,
        "reconstruction_visual": 20,
    }


@pytest.mark.parametrize("reconstruct", ["missing", "all"])
def test_reconstruction_scores_hidden_or_all_detected_steps(network, batch, reconstruct):
    output = network(reconstruct=reconstruct)(batch)
    for m in MODALITIES:
        scored = batch.hidden[m] | (batch.observed[m] & (reconstruct == "all"))
        loss = output.losses[f"reconstruction_{m}"]
        expected = F.smooth_l1_loss(output.reconstructed[m][scored], batch.target[m][scored])
        assert loss.count == scored.sum() * batch.target[m].shape[-1]
        torch.testing.assert_close(loss.mean, expected)


def test_score_comes_from_the_encoded_features_alone(network, batch):
    model = network()
    model(batch).prediction.sum().backward()
    assert all(p.grad is None for p in model.reconstruction.parameters())
    assert all(p.grad is not None for p in model.extraction.parameters())


def test_nothing_is_rebuilt_from_another_utterance(network, make_utterance):
    model = network()
    one, other, mate = (make_utterance(i, lengths={"visual": 5}) for i in range(3))
    rebuilt = [model(collate([u, mate])).reconstructed["visual"][1, :5] for u in (one, other)]
    torch.testing.assert_close(*rebuilt)


def test_causal_changes_what_is_predicted(network, batch):
    causal, other = network(causal=True), network(causal=False)
    other.load_state_dict(causal.state_dict())
    assert (other(batch).prediction - causal(batch).prediction).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mitr": True}, r"model\.tfrnet\.network\.mitr: unknown key"),
        ({"heads": 4}, "heads: 4 does not divide dim = 6"),
        ({"reconstruction_heads": 4}, "does not divide 3 dim = 18"),
    ],
)
def test_wrong_settings_are_refused(network, wrong, message):
    with pytest.raises(ParamsError, match=message):
        network(**wrong)
