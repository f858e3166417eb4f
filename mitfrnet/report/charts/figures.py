"""The kinds of figures: curves, bars, dots, small multiples and scatters."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mitfrnet.labels import Scale
from mitfrnet.report.charts.drawing import Theme, colour, owned_by

# Figures with more dots, and curves with more points, are thinned to these numbers.
MAX_DOTS = 1000
MAX_POINTS = 150
MAX_POINTS_SMALL = 60  # in small multiples: a page has hundreds of them

# Not everybody can tell eight colours apart.
MARKERS = "osD^vPX*"

_WIDE = 8.4  # inches, the width of the page
_LEGEND = 0.32  # inches, the height of a line of a legend


@dataclass(frozen=True)
class Curve:
    """One curve.

    Attributes:
        label: its name.
        points: (x, y), in order of x; a NaN in y makes a gap.
        colour: a role, or a colour.
        dashed: or solid.
        intervals: (low, high) at each point, drawn as thin bars, or None.
        shift: added to x, so that the bars of several curves stand apart.
        in_legend: whether the legend names it.
        marker: the shape of its points, if there are few.
        hollow: whether the marker of each point is hollow; empty if none is.
        model: key of the predictor, or an empty string.
    """

    label: str
    points: Sequence[tuple[float, float]]
    colour: str
    dashed: bool = False
    intervals: Sequence[tuple[float, float] | None] = ()
    shift: float = 0.0
    in_legend: bool = True
    marker: str = "o"
    hollow: Sequence[bool] = ()
    model: str = ""


@dataclass(frozen=True)
class Value:
    """One value of one predictor.

    Attributes:
        label: the predictor.
        value: None if it is not defined.
        spread: standard deviation, or None.
        shown: the value as printed.
        colour: a role.
        marker: the shape of its dot.
        model: key of the predictor, or an empty string.
    """

    label: str
    value: float | None
    spread: float | None
    shown: str
    colour: str
    marker: str = "o"
    model: str = ""


def describe(curves: Sequence[Curve]) -> str:
    """Return first, last, lowest and highest point of each curve in words."""
    described = []
    for curve in curves:
        points = [(x, y) for x, y in curve.points if not math.isnan(y)]
        if not points:
            continue
        (first_x, first), (last_x, last) = points[0], points[-1]
        low_x, low = min(points, key=lambda point: point[1])
        high_x, high = max(points, key=lambda point: point[1])
        described.append(
            f"{curve.label}: {first:.3g} at {first_x}, {last:.3g} at {last_x}, "
            f"lowest {low:.3g} at {low_x}, highest {high:.3g} at {high_x}"
        )
    return "; ".join(described) + "."


def line_chart(
    curves: Sequence[Curve], *, x_label: str, marked_x: float | None = None
) -> Callable[[Theme], Figure]:
    """Return a function that draws curves.

    Args:
        curves: the curves.
        x_label: the name of x; the chart's title names y.
        marked_x: position of a vertical line, or None.
    """

    def draw(theme: Theme) -> Figure:
        figure, axes = _small(height=2.6)
        if marked_x is not None:
            axes.axvline(marked_x, color=theme["muted"], linewidth=0.9, linestyle=(0, (1, 2)))
        few = max((len(curve.points) for curve in curves), default=0) <= 15
        for curve in curves:
            _draw_curve(axes, curve, theme, marker=few)
        axes.set_xlabel(x_label)
        axes.margins(x=0.03)
        if all(float(x).is_integer() for curve in curves for x, _ in curve.points):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        _legend_above(axes, theme)
        return figure

    return draw


def _draw_curve(
    axes: Axes, curve: Curve, theme: Theme, *, marker: bool, most: int = MAX_POINTS
) -> None:
    last = len(curve.points) - 1
    kept = sorted({round(i) for i in np.linspace(0, last, min(last + 1, most))})
    xs = [curve.points[i][0] + curve.shift for i in kept]
    ys = [curve.points[i][1] for i in kept]
    line_colour = colour(theme, curve.colour)
    owner = owned_by(curve.model, theme)
    axes.plot(
        xs,
        ys,
        color=line_colour,
        linestyle=(0, (3, 2)) if curve.dashed else "-",
        marker=curve.marker if marker else None,
        markevery=[i for i, k in enumerate(kept) if not (curve.hollow and curve.hollow[k])],
        markersize=3.8,
        label=curve.label if curve.in_legend else "_",
        gid=owner,
    )
    if any(curve.hollow):
        at = [i for i, k in enumerate(kept) if curve.hollow[k]]
        axes.plot(
            [xs[i] for i in at],
            [ys[i] for i in at],
            curve.marker,
            color=line_colour,
            markerfacecolor="none",
            markersize=5,
            label="_",
            gid=owner,
        )
    ends = [curve.intervals[i] for i in kept] if curve.intervals else []
    bars = [(x, *low_high) for x, low_high in zip(xs, ends, strict=False) if low_high]
    if bars:
        axes.vlines(
            *zip(*bars, strict=True), color=line_colour, alpha=0.6, linewidth=1.1, gid=owner
        )


def _legend_above(axes: Axes, theme: Theme) -> None:
    named, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    columns = max(1, 54 // (7 + max(map(len, labels))))
    by_row = [j for i in range(columns) for j in range(i, len(labels), columns)]
    axes.legend(
        [named[j] for j in by_row],
        [labels[j] for j in by_row],
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=columns,
        borderaxespad=0.2,
        handlelength=1.6,
        columnspacing=1.2,
        handletextpad=0.5,
        labelcolor=theme["ink"],
    )


def bar_panels(panels: Mapping[str, Sequence[Value]]) -> Callable[[Theme], Figure]:
    """Return a function that draws one panel of horizontal bars per score.

    Args:
        panels: values of the same predictors, by the panel's title.
    """

    def draw(theme: Theme) -> Figure:
        bars = len(next(iter(panels.values())))
        place = _Places(theme, len(panels), height=0.3 + 0.19 * bars, left=1.85, gap=0.05)
        figure = place.figure
        for i, (title, values) in enumerate(panels.items()):
            axes = place.axes(i)
            axes.set_title(title)
            axes.grid(visible=False)
            for side in axes.spines.values():
                side.set_visible(False)
            axes.axvline(0, color=theme["muted"], linewidth=0.8)
            defined = [0.0, *(v.value for v in values if v.value is not None)]
            low, high = min(defined), max(defined)
            room = 0.5 * (high - low or 1)
            for y, value in enumerate(values):
                owner = owned_by(value.model, theme)
                if value.value is None:
                    none = axes.text(0, y, " not defined", va="center", fontsize=8)
                    none.set(color=theme["muted"], gid=owner)
                    continue
                shade = colour(theme, value.colour)
                axes.barh(y, value.value, height=0.66, color=shade, gid=owner)
                end = max(value.value, 0) + 0.03 * room
                printed = axes.text(end, y, value.shown, va="center", fontsize=8.5)
                printed.set(color=theme["ink"], gid=owner)
            axes.set_xlim(low, high + room)
            axes.set_ylim(bars - 0.5, -0.6)
            axes.set_xticks([])
            named = [v.label for v in values] if i % place.columns == 0 else []
            axes.set_yticks(range(len(named)), named, fontsize=9)
            for tick, value in zip(axes.get_yticklabels(), values, strict=False):
                tick.set_gid(owned_by(value.model, theme))
            axes.tick_params(axis="y", length=0, labelcolor=theme["ink"])
        return figure

    return draw


def dot_strips(strips: Mapping[str, Sequence[Value]]) -> Callable[[Theme], Figure]:
    """Return a function that draws one strip of dots per score, each with its own axis.

    Args:
        strips: values of the same predictors, by the strip's title; the spread of a value is a
            horizontal line.
    """

    def draw(theme: Theme) -> Figure:
        count = len(next(iter(strips.values())))
        place = _Places(
            theme,
            len(strips),
            columns=2,
            height=0.2 + 0.1 * count,
            left=0.1,
            gap=0.3,
            legend=True,
        )
        for i, (name, values) in enumerate(strips.items()):
            axes = place.axes(i)
            axes.set_title(name)
            # Dots of equal values would hide each other: each model has its own height.
            for y, value in enumerate(values):
                if value.value is None:
                    continue
                shade = colour(theme, value.colour)
                owner = owned_by(value.model, theme)
                if value.spread:
                    ends = value.value - value.spread, value.value + value.spread
                    axes.hlines(y, *ends, color=shade, linewidth=1.2, gid=owner)
                axes.plot(value.value, y, value.marker, color=shade, markersize=5.5, gid=owner)
            axes.set_ylim(count - 0.3, -0.7)
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
            axes.margins(x=0.05)
        predictors = next(iter(strips.values()))
        handles = [
            Line2D(
                [],
                [],
                color=colour(theme, v.colour),
                marker=v.marker,
                linestyle="",
                gid=owned_by(v.model, theme),
            )
            for v in predictors
        ]
        place.add_legend(theme, handles, [v.label for v in predictors])
        return place.figure

    return draw


def small_multiples(
    panels: Mapping[str, Sequence[Curve]], *, x_label: str, same_y: bool
) -> Callable[[Theme], Figure]:
    """Return a function that draws small panels of curves, with the longest legend of them.

    Args:
        panels: curves by the panel's title.
        x_label: the name of x.
        same_y: whether all panels have the same axes, or each its own.
    """

    def draw(theme: Theme) -> Figure:
        place = _Places(
            theme,
            len(panels),
            columns=4 if same_y else 3,
            height=1.35 if same_y else 1.7,
            left=0.5,
            gap=0.2 if same_y else 0.55,
            legend=True,
        )
        points = [p for curves in panels.values() for curve in curves for p in curve.points]
        few = max(len(curve.points) for curves in panels.values() for curve in curves) <= 15
        for i, (title, curves) in enumerate(panels.items()):
            axes = place.axes(i)
            axes.set_title(title)
            for curve in curves:
                _draw_curve(axes, curve, theme, marker=few, most=MAX_POINTS_SMALL)
            axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
            if same_y:
                low, high = min(y for _, y in points), max(y for _, y in points)
                edge = 0.06 * (high - low or 1)
                axes.set_ylim(low - edge, high + edge)
                axes.set_xlim(0, max(x for x, _ in points) + 1)
                axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
                for drawn in axes.lines:
                    drawn.set_linewidth(1.2)
                if i % place.columns:
                    axes.tick_params(labelleft=False)
            if i + place.columns < len(panels):
                axes.tick_params(labelbottom=False)
            else:
                axes.set_xlabel(x_label, labelpad=1)
        longest = max(place.figure.axes, key=lambda a: len(a.get_legend_handles_labels()[1]))
        place.add_legend(theme, *longest.get_legend_handles_labels())
        return place.figure

    return draw


class _Places:
    """A wide figure with rows of panels at fixed places, since a layout solver takes seconds."""

    def __init__(
        self,
        theme: Theme,
        count: int,
        *,
        height: float,
        left: float,
        gap: float,
        columns: int = 4,
        legend: bool = False,
    ) -> None:
        rows = -(-count // columns)
        self.columns = columns
        # A file holds the chart's title; in the page the title stands above the chart.
        self._title = 0.3 if theme["paper"] != "none" else 0.0
        self._top = self._title + _LEGEND * (2 if legend else 0) + 0.25
        between, below = 0.5, 0.45
        self._total = self._top + rows * height + (rows - 1) * between + below
        self._step = height + between
        self._left, self._gap, self._height = left, gap, height
        self._width = (_WIDE - left - 0.1 - (columns - 1) * gap) / columns
        self.figure = Figure(figsize=(_WIDE, self._total))

    def axes(self, index: int) -> Axes:
        """Return new axes at the `index`-th place."""
        row, column = divmod(index, self.columns)
        left = self._left + column * (self._width + self._gap)
        bottom = self._total - self._top - self._height - row * self._step
        size = (self._width / _WIDE, self._height / self._total)
        return self.figure.add_axes((left / _WIDE, bottom / self._total, *size))

    def add_legend(self, theme: Theme, handles: Sequence[Artist], labels: Sequence[str]) -> None:
        """Put one legend above all panels, in at most two rows."""
        one_row = sum(len(label) + 6 for label in labels) < 110
        legend = self.figure.legend(
            handles,
            labels,
            loc="upper left",
            bbox_to_anchor=(0.0, 1 - (self._title + 0.05) / self._total),
            ncols=len(labels) if one_row else -(-len(labels) // 2),
            borderaxespad=0,
            handlelength=1.6,
            columnspacing=1.2,
            handletextpad=0.5,
            fontsize=9.5,
            labelcolor=theme["ink"],
        )
        samples = legend.get_lines()  # every handle is a line
        for handle, sample, text in zip(handles, samples, legend.get_texts(), strict=True):
            sample.set_gid(handle.get_gid())
            text.set_gid(handle.get_gid())


def scatter_chart(
    label: NDArray[np.float32], prediction: NDArray[np.float32], scale: Scale
) -> Callable[[Theme], Figure]:
    """Return a function that draws predictions against labels.

    The wrong sides of the neutral point are tinted.

    Args:
        label: (clips,).
        prediction: (clips,); of more than `MAX_DOTS` clips, evenly spaced ones are drawn.
        scale: the bounds of the axes, which widen for predictions beyond them.
    """
    kept = np.linspace(0, len(label) - 1, min(len(label), MAX_DOTS)).round().astype(int)
    x, y = label[kept].astype(float), prediction[kept].astype(float)
    low, high = min(scale.low, y.min()), max(scale.high, y.max())
    edge = 0.04 * (high - low)
    low, high = low - edge, high + edge
    neutral = scale.neutral_point

    def draw(theme: Theme) -> Figure:
        figure, axes = _small(height=3.7)
        axes.grid(visible=False)
        for corner, width, height in (
            ((low, neutral), neutral - low, high - neutral),
            ((neutral, low), high - neutral, neutral - low),
        ):
            axes.add_patch(Rectangle(corner, width, height, facecolor=theme["wash"], linewidth=0))
        muted, rule = theme["muted"], theme["rule"]
        axes.plot([low, high], [low, high], color=muted, linewidth=0.9, linestyle=(0, (1, 2)))
        axes.axhline(neutral, color=rule, linewidth=0.8, zorder=0.5)
        axes.axvline(neutral, color=rule, linewidth=0.8, zorder=0.5)
        axes.add_patch(_dots(x, y, theme["series-1"]))
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_aspect("equal")
        axes.set_xlabel("label")
        axes.set_ylabel("prediction")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=7))
        return figure

    return draw


def _dots(x: NDArray[np.float64], y: NDArray[np.float64], colour: str) -> PathPatch:
    """Return dots as strokes without length, which take a tenth of the bytes of markers."""
    vertices = np.repeat(np.stack([x, y], axis=1), 2, axis=0)
    codes = np.tile([Path.MOVETO, Path.LINETO], len(x))
    path = Path(vertices, codes)
    path.should_simplify = False  # it would merge neighbours
    size = 5.0 if len(x) <= 200 else 3.5
    return PathPatch(path, edgecolor=colour, fill=False, linewidth=size, capstyle="round")


def _small(height: float) -> tuple[Figure, Axes]:
    """Return a figure 4.2 inches wide; the page scales it."""
    figure = Figure(figsize=(4.2, height), layout="constrained")
    return figure, figure.add_subplot()
