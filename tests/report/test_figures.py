import re
from xml.etree import ElementTree

import numpy as np

from mitfrnet.metrics import SCALES
from mitfrnet.report.figures import MAX_DOTS, SERIES, Line, line_chart, scatter_chart, shade


def chart(name="a", described="a chart", label="one"):
    lines = [Line(label, [(1, 0.5), (2, 0.25)], SERIES[0], spread=[0.1, 0.1])]
    return line_chart(lines, name=name, described=described, x_label="epoch", marked_x=2)


def elements(svg, tag):
    root = ElementTree.fromstring(svg.replace("xlink:href", "href"))
    return root, list(root.iter(tag))


def test_a_chart_is_well_formed_and_named():
    root, texts = elements(chart(described='less < "more"'), "text")
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == 'less < "more"'
    assert "width" not in root.attrib
    assert {"epoch", "one"} <= {text.text for text in texts}


def test_text_in_a_legend_is_escaped_and_is_no_formula():
    _, texts = elements(chart(label="<b>$x_1$</b>"), "text")
    assert "<b>$x_1$</b>" in {text.text for text in texts}


def test_colours_are_the_pages_own():
    svg = str(chart())
    assert "var(--series-1)" in svg
    assert "var(--muted)" in svg
    assert not re.search("#[0-9a-f]{6}", svg)
    assert "DejaVu" not in svg


def test_same_lines_same_bytes_and_ids_of_their_own():
    assert chart() == chart()
    ids = [set(re.findall(r' id="(\w+)"', chart(name=name))) for name in ("a", "b")]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_every_reference_has_its_target():
    svg = str(chart())
    assert set(re.findall(r"#(\w+)", svg)) == set(re.findall(r' id="(\w+)"', svg))


def dots(svg):
    """Return the positions of strokes without length."""
    return re.findall(r"M (\S+ \S+)\nL \1\b", svg)


def test_a_scatter_draws_each_clip_up_to_a_limit():
    for clips, drawn in ((5, 5), (3 * MAX_DOTS, MAX_DOTS)):
        label = np.linspace(-3, 3, clips, dtype=np.float32)
        svg = scatter_chart(label, label, SCALES["mosi"], name="s", described="d")
        assert len(dots(str(svg))) == drawn


def test_a_scatter_shows_predictions_beyond_the_scale():
    label = np.array([-1, 1], dtype=np.float32)
    svg = scatter_chart(label, label * 40, SCALES["sims"], name="s", described="d")
    root, _ = elements(svg, "text")
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    assert len(dots(str(svg))) == 2
    for dot in dots(str(svg)):
        x, y = map(float, dot.split())
        assert 0 < x < width
        assert 0 < y < height


def test_shades_differ():
    assert len({shade(i, 11) for i in range(11)}) == 11
    assert shade(0, 1) == shade(0, 5)
