import subprocess
import sys

import pytest

from mitfrnet.errors import ParamsError
from mitfrnet.models.mitfrnet.network import MITFRNet, MITFRNetParams
from mitfrnet.models.registry import build, params_type


def test_build_and_params_type_find_a_model(dims, mitfrnet_settings):
    assert isinstance(build("mitfrnet", dims=dims, **mitfrnet_settings), MITFRNet)
    assert params_type("mitfrnet") is MITFRNetParams


def test_unknown_model_names_the_known_ones(dims):
    with pytest.raises(ParamsError, match=r"unknown model 'mitfrnett' .*mitfrnet"):
        build("mitfrnett", dims=dims)
    with pytest.raises(ParamsError, match="unknown model"):
        params_type("mitfrnett")


@pytest.mark.parametrize(
    "dims",
    [{"text": 1, "acoustic": 1}, {"text": 1, "acoustic": 1, "visual": 0}, {"sound": 1}, {}],
)
def test_dims_must_cover_each_modality(dims, mitfrnet_settings):
    with pytest.raises(ValueError, match="positive number for each of"):
        build("mitfrnet", dims=dims, **mitfrnet_settings)


def test_models_are_imported_when_asked_for():
    code = "import mitfrnet.models.registry, sys; print('mitfrnet.models.mitfrnet' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
