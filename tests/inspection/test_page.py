from itertools import pairwise

import pytest

from mitfrnet.inspection.page import captions, span_path, ticks
from mitfrnet.inspection.subject import Token


def test_span_path_is_in_thousandths_of_the_clip():
    assert span_path([(1.0, 2.0)], 4.0) == "M250.0 0h250.0v10h-250.0z"


@pytest.mark.parametrize(
    ("duration", "expected"), [(2.6, [0, 1, 2]), (10.0, [0, 2, 4, 6, 8]), (0.6, [0, 0.2, 0.4])]
)
def test_ticks_are_round(duration, expected):
    assert ticks(duration) == pytest.approx(expected)


def test_captions_cover_the_clip_in_order():
    """Pieces of words join again: a token that begins with a letter stands apart."""
    tokens = [Token("[CLS]", 0, 0, True)]
    tokens += [Token("word", i, i + 1, False) for i in range(20)] + [Token(".", 20, 20, False)]
    lines = captions(tokens, 21.0)
    assert [line[2] for line in lines][-1].endswith("word.")
    assert lines[0][0] == 0
    assert lines[-1][1] == pytest.approx(21.0)
    assert all(a[1] == b[0] for a, b in pairwise(lines))
    assert captions([], 1.0) == []
