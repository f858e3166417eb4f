import pytest
from pydantic import Field

from mitfrnet.errors import ParamsError
from mitfrnet.params import StageParams, check_name, load_params, parse_params


class Inner(StageParams):
    seed: int = Field(ge=0)


class Outer(StageParams):
    inner: Inner
    rate: float


def write(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return path


def test_a_section_is_read_into_its_type(tmp_path):
    path = write(tmp_path, "mask:\n  b:\n    inner: {seed: 3}\n    rate: 0.5\n")
    assert load_params(Outer, section="mask.b", path=path) == Outer(inner=Inner(seed=3), rate=0.5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inner": {"sed": 1, "seed": 1}, "rate": 1}, "x.inner.sed: unknown key (expected: seed)"),
        ({"inner": {"seed": 1}}, "x.rate: key is absent, and required"),
        ({"inner": {"seed": -1}, "rate": 1}, "x.inner.seed: Input should be greater than or equal"),
        ({"inner": {"seed": 1}, "rate": "fast"}, "(found: 'fast')"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_right(values, message):
    with pytest.raises(ParamsError) as error:
        parse_params(Outer, values, where="x")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mask: {c: 1}", "mask.b: no such section (found: c)"),
        ("maks: {b: 1}", "maks: unknown section (did you mean mask?)"),
        ("mask: [", "not valid YAML"),
        ("", "None (expected sections: "),
    ],
)
def test_a_file_without_the_section_is_an_error_of_one_line(tmp_path, text, message):
    with pytest.raises(ParamsError) as error:
        load_params(Outer, section="mask.b", path=write(tmp_path, text))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(ParamsError, match=r"none\.yaml: cannot be read"):
        load_params(Outer, section="mask", path=tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["../up", "A", "a b", "", "a/b"])
def test_a_name_that_would_leave_its_folder_is_refused(name):
    with pytest.raises(ParamsError, match=r"grid\.corpora"):
        check_name(name, "grid.corpora")
    assert check_name("ch-sims_v2", "grid.corpora") == "ch-sims_v2"
