"""What dvc.yaml says of the stages, held against their scripts."""

from pathlib import Path

import pytest

from mitfrnet.models.registry import MODELS
from mitfrnet.plan.stages import plans
from tests.helpers.paths import ROOT
from tests.helpers.running import STAGES


def names(entries):
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def test_every_script_is_a_stage():
    scripts = {path.stem for path in (ROOT / "pipeline").glob("*.py")} - {"__init__"}
    assert scripts == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_the_script_of_its_name(stage):
    """As a module: a queued experiment would import another checkout's code otherwise."""
    assert STAGES[stage]["cmd"].startswith(f"python -m pipeline.{stage} ")


@pytest.mark.parametrize("stage", STAGES.keys() - {"plan"})
def test_a_stage_depends_on_its_plan_and_on_no_python_file(stage):
    code, *others = STAGES[stage]["deps"]
    axis = {"extract": "/${item.modality}", "train": "/${item.model}", "evaluate": "/${item.model}"}
    assert code == f"plan/{stage}{axis.get(stage, '')}.json"
    assert not [dep for dep in others if dep.startswith(("plan", "mitfrnet", "pipeline"))]


def test_there_is_a_plan_for_every_item_of_every_stage():
    modalities = STAGES["extract"]["matrix"]["modality"]
    expected = set()
    for stage in STAGES.keys() - {"plan"}:
        plan = STAGES[stage]["deps"][0].removeprefix("plan/").removesuffix(".json")
        expected |= {
            plan.replace("${item.modality}", m).replace("${item.model}", n)
            for m in modalities
            for n in MODELS
        }
    assert plans({name: {"architecture": name} for name in MODELS}, ROOT).keys() == expected


@pytest.mark.parametrize("stage", STAGES)
def test_paths_in_a_command_are_deps_or_outs_of_its_stage(stage):
    """A command may name a folder of which the stage depends on parts."""
    config = STAGES[stage]
    named = names([*config["deps"], *config.get("outs", []), *config.get("metrics", [])])
    for word in config["cmd"].split():
        if "/" in word and not word.startswith("raw/"):
            assert any(k == word or k.startswith(f"{word}/") for k in named), word


def test_files_outside_the_cache_are_metrics_and_plans():
    for config in STAGES.values():
        for out in [*config.get("outs", []), *config.get("metrics", [])]:
            if isinstance(out, dict):
                ((path, options),) = out.items()
                uncached = Path(path).parts[0] in ("metrics", "plan")
                assert (options.get("cache") is False) == uncached
