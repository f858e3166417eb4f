import pytest

from mitfrnet.modalities import MODALITIES
from mitfrnet.report.charts import losses
from tests.helpers.made_results import make_results


def charts_of(monkeypatch, results):
    """Return the curves of each chart of MIT-FRNet by its title, and the charts."""
    drawn = []
    monkeypatch.setattr(losses, "line_chart", lambda curves, **_: drawn.append(curves))
    charts = losses.loss_charts(results, "one", "mitfrnet", "MIT-FRNet")
    titles = [chart.title for chart in charts if not chart.wide]
    return dict(zip(titles, drawn, strict=True)), charts


def test_one_condition_has_a_curve_per_term(monkeypatch, tmp_path):
    curves, charts = charts_of(monkeypatch, make_results(tmp_path))
    assert not any(chart.wide for chart in charts)
    assert {title: [c.label for c in of_title] for title, of_title in curves.items()} == {
        "Task loss": ["training", "validation"],
        "Reconstruction loss": list(MODALITIES),
        "Invariance loss": ["invariance"],
    }


def test_several_conditions_have_a_curve_each_with_the_sum_over_modalities(monkeypatch, tmp_path):
    """The losses of the modalities are v, v / 2 and v / 3, where v is a third of the invariance."""
    results = make_results(tmp_path, rates=(0.0, 0.3, "random_train"), tested=(0.5,))
    curves, charts = charts_of(monkeypatch, results)
    assert [chart.name for chart in charts if chart.wide] == ["convergence_one_mitfrnet"]
    assert list(curves) == ["Reconstruction loss", "Invariance loss"]
    rebuilt = curves["Reconstruction loss"]
    assert [curve.label for curve in rebuilt] == ["0.3", "random_train"]  # rate 0 rebuilds nothing
    (epoch, total), (_, invariance) = rebuilt[0].points[0], curves["Invariance loss"][1].points[0]
    assert epoch == 2
    assert total == pytest.approx(invariance / 3 * (1 + 1 / 2 + 1 / 3))


def test_a_convergence_chart_has_a_panel_per_condition_and_the_first_seeds(monkeypatch, tmp_path):
    panels = {}
    monkeypatch.setattr(losses, "small_multiples", lambda drawn, **_: panels.update(drawn))
    seeds = range(1, losses.MAX_SEEDS + 2)
    results = make_results(tmp_path, rates=(0.3, "random_train"), seeds=seeds, tested=(0.3,))
    losses.loss_charts(results, "one", "mitfrnet", "MIT-FRNet")
    assert list(panels) == ["missing rate 0.3", "random train"]
    assert {len(curves) for curves in panels.values()} == {2 * losses.MAX_SEEDS}
