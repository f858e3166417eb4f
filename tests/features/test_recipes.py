"""docs/extractors.md gives the settings of every recipe, its columns and its rate."""

import re

import pytest
import yaml

from mitfrnet.features.acoustic import RECIPES as ACOUSTIC
from mitfrnet.features.extract import build_extractor, extractor_params
from mitfrnet.features.visual import RECIPES as VISUAL
from tests.helpers.faces import needs_face_mesh
from tests.helpers.paths import ROOT

TEXT = (ROOT / "docs" / "extractors.md").read_text(encoding="utf-8")
RECIPES = {"acoustic": ACOUSTIC, "visual": VISUAL}
NAMES = [(modality, name) for modality, recipes in RECIPES.items() for name in recipes]
BUILT = [
    pytest.param(modality, name, marks=needs_face_mesh if modality == "visual" else ())
    for modality, name in NAMES
]
LIMITS = {"max_duration_s": 60, "max_pixels": 10**6, "max_bytes": 10**8, "max_streams": 8}


def tables(first):
    """Return the tables whose first column is called `first`, as lists of rows with the header."""
    matching = []
    for lines in re.findall(r"(?:^\|.*\n)+", TEXT, re.MULTILINE):
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines.splitlines()]
        if rows[0][0] == first:
            matching.append([rows[0], *rows[2:]])
    return matching


def documented_settings():
    """Return the settings of each recipe in the tables."""
    settings = {}
    for heads, *rows in tables("setting"):
        for column, head in enumerate(heads[1:], start=1):
            settings[head.strip("`")] = {
                row[0].strip("`"): yaml.safe_load(row[column]) for row in rows
            }
    return settings


def test_every_recipe_is_documented_with_its_settings():
    code = {name: RECIPES[modality][name].model_dump() for modality, name in NAMES}
    assert documented_settings() == code


def listed_recipes():
    """Return columns and steps per second in the first table, by modality and name."""
    (listed,) = tables("recipe")
    return {tuple(word.strip("`") for word in row[1::-1]): row[2:] for row in listed[1:]}


def test_every_recipe_is_listed():
    assert set(listed_recipes()) == set(NAMES)


@pytest.mark.parametrize(("modality", "name"), BUILT)
def test_columns_and_rate_of_a_recipe_are_documented(modality, name):
    columns, rate = listed_recipes()[modality, name]
    params = extractor_params(modality, name, where="here")
    assert params is RECIPES[modality][name]
    extractor = build_extractor(modality, params, {"limits": LIMITS})
    assert len(extractor.feature_names) == int(columns)
    steps = params.fps if modality == "visual" else params.sample_rate_hz / params.hop_length
    assert float(rate) == pytest.approx(steps, abs=0.005)


@pytest.mark.parametrize(("modality", "name"), BUILT)
def test_the_documented_settings_give_the_features_of_the_recipe(modality, name):
    """So a user can write out a recipe and change one value."""
    written = documented_settings()[name]
    by_name, one_by_one = (
        build_extractor(modality, extractor_params(modality, s, where=""), {"limits": LIMITS})
        for s in (name, written)
    )
    assert by_name.identity == one_by_one.identity
    assert by_name.feature_names == one_by_one.feature_names


def test_the_first_example_is_valid():
    example = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)[0])["extract"]
    for modality, section in example.items():
        extractor_params(modality, section, where="docs/extractors.md")
