import json

import pytest
from pydantic import ValidationError

from mitfrnet.labels import SCALES, ClassScale, Scale, parse_scale
from tests.helpers.scales import EMOTIONS, STARS


@pytest.mark.parametrize("scale", [*SCALES.values(), STARS, EMOTIONS])
def test_a_scale_is_read_back_as_it_was_stored(scale):
    stored = json.dumps(scale.model_dump(mode="json"), sort_keys=True)
    read = parse_scale(json.loads(stored))
    assert read == scale
    assert json.dumps(read.model_dump(mode="json"), sort_keys=True) == stored


def test_a_family_is_stored_without_the_keys_it_does_not_need():
    assert SCALES["mosi"].model_dump() == {"low": -3, "high": 3, "family": "mosi"}


@pytest.mark.parametrize("name", SCALES)
def test_a_scale_is_found_by_its_name(name):
    assert parse_scale(name) is SCALES[name]
    assert parse_scale(SCALES[name]) is SCALES[name]


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"scale: 'imdb' is unknown \(expected mosi, sims\)"):
        parse_scale("imdb")


@pytest.mark.parametrize(
    ("scale", "neutral", "clips"),
    [(SCALES["mosi"], 0, False), (SCALES["sims"], 0, True), (STARS, 3, True)],
)
def test_the_neutral_point_and_the_clipping_of_a_scale(scale, neutral, clips):
    assert scale.neutral_point == neutral
    assert scale.clips is clips


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "mosi"}, "either family"),
        ({"clip": None}, "either family"),
        ({"neutral": 5}, "low must be below 5 and high above it"),
        ({"cuts": {2: "round"}}, "two are cut at neutral"),
        ({"cuts": {7: "round"}}, "0 to 6"),
        ({"cuts": {4: "round"}}, "1.5 to 4.5"),
        ({"cuts": {3: {"edges": [2], "closed": "right"}}}, "edges 2 for 3 classes"),
        ({"cuts": {3: {"edges": [4, 2], "closed": "right"}}}, "rising"),
        ({"cuts": {3: {"edges": [2, 6], "closed": "right"}}}, "between low and high"),
    ],
)
def test_an_impossible_scale_is_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        Scale(**(STARS.model_dump() | change))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["joy"], "at least two"),
        (["joy", "joy"], "twice"),
        (["joy", ""], "no name"),
        (["joy", " anger"], "blanks"),
    ],
)
def test_impossible_class_names_are_refused(classes, message):
    with pytest.raises(ValidationError, match=message):
        ClassScale(classes=classes)
