import numpy as np
import pytest

from mitfrnet.report.columns import all_columns
from mitfrnet.report.over_rates import averages, blocks, is_best_average
from mitfrnet.report.scores import score_groups
from tests.helpers.made_results import make_block, make_results


def worse(model, rate, seed, label):
    """Return predictions off by 1 at rate 0, by 4 at 0.5, and constant at 1."""
    return np.full(len(label), 0.5) if rate == 1 else label + (1 if rate == 0 else 4)


def test_mwa_weighs_each_rate_by_one_minus_it(tmp_path):
    """MAE is 1 at rate 0 and 4 at rate 0.5: (1 * 1 + 0.5 * 4) / 1.5 = 2. Rate 1 weighs nothing.

    The correlation is not defined at 1: its area spans 0 to 0.5 and is divided by 0.5.
    """
    _, block = make_block(tmp_path, rates=(0.0, 0.5, 1.0), predict=worse)
    by_metric = averages(block)["mitfrnet"]
    assert by_metric["mae"].value["mwa_normalised"] == pytest.approx(2.0)
    assert by_metric["mae"].value["mwa_paper"] is None
    assert by_metric["corr"].value["auilc_normalised"] == pytest.approx(1.0)
    assert by_metric["corr"].skipped == (1.0,)
    assert by_metric["corr"].left_out("mwa_normalised") == ()
    assert by_metric["corr"].left_out("mean") == (1.0,)
    assert block.constant_at("mitfrnet") == (1.0,)


def test_the_deviation_is_over_the_averages_of_runs(tmp_path):
    """Seed s is off by s at every rate: the averages are 1 and 2, their deviation 0.5 ** 0.5."""
    _, block = make_block(
        tmp_path, rates=(0.0, 0.5), seeds=(1, 2), predict=lambda m, r, s, label: label + s
    )
    average = averages(block)["mitfrnet"]["mae"]
    assert average.value["mean"] == pytest.approx(1.5)
    assert average.deviation["mean"] == pytest.approx(0.5**0.5)
    assert averages(block)["majority"]["mae"].deviation["mean"] is None


def test_an_average_over_fewer_rates_is_not_best(tmp_path):
    """TFN correlates perfectly at rate 0 and is constant at 0.5; MIT-FRNet correlates at both."""

    def predict(model, rate, seed, label):
        if model == "tfn":
            return label if rate == 0 else 0 * label
        return label + np.resize([0.3, -0.3], len(label))

    _, block = make_block(tmp_path, rates=(0.0, 0.5), models=("mitfrnet", "tfn"), predict=predict)
    of_block = averages(block)
    (corr,) = (c for c in all_columns(block.scale) if c.key == "corr")
    best = [key for key in of_block if is_best_average(of_block, key, corr, "mean")]
    assert of_block["tfn"]["corr"].value["mean"] > of_block["mitfrnet"]["corr"].value["mean"]
    assert of_block["tfn"]["corr"].left_out("mean") == (0.5,)
    assert best == ["text_ridge"]
    assert not is_best_average(of_block, "tfn", corr, "mean")


def test_blocks_are_matched_rates_and_conditions_tested_elsewhere(tmp_path):
    results = make_results(tmp_path, rates=(0.5, "random_train"), tested=(0.0, 0.5))
    matched, _, random_train = all_blocks = blocks(score_groups(results))
    assert [(block.name, block.rates) for block in all_blocks] == [
        ("one", (0.5,)),
        ("one_0.5", (0.0, 0.5)),
        ("one_random_train", (0.0, 0.5)),
    ]
    assert matched.title == "one"
    assert random_train.title == "one, trained at a random missing rate per clip"
