"""How charts look: colours, type, and SVG and PNG with the same bytes each time.

In the page, a chart has the page's fonts and colours, light or dark: it is drawn with placeholder
colours, which become CSS variables. In a file, it has the light colours, and letters as paths.
"""

import colorsys
import io
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from mitfrnet.files import replacing

SERIES = tuple(f"series-{i}" for i in range(1, 9))

# Colours by role: the light ones of colours.css.
PRINT = {
    "paper": "#ffffff",
    "ink": "#1c1f26",
    "muted": "#5b6270",
    "rule": "#dfe2e8",
    "wash": "#f4f5f8",
    "series-1": "#2f6db3",
    "series-2": "#b5591b",
    "series-3": "#2b7f66",
    "series-4": "#8450a0",
    "series-5": "#86741a",
    "series-6": "#c0396b",
    "series-7": "#1787a5",
    "series-8": "#6b4a3a",
}

# Placeholders for the page's colours. No chart may use one of them as a real colour.
PAGE = {role: f"#0101{i:02x}" for i, role in enumerate(PRINT, 1)} | {"paper": "none"}

Theme = dict[str, str]


def colour(theme: Theme, role: str) -> str:
    """Return the colour of a role, or `role` itself if it is a colour."""
    return theme.get(role, role)


def owned_by(model: str, theme: Theme) -> str | None:
    """Return the id of a part that the page can hide with its model; None in a file."""
    return f"model:{model}" if model and theme["paper"] == "none" else None


def shade(index: int, count: int) -> str:
    """Return the colour of the `index`-th of `count` ordered curves, from blue over red to ochre.

    All of them can be read on a white page and on a black one.
    """
    hue = (215 + 180 * index / max(count - 1, 1)) % 360
    red, green, blue = colorsys.hls_to_rgb(hue / 360, 0.55, 0.5)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


@dataclass(frozen=True)
class Chart:
    """A chart, for the page and for files.

    Attributes:
        name: unique in the page; also the name of its files.
        title: the line above it.
        described: a description for readers who cannot see it.
        draw: draws it in the colours of a theme.
        wide: whether it takes the width of the page.
        own_title: its title in a file, if `title` needs the page around it.
    """

    name: str
    title: str
    described: str
    draw: Callable[[Theme], Figure]
    wide: bool = False
    own_title: str = ""

    @property
    def svg(self) -> Markup:
        """Return the chart as an element of the page."""
        with style(PAGE):
            return _element(self.draw(PAGE), self.name, self.described)

    def save(self, folder: Path) -> None:
        """Write the chart as `<name>.svg` and `<name>.png`."""
        with style(PRINT):
            figure = self.draw(PRINT)
            title = figure.suptitle(self.own_title or self.title, x=0.01, ha="left", fontsize=11)
            if figure.get_layout_engine() is None:  # which would make room
                title.set(y=0.995, va="top")
            with (
                matplotlib.rc_context({"svg.hashsalt": self.name, "svg.fonttype": "path"}),
                replacing(folder / f"{self.name}.svg") as path,
            ):
                FigureCanvasSVG(figure)
                figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
            with replacing(folder / f"{self.name}.png") as path:
                FigureCanvasAgg(figure)
                figure.savefig(path, format="png", dpi=160, metadata={"Software": None})


def style(theme: Theme) -> AbstractContextManager[None]:
    """Return a context in which figures have the theme's colours and the report's type."""
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",  # letters in the page's font
        "font.size": 10.5,
        "text.color": theme["ink"],
        "axes.edgecolor": theme["rule"],
        "axes.facecolor": "none",
        "axes.labelcolor": theme["muted"],
        "axes.labelsize": 10,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.facecolor": theme["paper"],
        "grid.color": theme["rule"],
        "grid.linewidth": 0.6,
        "xtick.bottom": False,  # the grid is enough
        "ytick.left": False,
        "xtick.labelsize": 9.5,
        "ytick.labelsize": 9.5,
        "xtick.color": theme["rule"],
        "xtick.labelcolor": theme["muted"],
        "ytick.color": theme["rule"],
        "ytick.labelcolor": theme["muted"],
        "legend.frameon": False,
        "legend.fontsize": 10,
        "lines.linewidth": 1.6,
        "lines.solid_capstyle": "round",
        "text.parse_math": False,
    }
    return matplotlib.rc_context(settings)


def _element(figure: Figure, name: str, described: str) -> Markup:
    """Return the figure as an element that names no time, version or font."""
    buffer = io.StringIO()
    FigureCanvasSVG(figure)
    # With the salt, no two charts of a page share an id.
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg")
    drawing = buffer.getvalue()
    view_box = re.search(r'viewBox="([^"]+)"', drawing)
    assert view_box
    body = drawing[drawing.index(">", view_box.end()) + 1 : drawing.rindex("</svg>")]
    body = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.S)
    body = re.sub(r'<g id="[\w.]+"', "<g", body)
    body = re.sub(r"font(-family)?: [^;\"]*;? ?", _font_size_only, body)
    body = re.sub(r'<(?!g id="model:)[^>]+>', _shorter_tag, body)
    body = body.replace('<g id="model:', '<g data-model="')
    for role, placeholder in PAGE.items():
        if role != "paper":
            body = body.replace(placeholder, f"var(--{role})")
    body = re.sub(r"\s*\n\s*", "\n", body).strip()
    opening = Markup('<svg role="img" aria-label="{}" viewBox="{}">').format(described, view_box[1])
    return opening + Markup(body) + Markup("</svg>")


def _shorter_tag(tag: re.Match[str]) -> str:
    """Return a tag in half the bytes, since a page has thousands of curves and dots."""
    text = re.sub(r' transform="rotate\(-?0 [^"]*"', "", tag[0])
    text = re.sub(r"-?\d+\.\d\d+", lambda number: f"{float(number[0]):.1f}", text)
    text = re.sub(r"M (\S+ \S+)\s+L \1(?=\s)\s*", r"M\1h0", text)  # a stroke without length
    return re.sub(r"\s+L ", " ", text)  # lines are implied after a move


def _font_size_only(declaration: re.Match[str]) -> str:
    size = re.search(r"[\d.]+px", declaration[0])
    return f"font-size: {size[0]}; " if size else ""
