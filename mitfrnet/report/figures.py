"""Charts as SVG that sits in the page: its fonts and colours, light or dark, same bytes each time.

Matplotlib draws with placeholder colours, which become the page's CSS variables.
"""

import colorsys
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mitfrnet.metrics import Scale

# Placeholder: what takes its place. None of them may be a colour that is meant as such.
_COLOURS = {
    "#010101": "var(--ink)",
    "#010102": "var(--muted)",
    "#010103": "var(--rule)",
    "#010104": "var(--wash)",
    "#010105": "var(--series-1)",
    "#010106": "var(--series-2)",
    "#010107": "var(--series-3)",
    "#010108": "var(--series-4)",
    "#010109": "var(--series-5)",
}
INK, MUTED, _RULE, _WASH, *SERIES = _COLOURS

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # letters in the page's font
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": _RULE,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "xtick.color": _RULE,
    "xtick.labelcolor": MUTED,
    "ytick.color": _RULE,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "text.parse_math": False,
}

# More dots than this are thinned out.
MAX_DOTS = 1000


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        label: what it is called.
        points: (x, y), in order of x.
        colour: of `SERIES` or `shade`.
        dashed: or solid.
        spread: standard deviation at each point, or nothing.
        in_legend: or named only for readers who see no picture.
    """

    label: str
    points: Sequence[tuple[float, float]]
    colour: str
    dashed: bool = False
    spread: Sequence[float | None] = ()
    in_legend: bool = True


def shade(index: int, count: int) -> str:
    """Return the colour of the `index`-th of `count` ordered things, from blue over red to ochre.

    All are of a lightness that stands out from a white page and from a black one.
    """
    hue = (215 + 180 * index / max(count - 1, 1)) % 360
    red, green, blue = colorsys.hls_to_rgb(hue / 360, 0.55, 0.5)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def line_chart(
    lines: Sequence[Line],
    *,
    name: str,
    described: str,
    x_label: str,
    marked_x: float | None = None,
) -> Markup:
    """Return curves as an SVG element.

    Args:
        lines: the curves.
        name: unique in the page.
        described: what a reader who sees no picture should know of it.
        x_label: of the x axis; what y is, the chart's title says.
        marked_x: where a vertical line stands.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _empty(height=2.6)
        if marked_x is not None:
            axes.axvline(marked_x, color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)))
        marker = "o" if max((len(line.points) for line in lines), default=0) <= 15 else None
        for line in lines:
            xs, ys = zip(*line.points, strict=True) if line.points else ((), ())
            axes.plot(
                xs,
                ys,
                color=line.colour,
                linestyle=(0, (3, 2)) if line.dashed else "-",
                marker=marker,
                markersize=3.2,
                label=line.label if line.in_legend else "_",
            )
            if any(line.spread):
                half = np.array([s or 0.0 for s in line.spread])
                middle = np.asarray(ys)
                axes.fill_between(
                    xs, middle - half, middle + half, color=line.colour, alpha=0.15, linewidth=0
                )
        axes.set_xlabel(x_label)
        axes.margins(x=0.03)
        if all(float(x).is_integer() for line in lines for x, _ in line.points):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        named, labels = axes.get_legend_handles_labels()
        if labels:
            columns = max(1, 62 // (7 + max(map(len, labels))))
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
                labelcolor=INK,
            )
        return _svg(figure, name, described)


def scatter_chart(
    label: NDArray[np.float32],
    prediction: NDArray[np.float32],
    scale: Scale,
    *,
    name: str,
    described: str,
) -> Markup:
    """Return predictions against labels as an SVG element, the wrong side of zero tinted.

    Args:
        label: of the clips, (clips,).
        prediction: likewise; of more than `MAX_DOTS` clips, evenly spaced ones are drawn.
        scale: bounds of the axes; they widen where a prediction lies beyond.
        name: unique in the page.
        described: what a reader who sees no picture should know of it.
    """
    kept = np.linspace(0, len(label) - 1, min(len(label), MAX_DOTS)).round().astype(int)
    x, y = label[kept].astype(float), prediction[kept].astype(float)
    low, high = min(scale.low, y.min()), max(scale.high, y.max())
    edge = 0.04 * (high - low)
    low, high = low - edge, high + edge
    with matplotlib.rc_context(_STYLE | {"axes.grid": False}):
        figure, axes = _empty(height=3.7)
        for corner in ((low, 0.0), (0.0, low)):
            width, height = (-low, high) if corner[0] else (high, -low)
            axes.add_patch(Rectangle(corner, width, height, facecolor=_WASH, linewidth=0))
        axes.plot([low, high], [low, high], color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)))
        axes.axhline(0, color=_RULE, linewidth=0.8)
        axes.axvline(0, color=_RULE, linewidth=0.8)
        axes.add_patch(_dots(x, y))
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_aspect("equal")
        axes.set_xlabel("label")
        axes.set_ylabel("prediction")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=7))
        return _svg(figure, name, described)


def _dots(x: NDArray[np.float64], y: NDArray[np.float64]) -> PathPatch:
    """Return dots as strokes without length: a tenth of the bytes of as many markers."""
    vertices = np.repeat(np.stack([x, y], axis=1), 2, axis=0)
    codes = np.tile([Path.MOVETO, Path.LINETO], len(x))
    path = Path(vertices, codes)
    path.should_simplify = False  # it would merge neighbours
    size = 5.0 if len(x) <= 200 else 3.5
    return PathPatch(path, edgecolor=SERIES[0], fill=False, linewidth=size, capstyle="round")


def _empty(height: float) -> tuple[Figure, Axes]:
    """Return a figure 4.2 inches wide, which the page scales to the width it has."""
    figure = Figure(figsize=(4.2, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def _svg(figure: Figure, name: str, described: str) -> Markup:
    """Return the figure as an element without anything that names a time, a version or a font."""
    buffer = io.StringIO()
    # The salt keeps apart the ids of two charts in one page.
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg")
    drawing = buffer.getvalue()
    view_box = re.search(r'viewBox="([^"]+)"', drawing)
    assert view_box
    body = drawing[drawing.index(">", view_box.end()) + 1 : drawing.rindex("</svg>")]
    body = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.S)
    body = re.sub(r'<g id="[\w.]+"', "<g", body)
    body = re.sub(r"font(-family)?: [^;\"]*;? ?", _font_size_only, body)
    body = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", body)
    for placeholder, variable in _COLOURS.items():
        body = body.replace(placeholder, variable)
    body = re.sub(r"\s*\n\s*", "\n", body).strip()
    opening = Markup('<svg role="img" aria-label="{}" viewBox="{}">').format(described, view_box[1])
    return opening + Markup(body) + Markup("</svg>")


def _font_size_only(declaration: re.Match[str]) -> str:
    size = re.search(r"[\d.]+px", declaration[0])
    return f"font-size: {size[0]}; " if size else ""
