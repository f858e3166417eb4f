import pytest
import torch

from mitfrnet.data.batches import collate
from mitfrnet.errors import ParamsError
from mitfrnet.modalities import MODALITIES
from mitfrnet.models.baselines.mult import MulT


@pytest.fixture
def network(dims, mult_settings):
    def make(**settings: object) -> MulT:
        torch.manual_seed(0)
        return MulT(dims=dims, **{**mult_settings, **settings}).eval()

    return make


@pytest.fixture
def batch(make_utterance):
    return collate([make_utterance(i) for i in range(4)])


def test_transformers_of_mosi(network):
    """Six of 40 features and 4 layers, three of 80; attention drops by what is attended to."""
    model = network(
        dim=40,
        heads=10,
        cross_layers=4,
        memory_layers=5,
        feedforward_factor=4,
        attention_dropout={"text": 0.1, "acoustic": 0.2, "visual": 0.3},
        memory_attention_dropout=0.4,
    )
    assert set(model.crossmodal) == {
        f"{s}_to_{m}" for s in MODALITIES for m in MODALITIES if s != m
    }
    crossed, remembered = model.crossmodal["visual_to_text"], model.memory["text"]
    assert (len(crossed.layers), len(remembered.layers)) == (4, 5)
    assert crossed.layers[0].attention.dropout == 0.3
    assert remembered.layers[0].attention.dropout == 0.4
    assert crossed.layers[0].feedforward[1].weight.shape == (160, 40)
    assert remembered.layers[0].feedforward[1].weight.shape == (320, 80)
    assert model.head.in_features == 240


def test_last_real_step_is_what_is_read(network, make_utterance):
    """Steps 3, 6 and 4 of clips that are padded to 9: without a residual, h is those three."""
    model = network()
    short = make_utterance(0, lengths={"text": 3, "acoustic": 6, "visual": 4})
    batch = collate([short, make_utterance(1, lengths={"text": 9, "acoustic": 9, "visual": 9})])
    captured = {}
    for m in MODALITIES:
        model.memory[m].register_forward_hook(lambda _, __, out, m=m: captured.update({m: out}))
    model.head.register_forward_pre_hook(lambda _, args: captured.update(h=args[0]))
    for parameter in model.residual.parameters():
        parameter.data.zero_()  # leaves its shortcut
    model(batch)
    last = torch.cat([captured["text"][0, 2], captured["acoustic"][0, 5], captured["visual"][0, 3]])
    assert torch.equal(captured["h"][0], last)


def test_residual_block_by_hand(network, batch):
    """W_1 = -I, W_2 = I, without biases: relu(-h) + h, the positive part of h."""
    model = network()
    captured = {}
    model.head.register_forward_pre_hook(lambda _, args: captured.update(h=args[0]))
    for parameter in model.residual.parameters():
        parameter.data.zero_()
    model(batch)
    h = captured["h"]
    model.residual[0].weight.data = -torch.eye(36)
    model.residual[3].weight.data = torch.eye(36)
    model(batch)
    torch.testing.assert_close(captured["h"], h.clamp(min=0))


def test_switches_change_what_is_predicted(network, batch):
    usual = network()
    for switch in ({"causal": False}, {"positions": False}, {"padded_convolutions": False}):
        other = network(**switch)
        other.load_state_dict(usual.state_dict())
        assert (other(batch).prediction - usual(batch).prediction).abs().max() > 1e-3


def test_unpadded_convolutions_keep_utterances_apart(network, make_utterance):
    """Also where a clip is shorter than the filters of 5 and 3 steps."""
    model = network(padded_convolutions=False)
    utterances = [
        make_utterance(0, lengths={"text": 1, "acoustic": 2, "visual": 1}),
        make_utterance(1, lengths={"text": 9, "acoustic": 12, "visual": 7}),
    ]
    alone = torch.cat([model(collate([u])).prediction for u in utterances])
    torch.testing.assert_close(model(collate(utterances)).prediction, alone, atol=1e-5, rtol=0)


def test_auxiliary_losses_do_not_exist(network, batch):
    output = network()(batch)
    assert set(output.losses) == {"task"}
    assert output.reconstructed == {}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dmi": 3}, r"model\.mult\.network\.dmi: unknown key \(expected: dim\)"),
        ({"heads": 4}, "heads: 4 does not divide dim = 6"),
        ({"kernels": {"text": 2, "acoustic": 5, "visual": 3}}, r"kernels\.text: 2 is even"),
        ({"output_dropout": 1.0}, "output_dropout"),
    ],
)
def test_wrong_settings_are_refused(network, wrong, message):
    with pytest.raises(ParamsError, match=message):
        network(**wrong)
