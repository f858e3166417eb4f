"""What code each stage depends on, one file per stage or per item of its matrix."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mitfrnet.files import write_json
from mitfrnet.modalities import MODALITIES
from mitfrnet.models.registry import module_of
from mitfrnet.plan.code import code_digests

# These two import modules by names that are made while they run.
_REGISTRY = "mitfrnet/models/registry.py"
_EXTRACTORS = "mitfrnet/features/extract.py"


def write_plans(out: Path, architectures: Mapping[str, str], root: Path = Path()) -> None:
    """Write `<stage>.json`, or `<stage>/<item>.json`, for every stage that reads one.

    Args:
        out: the folder to write to.
        architectures: the architecture of each model of the grid, in its order.
        root: the folder that holds `pipeline` and `mitfrnet`.

    Raises:
        ParamsError: no model has such an architecture, or a file is not valid Python.
    """
    for name, plan in plans(architectures, root).items():
        write_json(plan, out / f"{name}.json")


def plans(architectures: Mapping[str, str], root: Path = Path()) -> dict[str, dict[str, Any]]:
    """Return the plan of every stage: `code`, the digest of each file that it runs through.

    The arguments are those of `write_plans`.
    """
    first = next(iter(architectures))

    def plan(
        stage: str, *, modalities: Sequence[str] = (), models: Sequence[str] = ()
    ) -> dict[str, Any]:
        named = {
            _EXTRACTORS: [f"mitfrnet.features.{modality}" for modality in modalities],
            _REGISTRY: [module_of(architectures[model]) for model in models],
        }
        return {"code": code_digests(Path("pipeline", f"{stage}.py"), named, root)}

    return {
        **{stage: plan(stage) for stage in ("ingest", "tensors", "mask", "cards", "report")},
        **{f"extract/{m}": plan("extract", modalities=[m]) for m in MODALITIES},
        **{f"{s}/{m}": plan(s, models=[m]) for s in ("train", "evaluate") for m in architectures},
        # A clip is extracted again where the page of it needs more than the stored features.
        "inspect": plan("inspect", modalities=MODALITIES, models=[first]),
    }
