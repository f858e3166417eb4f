"""Which charts the report draws: scores over rates, averages, and losses."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mitfrnet.grid import Condition
from mitfrnet.modalities import MODALITIES
from mitfrnet.report.charts.drawing import SERIES, Chart, shade
from mitfrnet.report.charts.figures import (
    MARKERS,
    Line,
    Value,
    bar_panels,
    dot_strips,
    line_chart,
    small_multiples,
)
from mitfrnet.report.results import Cell, Results
from mitfrnet.report.tables.averages import Average, Block, averages
from mitfrnet.report.tables.columns import Column
from mitfrnet.report.tables.scores import ScoreRow
from mitfrnet.report.tables.study import percent_of

# Curves share this part of the way from one rate to the next.
_SPREAD = 0.5

# Seeds whose losses are drawn.
MAX_SEEDS = 3


def _look(index: int) -> dict[str, Any]:
    """Return colour and marker of the `index`-th model."""
    return {"colour": SERIES[index % len(SERIES)], "marker": MARKERS[index % len(MARKERS)]}


def rate_charts(block: Block) -> list[Chart]:
    """Return the headline scores over test rates, a panel each; nothing for a single rate."""
    if len(block.groups) < 2:
        return []
    count = len(block.models)
    step = min(b - a for a, b in pairwise(block.rates))
    shifts = [_SPREAD * step * ((i + 0.5) / count - 0.5) for i in range(count)]
    panels = {}
    described = []
    for column in block.groups[0].headline:
        constant = "train_mean" if column.key == "mae" else "majority"
        dashed = {"text_ridge": "ink", "text_logistic": "ink", constant: "muted"}
        lines = [
            _score_line(block, row, column, shift=shift, bars=True, **_look(i))
            for i, (row, shift) in enumerate(zip(block.models, shifts, strict=True))
        ]
        lines += [
            _score_line(block, row, column, colour=dashed[row.key], dashed=True)
            for row in block.groups[0].rows
            if row.key in dashed
        ]
        lines = [line for line in lines if not all(math.isnan(y) for _, y in line.points)]
        better = "higher" if column.higher_is_better else "lower"
        panels[f"{column.head}, {better} is better"] = lines
        described.append(f"{column.short}: {describe(lines)}")
    fewer = any(
        block.fewer_at(r.key, c.key) for r in block.models for c in block.groups[0].headline
    )
    return [
        Chart(
            name=f"rates_{block.name}",
            title=f"Scores on {block.title} by missing rate of the test clips"
            + "; hollow: constant prediction" * any(block.constant_at(r.key) for r in block.models)
            + " in some run, which Corr leaves out" * fewer,
            described=f"Scores over missing rates. {' '.join(described)}",
            draw=small_multiples(panels, x_label="missing rate", same_y=False),
            wide=True,
        )
    ]


def _score_line(
    block: Block,
    first: ScoreRow,
    column: Column,
    *,
    colour: str,
    marker: str = "o",
    dashed: bool = False,
    shift: float = 0.0,
    bars: bool = False,
) -> Line:
    factor = 100 if column.share else 1
    points: list[tuple[float, float]] = []
    intervals: list[tuple[float, float] | None] = []
    hollow = []
    for group in block.groups:
        row = group.row(first.key)
        value, ends = row.mean(column.key), _ends(row, column)
        points.append((group.tested, math.nan if value is None else factor * value))
        intervals.append(None if ends is None else (factor * ends[0], factor * ends[1]))
        hollow.append(not row.reference and row.constant_runs > 0)
    return Line(
        first.name,
        points,
        colour,
        dashed,
        intervals=intervals if bars else (),
        shift=shift,
        marker=marker,
        hollow=hollow,
        model=first.key,
    )


def _ends(row: ScoreRow, column: Column) -> tuple[float, float] | None:
    """Return the ends of the bar at a score: one deviation over runs; of one run, its interval."""
    value, deviation = row.mean(column.key), row.deviation(column.key)
    if value is not None and deviation is not None:
        return value - deviation, value + deviation
    interval = row.intervals.get(column.key)
    return (interval.low, interval.high) if interval and len(row.runs) == 1 else None


def bars_in_words(block: Block, level: float) -> str:
    """Return what `_ends` draws in the curves of a block."""
    if len(block.models[0].runs) > 1:
        return "one standard deviation over runs"
    return f"the {percent_of(level)} interval over resampled test clips"


def average_charts(block: Block) -> list[Chart]:
    """Return the normalised MWA of every score: as bars per score, and all scores in one view."""
    if len(block.groups) < 2:
        return []
    found = averages(block)
    columns = block.groups[0].columns
    described = "; ".join(
        f"{column.full_head}: "
        + ", ".join(f"{v.label} {v.shown}" for v in _values(block, found, column))
        for column in columns
    )
    constant = any(block.constant_at(row.key) for row in block.models)
    dagger = "; † constant prediction at some rates" if constant else ""
    return [
        Chart(
            name=f"mwa_bars_{block.name}",
            title=f"MWA, normalised, on {block.title} (as Figure 5 of the paper){dagger}",
            described=f"Averages over missing rates weighted by what is left. {described}.",
            draw=bar_panels(
                {
                    c.full_head + ("" if c.higher_is_better else ", lower is better"): values
                    for c in columns
                    if (values := _values(block, found, c))
                }
            ),
            wide=True,
        ),
        Chart(
            name=f"mwa_all_scores_{block.name}",
            title=f"The same with deviations over runs (as Figures 6 and 7){dagger}",
            own_title=f"MWA, normalised, with deviations, on {block.title}{dagger}",
            described=f"The same averages in one view. {described}.",
            draw=dot_strips(
                {
                    f"{c.full_head}, {better}": _values(block, found, c, models=True)
                    for c in columns
                    for better in ["higher is better" if c.higher_is_better else "lower is better"]
                }
            ),
            wide=True,
        ),
    ]


def _values(
    block: Block,
    found: Mapping[str, Mapping[str, Average]],
    column: Column,
    *,
    models: bool = False,
) -> list[Value]:
    """Return the normalised MWA of all predictors, or of the models alone."""
    factor = 100 if column.share else 1
    values = []
    for i, row in enumerate(block.models if models else block.groups[0].rows):
        average = found[row.key][column.key]
        value = average.value["mwa_normalised"]
        deviation = average.deviation["mwa_normalised"]
        look = {"colour": "muted", "marker": "o"} if row.reference else _look(i)
        values.append(
            Value(
                label=row.name + (" †" if not row.reference and block.constant_at(row.key) else ""),
                value=None if value is None else factor * value,
                spread=None if deviation is None else factor * deviation,
                shown="not defined" if value is None else column.show(value),
                model=row.key,
                **look,
            )
        )
    return values


@dataclass(frozen=True)
class LossCharts:
    """The losses of one model on one corpus.

    Attributes:
        corpus, model: names.
        convergence: training and validation per condition; None where there is one condition.
        charts: of the first seed: of one condition by part, of several by condition.
    """

    corpus: str
    model: str
    convergence: Chart | None
    charts: Sequence[Chart]


def loss_charts(results: Results, corpus: str, model: str, name: str) -> LossCharts:
    """Return how one model, shown as `name`, converged."""
    seeds = results.grid.seeds[:MAX_SEEDS]
    cells = [cell for cell in results.select(corpus, model) if cell.seed in seeds]
    first = [cell for cell in cells if cell.seed == results.grid.seeds[0]]
    terms = {key.split("/")[1] for cell in first for key in cell.losses} - {"task"}
    rebuilt = [f"reconstruction_{m}" for m in MODALITIES if f"reconstruction_{m}" in terms]
    panels: dict[str, list[Line]] = {}
    if len(first) == 1:
        panels["Task loss"] = _task_lines(first[0])
    if rebuilt:
        panels["Reconstruction loss"] = _term_lines(first, rebuilt)
    for term in sorted(terms - set(rebuilt)):
        panels[f"{term.replace('_', ' ').capitalize()} loss"] = _term_lines(first, [term])
    best = first[0].config["training"]["best_epoch"] if len(first) == 1 else None
    charts = [
        Chart(
            name=f"losses_{corpus}_{model}_{title.split()[0].lower()}",
            title=title,
            own_title=f"{title} of {name} on {corpus}",
            described=f"{title} over epochs. {describe(lines)}",
            draw=line_chart(lines, x_label="epoch", marked_x=best),
        )
        for title, lines in panels.items()
    ]
    convergence = _convergence(cells, name) if len(first) > 1 else None
    return LossCharts(corpus, name, convergence, charts)


def _convergence(cells: Sequence[Cell], name: str) -> Chart:
    panels: dict[Condition, list[Line]] = {}
    for cell in cells:
        panels.setdefault(cell.condition, []).extend(
            Line(line.label if cell is cells[0] else "_", line.points, line.colour, line.dashed)
            for line in _task_lines(cell)
        )
    described = "; ".join(
        f"{_condition_title(c.condition)}, seed {c.seed}: validation from "
        f"{c.losses['valid/task'][0][1]:.3g} to "
        f"{min(value for _, value in c.losses['valid/task']):.3g} at best"
        for c in cells
    )
    corpus, model = cells[0].corpus, cells[0].model
    return Chart(
        name=f"convergence_{corpus}_{model}",
        title=f"Task loss of {name} on {corpus} over epochs (as Figures 8 and 9 of the paper)",
        described=f"Task loss of {name} over epochs. {described}.",
        draw=small_multiples(
            {_condition_title(c): lines for c, lines in panels.items()},
            x_label="epoch",
            same_y=True,
        ),
        wide=True,
    )


def _condition_title(condition: Condition) -> str:
    return (
        condition.replace("_", " ") if isinstance(condition, str) else f"missing rate {condition}"
    )


def _task_lines(cell: Cell) -> list[Line]:
    curves = cell.losses
    return [
        Line("training", curves["train/task"], SERIES[1], dashed=True),
        Line("validation", curves["valid/task"], SERIES[0]),
    ]


def _term_lines(cells: Sequence[Cell], terms: Sequence[str]) -> list[Line]:
    """Return the training loss of each term for one cell, their sum for each of several."""
    lines = []
    for i, cell in enumerate(cells):
        # A term that had nothing to score, as reconstruction at rate 0, has no curve.
        known = cell.losses
        found = {term: known[f"train/{term}"] for term in terms if f"train/{term}" in known}
        curves = list(found.values())
        if not curves:
            continue
        if len(cells) > 1:
            total = [
                (points[0][0], sum(v for _, v in points)) for points in zip(*curves, strict=True)
            ]
            lines.append(Line(str(cell.condition), total, shade(i, len(cells))))
        elif len(terms) > 1:
            names = [term.removeprefix("reconstruction_").replace("_", " ") for term in found]
            lines += map(Line, names, curves, SERIES)
        else:
            lines.append(Line(terms[0], curves[0], SERIES[0], in_legend=False))
    return lines


def describe(lines: Sequence[Line]) -> str:
    """Return first, lowest, highest and last point of each line in words."""
    described = []
    for line in lines:
        known = [(x, y) for x, y in line.points if not math.isnan(y)]
        if not known:
            continue
        ys = {y: x for x, y in reversed(known)}
        (first_x, first), (last_x, last) = known[0], known[-1]
        low, high = min(ys), max(ys)
        described.append(
            f"{line.label}: {first:.3g} at {first_x}, {last:.3g} at {last_x}, "
            f"lowest {low:.3g} at {ys[low]}, highest {high:.3g} at {ys[high]}"
        )
    return "; ".join(described) + "."
