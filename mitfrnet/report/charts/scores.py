"""Charts of scores over missing rates, and of their averages."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from mitfrnet.report.charts.drawing import SERIES, Chart
from mitfrnet.report.charts.figures import (
    MARKERS,
    Curve,
    Value,
    bar_panels,
    describe,
    dot_strips,
    small_multiples,
)
from mitfrnet.report.columns import Column
from mitfrnet.report.over_rates import Averages, Block, averages
from mitfrnet.report.scores import ScoreRow

# The curves at one rate spread over this part of the distance to the next rate.
_SPREAD = 0.5


def _look(index: int) -> dict[str, Any]:
    """Return colour and marker of the `index`-th model."""
    return {"colour": SERIES[index % len(SERIES)], "marker": MARKERS[index % len(MARKERS)]}


def rate_charts(block: Block) -> list[Chart]:
    """Return a chart with a panel per headline score; none for a single rate."""
    if len(block.groups) < 2:
        return []
    panels = {
        f"{column.head}, {column.better} is better": _curves(block, column)
        for column in block.headline
    }
    described = [
        f"{column.short}: {describe(curves)}"
        for column, curves in zip(block.headline, panels.values(), strict=True)
    ]
    constant = any(block.constant_at(row.key) for row in block.models)
    fewer = any(block.fewer_at(r.key, c.key) for r in block.models for c in block.headline)
    return [
        Chart(
            name=f"rates_{block.name}",
            title=f"Scores on {block.title} by missing rate of the test clips"
            + "; hollow: constant prediction" * constant
            + " in some run, which Corr leaves out" * fewer,
            described=f"Scores over missing rates. {' '.join(described)}",
            draw=small_multiples(panels, x_label="missing rate", same_y=False),
            wide=True,
        )
    ]


def _curves(block: Block, column: Column) -> list[Curve]:
    """Return a solid curve per model and a dashed one per reference that the chart shows."""
    count = len(block.models)
    step = min(b - a for a, b in pairwise(block.rates))
    curves = [
        _curve(block, row, column, shift=_SPREAD * step * ((i + 0.5) / count - 0.5), **_look(i))
        for i, row in enumerate(block.models)
    ]
    constant = "train_mean" if column.key == "mae" else "majority"
    dashed = {"text_ridge": "ink", "text_logistic": "ink", constant: "muted"}
    curves += [
        _curve(block, row, column, colour=dashed[row.key], dashed=True)
        for row in block.rows
        if row.key in dashed
    ]
    return [curve for curve in curves if not all(math.isnan(y) for _, y in curve.points)]


def _curve(
    block: Block, row: ScoreRow, column: Column, *, dashed: bool = False, **look: Any
) -> Curve:
    """Return the scores of one predictor; a dashed curve has no bars."""
    points, intervals, hollow = [], [], []
    for rate, at_rate in block.by_rate(row.key).items():
        value, ends = at_rate.mean(column.key), _ends(at_rate, column)
        points.append((rate, math.nan if value is None else column.factor * value))
        intervals.append(ends and (column.factor * ends[0], column.factor * ends[1]))
        hollow.append(not row.reference and at_rate.constant_runs > 0)
    return Curve(
        row.name,
        points,
        dashed=dashed,
        intervals=() if dashed else intervals,
        hollow=hollow,
        model=row.key,
        **look,
    )


def _ends(row: ScoreRow, column: Column) -> tuple[float, float] | None:
    """Return the ends of a bar: one deviation over runs, or the interval of a single run."""
    value, deviation = row.mean(column.key), row.deviation(column.key)
    if value is not None and deviation is not None:
        return value - deviation, value + deviation
    interval = row.intervals.get(column.key)
    return (interval.low, interval.high) if interval and len(row.runs) == 1 else None


def bars_in_words(block: Block, level: float) -> str:
    """Return what the bars in the curves of a block show."""
    if len(block.models[0].runs) > 1:
        return "one standard deviation over runs"
    return f"the {100 * level:g} % interval over resampled test clips"


def average_charts(block: Block) -> list[Chart]:
    """Return two charts of the normalised MWA: bars per score, and all scores in one view."""
    if len(block.groups) < 2:
        return []
    of_block = averages(block)
    values = {column: _values(block, of_block, column, block.rows) for column in block.columns}
    described = "; ".join(
        f"{column.full_head}: " + ", ".join(f"{value.label} {value.shown}" for value in of_column)
        for column, of_column in values.items()
    )
    constant = any(block.constant_at(row.key) for row in block.models)
    dagger = "; † constant prediction at some rates" if constant else ""
    return [
        Chart(
            name=f"mwa_bars_{block.name}",
            title=f"MWA, normalised, on {block.title} (as Figure 5 of the paper){dagger}",
            described=f"Averages over missing rates, weighted by 1 - missing rate. {described}.",
            draw=bar_panels(
                {
                    column.full_head + ("" if column.higher_is_better else ", lower is better"): v
                    for column, v in values.items()
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
                    f"{column.full_head}, {column.better} is better": _values(
                        block, of_block, column, block.models
                    )
                    for column in block.columns
                }
            ),
            wide=True,
        ),
    ]


def _values(
    block: Block, of_block: Averages, column: Column, rows: Sequence[ScoreRow]
) -> list[Value]:
    """Return the normalised MWA of one score for each of `rows`."""
    values = []
    for i, row in enumerate(rows):
        average = of_block[row.key][column.key]
        value = average.value["mwa_normalised"]
        deviation = average.deviation["mwa_normalised"]
        look = {"colour": "muted", "marker": "o"} if row.reference else _look(i)
        constant = not row.reference and block.constant_at(row.key)
        values.append(
            Value(
                label=row.name + (" †" if constant else ""),
                value=None if value is None else column.factor * value,
                spread=None if deviation is None else column.factor * deviation,
                shown="not defined" if value is None else column.show(value),
                model=row.key,
                **look,
            )
        )
    return values
