"""The card of a model: what it says, and which model it belongs to."""

import os
from typing import get_args

import pytest
import yaml
from huggingface_hub import ModelCard

from mitfrnet.errors import FeatureError
from mitfrnet.labels import ClassScale
from mitfrnet.missing import PROTOCOLS, WHOLE_PATTERNS, Pattern
from mitfrnet.trained.card import fingerprint, model_card, written_card

CONFIG = {
    "model": "mitfrnet",
    "architecture": "mitfrnet",
    "settings": {"dim": 30},
    "dims": {"text": 384, "acoustic": 33, "visual": 168},
    "features": {
        "text": {"digest": "d1", "identity": {"encoder": "embedded"}},
        "acoustic": {"digest": "d2", "identity": {"settings": {"hop_length": 512}}},
        "visual": {"digest": "d3", "identity": {"settings": {"fps": 10.0}}},
    },
    "language": "en",
    "scale": {"family": "mosi", "low": -3.0, "high": 3.0},
    "text": "frozen",
    "training": {
        "best_epoch": 9,
        "best_valid_task_loss": 0.51234,
        "clips": {"train": 160, "valid": 40},
        "masks": {
            "params": {"seed": 7},
            "pattern": "block",
            "protocol": "matched",
            "rate": 0.3,
        },
        "parameters": 1549249,
        "seed": 1,
        "tensors": {"train": "e1", "valid": "e2"},
    },
    "versions": {"torch": "2.13.0"},
}
FOUND = {"acc7": 0.35, "constant_prediction": False, "corr": None, "mae": 0.6347, "n": 40}
SCORES = {0.3: {7: FOUND}}


def card_of(config=CONFIG, **arguments):
    return model_card(config, fingerprint="f", **arguments)


def header(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_a_card_describes_data_masks_scores_and_limits():
    card = card_of(scores=SCORES, corpus="mine")
    for text in (
        "corpus `mine`, 160 clips, and 40 to choose the epoch by (number 9, with a task loss of "
        "0.5123 on them); language `en`",
        "SHA-256 of `train.safetensors`, which holds them: `e1`",
        "pattern `block`, protocol `matched`: at missing rate 0.3, in all splits",
        'Settings of the masks: `{"seed": 7}`',
        '`mitfrnet` in `params.yaml`: `{"dim": 30}`',
        'Acoustic features, 33, fingerprint `d2`: `{"hop_length": 512}`',
        "a score from -3 to 3, negative below 0",
        "| 0.3 | 7 | 0.350 | 0.635 |  |",
        "## Intended use, and limits",
        'load_model("<this folder>")',
    ):
        assert text in card


def test_the_hub_finds_the_scores_and_no_nulls():
    (model,) = header(card_of(scores=SCORES, corpus="mine"))["model-index"]
    assert model["name"] == "MIT-FRNet"
    (result,) = model["results"]
    assert {m["type"]: m["value"] for m in result["metrics"]} == {"acc7": 0.35, "mae": 0.6347}
    assert result["dataset"] == {
        "name": "mine",
        "type": "mine",
        "config": "missing rate 0.3, mask seed 7",
        "split": "test",
    }


def test_the_hubs_client_writes_the_same_bytes():
    for card in (card_of(scores=SCORES, corpus="mine"), card_of()):
        assert ModelCard(card).content == card


def test_each_rate_and_mask_seed_has_a_row_and_a_result():
    card = card_of(scores={rate: {1: FOUND, 2: FOUND} for rate in (0.0, 0.5)})
    assert [line[:11] for line in card.splitlines() if line.startswith("| 0.")] == [
        "| 0.0 | 1 |",
        "| 0.0 | 2 |",
        "| 0.5 | 1 |",
        "| 0.5 | 2 |",
    ]
    assert len(header(card)["model-index"][0]["results"]) == 4


def test_scores_at_another_rate_are_listed_under_that_rate():
    card = card_of(scores={0.9: {2: FOUND}})
    assert "| 0.9 | 2 | 0.350 | 0.635 |  |" in card
    (result,) = header(card)["model-index"][0]["results"]
    assert result["dataset"]["config"] == "missing rate 0.9, mask seed 2"


def test_a_card_without_scores_says_so():
    card = card_of()
    assert "saved without its scores" in card
    assert not {"model-index", "model_name"} & set(header(card))


def test_a_variant_has_a_name_of_its_own():
    variant = {"model": "mine", "settings": {"dim": 30, "mmr": False}}
    card = card_of(CONFIG | variant, scores=SCORES, corpus="mine")
    assert "# MIT-FRNet without MMR, mine\n" in card
    assert "A model compared in Li et al." in card
    assert header(card)["model-index"][0]["name"] == "MIT-FRNet without MMR"


HIDDEN_BY = {
    "complete_train": "nothing in training and validation",
    "fixed_train": "in training and validation at missing rate 0.4",
    "random_train": "at a rate drawn per clip",
}


def card_of_masks(**masks):
    masks = CONFIG["training"]["masks"] | masks
    return card_of(CONFIG | {"training": CONFIG["training"] | {"masks": masks}})


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_protocol_is_described(protocol):
    card = card_of_masks(protocol=protocol, rate=None, params={"seed": 7, "fixed_rate": 0.4})
    assert f"protocol `{protocol}`: {HIDDEN_BY[protocol]}" in card
    assert "None" not in card


@pytest.mark.parametrize("pattern", get_args(Pattern))
def test_only_patterns_of_whole_modalities_hide_text_as_a_whole(pattern):
    card = card_of_masks(pattern=pattern)
    whole = pattern in WHOLE_PATTERNS
    assert ("Text is hidden as a whole" in card) == whole
    assert ("token by token" in card) != whole


def test_a_model_trained_on_imported_features_is_not_offered_for_clips():
    imported = {"digest": "d", "identity": {"source": "s", "key": "text"}}
    card = card_of(CONFIG | {"features": dict.fromkeys(CONFIG["features"], imported)})
    assert "load_model" not in card
    assert "features that were imported" in card
    assert "None" not in card


def test_classes_are_named():
    scale = ClassScale(classes=("joy", "anger")).model_dump(mode="json")
    assert "one of the classes `joy`, `anger`" in card_of(CONFIG | {"scale": scale})


def test_a_model_without_digests_of_its_tensors_has_a_card():
    training = {k: v for k, v in CONFIG["training"].items() if k != "tensors"}
    assert "160 clips" in card_of(CONFIG | {"training": training})


@pytest.fixture
def folder(tmp_path):
    """Return a folder with the files that a fingerprint depends on."""
    folder = tmp_path / "models/sample/mitfrnet/0.3/1"
    for name in ("model.safetensors", "scaling.safetensors", "text_encoder/model.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize(
    "name", ["model.safetensors", "scaling.safetensors", "text_encoder/model.safetensors"]
)
def test_other_weights_are_another_model(folder, name):
    config = CONFIG | {"text": "finetuned"}
    before = fingerprint(config, folder)
    (folder / name).write_text("other")
    assert fingerprint(config, folder) != before


def test_other_files_do_not_change_the_fingerprint(folder):
    before = fingerprint(CONFIG, folder)
    (folder / "text_encoder/model.safetensors").unlink()
    (folder / "other.safetensors").write_text("other")
    assert fingerprint(CONFIG, folder) == before


def test_other_settings_are_another_model_and_another_place_is_not(folder):
    before = fingerprint(CONFIG, folder)
    assert fingerprint(CONFIG | {"language": "zh"}, folder) != before
    (folder / "README.md").write_text("a card")
    moved = folder.rename(folder.with_name("moved"))
    assert fingerprint(CONFIG | {"format": 2}, moved) == before


def card_of_stage(folder):
    """Return where stage `cards` writes the card of models/sample/mitfrnet/0.3/1."""
    return folder.parents[4] / "report/cards/sample/mitfrnet/0.3/1.md"


def write_card(path, of="", **arguments):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(model_card(CONFIG, fingerprint=of, **arguments))


def test_the_card_of_the_stage_is_found_by_any_name_of_the_folder(folder, monkeypatch):
    assert written_card(CONFIG, folder) is None
    write_card(card_of_stage(folder), of=fingerprint(CONFIG, folder), scores=SCORES)
    (folder.parent / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    for name in (folder, folder.parent / "link", type(folder)(os.curdir)):
        assert "0.635" in written_card(CONFIG, name).text


def test_a_card_in_the_model_folder_comes_first_and_may_be_written_by_hand(folder):
    write_card(card_of_stage(folder), of=fingerprint(CONFIG, folder))
    (folder / "README.md").write_text("by hand")
    assert written_card(CONFIG, folder).text == "by hand"


@pytest.mark.parametrize("in_folder", [True, False])
def test_the_card_of_another_model_is_ignored(folder, in_folder):
    path = folder / "README.md" if in_folder else card_of_stage(folder)
    write_card(path, of="another", scores=SCORES)
    assert written_card(CONFIG, folder) is None


def test_a_card_without_a_fingerprint_counts_only_in_the_model_folder(folder):
    card_of_stage(folder).parent.mkdir(parents=True)
    card_of_stage(folder).write_text("---\ntags: [notes]\n---\n")
    assert written_card(CONFIG, folder) is None


@pytest.mark.parametrize(
    "content", [b"---\na: [\n---\n", b"---\n- a\n---\n", b"\xff", b"---\nmodel-index: 1\n---\n"]
)
def test_a_broken_card_is_refused_in_one_line(folder, content):
    (folder / "README.md").write_bytes(content)
    with pytest.raises(
        FeatureError, match=r"README\.md: not a model card .*mend or remove"
    ) as error:
        written_card(CONFIG, folder)
    assert "\n" not in str(error.value)
