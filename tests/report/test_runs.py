import pytest

from mitfrnet.report.runs import defined, deviation_of, mean_of


def test_runs_without_a_score_are_left_out():
    runs = [{"corr": 0.5}, {"corr": None}, {}, {"corr": 0.0}]
    assert defined(runs, "corr") == [0.5, 0.0]


def test_mean_and_sample_deviation():
    assert mean_of([0.5, 1.0]) == 0.75
    assert deviation_of([0.5, 1.0]) == pytest.approx(0.25 * 2**0.5)


def test_too_few_values_have_no_mean_or_deviation():
    assert mean_of([]) is None
    assert deviation_of([0.5]) is None
