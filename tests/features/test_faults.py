"""No fault costs a clip: faults.py does them, each row says what came of it."""

import pytest

from tests.helpers.fault_trial import CLIPS, UnavailableError, end_all, make_clean
from tests.helpers.faults import SCENARIOS, stage_killed

# Each run of the stage takes seconds; `python -m benchmarks.faults` tries more often.
TIMES = {"dvc_killed": 1, "worker_killed": 2, "ctrl_c": 3, "ctrl_c_under_dvc": 1}
TIMES |= {"sigterm": 2, "sigterm_under_dvc": 1}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    yield make_clean(tmp_path_factory.mktemp("clean") / "project")
    end_all()


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_killed_stage_is_finished_by_the_next(clean, tmp_path, seed):
    """Twenty moments, five for each seed."""
    row = stage_killed(clean, tmp_path, times=5, seed=seed)
    assert row.costs_nothing, row
    assert 0 < row.redone < 5 * CLIPS  # some shards were finished


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "stage_killed"])
def test_a_fault_costs_nothing(clean, tmp_path, name):
    options = {"times": TIMES[name]} if name in TIMES else {}
    try:
        row = SCENARIOS[name](clean, tmp_path, **options)
    except UnavailableError as error:
        pytest.skip(str(error))
    assert row.costs_nothing, row
    if name == "worker_killed":
        assert row.redone == 0
