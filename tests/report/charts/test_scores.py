import math

import numpy as np
import pytest

from mitfrnet.report.charts import scores
from tests.helpers.made_results import make_block

RATES = (0.0, 0.5, 1.0)


def curves_of(monkeypatch, block):
    """Return the curves of every panel by the first word of its title, and the chart."""
    panels = {}
    monkeypatch.setattr(scores, "small_multiples", lambda drawn, **_: panels.update(drawn))
    (chart,) = scores.rate_charts(block)
    return {title.split()[0].rstrip(","): curves for title, curves in panels.items()}, chart


def constant(model, rate, seed, label):
    """Return 0.5 for all clips in every run at rate 0.5, and in the second run at rate 1."""
    if rate == 0.5 or (rate == 1.0 and seed == 2):
        return np.full(len(label), 0.5)
    return label + 0.1 * seed


def test_a_rate_without_a_score_is_a_gap_and_a_mean_of_fewer_runs_is_hollow(monkeypatch, tmp_path):
    """Correlation: three runs at rate 0, none at 0.5, two of three at 1."""
    _, block = make_block(tmp_path, rates=RATES, seeds=(1, 2, 3), predict=constant)
    curves, chart = curves_of(monkeypatch, block)
    corr = curves["Corr"][0]
    assert [x for x, _ in corr.points] == [0.0, 0.5, 1.0]
    assert [math.isnan(y) for _, y in corr.points] == [False, True, False]
    assert list(corr.hollow) == [False, True, True]
    assert "hollow: constant prediction in some run, which Corr leaves out" in chart.title
    assert "nan" not in chart.described
    assert [i is None for i in corr.intervals] == [False, True, False]
    row = block.groups[2].row("mitfrnet")
    assert row.flags("corr") == ("constant in 1 of 3", "mean of 2 of 3 runs")
    assert row.flags("mae") == ("constant in 1 of 3",)
    assert block.fewer_at("mitfrnet", "corr") == (1.0,)


def test_bars_are_deviations_over_runs(monkeypatch, tmp_path):
    """Runs are off by 0.1, 0.2 and 0.3: MAE 0.2, deviation 0.1."""
    _, block = make_block(
        tmp_path, rates=RATES, seeds=(1, 2, 3), predict=lambda m, r, s, label: label + 0.1 * s
    )
    curves, _ = curves_of(monkeypatch, block)
    for ends in curves["MAE"][0].intervals:
        assert ends == pytest.approx((0.1, 0.3), abs=1e-5)
    assert scores.bars_in_words(block, 0.95) == "one standard deviation over runs"


def test_bars_of_one_run_are_intervals_over_clips(monkeypatch, tmp_path):
    _, block = make_block(tmp_path, rates=RATES)
    curves, _ = curves_of(monkeypatch, block)
    expected = [group.row("mitfrnet").intervals["mae"] for group in block.groups]
    assert curves["MAE"][0].intervals == [(i.low, i.high) for i in expected]
    assert curves["Acc-2"][0].intervals[1][1] > 1  # in percent, as the curve
    assert "95 % interval over resampled test clips" in scores.bars_in_words(block, 0.95)


def test_every_model_has_bars_and_a_place_of_its_own(monkeypatch, tmp_path):
    """Eight models share half of the way from one rate to the next."""
    models = ("mitfrnet", *(f"mitfrnet_{i}" for i in range(7)))
    _, block = make_block(tmp_path, rates=RATES, models=models, seeds=(1, 2))
    curves, _ = curves_of(monkeypatch, block)
    of_models, of_references = curves["MAE"][:8], curves["MAE"][8:]
    assert all(curve.intervals for curve in of_models)
    shifts = [curve.shift for curve in of_models]
    assert len(set(shifts)) == 8
    assert max(shifts) - min(shifts) < 0.25
    assert sum(shifts) == pytest.approx(0)
    assert len(of_references) == 2
    assert all(curve.shift == 0 and not curve.intervals for curve in of_references)


def test_a_constant_model_is_marked_in_charts_of_averages(tmp_path):
    _, block = make_block(tmp_path, rates=RATES, seeds=(1, 2, 3), predict=constant)
    bars, dots = scores.average_charts(block)
    assert bars.title.endswith("† constant prediction at some rates")
    assert ">MIT-FRNet †<" in bars.svg
    assert ">Majority class<" in bars.svg
    assert ">Majority class<" not in dots.svg  # it shows models alone


def test_one_rate_has_no_chart(tmp_path):
    _, block = make_block(tmp_path)
    assert scores.rate_charts(block) == scores.average_charts(block) == []
