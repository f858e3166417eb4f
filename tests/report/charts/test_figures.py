import re

import numpy as np
import pytest

from mitfrnet.labels import SCALES
from mitfrnet.report.charts.figures import (
    MAX_DOTS,
    MAX_POINTS,
    Curve,
    Value,
    bar_panels,
    describe,
    dot_strips,
    line_chart,
    scatter_chart,
    small_multiples,
)
from tests.helpers.svg import elements, svg_of

BARS = {
    "MAE": [
        Value("TFN", 0.925, 0.1, "0.925", "series-1"),
        Value("Majority class", None, None, "not defined", "muted"),
    ],
    "Corr": [
        Value("TFN", -0.5, None, "-0.500", "series-1"),
        Value("Majority class", 0.0, None, "0.000", "muted"),
    ],
}


def texts(draw):
    return [text.text for text in elements(svg_of(draw), "text")[1]]


def test_bars_name_each_value_and_undefined_ones():
    shown = texts(bar_panels(BARS))
    assert {"MAE", "Corr", "TFN", "0.925", "-0.500"} <= set(shown)
    assert shown.count("Majority class") == 1  # beside the first panel
    assert [text.strip() for text in shown].count("not defined") == 1


def test_dots_have_one_legend_for_all_scores():
    shown = texts(dot_strips(BARS))
    assert shown.count("TFN") == shown.count("Majority class") == 1


def test_small_multiples_take_the_longest_legend():
    def curve(label):
        return Curve(label, [(0.0, 1.0), (0.5, 2.0)], "series-1")

    panels = {"first": [curve("a")], "second": [curve("a"), curve("b")]}
    shown = texts(small_multiples(panels, x_label="rate", same_y=False))
    assert shown.count("a") == shown.count("b") == 1
    assert {"first", "second", "rate"} <= set(shown)


def test_hollow_points_have_no_filled_marker():
    def curve(hollow):
        points = [(0.0, 1.0), (0.5, 2.0), (1.0, 2.0)]
        return Curve("a", points, "series-1", hollow=hollow)

    def filled(hollow):
        draw = small_multiples({"p": [curve(hollow)]}, x_label="x", same_y=False)
        uses = re.findall(r"<use [^>]*series-1[^>]*>", str(svg_of(draw)))
        return sum("fill: var(--series-1)" in use for use in uses)

    assert filled([False, False, False]) - filled([False, True, True]) == 2


def test_a_description_names_the_ends_and_extremes_of_each_curve():
    """A gap has no value, and a curve of gaps is left out."""
    nan = float("nan")
    points = [(1, 0.5), (2, nan), (3, 2.0), (4, 0.25), (5, 0.75)]
    curves = [Curve("one", points, "series-1"), Curve("gaps", [(1, nan)], "series-2")]
    assert describe(curves) == ("one: 0.5 at 1, 0.75 at 5, lowest 0.25 at 4, highest 2 at 3.")


def test_long_curves_are_thinned():
    points = [(e, float(e % 7)) for e in range(5000)]
    svg = str(svg_of(line_chart([Curve("a", points, "series-1")], x_label="epoch")))
    (curve,) = re.findall(r'<path d="([^"]+)"[^>]*stroke: var\(--series-1\)', svg)[:1]
    assert 100 < len(curve.split()) / 2 <= MAX_POINTS + 1


def dots(svg):
    """Return the positions of strokes without length."""
    return re.findall(r"M(\S+ \S+)h0", svg)


def test_a_scatter_draws_each_clip_up_to_a_limit():
    for clips, drawn in ((5, 5), (3 * MAX_DOTS, MAX_DOTS)):
        label = np.linspace(-3, 3, clips, dtype=np.float32)
        svg = svg_of(scatter_chart(label, label, SCALES["mosi"]))
        assert len(dots(str(svg))) == drawn


def test_a_scatter_shows_predictions_beyond_the_scale():
    label = np.array([-1, 1], dtype=np.float32)
    svg = svg_of(scatter_chart(label, label * 40, SCALES["sims"]))
    root, _ = elements(svg, "text")
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    assert len(dots(str(svg))) == 2
    for dot in dots(str(svg)):
        x, y = map(float, dot.split())
        assert 0 < x < width
        assert 0 < y < height


def test_a_curve_has_a_gap_where_it_is_not_defined():
    """The third of five points is not defined: two strokes of two points each."""
    points = [(x, float("nan") if x == 2 else float(x)) for x in range(5)]
    svg = str(svg_of(small_multiples({"p": [Curve("a", points, "series-1")]}, x_label="x",
                                     same_y=False)))  # fmt: skip
    curve = re.search(r'<path d="([^"]+)"[^>]*stroke: var\(--series-1\)', svg)[1]
    assert curve.count("M") == 2
    assert len(re.findall(r"-?[\d.]+ -?[\d.]+", curve)) == 4


def test_intervals_are_bars_at_their_points_that_belong_to_the_model():
    """Bars of 1 to 3 and 2 to 4, none where there is no interval; moved with their curve."""

    def bars(shift):
        one = Curve(
            "a",
            [(0, 2), (1, 3), (2, 3)],
            "series-1",
            intervals=[(1, 3), None, (2, 4)],
            shift=shift,
            model="tfn",
        )
        other = Curve("b", [(0, 0), (4, 0)], "series-2")
        svg = str(svg_of(small_multiples({"p": [one, other]}, x_label="x", same_y=False)))
        own = "".join(re.findall(r'<g data-model="tfn">(.*?)</g>', svg, re.DOTALL))
        return [tuple(map(float, b)) for b in re.findall(
            r'd="M ?([\d.]+) ([\d.]+)\s+\1 ([\d.]+)\s*"', own)]  # fmt: skip

    (x, low, high), (x2, low2, high2) = bars(0.0)
    assert low - high == pytest.approx(low2 - high2, abs=0.2)
    assert low - high > 10  # an SVG's y grows downwards
    assert low - low2 == pytest.approx((low - high) / 2, abs=0.2)
    assert [b[0] for b in bars(0.5)] == pytest.approx([x + (x2 - x) / 4, x2 + (x2 - x) / 4], abs=2)
