"""What a chart drew, read from its SVG."""

from xml.etree import ElementTree

from mitfrnet.report.charts.drawing import Chart


def svg_of(draw):
    """Return the element that `draw` makes in a page."""
    return Chart(name="a", title="a", described="d", draw=draw).svg


def elements(svg, tag):
    """Return the root of an SVG element and all elements with `tag`."""
    root = ElementTree.fromstring(svg.replace("xlink:href", "href"))
    return root, list(root.iter(tag))
