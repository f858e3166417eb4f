"""What every layout has in common."""

import pytest

from mitfrnet.corpus.layouts import LAYOUTS
from tests.helpers.reading import BLOCKS, refusal


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_without_the_corpus_is_refused_with_what_is_expected(tmp_path, layout):
    if layout == "cmu":
        pytest.importorskip("h5py")
    line = refusal(tmp_path, BLOCKS[layout])
    assert "expected" in line or "import the corpus" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_absent_folder_is_named_with_its_layout(tmp_path, layout):
    assert refusal(tmp_path / "none", BLOCKS[layout]) == (
        f"{tmp_path}/none: no such folder (expected the corpus, layout {layout})"
    )
