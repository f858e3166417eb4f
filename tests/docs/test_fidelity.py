"""docs/fidelity.md names the test that holds each of its rows."""

import re

import pytest

from tests.helpers.paths import ROOT

TEXT = (ROOT / "docs" / "fidelity.md").read_text()
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ")]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", TEXT)))


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_a_test_that_is_named_exists(file, test):
    assert f"def {test}(" in (ROOT / file).read_text()


def test_every_row_names_a_test_or_says_that_nothing_is_computed():
    """Heads and what only concerns print, such as a misspelt symbol, need none."""
    heads = {line for line, rule in zip(TEXT.splitlines(), TEXT.splitlines()[1:], strict=False)
             if rule.startswith("|---")}  # fmt: skip
    unheld = [
        row for row in ROWS if row not in heads and "::test_" not in row
        and "nothing to test" not in row
    ]  # fmt: skip
    assert not unheld


@pytest.mark.parametrize("number", range(1, 26))
def test_every_equation_has_a_row(number):
    """Alone, or within a range such as 2-5."""
    covered = set()
    for row in ROWS:
        for first, last in re.findall(r"^\| eq\. (\d+)(?:-(\d+))?", row):
            covered |= set(range(int(first), int(last or first) + 1))
    assert number in covered
