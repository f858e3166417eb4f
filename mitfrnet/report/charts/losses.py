"""Charts of the losses of one model over epochs."""

from collections.abc import Sequence

from mitfrnet.grid import Condition
from mitfrnet.modalities import MODALITIES
from mitfrnet.report.charts.drawing import SERIES, Chart, shade
from mitfrnet.report.charts.figures import Curve, describe, line_chart, small_multiples
from mitfrnet.report.results import Cell, Results
from mitfrnet.report.words import in_words

# Seeds whose losses are drawn.
MAX_SEEDS = 3


def loss_charts(results: Results, corpus: str, model: str, name: str) -> list[Chart]:
    """Return how one model, shown as `name`, converged.

    Under one condition there is a chart per loss of the first seed. Under several, a wide chart
    has the task loss of each condition, and the charts of the other losses have a curve per
    condition.
    """
    seeds = results.grid.seeds[:MAX_SEEDS]
    cells = [cell for cell in results.select(corpus, model) if cell.seed in seeds]
    first_seed = [cell for cell in cells if cell.seed == seeds[0]]
    one_condition = len(first_seed) == 1
    terms = {key.split("/")[1] for cell in first_seed for key in cell.losses} - {"task"}
    rebuilt = [f"reconstruction_{m}" for m in MODALITIES if f"reconstruction_{m}" in terms]
    panels: dict[str, list[Curve]] = {}
    if one_condition:
        panels["Task loss"] = _task_curves(first_seed[0])
    if rebuilt:
        panels["Reconstruction loss"] = _term_curves(first_seed, rebuilt)
    for term in sorted(terms - set(rebuilt)):
        panels[f"{in_words(term).capitalize()} loss"] = _term_curves(first_seed, [term])
    best = first_seed[0].config["training"]["best_epoch"] if one_condition else None
    charts = [
        Chart(
            name=f"losses_{corpus}_{model}_{title.split()[0].lower()}",
            title=title,
            own_title=f"{title} of {name} on {corpus}",
            described=f"{title} over epochs. {describe(curves)}",
            draw=line_chart(curves, x_label="epoch", marked_x=best),
        )
        for title, curves in panels.items()
    ]
    return charts if one_condition else [_convergence(cells, name), *charts]


def _convergence(cells: Sequence[Cell], name: str) -> Chart:
    """Return a chart of the task loss with a panel per condition and a curve per seed."""
    panels: dict[str, list[Curve]] = {}
    for cell in cells:
        panels.setdefault(_panel_title(cell.condition), []).extend(
            Curve(
                curve.label if cell is cells[0] else "_", curve.points, curve.colour, curve.dashed
            )
            for curve in _task_curves(cell)
        )
    described = "; ".join(
        f"{_panel_title(cell.condition)}, seed {cell.seed}: validation from "
        f"{cell.losses['valid/task'][0][1]:.3g} to "
        f"{min(value for _, value in cell.losses['valid/task']):.3g} at best"
        for cell in cells
    )
    corpus, model = cells[0].corpus, cells[0].model
    return Chart(
        name=f"convergence_{corpus}_{model}",
        title=f"Task loss of {name} on {corpus} over epochs (as Figures 8 and 9 of the paper)",
        described=f"Task loss of {name} over epochs. {described}.",
        draw=small_multiples(panels, x_label="epoch", same_y=True),
        wide=True,
    )


def _panel_title(condition: Condition) -> str:
    return in_words(condition) if isinstance(condition, str) else f"missing rate {condition}"


def _task_curves(cell: Cell) -> list[Curve]:
    return [
        Curve("training", cell.losses["train/task"], SERIES[1], dashed=True),
        Curve("validation", cell.losses["valid/task"], SERIES[0]),
    ]


def _term_curves(cells: Sequence[Cell], terms: Sequence[str]) -> list[Curve]:
    """Return the training loss of each term of one cell, or the sum of the terms of each cell."""
    curves = []
    for i, cell in enumerate(cells):
        # Where a term had nothing to score, as reconstruction at rate 0, it has no loss.
        losses = {t: cell.losses[f"train/{t}"] for t in terms if f"train/{t}" in cell.losses}
        if not losses:
            continue
        if len(cells) > 1:
            epochs = zip(*losses.values(), strict=True)
            total = [(points[0][0], sum(value for _, value in points)) for points in epochs]
            curves.append(Curve(str(cell.condition), total, shade(i, len(cells))))
        elif len(terms) > 1:
            names = [in_words(term.removeprefix("reconstruction_")) for term in losses]
            curves += map(Curve, names, losses.values(), SERIES)
        else:
            curves.append(Curve(terms[0], losses[terms[0]], SERIES[0], in_legend=False))
    return curves
