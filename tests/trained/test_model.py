"""The model folder: whole or refused, and the same model again elsewhere."""

import json
import shutil

import pytest
import torch
import transformers

from mitfrnet.errors import FeatureError
from mitfrnet.features.text_encoder import encoder_folder, load_tokenizer
from mitfrnet.trained.model import TrainedModel
from tests.helpers.made_model import make_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    make_model().save(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """Return a copy of a model folder, to be damaged."""
    return shutil.copytree(saved, tmp_path / "model")


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rename_a_weight(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["other"] = weights.pop(sorted(weights)[0])
    save_file(weights, folder / "model.safetensors")


def cut(name):
    def damage(folder):
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return damage


def scale_fewer_columns(folder):
    from safetensors.torch import load_file, save_file

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
    "truncated": (cut("model.safetensors"), r"model\.safetensors: not a whole safetensors file"),
    "truncated_scaling": (cut("scaling.safetensors"), r"scaling\.safetensors: not a whole"),
    "newer": (lambda f: edit(f, format=2), r"format is 2, of a newer version .*upgrade mitfrnet"),
    "no_format": (lambda f: edit(f, format="x"), r"format is 'x' \(expected a whole number"),
    "lacks_a_key": (lambda f: (f / "config.json").write_text("{}"), r"no key 'architecture'"),
    "other_architecture": (lambda f: edit(f, architecture="x"), r"no model can be built .*'x'"),
    "other_settings": (lambda f: edit(f, settings={}), r"config\.json: no model can be built"),
    "other_weights": (rename_a_weight, r"and 1 more do not fit config\.json"),
    "other_scaling": (scale_fewer_columns, r"acoustic is of 32 features \(expected 33"),
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


def test_what_is_saved_again_has_the_same_bytes(saved, tmp_path):
    TrainedModel.load(saved).save(tmp_path)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == {
        p.name: p.read_bytes() for p in tmp_path.iterdir()
    }


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


def test_a_fine_tuned_encoder_is_part_of_the_folder(base_encoder, tmp_path):
    model = make_model(encoder=str(base_encoder), fine_tuned=True)
    with torch.no_grad():
        model.network.text_encoder.bert.embeddings.word_embeddings.weight.mul_(1.5)
    model.save(tmp_path / "model")
    shutil.rmtree(base_encoder)
    loaded = TrainedModel.load(tmp_path / "model")
    expected, found = model.network.state_dict(), loaded.network.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    loaded.save(tmp_path / "again")
    for path in (tmp_path / "model").rglob("*"):
        if path.is_file():
            again = tmp_path / "again" / path.relative_to(tmp_path / "model")
            assert path.read_bytes() == again.read_bytes(), path
    texts = [p.read_text() for p in (tmp_path / "model" / "text_encoder").glob("*.json")]
    assert texts
    assert not any(str(tmp_path) in text for text in texts)  # nor any other place


def test_an_encoder_that_brings_code_is_refused(base_encoder, tmp_path):
    make_model(encoder=str(base_encoder), fine_tuned=True).save(tmp_path / "model")
    path = tmp_path / "model" / "text_encoder" / "config.json"
    config = json.loads(path.read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoModel": "code.Mine"}}
    path.write_text(json.dumps(config))
    ran = tmp_path / "ran"
    (path.parent / "code.py").write_text(f"open({str(ran)!r}, 'w')")
    with pytest.raises(FeatureError, match="auto_map asks for code to be run"):
        TrainedModel.load(tmp_path / "model")
    assert not ran.exists()
