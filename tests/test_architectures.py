from mitfrnet.architectures import ARCHITECTURES
from mitfrnet.models.registry import MODELS


def test_every_model_has_its_name():
    assert ARCHITECTURES.keys() == MODELS.keys()
