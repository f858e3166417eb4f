import numpy as np
import pytest

from mitfrnet.report.tables.averages import averages, blocks, is_best_average
from mitfrnet.report.tables.columns import all_columns
from mitfrnet.report.tables.scores import score_groups
from tests.helpers.made_results import read, write_results


def made(folder, **grid):
    return blocks(score_groups(read(folder, write_results(folder, **grid))))


def worse(model, rate, seed, label):
    """Return predictions off by 1 at rate 0, by 4 at 0.5, and constant at 1."""
    return np.full(len(label), 0.5) if rate == 1 else label + (1 if rate == 0 else 4)


def test_averages_weigh_rates_by_what_is_left(tmp_path):
    """MAE is 1 at rate 0 and 4 at rate 0.5: (1 * 1 + 0.5 * 4) / 1.5 = 2. Rate 1 weighs nothing.

    The correlation is not defined at 1: its area is that from 0 to 0.5, divided by 0.5.
    """
    (block,) = made(tmp_path, rates=(0.0, 0.5, 1.0), predict=worse)
    found = averages(block)["mitfrnet"]
    assert found["mae"].value["mwa_normalised"] == pytest.approx(2.0)
    assert found["mae"].value["mwa_paper"] is None
    assert found["corr"].value["auilc_normalised"] == pytest.approx(1.0)
    assert found["corr"].skipped == (1.0,)
    assert found["corr"].missed("mwa_normalised") == ()
    assert found["corr"].missed("mean") == (1.0,)
    assert block.constant_at("mitfrnet") == (1.0,)


def test_deviation_is_of_the_averages_of_runs(tmp_path):
    """Seed s is off by s at every rate: the averages are 1 and 2, their deviation 0.5 ** 0.5."""
    (block,) = made(
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

    (block,) = made(tmp_path, rates=(0.0, 0.5), others=("tfn",), predict=predict)
    found = averages(block)
    (corr,) = (c for c in all_columns(block.scale) if c.key == "corr")
    best = [key for key in found if is_best_average(found, key, corr, "mean")]
    assert found["tfn"]["corr"].value["mean"] > found["mitfrnet"]["corr"].value["mean"]
    assert found["tfn"]["corr"].missed("mean") == (0.5,)
    assert best == ["text_ridge"]
    assert not is_best_average(found, "tfn", corr, "mean")


def test_blocks_are_matched_rates_and_conditions_tested_elsewhere(tmp_path):
    found = made(tmp_path, rates=(0.5, "random_train"), tested=(0.0, 0.5))
    assert [(b.name, b.rates) for b in found] == [
        ("one", (0.5,)),
        ("one_0.5", (0.0, 0.5)),
        ("one_random_train", (0.0, 0.5)),
    ]
    assert found[2].title == "one, trained at a random missing rate per clip"
