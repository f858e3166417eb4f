"""The two sets of pinned versions differ only where constraints-latest.txt says so."""

from packaging.requirements import Requirement

from tests.helpers.paths import ROOT

LATEST = (ROOT / "constraints-latest.txt").read_text()
BORDER = "# As in constraints.txt.\n"


def pins(text):
    """Return the versions for Python 3.11, by package."""
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    requirements = [Requirement(line) for line in lines if line]
    python = {"python_version": "3.11"}
    return {
        r.name: str(r.specifier)
        for r in requirements
        if r.marker is None or r.marker.evaluate(python)
    }


def test_the_sets_differ_only_above_the_border():
    own, same = (pins(part) for part in LATEST.split(BORDER))
    default = pins((ROOT / "constraints.txt").read_text())
    assert {name: default[name] for name in same} == same
    assert not [name for name in own if default[name] == own[name]]
    assert not own.keys() & same.keys()


def test_the_newer_set_pins_every_package():
    """Except protobuf, which MediaPipe 1.x does not need, and what `make parity` adds."""
    default, _, parity = (ROOT / "constraints.txt").read_text().partition("MMSA==")
    assert pins(default).keys() - pins(LATEST).keys() == {"protobuf"}
    assert parity
