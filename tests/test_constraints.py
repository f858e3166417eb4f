"""The two sets of versions: one does not stay behind the other unseen."""

from packaging.requirements import Requirement

from tests.helpers.paths import ROOT

LATEST = (ROOT / "constraints-latest.txt").read_text()
BORDER = "# As in constraints.txt.\n"


def pins(text):
    """Return the versions for Python 3.11, by package."""
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    found = [Requirement(line) for line in lines if line]
    python = {"python_version": "3.11"}
    return {
        r.name: str(r.specifier) for r in found if r.marker is None or r.marker.evaluate(python)
    }


def test_the_sets_differ_where_the_newer_says_and_nowhere_else():
    own, same = (pins(part) for part in LATEST.split(BORDER))
    default = pins((ROOT / "constraints.txt").read_text())
    assert {name: default[name] for name in same} == same
    assert not [name for name in own if default[name] == own[name]]
    assert not own.keys() & same.keys()


def test_nothing_floats_in_the_newer_set():
    """But protobuf, which MediaPipe 1.x does without, and what `make parity` adds."""
    default, _, parity = (ROOT / "constraints.txt").read_text().partition("MMSA==")
    assert pins(default).keys() - pins(LATEST).keys() == {"protobuf"}
    assert parity
