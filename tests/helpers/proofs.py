"""The tests that docs/fidelity.md names as proof, as `<file>::<name>`."""

import re

from tests.helpers.paths import ROOT

FIDELITY = (ROOT / "docs" / "fidelity.md").read_text()
PROOFS = frozenset(re.findall(r"`(tests/[\w/]+\.py::test_\w+)`", FIDELITY))
