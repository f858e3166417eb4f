from itertools import pairwise

import numpy as np
import pytest

from mitfrnet.inspection.gather import Token
from mitfrnet.inspection.page import captions, span_path, ticks
from mitfrnet.inspection.tracks import edges, runs


def test_edges_lie_midway_and_within_the_clip():
    """Centres 0.5, 1.5, 3.5: midway 1 and 2.5; outside as far as to the neighbour, cut at 4."""
    assert edges(np.array([0.5, 1.5, 3.5]), 4.0).tolist() == [0, 1, 2.5, 4]


@pytest.mark.parametrize(("times", "expected"), [([], [0]), ([0.7], [0, 4])])
def test_edges_of_few_steps(times, expected):
    assert edges(np.array(times), 4.0).tolist() == expected


def test_runs_join_neighbours():
    chosen = np.array([True, True, False, True])
    assert runs(chosen, np.array([0.0, 1, 2, 3, 4])) == [(0, 2), (3, 4)]
    assert runs(~chosen, np.array([0.0, 1, 2, 3, 4])) == [(2, 3)]
    assert runs(np.zeros(0, bool), np.zeros(1)) == []


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
