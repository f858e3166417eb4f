import csv
import io

import numpy as np
import pytest

from mitfrnet.report.scores import score_groups
from mitfrnet.report.tables.plain import (
    loss_table,
    rate_tables,
    scores_csv,
    scores_text,
    sign_table,
)
from tests.helpers.made_results import make_results


def rows_of(text, delimiter):
    return list(csv.DictReader(io.StringIO(text), delimiter=delimiter))


def test_plain_text_is_narrow_and_marks_the_best(tmp_path):
    def reversed_label(model, rate, seed, label):
        return -label * (1 + 0.1 * seed)

    groups = score_groups(make_results(tmp_path, seeds=(1, 2, 3), predict=reversed_label))
    text = scores_text("A title", groups)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0] == "A title"
    assert lines[2] == "one, missing rate 0.3, 12 test clips"
    assert next(line for line in lines if line.startswith("MIT-FRNet")).endswith("-1.000 ± 0.000")
    assert next(line for line in lines if line.startswith("Text ridge")).endswith("1.000*")
    assert "Majority class: constant prediction" in lines


def test_csv_holds_every_score_unrounded(tmp_path):
    groups = score_groups(
        make_results(tmp_path, seeds=(1, 2), predict=lambda m, r, s, label: label + s - 0.5)
    )
    rows = rows_of(scores_csv(groups), ",")
    assert [(r["predictor"], r["seed"]) for r in rows] == [
        ("mitfrnet", "1"),
        ("mitfrnet", "2"),
        ("majority", ""),
        ("train_mean", ""),
        ("text_ridge", ""),
    ]
    assert {"acc2_has0", "f1_non0_swapped", "acc5", "constant_prediction", "n"} <= set(rows[0])
    assert float(rows[1]["mae"]) == pytest.approx(1.5)
    assert rows[2]["corr"] == ""


def test_loss_table_leaves_out_terms_before_they_start(tmp_path):
    (cell,) = make_results(tmp_path).cells
    rows = rows_of(loss_table(cell), "\t")
    assert len(rows) == 20
    assert rows[0]["train_invariance"] == ""
    assert float(rows[0]["train_task"]) == pytest.approx(1.07)
    assert float(rows[1]["train_invariance"]) == pytest.approx(2.97)


def test_sign_table(tmp_path):
    (cell,) = make_results(
        tmp_path, clips=3, label=[-1, 0, 2], predict=lambda m, r, s, label: np.array([0.5, 0, -1])
    ).cells
    assert (
        sign_table(cell)
        == "label\tprediction\nnegative\tpositive\nneutral\tneutral\npositive\tnegative\n"
    )


def test_signs_of_classes_are_their_names(tmp_path):
    scale = {"task": "classification", "classes": ["calm", "angry"]}
    (cell,) = make_results(
        tmp_path, corpora={"one": scale}, clips=2, predict=lambda m, r, s, label: 1 - label
    ).cells
    assert sign_table(cell) == "label\tprediction\ncalm\tangry\nangry\tcalm\n"


def test_many_rates_are_a_table_per_score_and_warnings_in_words(tmp_path):
    def predict(model, rate, seed, label):
        constant = model == "misa" and rate > 0.5
        return np.full(len(label), 0.5) if constant else label * (1 - rate / 2)

    rates = tuple(i / 10 for i in range(11))
    models = ("mitfrnet", "mitfrnet_no_mitr", "misa")
    results = make_results(tmp_path, models=models, rates=rates, seeds=(1, 2), predict=predict)
    lines = scores_text("A title", score_groups(results)).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[2] == "one: 12 test clips, 2 runs of each model"
    head = next(line for line in lines if line.split() == [f"{r}" for r in rates])
    assert len(head) <= 100
    mae = lines.index(next(line for line in lines if line.startswith("MAE")))
    assert lines[mae + 2].split()[:3] == ["MIT-FRNet", "0.000*", "0.082*"]
    assert lines[mae + 3].startswith("MIT-FRNet without MITR  0.000*")
    assert "  MISA: constant, = majority at 0.6, 0.7, 0.8, 0.9, 1.0" in lines


def test_rates_of_the_curves(tmp_path):
    results = make_results(tmp_path, rates=(0.2, 0.4), tested=(0.0, 0.5, 1.0))
    curves = rate_tables(score_groups(results))
    assert {"mitfrnet/0.2", "text_ridge/0.4"} <= set(curves)
    rates = [r["missing_rate"] for r in rows_of(curves["mitfrnet/0.2"], "\t")]
    assert rates == ["0.0", "0.5", "1.0"]


def test_an_undefined_score_is_nan_to_vega(tmp_path):
    results = make_results(
        tmp_path, rates=(0.0, 1.0), predict=lambda m, r, s, label: (1 - r) * label
    )
    curve = rows_of(rate_tables(score_groups(results))["mitfrnet"], "\t")
    assert [row["Corr"] for row in curve] == ["1.0", "NaN"]
