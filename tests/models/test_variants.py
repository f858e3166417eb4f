import pytest

from mitfrnet.errors import ParamsError
from mitfrnet.models.variants import resolve

MODELS = {
    "base": {
        "architecture": "mitfrnet",
        "network": {"dim": 30, "kernels": {"text": 1, "visual": 3}, "layers": [1, 2]},
        "optimiser": {"learning_rate": 0.1},
    },
    "variant": {"base": "base", "network": {"dim": 60, "kernels": {"text": 5}, "layers": [3]}},
    "of_variant": {"base": "variant", "optimiser": {"learning_rate": 0.2}},
    "one": {"base": "two"},
    "two": {"base": "one"},
    "lost": {"base": "bas"},
    "other": {"base": "base", "architecture": "tfn"},
    "same": {"base": "base", "architecture": "mitfrnet"},
    "word": "tfn",
    "of_word": {"base": "word"},
}


def resolved(name):
    return resolve(name, MODELS, where="params.yaml: model")


def test_a_variant_is_its_base_with_what_differs():
    """Maps are merged, lists replaced."""
    assert resolved("variant") == {
        "architecture": "mitfrnet",
        "network": {"dim": 60, "kernels": {"text": 5, "visual": 3}, "layers": [3]},
        "optimiser": {"learning_rate": 0.1},
    }
    assert MODELS["base"]["network"]["dim"] == 30


def test_a_variant_may_be_a_base():
    assert resolved("of_variant") == {**resolved("variant"), "optimiser": {"learning_rate": 0.2}}


def test_a_model_without_a_base_is_as_it_stands():
    assert resolved("base") == resolved("same") == MODELS["base"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("vriant", "params.yaml: model: unknown model 'vriant' (did you mean variant?)"),
        ("lost", "params.yaml: model.lost.base: unknown model 'bas' (did you mean base?)"),
        ("one", "params.yaml: model.two.base: one > two > one (a model cannot be its own base)"),
        (
            "other",
            "params.yaml: model.other.architecture: tfn (expected mitfrnet, that of its base, or "
            "no such key)",
        ),
        ("word", "params.yaml: model.word: 'tfn' (expected a section)"),
        ("of_word", "params.yaml: model.word: 'tfn' (expected a section)"),
    ],
)
def test_a_wrong_base_is_refused_in_one_line(name, line):
    with pytest.raises(ParamsError) as error:
        resolved(name)
    assert str(error.value) == line
