import numpy as np
import pytest

from mitfrnet.data.ragged import RaggedArray


def arrays(*lengths):
    """Return arrays of these lengths that count on from one to the next."""
    ends = np.cumsum(lengths)
    return [np.arange(end - n, end) for end, n in zip(ends, lengths, strict=True)]


@pytest.mark.parametrize("lengths", [(2, 0, 3), (0, 0), (4,), ()])
def test_rows_are_the_arrays_they_were_made_of(lengths):
    rows = RaggedArray.of(arrays(*lengths))
    assert len(rows) == len(lengths)
    assert rows.lengths.tolist() == list(lengths)
    assert [row.tolist() for row in rows] == [row.tolist() for row in arrays(*lengths)]
    assert RaggedArray.of(rows) is rows


def test_rows_are_indexed_as_those_of_a_list():
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
    filled = RaggedArray.of([np.array(row, dtype=bool) for row in rows]).any()
    assert filled.tolist() == [False, True, False, False, True, False]
    assert RaggedArray.of([np.empty(0, bool)]).any().tolist() == [False]
