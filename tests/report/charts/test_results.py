import math

import numpy as np
import pytest

from mitfrnet.report.charts import results
from mitfrnet.report.tables.averages import blocks
from mitfrnet.report.tables.scores import score_groups
from tests.helpers.made_results import REPORT, read, write_results


def block_of(folder, **made):
    grid = write_results(folder, rates=(0.0, 0.5, 1.0), **made)
    (block,) = blocks(score_groups(read(folder, grid), REPORT.bootstrap))
    return block


def lines_of(monkeypatch, block):
    """Return the curves of every panel by the first word of its title."""
    drawn = {}
    monkeypatch.setattr(results, "small_multiples", lambda panels, **_: drawn.update(panels))
    (chart,) = results.rate_charts(block)
    return {title.split()[0].rstrip(","): lines for title, lines in drawn.items()}, chart


def constant(model, rate, seed, label):
    """Return 0.5 for all in every run at rate 0.5, and in the second run at rate 1."""
    if rate == 0.5 or (rate == 1.0 and seed == 2):
        return np.full(len(label), 0.5)
    return label + 0.1 * seed


def test_a_rate_without_a_score_is_a_gap_and_a_mean_of_fewer_runs_is_hollow(monkeypatch, tmp_path):
    """Correlation: three runs at rate 0, none at 0.5, two of three at 1."""
    block = block_of(tmp_path, seeds=(1, 2, 3), predict=constant)
    lines, chart = lines_of(monkeypatch, block)
    corr = lines["Corr"][0]
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
    block = block_of(tmp_path, seeds=(1, 2, 3), predict=lambda m, r, s, label: label + 0.1 * s)
    lines, _ = lines_of(monkeypatch, block)
    for ends in lines["MAE"][0].intervals:
        assert ends == pytest.approx((0.1, 0.3), abs=1e-5)
    assert results.bars_in_words(block, 0.95) == "one standard deviation over runs"


def test_bars_of_one_run_are_intervals_over_clips(monkeypatch, tmp_path):
    block = block_of(tmp_path)
    lines, _ = lines_of(monkeypatch, block)
    expected = [group.row("mitfrnet").intervals["mae"] for group in block.groups]
    assert lines["MAE"][0].intervals == [(i.low, i.high) for i in expected]
    assert lines["Acc-2"][0].intervals[1][1] > 1  # in percent, as the curve
    assert "95 % interval over resampled test clips" in results.bars_in_words(block, 0.95)


def test_every_model_has_bars_and_a_place_of_its_own(monkeypatch, tmp_path):
    """Eight models share half of the way from one rate to the next."""
    models = ("mitfrnet", *(f"mitfrnet_{i}" for i in range(7)))
    lines, _ = lines_of(monkeypatch, block_of(tmp_path, models=models, seeds=(1, 2)))
    own = lines["MAE"][:8]
    assert all(line.intervals for line in own)
    shifts = [line.shift for line in own]
    assert len(set(shifts)) == 8
    assert max(shifts) - min(shifts) < 0.25
    assert sum(shifts) == pytest.approx(0)
    assert all(line.shift == 0 and not line.intervals for line in lines["MAE"][8:])
