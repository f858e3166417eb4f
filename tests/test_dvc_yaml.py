"""DVC does not follow Python imports, so each stage must list what it runs through."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

# Every stage uses these, and no change to them may change a result.
SHARED = {f"mitfrnet/{name}.py" for name in ("params", "modalities", "errors", "files")}

# Imports by name, which no parser sees: module -> those it loads for a stage's matrix item.
BY_NAME = {
    "mitfrnet/features/run.py": {"mitfrnet/features/${item.modality}.py"},
    "mitfrnet/models/registry.py": {"mitfrnet/models/mitfrnet/network.py"},
}


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
    return {f for name in ours if (f := file_of(name))} | BY_NAME.get(file, set())


def reached_from(script, modality=None):
    """Return all files of mitfrnet that `script` imports, directly or through another."""
    todo, seen = [script], set()
    while todo:
        file = todo.pop().replace("${item.modality}", modality or "")
        if file not in seen:
            seen.add(file)
            todo += imports_of(file)
    empty = {f for f in seen if f.endswith("__init__.py") and is_only_docstring(f)}
    return seen - {script} - SHARED - empty


def is_only_docstring(file):
    body = ast.parse((ROOT / file).read_text()).body
    return all(isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant) for n in body)


def code_deps(stage, modality=None):
    deps = [d.replace("${item.modality}", modality or "") for d in STAGES[stage]["deps"]]
    return [d for d in deps if d.startswith(("mitfrnet", "pipeline"))]


CASES = [
    (stage, m) for stage in STAGES for m in STAGES[stage].get("matrix", {}).get("modality", [None])
]


@pytest.mark.parametrize(("stage", "modality"), CASES)
def test_a_stage_lists_the_files_it_runs_through_and_no_others(stage, modality):
    script = STAGES[stage]["cmd"].split()[2].replace(".", "/") + ".py"
    assert STAGES[stage]["cmd"].startswith("python -m pipeline.")
    deps = code_deps(stage, modality)
    assert script in deps
    reached = reached_from(script, modality)
    uncovered = {f for f in reached if not any(f == d or f.startswith(f"{d}/") for d in deps)}
    assert not uncovered
    whole = set().union(*(reached_from(script, m) for s, m in CASES if s == stage))
    idle = {d for d in deps if not any(f == d or f.startswith(f"{d}/") for f in {script} | whole)}
    assert not idle


@pytest.mark.parametrize("stage", ["tensors", "mask", "train", "evaluate", "report"])
def test_a_machine_without_decoders_can_train(stage):
    for file in reached_from(f"pipeline/{stage}.py"):
        roots = {name.split(".")[0] for name in modules_in(file)}
        assert not roots & {"mediapipe", "librosa", "cv2", "av"}, file


def test_every_script_is_a_stage():
    scripts = {p.stem for p in (ROOT / "pipeline").glob("*.py")} - {"__init__"}
    assert scripts == set(STAGES)


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
    {"pipeline", "cli"}, {"predict"}, {"training", "evaluation"}, {"trained"}, {"mmsa"}, {"data"},
    {"features"}, {"corpus"}, {"report", "missing", "media", "models", "workers"},
    {"params", "metrics", "modalities", "errors", "files"},
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
                if imported.endswith("/__init__.py") or "${" in imported:
                    continue
                seam = imported == "mitfrnet/data/batches.py" and "/models/" in file
                if level(imported) < level(file) and not seam:
                    wrong.append((file, imported))
    assert not wrong
