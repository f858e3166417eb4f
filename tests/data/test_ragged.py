import tracemalloc

import numpy as np
import pytest

from mitfrnet.data.ragged import RaggedArray, Steps
from mitfrnet.missing import mask_corpus, read_masks, write_masks
from mitfrnet.modalities import MODALITIES
from tests.helpers.splits import make_mask_params


def arrays(*lengths):
    """Rows of 0, 1, 2, ... that go on from row to row."""
    ends = np.cumsum(lengths)
    return [np.arange(end - n, end) for end, n in zip(ends, lengths, strict=True)]


@pytest.mark.parametrize("lengths", [(2, 0, 3), (0, 0), (4,), ()])
def test_rows_are_the_arrays_they_were_made_of(lengths):
    rows = RaggedArray.of(arrays(*lengths))
    assert len(rows) == len(lengths)
    assert rows.lengths.tolist() == list(lengths)
    assert [row.tolist() for row in rows] == [row.tolist() for row in arrays(*lengths)]
    assert RaggedArray.of(rows) is rows


def test_rows_are_found_as_those_of_a_list_are():
    rows = RaggedArray.of(arrays(2, 0, 3))
    assert rows[2].tolist() == rows[-1].tolist() == [2, 3, 4]
    with pytest.raises(IndexError):
        rows[3]
    with pytest.raises(ValueError, match="do not follow one another"):
        rows[::2]


@pytest.mark.parametrize("part", [slice(1, 3), slice(0, 1), slice(2, 2), slice(1, 99), slice(9, 9)])
def test_a_slice_holds_its_own_rows_alone(part):
    listed = arrays(2, 0, 3, 1)
    rows = RaggedArray.of(listed)[part]
    assert [row.tolist() for row in rows] == [row.tolist() for row in listed[part]]
    assert rows.flat.tolist() == [i for row in listed[part] for i in row]


def test_any_does_not_take_the_next_row_for_an_empty_one():
    rows = [[], [True], [], [False, False], [False, True], []]
    found = RaggedArray.of([np.array(row, dtype=bool) for row in rows]).any()
    assert found.tolist() == [False, True, False, False, True, False]
    assert RaggedArray.of([np.empty(0, bool)]).any().tolist() == [False]


def test_masks_of_many_clips_take_little_more_than_their_steps(tmp_path):
    """Of each clip 3 x 2 steps; arrays of their own for them would take 380 bytes."""
    n, ones = 2000, np.ones(4000, bool)
    offsets = np.arange(n + 1) * 2
    steps = Steps(
        ids=[f"v/{i}" for i in range(n)],
        detected={m: RaggedArray(ones, offsets) for m in MODALITIES},
        special=RaggedArray(~ones, offsets),
        times={m: RaggedArray(np.zeros(2 * n), offsets) for m in MODALITIES},
    )
    splits, path = {"train": steps}, tmp_path / "masks"
    drawn = mask_corpus(splits, rate=0.5, params=make_mask_params())
    write_masks(drawn, splits, path)
    read_masks(path, splits)  # the first time, modules are loaded
    del drawn
    tracemalloc.start()
    drawn = mask_corpus(splits, rate=0.5, params=make_mask_params())
    held, _ = tracemalloc.get_traced_memory()
    assert held < 100 * n
    del drawn
    found = read_masks(path, splits)
    read, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.observed["train"]["visual"]) == n
    assert read < 100 * n
