import pytest

from mitfrnet.errors import ParamsError
from mitfrnet.grid import GridParams
from mitfrnet.params import load_params, parse_params, read_section

AXES = tuple(GridParams.model_fields)


def test_the_shipped_grid_names_corpora_and_models_with_a_section_of_their_own():
    grid = load_params(GridParams, section="grid")
    assert set(grid.corpora) <= read_section("corpora").keys()
    assert set(grid.models) <= read_section("model").keys()


def test_missing_rates_stay_as_they_are_written():
    """Folders are named after them: `1` and `1.0` are two cells, and protocols have a name."""
    rates = [0, 0.5, 1.0, "random_train"]
    grid = load_params(GridParams, section="grid").model_dump() | {"missing_rates": rates}
    read = parse_params(GridParams, grid, where="grid").missing_rates
    assert [str(rate) for rate in read] == ["0", "0.5", "1.0", "random_train"]


@pytest.mark.parametrize("axis", AXES)
def test_an_axis_without_a_value_or_with_one_twice_is_refused(axis):
    grid = load_params(GridParams, section="grid").model_dump()
    for values in ([], [grid[axis][0]] * 2):
        with pytest.raises(ParamsError, match=rf"^grid\.{axis}: "):
            parse_params(GridParams, grid | {axis: values}, where="grid")
