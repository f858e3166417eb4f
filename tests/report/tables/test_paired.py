import pytest

from mitfrnet.errors import ParamsError
from mitfrnet.params import parse_params
from mitfrnet.report.params import BootstrapParams, PairedParams
from mitfrnet.report.tables.paired import adjusted_tests, holm, paired_table
from tests.helpers.made_results import REPORT, make_block


def test_holm_by_hand():
    """Of 0.01, 0.04, 0.03: 3 * 0.01, then 2 * 0.03, and 1 * 0.04 is raised to the one before."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_first_model_against_each_other(tmp_path):
    """MIT-FRNet is off by 0.5 and TFN by 1; MISA predicts what MIT-FRNet predicts."""

    def predict(model, rate, seed, label):
        return label + (1 if model == "tfn" else 0.5)

    models = ("mitfrnet", "tfn", "misa")
    _, block = make_block(tmp_path, models=models, rates=(0.1, 0.2), predict=predict)
    tests = adjusted_tests(block, "mae", 999, REPORT.bootstrap)
    assert [(t.other, t.tested) for t in tests] == [
        ("tfn", 0.1), ("tfn", 0.2), ("misa", 0.1), ("misa", 0.2)
    ]  # fmt: skip
    assert tests[0].test.difference == pytest.approx(-0.5)
    assert tests[0].test.p_value < 0.01
    assert tests[0].adjusted == pytest.approx(4 * min(t.test.p_value for t in tests[:2]), abs=0.01)
    assert (tests[2].test.difference, tests[2].adjusted) == (0.0, 1.0)


@pytest.mark.parametrize("metric", ["f1_has0_swapped", "n", "accuracy"])
def test_a_score_that_the_report_does_not_show_is_an_error(tmp_path, metric):
    _, block = make_block(tmp_path, models=("mitfrnet", "tfn"))
    params = PairedParams(scores=metric, classes="accuracy", exchanges=10)
    message = rf"report\.paired_test\.scores: '{metric}' is no score of corpus one \(expected acc2_"
    with pytest.raises(ParamsError, match=message):
        paired_table(block, params, REPORT.bootstrap)


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


def test_small_p_values_are_bold_and_constant_models_are_named(tmp_path):
    def predict(model, rate, seed, label):
        return 0 * label + 0.5 if model == "tfn" else label

    _, block = make_block(tmp_path, models=("mitfrnet", "tfn"), predict=predict)
    params = PairedParams(scores="mae", classes="accuracy", exchanges=999)
    table = paired_table(block, params, REPORT.bootstrap)
    (entry,) = table.lines[0].entries
    assert entry.bold
    assert entry.text.startswith("-1.6")
    assert entry.flags == ("TFN: constant",)
    assert table.heads == ("MIT-FRNet minus", "0.3")
    assert "all 1 tests" in table.notes[1]
    assert "0.001" in table.notes[1]


def test_an_undefined_correlation_is_not_compared(tmp_path):
    _, block = make_block(
        tmp_path, models=("tfn", "mitfrnet"), predict=lambda m, r, s, label: 0 * label
    )
    params = PairedParams(scores="corr", classes="accuracy", exchanges=50)
    table = paired_table(block, params, REPORT.bootstrap)
    assert table.heads == ("TFN minus", "0.3")
    assert [line.label for line in table.lines] == ["MIT-FRNet"]
    assert table.lines[0].entries[0].text == "-"
    assert table.records[0]["p_value"] is None
