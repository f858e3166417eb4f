"""Every mistake in params.yaml is one line, before anything runs."""

import subprocess
import sys

import pytest
import yaml

from mitfrnet.plan.check import check_params
from tests.helpers.paths import ROOT


@pytest.fixture
def checked(tmp_path):
    """Return what is wrong with the shipped file after changes, as {dotted key: value}."""

    def checked(changes=(), text=None):
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        for key, value in dict(changes).items():
            *path, last = key.split(".")
            section = params
            for part in path:
                section = section[part]
            last = int(last) if last.isdigit() else last
            if value is ABSENT:
                del section[last]
            else:
                section[last] = value
        file = tmp_path / "params.yaml"
        file.write_text(yaml.safe_dump(params) if text is None else text)
        return [p.replace(str(file), "params.yaml") for p in check_params(file)]

    return checked


ABSENT = object()
MISTAKES = {
    "grid.models: unknown model 'mitfrnt' (did you mean mitfrnet?)": {"grid.models": ["mitfrnt"]},
    "grid.corpora: unknown corpus 'smaple' (did you mean sample?)": {"grid.corpora": ["smaple"]},
    "grid.missing_rate: unknown key (expected: missing_rates)": {"grid.missing_rate": [0.3]},
    "grid.missing_rates: key is absent, and required": {"grid.missing_rates": ABSENT},
    "grid.missing_rates: missing rate is 1.5 (expected a number in [0, 1], or complete_train, "
    "fixed_train, random_train)": {"grid.missing_rates": [1.5]},
    "grid.missing_rates: 1 (write 1.0: DVC takes them for two cells)": {
        "grid.missing_rates": [0.0, 1]
    },
    "grid.missing_rates: a value is listed twice (found: [1, 1.0])": {
        "grid.missing_rates": [1, 1.0]
    },
    "grid.seeds.0: Input should be a valid integer, unable to parse string as an integer "
    "(found: 'one')": {"grid.seeds": ["one"]},
    "evaluate.protocol_rates: 2.0 is not a missing rate (expected a number in [0, 1]) "
    "(found: [2.0])": {"evaluate.protocol_rates": [2.0]},
    "report.bootstrap.resample: unknown key (expected: resamples)": {
        "report.bootstrap.resample": 5
    },
    "report.paired_test.scores: unknown score 'mea' (did you mean mae?)": {
        "report.paired_test.scores": "mea"
    },
    "mask.sed: unknown key (expected: seed)": {"mask.sed": 1},
    "model.tfn.network.dropuot: unknown key (expected: dropout)": {"model.tfn.network.dropuot": 1},
    "model.tfn.optimiser.learning_rate: Input should be greater than 0 (found: -1)": {
        "model.tfn.optimiser.learning_rate": -1
    },
    "model.mine.base: unknown model 'mitfrnt' (did you mean mitfrnet?)": {
        "model.mine": {"base": "mitfrnt"}
    },
    "model.mine.base: mine > mine (a model cannot be its own base)": {
        "model.mine": {"base": "mine"}
    },
    "model.mine.architecture: tfn (expected mitfrnet, that of its base, or no such key)": {
        "model.mine": {"base": "mitfrnet", "architecture": "tfn"}
    },
    "model.mine.network.dim: Input should be greater than or equal to 1 (found: 0)": {
        "model.mine": {"base": "mitfrnet", "network": {"dim": 0}}
    },
    "corpora.sample.language: String should match pattern '^[a-z]{2,3}$' (found: 'English')": {
        "corpora.sample.language": "English"
    },
    "extract.text.encoders: none for language 'fr' (found: en, zh; add one, such as fr: "
    "bert-base-multilingual-cased, or set text_encoder of the corpus)": {
        "corpora.sample.language": "fr"
    },
    "extract.smell: unknown modality (expected one of text, acoustic, visual)": {
        "extract.smell": {}
    },
    "train: section is absent": {"train": ABSENT},
    "extract.visual: section is absent": {"extract.visual": ABSENT},
    "model: 3 (expected a name; put it in quotes)": {"model.3": {"base": "tfn"}},
    "model.mine.base: unknown model {'x': 1} (expected one of mine, misa, mitfrnet, "
    "mitfrnet_no_mitr, mitfrnet_no_mmr, mult, tfn, tfrnet)": {"model.mine": {"base": {"x": 1}}},
    "trian: unknown section (did you mean train?)": {"trian": {}},
}  # fmt: skip


def test_the_shipped_file_is_valid(checked):
    assert checked() == []


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line(checked, line):
    assert checked(MISTAKES[line]) == [f"params.yaml: {line}"]


def test_a_mistake_of_a_base_is_told_once(checked):
    """Two of the shipped models are variants of mitfrnet; another one comes before it here."""
    (line,) = checked({"model.mitfrnet.network.dmi": 1, "model.a": {"base": "mitfrnet"}})
    assert line == "params.yaml: model.mitfrnet.network.dmi: unknown key (expected: dim)"


def test_all_mistakes_come_at_once(checked):
    changes = {"mask.sed": 1, "train.max_epochs": 0, "grid.models": ["tnf", "mitfrnet"]}
    assert len(checked(changes)) == 3


def test_a_machine_without_decoders_checks_the_rest(checked):
    """Training from tensors needs none of them."""
    code = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(['av', 'cv2', 'mediapipe'])\n"
        "from mitfrnet.plan.check import check_params\n"
        "import pipeline.tensors, pipeline.mask, pipeline.train, pipeline.evaluate\n"
        "import pipeline.plan, pipeline.cards, pipeline.report\n"
        "print(check_params())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [("grid: [", "params.yaml: not valid YAML"), ("- a", "expected sections: "), ("", "None")],
)
def test_a_file_that_is_no_set_of_sections_is_one_mistake(checked, text, line):
    (problem,) = checked(text=text)
    assert line in problem
    assert "\n" not in problem
