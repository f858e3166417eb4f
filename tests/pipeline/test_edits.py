"""What runs again after an edit: `dvc repro --dry` in a project in which nothing else is to do.

A dry run names the stages whose own inputs changed; what follows from their outputs it cannot
know. Stage `plan` is really run before it.
"""

import json
import shutil

import pytest
import yaml

from benchmarks.idle import make_finished_project
from tests.helpers.running import repro, start_dvc

MODELS = ("mitfrnet", "mitfrnet_no_mmr", "tfn", "misa", "tfrnet")


def cells(*models, rate=0.3):
    return {f"{s}@sample-{m}-{rate}-1" for s in ("train", "evaluate") for m in models}


def evaluated():
    return {cell for cell in cells(*MODELS) if cell.startswith("evaluate")}


CODE = (None, "\nX = 1\n")  # a line of code at the end

# A file, text in it (None: its end), what takes its place, and what runs again.
EDITS = {
    "a comment": ("metrics.py", "import math", "import math  # of numbers", set()),
    "a docstring": ("training/loop.py", '"""The training loop', '"""A training loop', set()),
    "blank lines": ("data/build.py", "\n\n\n", "\n\n\n\n\n", set()),
    "one baseline": (
        "models/baselines/tfn.py", *CODE, cells("tfn"),
    ),
    "fusion": (
        "models/mitfrnet/fusion.py", *CODE,
        cells("mitfrnet", "mitfrnet_no_mmr", "tfrnet") | {"inspect@sample"},
    ),
    "a score": (
        "metrics.py", *CODE,
        evaluated() | {"cards", "inspect@sample", "report"},
    ),
    "wording in the model card": ("trained/card.py", "## Scores", "## Its scores", {"cards"}),
    "a pattern": (
        "missing/patterns.py", *CODE,
        {"mask@sample-0.3", *cells(*MODELS), "cards", "inspect@sample"},
    ),
    "the report's style": ("report/page.css", "{", "{ ", {"report"}),
    "the style of both pages": ("report/colours.css", "{", "{ ", {"report", "inspect@sample"}),
    "the extractor of faces": (
        "features/visual.py", *CODE,
        {"extract@sample-visual", "inspect@sample"},
    ),
    "the training loop": (
        "training/loop.py", *CODE,
        {cell for cell in cells(*MODELS) if cell.startswith("train")},
    ),
    "a layout of corpora": (
        "corpus/layouts/meld.py", *CODE, {"ingest@sample"},
    ),
    "a new entry of the registry": (
        "models/registry.py", '    "tfn": Entry(',
        '    "new": Entry("m", "M", "P", "N"),\n    "tfn": Entry(',
        {"cards", "report"},
    ),
    "a command": ("cli.py", *CODE, set()),
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    make_finished_project(folder, {"models": list(MODELS)})
    return folder


@pytest.fixture
def project(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "project", symlinks=True)


def run_again(folder):
    """Return the stages that would run, without `plan`, which runs."""
    assert repro(folder, "plan")[0] == ["plan"]
    return set(repro(folder, "--dry")[0])


def test_nothing_runs_without_an_edit(project):
    assert repro(project)[0] == []


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_runs_what_it_touches(project, edit):
    name, old, new, expected = EDITS[edit]
    path = project / "mitfrnet" / name
    text = path.read_text()
    assert old is None or old in text
    path.write_text(text + new if old is None else text.replace(old, new, 1))
    assert run_again(project) == expected


def changed_after(project, axis, value):
    """Return the stages that would run with one more value of an axis, without `plan`.

    From `dvc status`: a dry run stops at a cell of which no input is there yet.
    """
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["grid"][axis].append(value)
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    assert repro(project, "plan")[0] == ["plan"]
    output, _ = start_dvc(project, "status", "--json").communicate(timeout=280)
    return set(json.loads(output))


def test_a_new_rate_runs_its_own_cells(project):
    expected = {"mask@sample-0.5", *cells(*MODELS, rate=0.5), "cards", "inspect@sample", "report"}
    assert changed_after(project, "missing_rates", 0.5) == expected


def test_a_new_model_runs_its_own_cells(project):
    assert changed_after(project, "models", "mult") == {*cells("mult"), "cards", "report"}
