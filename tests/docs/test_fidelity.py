"""docs/fidelity.md names the test that proves each of its rows."""

import ast
import re
from itertools import pairwise

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.proofs import FIDELITY, PROOFS

ROWS = [line for line in FIDELITY.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("proof", sorted(PROOFS))
def test_a_named_test_exists_and_is_run(proof):
    """`make parity` runs the tests of tests/parity, `make test` all others.

    A named test that is skipped in such a run fails: tests/conftest.py.
    """
    file, name = proof.split("::")
    source = (ROOT / file).read_text()
    assert name in {node.name for node in ast.parse(source).body if hasattr(node, "name")}
    assert ("mark.parity" in source) == file.startswith("tests/parity/")


def test_every_row_names_a_test_or_says_that_there_is_nothing_to_test():
    """Heads of tables need none, nor does a misprint in the paper."""
    lines = FIDELITY.splitlines()
    heads = {line for line, rule in pairwise(lines) if rule.startswith("|---")}
    unproved = [
        row
        for row in ROWS
        if row not in heads and "::test_" not in row and "nothing to test" not in row
    ]
    assert not unproved


@pytest.mark.parametrize("number", range(1, 26))
def test_every_equation_has_a_row(number):
    """Alone, or within a range such as 2-5."""
    covered = set()
    for row in ROWS:
        for first, last in re.findall(r"^\| eq\. (\d+)(?:-(\d+))?", row):
            covered |= set(range(int(first), int(last or first) + 1))
    assert number in covered
