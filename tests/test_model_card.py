"""The README of a model that leaves the pipeline."""

import json

import pytest
import yaml

from mitfrnet.errors import FeatureError
from mitfrnet.metrics import ClassScale
from mitfrnet.model_card import model_card, read_scores

CONFIG = {
    "architecture": "mitfrnet",
    "dims": {"text": 384, "acoustic": 33, "visual": 168},
    "features": {
        "text": {"identity": {"encoder": "embedded"}},
        "acoustic": {"identity": {"settings": {"hop_length": 512}}},
        "visual": {"identity": {"settings": {"fps": 10.0}}},
    },
    "language": "en",
    "scale": {"family": "mosi", "low": -3.0, "high": 3.0},
    "text": "frozen",
    "training": {
        "best_epoch": 9,
        "clips": {"train": 160, "valid": 40},
        "masks": {
            "params": {"seed": 7},
            "pattern": "block",
            "protocol": "matched",
            "rate": 0.3,
        },
        "parameters": 1549249,
        "seed": 1,
    },
    "versions": {"torch": "2.13.0"},
}
SCORES = {"acc7": 0.35, "constant_prediction": False, "corr": None, "mae": 0.6347, "n": 40}


def header(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_it_tells_data_missing_protocol_scores_and_limits():
    card = model_card(CONFIG, scores=SCORES, corpus="mine")
    for told in (
        "corpus `mine`, 160 clips, and 40 to choose the epoch by (number 9); language `en`",
        "pattern `block`, protocol `matched`, missing rate 0.3, mask seed 7",
        "a score from -3 to 3, negative below 0",
        "| 0.3 | 7 | 0.350 |  | 0.635 |",
        "## Intended use, and limits",
        'load_model("<this folder>")',
    ):
        assert told in card


def test_the_hub_finds_the_scores_and_no_nulls():
    (model,) = header(model_card(CONFIG, scores=SCORES, corpus="mine"))["model-index"]
    (result,) = model["results"]
    assert {m["name"]: m["value"] for m in result["metrics"]} == {"acc7": 0.35, "mae": 0.6347}


def test_each_rate_and_mask_seed_has_a_row():
    by_rate = {r: {"by_mask_seed": {"1": SCORES, "2": SCORES}} for r in ("0.0", "0.5")}
    card = model_card(CONFIG, scores={"by_rate": by_rate})
    assert [line[:11] for line in card.splitlines() if line.startswith("| 0.")] == [
        "| 0.0 | 1 |",
        "| 0.0 | 2 |",
        "| 0.5 | 1 |",
        "| 0.5 | 2 |",
    ]


def test_without_scores_it_says_so():
    card = model_card(CONFIG)
    assert "saved without its scores" in card
    assert "model-index" not in header(card)


def test_classes_are_named():
    scale = ClassScale(classes=("joy", "anger")).model_dump(mode="json")
    card = model_card(CONFIG | {"scale": scale})
    assert "one of the classes `joy`, `anger`" in card


@pytest.mark.parametrize("content", [None, "{", json.dumps({"acc7": 1})])
def test_scores_that_are_none_are_refused(tmp_path, content):
    path = tmp_path / "1.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(FeatureError, match=r"1\.json: no scores"):
        read_scores(path)
