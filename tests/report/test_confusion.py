import numpy as np
import pytest

from mitfrnet.labels import parse_scale
from mitfrnet.report.confusion import class_of, confusion

CLASSES = parse_scale({"task": "classification", "classes": ["calm", "angry"]})
CUSTOM = parse_scale(
    {"low": 0, "high": 1, "neutral": 0.1, "neutral_is": "positive", "clip": True, "cuts": {}}
)


@pytest.mark.parametrize(
    ("value", "scale", "name"),
    [
        (0.0, parse_scale("mosi"), "neutral"),
        (-0.5, parse_scale("mosi"), "negative"),
        (np.float32(0.1), CUSTOM, "neutral"),  # above 0.1 as float64
        (0.2, CUSTOM, "positive"),
        (1.0, CLASSES, "angry"),
    ],
)
def test_a_value_has_a_class(value, scale, name):
    assert class_of(value, scale) == name


def test_clips_are_counted_by_label_then_prediction():
    assert confusion([0, 0, 1], [0, 1, 1], CLASSES) == {
        "calm": {"calm": 1, "angry": 1},
        "angry": {"calm": 0, "angry": 1},
    }
