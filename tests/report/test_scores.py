import numpy as np
import pytest

from mitfrnet.errors import FeatureError
from mitfrnet.report.params import BootstrapParams
from mitfrnet.report.scores import model_names, score_groups
from mitfrnet.report.tables.plain import scores_text
from tests.helpers.made_results import make_results, read, write_results

LABEL = [-2.0, -1.0, 0.0, 1.0, 3.0]


def by_hand(model, rate, seed, label):
    """Return predictions off by 0.5 with seed 1; by 1.5, all upwards, with seed 2."""
    return label + (0.5 if seed == 1 else 1.5)


@pytest.fixture
def groups(tmp_path):
    results = make_results(tmp_path, seeds=(1, 2), clips=5, label=LABEL, predict=by_hand)
    return score_groups(results)


def test_mean_and_deviation_over_seeds_by_hand(groups):
    """Labels -2, -1, 0, 1, 3; the scale is [-3, 3].

    Seed 1 predicts -1.5, -0.5, 0.5, 1.5, 3.5: MAE 0.5; of the four signed labels all have the
    right sign; classes of seven -2, 0, 0, 2, 3 (halves to even): three of five are right.
    Seed 2 predicts -0.5, 0.5, 1.5, 2.5, 4.5: MAE 1.5; signs -, +, +, +: three of four; classes
    0, 0, 2, 2, 3: one of five.
    """
    (group,) = groups
    row = group.rows[0]
    assert (group.clips, group.signed_clips, row.runs) == (5, 4, ((1, 1), (2, 1)))
    assert row.mean("mae") == pytest.approx(1.0)
    assert row.deviation("mae") == pytest.approx(0.5**0.5)
    assert row.mean("acc2_non0") == pytest.approx((1 + 3 / 4) / 2)
    assert row.mean("acc7") == pytest.approx((3 / 5 + 1 / 5) / 2)
    shown = {column.short: row.show(column) for column in group.headline}
    assert shown["MAE"] == "1.000 ± 0.707"
    assert shown["Acc-2"] == "87.5 ± 17.7"
    assert shown["Acc-7"] == "40.0 ± 28.3"
    assert shown["Corr"] == "1.000 ± 0.000"


@pytest.mark.parametrize(
    ("label", "lines"),
    [
        ([1.0], ("Corr is not defined: a correlation needs at least two clips",)),
        ([1.0, 1.0], ("Corr is not defined: all labels are the same",)),
        (
            [0.0, 0.0],
            (
                "Acc-2 is not defined: all labels are neutral",
                "F1 is not defined: all labels are neutral",
                "Corr is not defined: all labels are the same",
            ),
        ),
        ([-1.0, 2.0], ()),
    ],
)
def test_scores_that_the_test_clips_leave_undefined_are_named(tmp_path, label, lines):
    def predict(model, rate, seed, label):
        return label + np.arange(len(label), dtype=np.float32)

    results = make_results(tmp_path, clips=len(label), label=label, predict=predict)
    (group,) = score_groups(results)
    assert group.undefined == lines
    assert all(line in scores_text("title", [group]) for line in lines)


def test_references_by_hand(groups):
    """Majority is 1.5, the mean 0.5, the ridge 0.35 * label + 0.3 at a missing rate of 0.3.

    MAE of 1.5: (3.5 + 2.5 + 1.5 + 0.5 + 1.5) / 5; of 0.5: (2.5 + 1.5 + 0.5 + 0.5 + 2.5) / 5;
    of the ridge: |0.3 - 0.65 * label| = (1.6 + 0.95 + 0.3 + 0.35 + 1.65) / 5.
    """
    rows = {row.key: row for row in groups[0].rows}
    assert list(rows) == ["mitfrnet", "majority", "train_mean", "text_ridge"]
    assert rows["majority"].mean("mae") == pytest.approx(1.9)
    assert rows["train_mean"].mean("mae") == pytest.approx(1.5)
    assert rows["text_ridge"].mean("mae") == pytest.approx(0.97)
    assert rows["majority"].mean("acc2_non0") == 0.5
    assert rows["majority"].mean("corr") is None
    assert rows["majority"].constant == "constant prediction"
    assert rows["text_ridge"].constant == ""
    best = {
        column.short: [row.key for row in groups[0].rows if groups[0].is_best(row, column)]
        for column in groups[0].headline
    }
    # The ridge gets all four signs right but that of -1: 0.35 * -1 + 0.3 = -0.05.
    assert best["Acc-2"] == ["text_ridge"]
    assert best["MAE"] == ["text_ridge"]


def test_a_constant_seed_is_flagged_and_left_out_of_the_correlation(tmp_path):
    def half_constant(model, rate, seed, label):
        return np.full(len(label), 0.25) if seed == 1 else -label

    results = make_results(tmp_path, seeds=(1, 2), predict=half_constant)
    row = score_groups(results)[0].rows[0]
    assert row.constant == "constant prediction in 1 of 2"
    assert row.mean("corr") == pytest.approx(-1.0)
    assert row.deviation("corr") is None


def test_runs_are_seeds_and_mask_seeds(tmp_path):
    """Seeds 1 and 2 are 0.5 and 1.5 off; with the second mask seed, made as seed + 100, 1.5."""
    results = make_results(
        tmp_path, seeds=(1, 2), mask_seeds=(1, 2), clips=5, label=LABEL, predict=by_hand
    )
    (group,) = score_groups(results)
    row = group.row("mitfrnet")
    assert row.runs == ((1, 1), (1, 2), (2, 1), (2, 2))
    assert row.mean("mae") == pytest.approx((0.5 + 1.5 + 1.5 + 1.5) / 4)
    assert row.deviation("mae") == pytest.approx(0.5)
    assert group.row("majority").runs == ((None, 1), (None, 2))


def test_models_that_tie_are_all_best(tmp_path):
    def predict(model, rate, seed, label):
        return {"mitfrnet": label + 0.5, "tfn": label - 0.5, "misa": label + 1}[model]

    results = make_results(tmp_path, models=("mitfrnet", "tfn", "misa"), predict=predict)
    (group,) = score_groups(results)
    mae = next(column for column in group.columns if column.key == "mae")
    assert [row.key for row in group.rows if group.is_best(row, mae)] == ["mitfrnet", "tfn"]


def test_predictions_of_the_majority_class_are_named(tmp_path):
    """The majority reference is 1.5 for every clip: positive, and class 2 = round(1.5) of seven.

    A model between 0.1 and 0.4 is positive too, but its class is 0.
    """

    def predict(model, rate, seed, label):
        return 0.1 + 0.1 * np.arange(len(label)) if seed == 1 else label

    results = make_results(tmp_path, seeds=(1, 2), clips=4, label=[-2, -1, 1, 3], predict=predict)
    (group,) = score_groups(results)
    row = group.row("mitfrnet")
    assert row.flags("acc2_has0") == ("= majority in 1 of 2",)
    assert row.flags("f1_non0") == ("= majority in 1 of 2",)
    assert row.flags("acc7") == row.flags("mae") == ()
    assert group.row("train_mean").flags("acc2_non0") == ("constant", "= majority")
    assert group.row("majority").flags("acc2_non0") == ("constant",)


def test_a_classifier_that_always_predicts_the_majority_class(tmp_path):
    scale = {"task": "classification", "classes": ["calm", "angry", "sad"]}
    results = make_results(
        tmp_path, corpora={"one": scale}, predict=lambda m, r, s, label: 0 * label
    )
    (group,) = score_groups(results)
    assert [c.key for c in group.columns] == ["accuracy", "f1_macro", "f1_weighted", "recall_macro"]
    assert group.row("mitfrnet").flags("accuracy") == ("constant", "= majority")
    assert group.row("mitfrnet").mean("accuracy") == pytest.approx(1 / 3)
    assert [r.key for r in group.rows] == ["mitfrnet", "majority", "text_logistic"]
    assert group.signed_clips == group.clips


def test_intervals_hold_the_value(tmp_path):
    results = make_results(tmp_path, seeds=(1, 2))
    bootstrap = BootstrapParams(resamples=200, seed=1, level=0.9)
    (group,) = score_groups(results, bootstrap)
    for row in group.rows:
        for column in group.columns:
            interval, value = row.intervals[column.key], row.mean(column.key)
            assert (interval is None) == (value is None)
            if interval:
                assert interval.low <= value <= interval.high
    assert group.rows[0].show_interval(group.columns[0]).startswith("[")


def test_cells_scored_on_other_clips_are_refused(tmp_path):
    grid = write_results(tmp_path, models=("mitfrnet", "tfn"))
    write_results(tmp_path / "other", models=("tfn",), ids=list("abcdefghijkl"))
    path = "predictions/one/tfn/0.3/1.parquet"
    (tmp_path / path).write_bytes((tmp_path / "other" / path).read_bytes())
    with pytest.raises(FeatureError, match=r"one/tfn/0\.3/1: scored on other clips than one/mitf"):
        score_groups(read(tmp_path, grid))


def test_rates_of_training_and_test(tmp_path):
    results = make_results(tmp_path, rates=(0.2, "random_train"), tested=(0.0, 0.5))
    groups = score_groups(results)
    assert [(g.trained, g.tested) for g in groups] == [
        (trained, tested) for trained in (0.2, "random_train") for tested in (0.0, 0.5)
    ]
    assert groups[1].title == "trained at missing rate 0.2, tested at 0.5"
    assert groups[3].title == "trained at a random missing rate per clip, tested at 0.5"


def test_variants_are_named_by_what_they_lack(tmp_path):
    models = ("mitfrnet", "mitfrnet_no_mmr", "mitfrnet_no_mmr_no_mitr", "mitfrnet_wide", "tfrnet")
    results = make_results(tmp_path, models=models)
    assert model_names(results) == {
        "mitfrnet": "MIT-FRNet (mitfrnet)",
        "mitfrnet_no_mmr": "MIT-FRNet without MMR",
        "mitfrnet_no_mmr_no_mitr": "MIT-FRNet without MMR without MITR",
        "mitfrnet_wide": "MIT-FRNet (mitfrnet_wide)",
        "tfrnet": "TFR-Net",
    }
