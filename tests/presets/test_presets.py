import difflib
import re

import pytest
import yaml
from ruamel.yaml import YAML

from mitfrnet.errors import ParamsError
from mitfrnet.models.registry import MODELS, params_type
from mitfrnet.params import parse_params
from mitfrnet.presets import apply_preset, names, read_preset, write_preset
from mitfrnet.training.settings import OptimiserParams
from tests.helpers.paths import ROOT

CORPORA = ("mosi", "sims")  # presets of a corpus
MODEL_OF_CORPUS = [(corpus, model) for corpus in CORPORA for model in MODELS]

PARAMS = """\
# Head.
grid:
  models: # which
    - one
    - two # goes with the list

  # About rates.
  rates: [1, 2] # flow
  seeds: null # none

# Head of run.
run:
  workers: 0 # kept
  scheduler: null # kept

model:
  base:
    network: &network
      dim: 30  # wide
      kernels: {text: 1, visual: 3} # odd
    optimiser: &optimiser
      rate: null
  variant: # follows
    network:
      <<: *network
      mmr: false
    optimiser: *optimiser

report: {title: a, tags: &tags [1], more: *tags}
"""


@pytest.fixture
def params(tmp_path):
    """Return a copy of the parameter file that ships."""
    path = tmp_path / "params.yaml"
    path.write_bytes((ROOT / "params.yaml").read_bytes())
    return path


def applied(preset, text=PARAMS):
    return apply_preset(text, preset, where="params.yaml")


def test_an_unknown_preset_names_the_known_ones():
    assert names() == ["mosi", "sims", "study"]
    with pytest.raises(ParamsError, match=r"^unknown preset 'mossi' \(expected: mosi, sims, study"):
        read_preset("mossi")


def test_quoted_words_stay_quoted():
    """YAML 1.1, which the stages read, takes a bare no for false and 1:30 for 90."""
    block = 'corpora:\n  a:\n    language: "no"\n    classes: ["yes", \'off\', "1:30"]\n'
    text = block + "grid:\n  seeds: [1]\n"
    after = applied("grid:\n  seeds:\n    - 2\n", text)
    assert yaml.safe_load(after)["corpora"] == yaml.safe_load(text)["corpora"]
    assert yaml.safe_load(after)["grid"] == {"seeds": [2]}


def test_a_file_that_dvc_has_rewritten_is_taken():
    """DVC writes the dashes of a list below the first letter of its key."""
    text = "grid:\n  models:\n  - one\n  seeds:\n  - 1\n  - 2\nrun: 1\n"
    after = applied("grid:\n  models:\n    - a\n    - b\n  seeds:\n    - 3\n", text)
    assert yaml.safe_load(after) == {"grid": {"models": ["a", "b"], "seeds": [3]}, "run": 1}


def test_only_the_named_values_change():
    """Lists become blocks, flow mappings stay as they are, comments stay with their keys."""
    text = applied(
        "# The preset.\n"
        "grid:\n"
        "  models: # of the preset\n    - three\n"
        "  rates:\n    - 0.5 # first\n    - 1.0\n"
        "  seeds:\n    - 1\n"
        "model:\n  base:\n"
        "    network:\n      dim: 60 # [code]\n      kernels: {text: 5, visual: 3}\n"
        "    optimiser: {rate: 0.00001}\n"
    )
    assert [line[:2] + line[2:].rstrip() for line in changed_lines(text)] == [
        "+     - three",
        "-     - one",
        "-     - two # goes with the list",
        "-   rates: [1, 2] # flow",
        "+   rates:        # flow",
        "+     - 0.5",
        "+     - 1.0",
        "-   seeds: null # none",
        "+   seeds:      # none",
        "+     - 1",
        "-       dim: 30  # wide",
        "+       dim: 60  # wide",
        "-       kernels: {text: 1, visual: 3} # odd",
        "+       kernels: {text: 5, visual: 3} # odd",
        "-       rate: null",
        "+       rate: 0.00001",
    ]


def changed_lines(text):
    lines = difflib.ndiff(PARAMS.splitlines(), text.splitlines())
    return [line for line in lines if line.startswith(("+", "-"))]


def test_what_is_absent_comes_first_in_its_section_with_the_comments_of_the_preset():
    text = applied(
        "model:\n"
        "  new: # a third\n"
        "    network:\n"
        "      dim: 5 # [paper]\n"
        "\n"
        "      heads: 2\n"
        "  newer: 1 # a fourth\n"
        "  base: {network: {heads: 6}}\n"
    )
    assert changed_lines(text) == [
        "+   new: # a third",
        "+     network:",
        "+       dim: 5 # [paper]",
        "+ ",
        "+       heads: 2",
        "+   newer: 1 # a fourth",
        "+       heads: 6",
    ]
    assert list(yaml.safe_load(text)["model"]) == ["new", "newer", "base", "variant"]


def test_a_list_that_others_refer_to_keeps_its_value_there():
    report = yaml.safe_load(applied("report:\n  tags:\n    - 2\n"))["report"]
    assert (report["tags"], report["more"]) == ([2], [1])


def test_what_is_there_already_stays_to_the_byte():
    assert applied("grid: {models: [one, two]}\nmodel: {base: {network: {dim: 30}}}\n") == PARAMS


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        (
            "run: {workers: {a: 1}}",
            r"^params\.yaml: run\.workers: expected keys and values \(found: 0",
        ),
        ("grid: {models: {a: 1}}", r"^params\.yaml: grid\.models: expected keys and values"),
    ],
)
def test_a_file_of_another_shape_is_an_error(preset, message):
    with pytest.raises(ParamsError, match=message):
        applied(preset)


def test_a_key_given_twice_is_an_error():
    with pytest.raises(ParamsError, match=r"^params\.yaml: not valid YAML \(.*duplicate key"):
        applied("grid: {seeds: [1]}", "grid: {}\ngrid: {}\n")


def test_study_changes_the_axes_of_the_grid_alone(params):
    before = params.read_text()
    axes = {change.key for change in write_preset("study", params)}
    assert axes == {"grid.models", "grid.missing_rates", "grid.seeds"}
    after = params.read_text()
    assert re.findall("#.*", after) == re.findall("#.*", before)
    values, shipped = yaml.safe_load(after), yaml.safe_load(before)
    grid = values["grid"]
    assert values | {"grid": 0} == shipped | {"grid": 0}
    assert grid["corpora"] == shipped["grid"]["corpora"]
    assert grid["models"][:3] == ["mitfrnet", "mitfrnet_no_mmr", "mitfrnet_no_mitr"]
    assert grid["models"][3:] == ["tfn", "mult", "misa", "tfrnet"]
    # As text: 1 and 1.0 are two cells to DVC.
    assert list(map(str, grid["missing_rates"])) == [f"{i / 10:.1f}" for i in range(11)]
    assert grid["seeds"] == [111, 1111, 11111]


@pytest.mark.parametrize("name", CORPORA)
def test_the_values_of_a_corpus_are_written(params, name):
    shipped = yaml.safe_load(params.read_text())
    write_preset(name, params)
    values = yaml.safe_load(params.read_text())
    assert set(values) == set(shipped)
    for section, wanted in yaml.safe_load(read_preset(name)).items():
        for key, value in wanted.items():
            assert values[section][key] == value


def test_a_preset_written_twice_changes_nothing(params):
    assert write_preset("sims", params)
    once = params.read_bytes()
    assert write_preset("sims", params) == []
    assert params.read_bytes() == once


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("      dim: 30\n", "      dim: 30\n      dmi: 30\n", r"network\.dmi: unknown key .*: dim"),
        ("  max_epochs: 50\n", "  max_epochs: 0\n", r"train\.max_epochs: .* greater than 0"),
        ("  seeds:\n    - 1\n", "  seeds: []\n", r"grid\.seeds: .* at least 1 item"),
        ("    architecture: mitfrnet\n", "", r"model\.mitfrnet\.architecture"),
        ("    - mitfrnet\n", "    - wide\n", r"unknown model 'wide'"),
    ],
)
def test_a_file_that_would_not_do_is_left_as_it_is(params, old, new, message, monkeypatch):
    """The preset without its architecture, as that would put it in again."""
    preset = read_preset("mosi").replace("    architecture: mitfrnet\n", "")
    monkeypatch.setattr("mitfrnet.presets.read_preset", lambda name: preset)
    text = params.read_text()
    assert old in text
    params.write_text(text.replace(old, new, 1))
    before = params.read_bytes()
    with pytest.raises(ParamsError, match=message) as error:
        write_preset("mosi", params)
    assert str(error.value).startswith(f"preset mosi does not fit: {params}: ")
    assert "\n" not in str(error.value)
    assert params.read_bytes() == before
    assert [path.name for path in params.parent.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize("name", names())
def test_line_ends_of_windows_and_a_link_stay(params, tmp_path, name):
    shipped = params.read_bytes()
    linked = tmp_path / "linked.yaml"
    linked.write_bytes(shipped.replace(b"\n", b"\r\n"))
    write_preset(name, params)
    once = params.read_bytes()
    params.unlink()
    params.symlink_to(linked)
    write_preset(name, params)
    assert params.is_symlink()
    assert linked.read_bytes() == once.replace(b"\n", b"\r\n")


def test_changes_are_listed(params):
    changes = {change.key: change for change in write_preset("sims", params)}
    layers = changes["model.mitfrnet.network.cross_layers"]
    assert (layers.before, layers.after) == (3, 2)


def test_no_file_and_no_yaml_are_errors(tmp_path):
    path = tmp_path / "params.yaml"
    with pytest.raises(ParamsError, match="cannot be read"):
        write_preset("study", path)
    path.write_text("grid: [")
    with pytest.raises(ParamsError, match="not valid YAML"):
        write_preset("study", path)


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_has_the_settings_of_every_model(name):
    preset = yaml.safe_load(read_preset(name))
    assert preset["train"] == {"text": "finetuned", "scale": "none"}
    assert set(preset["model"]) == set(MODELS)
    assert set(preset) == {"train", "model"}


@pytest.mark.parametrize(("name", "model"), MODEL_OF_CORPUS)
def test_settings_are_those_the_model_takes(name, model):
    preset = yaml.safe_load(read_preset(name))["model"][model]
    kind = params_type(preset["architecture"])
    assert preset["architecture"] == model
    parse_params(kind, preset["network"], where=name)
    parse_params(OptimiserParams, preset["optimiser"], where=name)
    with pytest.raises(ParamsError, match="dropuot: unknown key"):
        parse_params(kind, preset["network"] | {"dropuot": 0.1}, where=name)
    with pytest.raises(ParamsError, match="lr: unknown key"):
        parse_params(OptimiserParams, preset["optimiser"] | {"lr": 0.1}, where=name)


# What the authors' code holds for MOSI and SIMS, where the two models or corpora differ.
PUBLISHED = {
    ("mitfrnet", "network.reconstruction_weights.text"): (5, 1),
    ("mitfrnet", "network.reconstruction_weights.acoustic"): (2, 0.01),
    ("mitfrnet", "network.reconstruction_weights.visual"): (20, 0.0001),
    ("mitfrnet", "network.cross_layers"): (3, 2),
    ("mitfrnet", "network.invariance_weight"): (0.001, 0.001),
    ("mitfrnet", "optimiser.batch_size"): (24, 16),
    ("mitfrnet", "optimiser.plateau_patience"): (5, 10),
    ("mitfrnet", "optimiser.stop_patience"): (6, 6),
    ("tfrnet", "network.reconstruction_weights.visual"): (20, 0.0001),
    ("tfrnet", "network.causal"): (True, True),
    ("tfn", "network.hidden_dims.acoustic"): (16, 32),
    ("tfn", "network.text_out"): (128, 256),
    ("tfn", "optimiser.learning_rate"): (0.0005, 0.0005),
    ("mult", "network.dim"): (40, 50),
    ("mult", "network.cross_layers"): (4, 2),
    ("mult", "optimiser.batch_size"): (4, 16),
    ("mult", "optimiser.plateau_patience"): (20, 10),
    ("misa", "network.difference_weight"): (0.3, 0.5),
    ("misa", "network.similarity_weight"): (0.8, 0.5),
    ("misa", "optimiser.clip_value"): (1.0, 0.8),
    ("misa", "optimiser.weight_decay"): (0.0, 0.0),  # set there, and never passed to Adam
}


@pytest.mark.parametrize(("model", "key"), PUBLISHED)
def test_presets_hold_the_published_values(model, key):
    for name, expected in zip(CORPORA, PUBLISHED[model, key], strict=True):
        value = yaml.safe_load(read_preset(name))["model"][model]
        for part in key.split("."):
            value = value[part]
        assert value == expected, name


@pytest.mark.parametrize("name", CORPORA)
def test_every_value_says_where_it_comes_from(name):
    for line in read_preset(name).splitlines():
        value = re.match(r"\s*(\w+): [^#\s]", line)
        if value and value[1] != "architecture":
            assert re.search(r"# \[(code|paper|ours)\]", line), line


@pytest.mark.parametrize("name", names())
def test_dvc_and_we_read_the_same_values(name):
    """DVC reads YAML 1.2, PyYAML 1.1: there, 1e-5 is a text. Anchors would not come along."""
    text = read_preset(name)
    assert repr(YAML(typ="safe").load(text)) == repr(yaml.safe_load(text))
    assert not re.search(r"[&*]\w|<<", text)
