import numpy as np
import pytest

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
