"""No fault costs a clip: the scenarios of `benchmarks.faults`, with fewer tries."""

import pytest

from benchmarks.fault_trial import CLIPS, UnavailableError, end_all, make_clean
from benchmarks.faults import SCENARIOS, stage_killed

TIMES = {"dvc_killed": 1, "worker_killed": 2, "ctrl_c": 3, "ctrl_c_under_dvc": 1}
TIMES |= {"sigterm": 2, "sigterm_under_dvc": 1}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    yield make_clean(tmp_path_factory.mktemp("clean") / "project")
    end_all()


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_killed_stage_is_finished_by_the_next(clean, tmp_path, seed):
    """Five moments for each seed."""
    cost = stage_killed(clean, tmp_path, times=5, seed=seed)
    assert cost.is_nothing, cost
    assert 0 < cost.redone < 5 * CLIPS  # some shards were finished


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "stage_killed"])
def test_a_fault_costs_nothing(clean, tmp_path, name):
    options = {"times": TIMES[name]} if name in TIMES else {}
    try:
        cost = SCENARIOS[name](clean, tmp_path, **options)
    except UnavailableError as error:
        pytest.skip(str(error))
    assert cost.is_nothing, cost
    if name == "worker_killed":
        assert cost.redone == 0
