"""What code each stage depends on, one file per stage or per item of its matrix."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mitfrnet.files import write_json
from mitfrnet.modalities import MODALITIES
from mitfrnet.models.registry import entry_of
from mitfrnet.plan.code import code_digests

# These two import modules by names that are made while they run.
_REGISTRY = "mitfrnet/models/registry.py"
_EXTRACTORS = "mitfrnet/features/extract.py"


def write_plans(out: Path, models: Mapping[str, Any], root: Path = Path()) -> None:
    """Write `<stage>.json`, or `<stage>/<item>.json`, for every stage that reads one.

    Args:
        out: the folder to write to.
        models: the resolved section of each model of the grid, in its order.
        root: the folder that holds `pipeline` and `mitfrnet`.

    Raises:
        ParamsError: no model has such an architecture, or a file is not valid Python.
    """
    for name, plan in plans(models, root).items():
        write_json(plan, out / f"{name}.json")


def plans(models: Mapping[str, Any], root: Path = Path()) -> dict[str, dict[str, Any]]:
    """Return the plan of every stage: `code`, the digest of each file that it runs through.

    That of a training has the resolved section of the model too, so that a change of a base
    reaches its variants. The arguments are those of `write_plans`.
    """
    first = next(iter(models))

    def plan(
        stage: str, *, modalities: Sequence[str] = (), of: Sequence[str] = ()
    ) -> dict[str, Any]:
        entries = [entry_of(models[name]["architecture"]) for name in of]
        named = {
            _EXTRACTORS: [f"mitfrnet.features.{modality}" for modality in modalities],
            _REGISTRY: [entry.module for entry in entries],
        }
        code = code_digests(Path("pipeline", f"{stage}.py"), named, root)
        if not of:
            return {"code": code}
        # A new entry of the registry must not train all models again.
        del code[_REGISTRY]
        return {"code": code, "architectures": [entry._asdict() for entry in entries]}

    return {
        **{stage: plan(stage) for stage in ("ingest", "tensors", "mask", "cards", "report")},
        **{f"extract/{m}": plan("extract", modalities=[m]) for m in MODALITIES},
        **{f"train/{name}": plan("train", of=[name]) | {"model": models[name]} for name in models},
        **{f"evaluate/{name}": plan("evaluate", of=[name]) for name in models},
        "inspect": plan("inspect", of=[first]),
    }
