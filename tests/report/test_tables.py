import csv
import io

import numpy as np
import pytest

from mitfrnet.report.tables import (
    averages,
    loss_table,
    rate_tables,
    score_groups,
    scores_csv,
    scores_text,
    sign_table,
)
from tests.report.made_results import read, write_results

LABEL = [-2.0, -1.0, 0.0, 1.0, 3.0]


def by_hand(model, rate, seed, label):
    """Return predictions off by 0.5 with seed 1; by 1.5, all upwards, with seed 2."""
    return label + (0.5 if seed == 1 else 1.5)


def rows_of(text, delimiter):
    return list(csv.DictReader(io.StringIO(text), delimiter=delimiter))


@pytest.fixture
def groups(tmp_path):
    grid = write_results(tmp_path, seeds=(1, 2), clips=5, label=LABEL, predict=by_hand)
    return score_groups(read(tmp_path, grid))


def test_mean_and_deviation_over_seeds_by_hand(groups):
    """Labels -2, -1, 0, 1, 3; the scale is [-3, 3].

    Seed 1 predicts -1.5, -0.5, 0.5, 1.5, 3.5: MAE 0.5; of the four signed labels all have the
    right sign; classes of seven -2, 0, 0, 2, 3 (halves to even): three of five are right.
    Seed 2 predicts -0.5, 0.5, 1.5, 2.5, 4.5: MAE 1.5; signs -, +, +, +: three of four; classes
    0, 0, 2, 2, 3: one of five.
    """
    (group,) = groups
    row = group.rows[0]
    assert (group.n, group.signed, row.seeds) == (5, 4, (1, 2))
    assert row.mean("mae") == pytest.approx(1.0)
    assert row.deviation("mae") == pytest.approx(0.5**0.5)
    assert row.mean("acc2_non0") == pytest.approx((1 + 3 / 4) / 2)
    assert row.mean("acc7") == pytest.approx((3 / 5 + 1 / 5) / 2)
    shown = {column.name: row.show(column) for column in group.columns}
    assert shown["MAE"] == "1.000 ± 0.707"
    assert shown["Acc-2"] == "87.5 ± 17.7"
    assert shown["Acc-7"] == "40.0 ± 28.3"
    assert shown["Corr"] == "1.000 ± 0.000"


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
        column.name: [row.key for row in groups[0].rows if groups[0].is_best(row, column)]
        for column in groups[0].columns
    }
    # The ridge gets all four signs right but that of -1: 0.35 * -1 + 0.3 = -0.05.
    assert best["Acc-2"] == ["text_ridge"]
    assert best["MAE"] == ["text_ridge"]


def test_a_constant_seed_is_flagged_and_left_out_of_the_correlation(tmp_path):
    def half_constant(model, rate, seed, label):
        return np.full(len(label), 0.25) if seed == 1 else -label

    grid = write_results(tmp_path, seeds=(1, 2), predict=half_constant)
    row = score_groups(read(tmp_path, grid))[0].rows[0]
    assert row.constant == "constant prediction with 1 of 2 seeds"
    assert row.mean("corr") == pytest.approx(-1.0)
    assert row.deviation("corr") is None


def test_scores_of_the_sims_family(tmp_path):
    (group,) = score_groups(read(tmp_path, write_results(tmp_path, {"one": "sims"})))
    assert [c.key for c in group.columns] == ["acc2", "f1", "acc3", "mae", "corr"]


def test_plain_text_is_narrow_and_marks_the_best(tmp_path):
    def reversed_label(model, rate, seed, label):
        return -label * (1 + 0.1 * seed)

    grid = write_results(tmp_path, seeds=(1, 2, 3), predict=reversed_label)
    groups = score_groups(read(tmp_path, grid))
    text = scores_text("A title", groups)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0] == "A title"
    assert lines[2] == "one, missing rate 0.3, 12 test clips"
    assert next(line for line in lines if line.startswith("MIT-FRNet")).endswith("-1.000 ± 0.000")
    assert next(line for line in lines if line.startswith("Text ridge")).endswith("1.000*")
    assert "Majority class: constant prediction" in lines


def test_csv_holds_every_score_unrounded(groups):
    rows = rows_of(scores_csv(groups), ",")
    assert [(r["predictor"], r["seed"]) for r in rows] == [
        ("mitfrnet", "1"),
        ("mitfrnet", "2"),
        ("majority", ""),
        ("train_mean", ""),
        ("text_ridge", ""),
    ]
    assert {"acc2_has0", "f1_non0_swapped", "acc5", "constant_prediction", "n"} <= set(rows[0])
    assert float(rows[1]["mae"]) == 1.5
    assert rows[2]["corr"] == ""


def test_rates_of_training_and_test(tmp_path):
    grid = write_results(tmp_path, rates=(0.2, 0.4), tested=(0.0, 0.5, 1.0))
    groups = score_groups(read(tmp_path, grid))
    assert [(g.trained, g.tested) for g in groups] == [
        (trained, tested) for trained in (0.2, 0.4) for tested in (0.0, 0.5, 1.0)
    ]
    assert groups[1].condition == "trained at missing rate 0.2, tested at 0.5"
    assert averages(groups) == []
    curves = rate_tables(groups)
    assert "mitfrnet/0.2" in curves
    assert "text_ridge/0.4" in curves
    assert [r["missing_rate"] for r in rows_of(curves["mitfrnet/0.2"], "\t")] == [
        "0.0",
        "0.5",
        "1.0",
    ]


def test_averages_weigh_rates_by_what_is_left(tmp_path):
    """MAE is 1 at rate 0 and 4 at rate 0.5: (1 * 1 + 0.5 * 4) / 1.5 = 2. Rate 1 weighs nothing."""

    def worse(model, rate, seed, label):
        return np.full(len(label), 0.5) if rate == 1 else label + (1 if rate == 0 else 4)

    grid = write_results(tmp_path, rates=(0.0, 0.5, 1.0), predict=worse)
    groups = score_groups(read(tmp_path, grid))
    average = averages(groups)[0]
    assert average.name == "MIT-FRNet"
    assert average.normalised["mae"] == pytest.approx(2.0)
    assert average.normalised["corr"] == pytest.approx(1.0)
    assert average.printed["mae"] is None
    curve = rows_of(rate_tables(groups)["mitfrnet"], "\t")
    assert [r["Corr"] for r in curve][-1] == "NaN"
    assert float(curve[1]["MAE"]) == pytest.approx(4.0)


def test_loss_table_leaves_out_terms_before_they_start(tmp_path):
    (cell,) = read(tmp_path, write_results(tmp_path)).cells
    rows = rows_of(loss_table(cell), "\t")
    assert len(rows) == 20
    assert rows[0]["train_invariance"] == ""
    assert float(rows[0]["train_task"]) == pytest.approx(1.07)
    assert float(rows[1]["train_invariance"]) == pytest.approx(2.97)


def test_sign_table(tmp_path):
    grid = write_results(
        tmp_path, clips=3, label=[-1, 0, 2], predict=lambda m, r, s, label: np.array([0.5, 0, -1])
    )
    (cell,) = read(tmp_path, grid).cells
    assert (
        sign_table(cell)
        == "label\tprediction\nnegative\tpositive\nzero\tzero\npositive\tnegative\n"
    )
