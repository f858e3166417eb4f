import pytest

from mitfrnet.labels import SCALES, parse_scale
from mitfrnet.metrics import metric_names
from mitfrnet.report.columns import all_columns, headline_columns

CUSTOM = {
    "low": 0,
    "high": 10,
    "neutral": 5,
    "neutral_is": "excluded",
    "clip": False,
    "cuts": {3: {"edges": [4, 6], "closed": "right"}, 11: "round"},
}
CLASSES = {"task": "classification", "classes": ["calm", "angry"]}


@pytest.mark.parametrize(
    ("scale", "headline"),
    [
        (SCALES["mosi"], ["acc2_non0", "f1_non0", "acc7", "mae", "corr"]),
        (SCALES["sims"], ["acc2", "f1", "acc3", "mae", "corr"]),
        (parse_scale(CUSTOM), ["acc2_non_neutral", "f1_non_neutral", "acc3", "mae", "corr"]),
        (parse_scale(CLASSES), ["accuracy", "f1_macro", "f1_weighted", "recall_macro"]),
    ],
)
def test_every_score_of_a_scale_has_a_column(scale, headline):
    columns = all_columns(scale)
    swapped = {name for name in metric_names(scale) if name.endswith("_swapped")}
    assert {c.key for c in columns} == set(metric_names(scale)) - swapped
    assert len({c.name for c in columns}) == len(columns)
    assert [c.key for c in headline_columns(scale)] == headline
    assert [c.key for c in columns if not c.higher_is_better] == ["mae"] * ("mae" in headline)


def test_meanings_come_from_the_scale():
    meanings = {c.key: c.meaning for c in all_columns(parse_scale(CUSTOM))}
    assert meanings["acc2_non_neutral"] == "positive or not, over clips not labelled 5"
    assert meanings["acc3"] == "exact class of 3, cut at 4 and 6"
    assert meanings["acc11"] == "exact class of 11, after rounding"


def test_values_as_printed():
    accuracy, *_, mae, _ = headline_columns(SCALES["mosi"])
    assert (accuracy.show(0.9211), mae.show(0.6125)) == ("92.1", "0.613")
    assert (accuracy.show_difference(0.004), mae.show_difference(-0.02)) == ("+0.4", "-0.020")
    assert accuracy.show(-0.0001) == accuracy.show_difference(-0.0001) == "0.0"
    assert mae.show(0.6125, 0.02) == "0.613 ± 0.020"


def test_the_best_value_is_the_lowest_error_or_the_highest_share():
    accuracy, *_, mae, _ = headline_columns(SCALES["mosi"])
    assert (accuracy.best([0.5, 0.7]), accuracy.arrow, accuracy.better) == (0.7, "↑", "higher")
    assert (mae.best([0.5, 0.7]), mae.arrow, mae.better) == (0.5, "↓", "lower")
