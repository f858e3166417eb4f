import re

from mitfrnet.report.charts.drawing import PAGE, PRINT, SERIES, Chart, shade
from mitfrnet.report.charts.figures import Curve, Value, bar_panels, line_chart
from tests.helpers.svg import elements, svg_of


def chart(name="a", described="a chart", label="one"):
    curves = [Curve(label, [(1, 0.5), (2, 0.25)], SERIES[0], intervals=[(0.4, 0.6), None])]
    draw = line_chart(curves, x_label="epoch", marked_x=2)
    return Chart(name=name, title="A title", described=described, draw=draw)


def test_a_chart_is_well_formed_and_named():
    root, texts = elements(chart(described='less < "more"').svg, "text")
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == 'less < "more"'
    assert "width" not in root.attrib
    assert {"epoch", "one"} <= {text.text for text in texts}


def test_text_in_a_legend_is_escaped_and_not_read_as_a_formula():
    _, texts = elements(chart(label="<b>$x_1$</b>").svg, "text")
    assert "<b>$x_1$</b>" in {text.text for text in texts}


def test_colours_are_those_of_the_page():
    svg = str(chart().svg)
    assert "var(--series-1)" in svg
    assert "var(--muted)" in svg
    assert not re.search("#[0-9a-f]{6}", svg)
    assert "DejaVu" not in svg


def test_same_curves_give_same_bytes_and_charts_share_no_ids():
    assert chart().svg == chart().svg
    ids = [set(re.findall(r' id="(\w+)"', chart(name=name).svg)) for name in ("a", "b")]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_every_reference_has_a_target():
    svg = str(chart().svg)
    assert set(re.findall(r"#(\w+)", svg)) == set(re.findall(r' id="(\w+)"', svg))


def test_printed_numbers_are_not_rounded():
    bars = {"MAE": [Value("TFN", 0.925, 0.1, "0.925", "series-1")]}
    assert ">0.925<" in svg_of(bar_panels(bars))


def test_files_have_light_colours_letters_as_paths_a_title_and_the_same_bytes(tmp_path):
    for folder in ("one", "two"):
        chart().save(tmp_path / folder)
    for kind in ("svg", "png"):
        one, two = ((tmp_path / folder / f"a.{kind}").read_bytes() for folder in ("one", "two"))
        assert one == two
        assert b"Matplotlib" not in one
    svg = (tmp_path / "one/a.svg").read_text()
    assert PRINT["series-1"] in svg
    assert not any(placeholder in svg for placeholder in PAGE.values() if placeholder != "none")
    assert "<!-- A title -->" in svg  # its letters are drawn as paths
    assert "<text" not in svg


def test_shades_differ():
    assert len({shade(i, 11) for i in range(11)}) == 11
    assert shade(0, 1) == shade(0, 5)
