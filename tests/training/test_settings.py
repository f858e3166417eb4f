import pytest

from mitfrnet.errors import ParamsError
from mitfrnet.models import registry
from mitfrnet.params import PARAMS_FILE, read_section
from mitfrnet.training.load import load_model_params
from mitfrnet.training.settings import MAX_SEED, check_seed


@pytest.mark.parametrize("name", read_section("model"))
def test_the_shipped_settings_of_each_model_are_accepted(name):
    assert load_model_params(name).architecture in registry.MODELS


def test_each_model_of_the_registry_is_shipped_with_settings():
    shipped = {load_model_params(name).architecture for name in read_section("model")}
    assert shipped == registry.MODELS.keys()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("      dim: 30", "      dmi: 30", "model.mitfrnet.network.dmi: unknown key"),
        ("      learning_rate: 0.002", "      learning_rate: fast", "learning_rate: Input should"),
        ("    optimiser:", "    optimizer:", "model.mitfrnet.optimizer: unknown key"),
        ("architecture: mitfrnet", "architecture: x", "model.mitfrnet.architecture: unknown model"),
    ],
)
def test_wrong_model_settings_are_explained(tmp_path, old, new, message):
    text = PARAMS_FILE.read_text()
    assert old in text
    (tmp_path / "params.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(ParamsError) as error:
        load_model_params("mitfrnet", path=tmp_path / "params.yaml")
    assert message in str(error.value)


def test_an_unknown_model_is_refused():
    with pytest.raises(
        ParamsError, match=r"model: unknown model 'mitfrnett' \(did you mean mitfrnet\?\)"
    ):
        load_model_params("mitfrnett")


def test_ablations_differ_from_the_full_model_in_their_switch_alone():
    full = load_model_params("mitfrnet")
    for switch in ("mmr", "mitr"):
        ablated = load_model_params(f"mitfrnet_no_{switch}")
        assert full.network[switch] is True
        assert ablated.network == full.network | {switch: False}
        assert ablated.optimiser == full.optimiser


def test_a_seed_is_a_whole_number_that_numpy_takes():
    assert check_seed("0") == 0
    assert check_seed(str(MAX_SEED)) == MAX_SEED
    for text in (str(MAX_SEED + 1), "-1", "1.5", "one", ""):
        with pytest.raises(ParamsError, match=rf"grid\.seeds: {text} \(expected a whole number"):
            check_seed(text)
