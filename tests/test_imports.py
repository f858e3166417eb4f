"""Imports point one way, from the stages down to the small files that all may use."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

# From the top down. A part may import from the lines below its own, and within itself.
ORDER = (
    ("pipeline", "cli"),
    ("inspection", "doctor"),
    ("plan",),
    ("report", "predict", "presets"),
    ("training", "evaluation"),
    ("trained",),
    ("models", "missing", "mmsa"),
    ("data",),
    ("features", "validate"),
    ("corpus",),
    ("media", "workers"),
    ("grid", "metrics"),
    ("labels",),
    ("files", "params"),
    ("errors", "modalities"),
)
LEVEL = {part: level for level, parts in enumerate(ORDER) for part in parts}
# Training from tensors must not need them: a GPU machine may lack them.
EXTRACTION_ONLY = {"mediapipe", "librosa", "cv2", "av"}


def files() -> list[Path]:
    return sorted([*ROOT.glob("mitfrnet/**/*.py"), *ROOT.glob("pipeline/*.py")])


def part_of(module: str) -> str:
    top, _, rest = module.partition(".")
    return top if top == "pipeline" else rest.split(".")[0]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in files()}


def imported(path: Path) -> Iterator[str]:
    """Yield the modules of the project, and the packages of others, that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module


def ours(path: Path) -> set[str]:
    return {name for name in imported(path) if name in MODULES}


def test_every_part_has_its_place():
    parts = {part_of(module) for module in MODULES if part_of(module)}
    assert parts == LEVEL.keys()


@pytest.mark.parametrize("module", [m for m in MODULES if part_of(m)])
def test_imports_point_down(module):
    part = part_of(module)
    for name in ours(MODULES[module]):
        other = part_of(name)
        assert other == part or LEVEL[other] > LEVEL[part], f"{module} imports {name}"


def test_no_file_imports_itself_through_others():
    waiting, done = [], set()

    def visit(module: str) -> None:
        assert module not in waiting, " > ".join([*waiting[waiting.index(module) :], module])
        if module not in done:
            waiting.append(module)
            for name in sorted(ours(MODULES[module])):
                visit(name)
            done.add(waiting.pop())

    for module in MODULES:
        visit(module)


@pytest.mark.parametrize("part", ["data", "missing", "models", "trained", "training", "evaluation"])
def test_training_needs_nothing_that_decodes_clips(part):
    reached = {m for m in MODULES if part_of(m) == part}
    waiting = list(reached)
    while waiting:
        new = ours(MODULES[waiting.pop()]) - reached
        reached |= new
        waiting += new
    packages = {name.split(".")[0] for m in reached for name in imported(MODULES[m])}
    assert not packages & EXTRACTION_ONLY
