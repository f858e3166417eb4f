import pytest

from mitfrnet.errors import ParamsError
from mitfrnet.params import parse_params
from mitfrnet.report.tables.averages import blocks
from mitfrnet.report.tables.paired import PairedParams, comparisons, holm, paired_column
from mitfrnet.report.tables.scores import BootstrapParams, score_groups
from tests.helpers.made_results import REPORT, read, write_results


def test_holm_by_hand():
    """Of 0.01, 0.04, 0.03: 3 * 0.01, then 2 * 0.03, and 1 * 0.04 is raised to the one before."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_first_model_against_each_other(tmp_path):
    """MIT-FRNet is off by 0.5 and TFN by 1; MISA says what MIT-FRNet says."""

    def predict(model, rate, seed, label):
        return label + (1 if model == "tfn" else 0.5)

    grid = write_results(tmp_path, others=("tfn", "misa"), rates=(0.1, 0.2), predict=predict)
    (block,) = blocks(score_groups(read(tmp_path, grid)))
    found = comparisons(block, "mae", 999, REPORT.bootstrap)
    assert [(c.other, c.tested) for c in found] == [
        ("tfn", 0.1), ("tfn", 0.2), ("misa", 0.1), ("misa", 0.2)
    ]  # fmt: skip
    assert found[0].test.difference == pytest.approx(-0.5)
    assert found[0].test.p_value < 0.01
    assert found[0].adjusted == pytest.approx(4 * min(c.test.p_value for c in found[:2]), abs=0.01)
    assert (found[2].test.difference, found[2].adjusted) == (0.0, 1.0)


@pytest.mark.parametrize("scores", ["f1_has0_swapped", "n"])
def test_a_score_that_the_report_does_not_show_is_an_error(tmp_path, scores):
    (block,) = blocks(score_groups(read(tmp_path, write_results(tmp_path))))
    params = PairedParams(scores=scores, classes="accuracy", exchanges=10)
    with pytest.raises(ParamsError, match=f"{scores}' is no score"):
        paired_column(block, params)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (PairedParams, {"scores": "mae", "classes": "accuracy", "exchanges": 0}),
        (BootstrapParams, {"resamples": 0, "seed": 1, "level": 0.95}),
        (BootstrapParams, {"resamples": 10, "seed": -1, "level": 0.95}),
        (BootstrapParams, {"resamples": 10, "seed": 1, "level": 95}),
    ],
)
def test_settings_out_of_range_are_one_line(kind, values):
    with pytest.raises(ParamsError, match=r"^report: |^report\."):
        parse_params(kind, values, where="report")


def test_a_score_that_the_scale_lacks_is_an_error(tmp_path):
    (block,) = blocks(score_groups(read(tmp_path, write_results(tmp_path))))
    params = PairedParams(scores="accuracy", classes="accuracy", exchanges=10)
    message = r"report\.paired_test\.scores: 'accuracy' is no score of corpus one \(expected acc2_"
    with pytest.raises(ParamsError, match=message):
        paired_column(block, params)
