import math
from dataclasses import replace

import pytest
import torch

from mitfrnet.data.batches import collate
from mitfrnet.errors import ParamsError
from mitfrnet.models.base import SCORE, Task
from mitfrnet.models.baselines.tfn import TFN, TextSubnet, observed_mean, tensor_fusion


@pytest.fixture
def network(dims, tfn_settings):
    def make(task: Task = SCORE, **settings: object) -> TFN:
        torch.manual_seed(0)
        return TFN(dims=dims, task=task, **{**tfn_settings, **settings})

    return make


@pytest.fixture
def batch(make_utterance):
    return collate([make_utterance(i) for i in range(4)])


def test_tensor_fusion_by_hand():
    """[2, 1] x [3, 1] x [5, 7, 1]: first with text 2, then with its 1; visual runs fastest."""
    fused = tensor_fusion(torch.tensor([[2.0]]), torch.tensor([[3.0]]), torch.tensor([[5.0, 7.0]]))
    assert fused.tolist() == [[30, 42, 6, 10, 14, 2, 15, 21, 3, 5, 7, 1]]


def test_mean_is_over_observed_steps():
    """Of 1 and 5 it is 3, however many steps are hidden or padded; of nothing it is 0."""
    x = torch.tensor([[[1.0], [0.0], [5.0], [torch.nan]], [[0.0], [0.0], [0.0], [0.0]]])
    observed = torch.tensor([[True, False, True, False], [False] * 4])
    assert observed_mean(x, observed).tolist() == [[3.0], [0.0]]


def test_text_is_read_up_to_its_last_real_token():
    """Zeros behind it would change the state."""
    torch.manual_seed(0)
    subnet = TextSubnet(in_dim=2, hidden=3, out_dim=4, dropout=0.0)
    short = torch.randn(1, 4, 2)
    alone = subnet(short, torch.ones(1, 4, dtype=torch.bool))
    padded = torch.nn.functional.pad(short, (0, 0, 0, 3))
    torch.testing.assert_close(subnet(padded, torch.arange(7)[None] < 4), alone)
    assert not torch.allclose(subnet(padded, torch.ones(1, 7, dtype=torch.bool)), alone)


@pytest.mark.parametrize(("low", "high"), [(-3.0, 3.0), (-1.0, 1.0)])
def test_scores_span_the_label_scale(network, batch, low, high):
    """Sigmoids of 0, ln 3 and +-100 are 1/2, 3/4, 1 and 0: so far from low to high."""
    model = network(Task(low=low, high=high)).eval()
    last = model.post_fusion[-1]
    last.weight.data.zero_()
    for bias, share in ((0.0, 0.5), (math.log(3), 0.75), (100.0, 1.0), (-100.0, 0.0)):
        last.bias.data.fill_(bias)
        expected = torch.full((4,), low + share * (high - low))
        torch.testing.assert_close(model(batch).prediction, expected)


def test_logits_of_classes_are_not_squashed(network, batch):
    model = network(Task(classes=2)).eval()
    model.post_fusion[-1].weight.data.zero_()
    model.post_fusion[-1].bias.data = torch.tensor([40.0, -7.0])
    labelled = replace(batch, label=torch.tensor([0.0, 1.0, 0.0, 1.0]))
    assert model(labelled).prediction.tolist() == [[40.0, -7.0]] * 4


def test_loss_is_the_absolute_error(network, batch):
    """Scores of 0 against labels 1, -2, 3 and 0: (1 + 2 + 3 + 0) / 4."""
    model = network().eval()
    for parameter in model.post_fusion[-1].parameters():
        parameter.data.zero_()
    labelled = replace(batch, label=torch.tensor([1.0, -2.0, 3.0, 0.0]))
    assert model(labelled).losses["task"].mean == 1.5


def test_settings_of_the_paper_give_its_sizes(network):
    """129 x 17 x 129 products of features."""
    model = network(
        hidden_dims={"text": 128, "acoustic": 16, "visual": 128}, text_out=128, post_fusion_dim=32
    )
    assert model.post_fusion[1].weight.shape == (32, 129 * 17 * 129)
    assert [layer.weight.shape[0] for layer in model.means["visual"].layers[2::2]] == [128] * 3


def test_wrong_settings_are_refused(network):
    with pytest.raises(ParamsError, match=r"model.tfn.network.dropout.text: .*\(found: 1.0\)"):
        network(dropout={"text": 1.0, "acoustic": 0.0, "visual": 0.0})
    with pytest.raises(ParamsError, match=r"text_outt: unknown key \(expected: text_out\)"):
        network(text_outt=3)
