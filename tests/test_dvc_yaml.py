"""DVC does not follow Python imports, so each stage must list what it runs through."""

import ast
from pathlib import Path

import pytest
import yaml

from mitfrnet.modalities import MODALITIES
from mitfrnet.models.registry import MODELS

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

# Stages use these, and no change to them may change a result; the registry names the models.
SHARED = {
    *(f"mitfrnet/{name}.py" for name in ("params", "modalities", "errors", "files", "run")),
    "mitfrnet/__init__.py",  # of which stages take nothing
    "mitfrnet/models/registry.py",
}
BASELINES = [name for name in MODELS if name != "mitfrnet"]


def by_name(file, stage, item):
    """Return what a file imports by name, which no parser sees, for an item of a stage's matrix."""
    if file == "mitfrnet/features/run.py":
        return {f"mitfrnet/features/{m}.py" for m in ([item] if item else MODALITIES)}
    if file == "mitfrnet/models/registry.py":
        baseline = stage.endswith("_baseline")
        return {f"mitfrnet/models/{f'baselines/{item}' if baseline else 'mitfrnet/network'}.py"}
    return set()


def file_of(module):
    path = ROOT / Path(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.exists():
            return file.relative_to(ROOT).as_posix()
    return None


def modules_in(file):
    """Return the names that one file imports, wherever in it the import stands."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def imports_of(file):
    """Return the project's files that one file imports."""
    ours = {name for name in modules_in(file) if name.split(".")[0] == "mitfrnet"}
    return {f for name in ours if (f := file_of(name))}


def reached_from(stage, item):
    """Return all files of mitfrnet that a stage's script imports, directly or through another."""
    script = script_of(stage)
    todo, seen = [script], set()
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo += imports_of(file) | by_name(file, stage, item)
    empty = {f for f in seen if f.endswith("__init__.py") and is_only_docstring(f)}
    return seen - {script} - SHARED - empty


def script_of(stage):
    return STAGES[stage]["cmd"].split()[2].replace(".", "/") + ".py"


def is_only_docstring(file):
    body = ast.parse((ROOT / file).read_text()).body
    return all(isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant) for n in body)


def code_deps(stage, item):
    axis = "${item.modality}" if stage == "extract" else "${item.model}"
    deps = [d.replace(axis, item) for d in STAGES[stage]["deps"]]
    return [d for d in deps if d.startswith(("mitfrnet", "pipeline"))]


# Where the code that runs depends on an axis of the matrix.
ITEMS = {"extract": MODALITIES, "train_baseline": BASELINES, "evaluate_baseline": BASELINES}
CASES = [(stage, item) for stage in STAGES for item in ITEMS.get(stage, [""])]


@pytest.mark.parametrize(("stage", "item"), CASES)
def test_a_stage_lists_the_files_it_runs_through_and_no_others(stage, item):
    script = script_of(stage)
    assert STAGES[stage]["cmd"].startswith("python -m pipeline.")
    deps = code_deps(stage, item)
    assert script in deps
    reached = reached_from(stage, item)
    uncovered = {f for f in reached if not any(f == d or f.startswith(f"{d}/") for d in deps)}
    assert not uncovered
    whole = set().union(*(reached_from(s, i) for s, i in CASES if s == stage))
    idle = {d for d in deps if not any(f == d or f.startswith(f"{d}/") for f in {script} | whole)}
    assert not idle


@pytest.mark.parametrize(
    ("stage", "item"), [case for case in CASES if case[0] not in {"ingest", "extract", "inspect"}]
)
def test_a_machine_without_decoders_can_train(stage, item):
    """The inspect stage imports them only where there are clips."""
    for file in reached_from(stage, item):
        roots = {name.split(".")[0] for name in modules_in(file)}
        assert not roots & {"mediapipe", "librosa", "cv2", "av"}, file


def test_every_script_is_a_stage():
    scripts = {p.stem for p in (ROOT / "pipeline").glob("*.py")} - {"__init__"}
    assert scripts == {stage.removesuffix("_baseline") for stage in STAGES}


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_a_baseline_is_run_as_any_model_is(stage):
    """The two differ in their axis, in the model's files, and in the flag that says so."""
    one, other = STAGES[stage], STAGES[f"{stage}_baseline"]
    assert one["cmd"] == other["cmd"].replace(" --baseline", "")
    assert one["matrix"] == other["matrix"] | {"model": "${grid.models}"}
    shared = {"mitfrnet/models/mitfrnet", "mitfrnet/models/baselines/${item.model}.py"}
    assert (
        set(one["deps"]) - shared
        == {d for d in other["deps"] if not d.startswith("mitfrnet/models/mitfrnet/")} - shared
    )
    for key in ("params", "outs", "metrics"):
        assert one.get(key) == other.get(key)


@pytest.mark.parametrize("stage", STAGES)
def test_paths_in_a_command_are_deps_or_outs_of_its_stage(stage):
    """What a command reads it depends on; folders may be given by a part of them."""
    config = STAGES[stage]
    known = [next(iter(o)) if isinstance(o, dict) else o for o in
             [*config["deps"], *config.get("outs", []), *config.get("metrics", [])]]  # fmt: skip
    for word in config["cmd"].split():
        if "/" in word and not word.startswith("raw/"):
            assert any(k == word or k.startswith(f"{word}/") for k in known), word


def test_files_kept_in_git_live_under_metrics():
    for config in STAGES.values():
        for out in [*config.get("outs", []), *config.get("metrics", [])]:
            if isinstance(out, dict):
                ((path, options),) = out.items()
                assert (options.get("cache") is False) == path.startswith("metrics/")


# Each group imports only from those after it; within a group, freely. Batches are what models
# take, so models import them from `data`.
ORDER = [
    {"pipeline", "cli"}, {"inspection"}, {"doctor", "predict", "presets", "validate"},
    {"training", "evaluation"}, {"trained"}, {"mmsa"}, {"assembly", "alignment"}, {"data"},
    {"features"}, {"corpus"},
    {"model_card"}, {"report", "missing", "media", "models"},
    {"cluster"}, {"cluster_worker"}, {"workers"}, {"significance"},
    {"model_folder", "run"},
    {"architectures", "params", "metrics", "modalities", "errors", "files"},
]  # fmt: skip


def level(file):
    parts = file.removesuffix(".py").split("/")
    name = parts[0] if parts[0] == "pipeline" else parts[1]
    return next(i for i, group in enumerate(ORDER) if name in group)


def test_imports_point_one_way():
    files = [p for folder in ("pipeline", "mitfrnet") for p in (ROOT / folder).rglob("*.py")]
    wrong = []
    for path in files:
        file = path.relative_to(ROOT).as_posix()
        if path.name != "__init__.py" or path.stat().st_size > 200:
            for imported in imports_of(file):
                if imported.endswith("/__init__.py"):
                    continue
                seam = imported == "mitfrnet/data/batches.py" and "/models/" in file
                if level(imported) < level(file) and not seam:
                    wrong.append((file, imported))
    assert not wrong
