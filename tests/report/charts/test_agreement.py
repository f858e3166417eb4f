import numpy as np

from mitfrnet.report.charts.agreement import agreement
from mitfrnet.report.scores import score_groups
from tests.helpers.made_results import make_results


def agreement_of(folder, **study):
    results = make_results(folder, **study)
    (group,) = score_groups(results)
    return agreement(results.cells[0], group, "MIT-FRNet")


def test_a_scatter_tells_its_ranges_and_how_many_clips_are_on_the_right_side(tmp_path):
    """The labels are -1, 1 and 2; only the first has a prediction on the other side."""
    shown = agreement_of(
        tmp_path, clips=3, label=[-1, 1, 2], predict=lambda m, r, s, label: np.array([0.5, 0.5, 2])
    )
    assert shown.title == "MIT-FRNet on one, missing rate 0.3, seed 1"
    assert "Labels from -1.00 to 2.00, predictions from 0.50 to 2.00; 2 are" in (
        shown.chart.described
    )
    assert shown.classes == ["negative", "positive"]
    assert shown.confusion["negative"]["positive"] == 1


def test_neutral_is_shown_if_a_label_is_neutral(tmp_path):
    shown = agreement_of(tmp_path, clips=3, label=[-1, 0, 2])
    assert shown.classes == ["negative", "neutral", "positive"]


def test_classes_have_no_chart(tmp_path):
    scale = {"task": "classification", "classes": ["calm", "angry"]}
    shown = agreement_of(tmp_path, corpora={"one": scale})
    assert shown.chart is None
    assert shown.classes == ("calm", "angry")
