import shutil

import pytest

from mitfrnet.predict.predictor import Predictor
from tests.helpers.made_model import make_model


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Return the folder of a model with random weights."""
    folder = tmp_path_factory.mktemp("model")
    make_model().save(folder)
    return folder


@pytest.fixture(scope="session")
def predictor(folder):
    return Predictor(folder)


@pytest.fixture
def copy(folder, tmp_path):
    """Return a copy of the model folder, to be changed."""
    return shutil.copytree(folder, tmp_path / "model")
