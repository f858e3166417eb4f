"""A trained model: what it predicts, and the folder it is kept in."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mitfrnet.data.masked_text import FrozenText
from mitfrnet.errors import FeatureError
from mitfrnet.features.text_encoder import TextEncoder, encoder_folder, load_tokenizer
from mitfrnet.modalities import MODALITIES
from mitfrnet.models import registry
from mitfrnet.trained.model import TrainedModel
from tests.helpers.splits import (
    StoredText,
    make_mask_params,
    make_split,
    observe,
    untrained_model,
)


@pytest.fixture(scope="module")
def split():
    return make_split(7, seed=2, without=[0])


@pytest.fixture(scope="module")
def model(split):
    return untrained_model(split)


@pytest.fixture(scope="module")
def observed(split):
    return observe(split, 0.4)


@pytest.mark.slow
def test_what_is_hidden_changes_no_prediction(model, split, observed):
    """Other values at every missing step and every hidden word; at an observed step they show."""
    text = FrozenText(split.metadata["features"]["text"]["identity"])

    def predict(split):
        return model.predict(split, observed, text, whole=False)

    kept = {m: np.concatenate(observed[m]) for m in observed}
    changed = {
        m: replace(r, values=np.where(kept[m][:, None], r.values, 1e4).astype(np.float32))
        for m, r in split.modalities.items()
        if m != "text"
    }
    words = np.where(kept["text"], split.token_ids, 5000).astype(np.int32)
    assert not np.array_equal(words, split.token_ids)
    hidden = replace(split, modalities={**split.modalities, **changed}, token_ids=words)
    before = predict(split)
    assert np.array_equal(predict(hidden), before)

    visual = split.modalities["visual"]
    moved = replace(visual, values=visual.values + kept["visual"][:, None].astype(np.float32))
    shown = replace(split, modalities={**split.modalities, "visual": moved})
    assert not np.array_equal(predict(shown), before)


def only(split, i):
    """Return the split with its i-th utterance alone."""
    text = split.modalities["text"]
    return replace(
        split,
        ids=[split.ids[i]],
        label=split.label[i : i + 1],
        modalities={
            m: replace(
                r,
                values=r.rows(r.values)[i],
                detected=r.rows(r.detected)[i],
                time_s=r.rows(r.time_s)[i],
                offsets=np.array([0, r.offsets[i + 1] - r.offsets[i]]),
            )
            for m, r in split.modalities.items()
        },
        token_ids=text.rows(split.token_ids)[i],
        special=text.rows(split.special)[i],
    )


def test_a_prediction_does_not_depend_on_other_utterances(model, split, observed):
    together = model.predict(split, observed, StoredText(), whole=False)
    assert len(set(together)) == len(split.ids)
    for i in range(len(split.ids)):
        alone = {m: [rows[i]] for m, rows in observed.items()}
        prediction = model.predict(only(split, i), alone, StoredText(), whole=False)
        assert prediction == pytest.approx(together[i], abs=1e-5)


def without(split, modalities):
    """Return the split with some modalities naturally missing in every utterance."""
    none = np.zeros(len(split.ids) + 1, dtype=np.int64)
    absent = {
        m: replace(
            r, values=r.values[:0], detected=r.detected[:0], time_s=r.time_s[:0], offsets=none
        )
        for m, r in split.modalities.items()
        if m in modalities
    }
    changed = replace(split, modalities={**split.modalities, **absent})
    if "text" in modalities:
        changed = replace(changed, token_ids=split.token_ids[:0], special=split.special[:0])
    return changed


@pytest.mark.parametrize("names", [("text", "visual"), ("acoustic",), MODALITIES])
def test_a_wholly_hidden_modality_looks_as_one_that_was_never_there(model, split, names):
    """Under `modality` at rate 1 neither its content nor its length changes a score."""
    params = make_mask_params("modality", modalities=names)
    observed = observe(split, 1.0, params)
    hidden = model.predict(split, observed, StoredText(), whole=True)
    nothing = {m: [np.zeros(0, bool)] * len(split.ids) for m in names}
    absent = model.predict(without(split, names), {**observed, **nothing}, StoredText(), whole=True)
    assert np.array_equal(hidden, absent)


@pytest.mark.parametrize("modality", MODALITIES)
def test_features_of_other_settings_are_refused(model, split, observed, modality):
    features = split.metadata["features"] | {modality: {"digest": "other"}}
    other = replace(split, metadata=split.metadata | {"features": features})
    with pytest.raises(FeatureError, match=f"{modality} features: extracted with other settings"):
        model.predict(other, observed, StoredText(), whole=False)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    model.save(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """Return a copy of a model folder, to be damaged."""
    return shutil.copytree(saved, tmp_path / "model")


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rename_a_weight(folder):
    weights = load_file(folder / "model.safetensors")
    weights["other"] = weights.pop(sorted(weights)[0])
    save_file(weights, folder / "model.safetensors")


def cut(name):
    def damage(folder):
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return damage


def scale_fewer_columns(folder):
    tensors = load_file(folder / "scaling.safetensors")
    save_file({k: v[:-1].clone() for k, v in tensors.items()}, folder / "scaling.safetensors")


DAMAGES = {
    "no_weights": (
        lambda f: (f / "model.safetensors").unlink(),
        r"no model\.safetensors in it .*run train",
    ),
    "no_config": (lambda f: (f / "config.json").unlink(), r"no config\.json in it"),
    "no_folder": (lambda f: shutil.rmtree(f), r"no such folder"),
    "no_json": (cut("config.json"), r"config\.json: not JSON"),
    "truncated": (cut("model.safetensors"), r"model\.safetensors: not a complete safetensors file"),
    "truncated_scaling": (cut("scaling.safetensors"), r"scaling\.safetensors: not a complete"),
    "newer": (lambda f: edit(f, format=2), r"format is 2, of a newer version .*upgrade mitfrnet"),
    "no_format": (lambda f: edit(f, format="x"), r"format is 'x' \(expected a whole number"),
    "lacks_a_key": (lambda f: (f / "config.json").write_text("{}"), r"no key 'architecture'"),
    "other_architecture": (lambda f: edit(f, architecture="x"), r"no model can be built .*'x'"),
    "other_settings": (lambda f: edit(f, settings={}), r"config\.json: no model can be built"),
    "other_weights": (rename_a_weight, r"and 1 more do not fit config\.json"),
    "other_scaling": (scale_fewer_columns, r"acoustic has 4 features \(expected 5"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_folder_is_refused_in_one_line(folder, name):
    damage, message = DAMAGES[name]
    damage(folder)
    with pytest.raises(FeatureError, match=message) as error:
        TrainedModel.load(folder)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_from_before_formats_were_numbered_is_read(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("format") == 1
    (folder / "config.json").write_text(json.dumps(config))
    assert TrainedModel.load(folder).config == config


@pytest.mark.parametrize("name", registry.MODELS)
def test_a_loaded_model_predicts_and_is_saved_as_before(split, observed, tmp_path, name):
    model = untrained_model(split, name)
    model.save(tmp_path / "model")
    loaded = TrainedModel.load(tmp_path / "model")
    before, after = (m.predict(split, observed, StoredText(), whole=False) for m in (model, loaded))
    assert np.array_equal(before, after)
    loaded.save(tmp_path / "again")
    files = [{p.name: p.read_bytes() for p in (tmp_path / f).iterdir()} for f in ("model", "again")]
    assert files[0] == files[1]


@pytest.fixture
def base_encoder(tmp_path):
    """Return the folder of a small encoder with random weights."""
    folder = tmp_path / "base"
    tokenizer = load_tokenizer("embedded")
    tokenizer.save_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(
        encoder_folder("embedded"), num_hidden_layers=1, intermediate_size=32
    )
    torch.manual_seed(3)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_fine_tuned_encoder_is_part_of_the_folder(split, base_encoder, tmp_path):
    model = untrained_model(split, encoder=TextEncoder(str(base_encoder)))
    with torch.no_grad():
        model.network.text_encoder.bert.embeddings.word_embeddings.weight.mul_(1.5)
    model.save(tmp_path / "model")
    shutil.rmtree(base_encoder)
    loaded = TrainedModel.load(tmp_path / "model")
    weights, loaded_weights = model.network.state_dict(), loaded.network.state_dict()
    assert weights.keys() == loaded_weights.keys()
    assert all(torch.equal(weights[name], loaded_weights[name]) for name in weights)
    loaded.save(tmp_path / "again")
    for path in (tmp_path / "model").rglob("*"):
        if path.is_file():
            again = tmp_path / "again" / path.relative_to(tmp_path / "model")
            assert path.read_bytes() == again.read_bytes(), path
    texts = [p.read_text() for p in (tmp_path / "model" / "text_encoder").glob("*.json")]
    assert texts
    assert not any(str(tmp_path) in text for text in texts)


def test_an_encoder_that_brings_code_is_refused(split, base_encoder, tmp_path):
    untrained_model(split, encoder=TextEncoder(str(base_encoder))).save(tmp_path / "model")
    path = tmp_path / "model" / "text_encoder" / "config.json"
    config = json.loads(path.read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoModel": "code.Mine"}}
    path.write_text(json.dumps(config))
    ran = tmp_path / "ran"
    (path.parent / "code.py").write_text(f"open({str(ran)!r}, 'w')")
    with pytest.raises(FeatureError, match="auto_map asks to run code"):
        TrainedModel.load(tmp_path / "model")
    assert not ran.exists()
