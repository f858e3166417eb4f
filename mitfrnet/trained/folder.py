"""The folder a trained model is kept in: which files there are, and what `config.json` says."""

import json
from pathlib import Path
from typing import Any

from mitfrnet.errors import FeatureError

# Raised whenever a folder of this version cannot be read by the one before.
FORMAT = 1

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
SCALING = "scaling.safetensors"
CARD = "README.md"  # the model card; in the pipeline it lies beside the folder
ENCODER = "text_encoder"  # folder; only of a model whose text encoder was fine-tuned

FILES = (WEIGHTS, SCALING, CONFIG, CARD)
REQUIRED = (WEIGHTS, SCALING, CONFIG)


def read_config(folder: Path) -> dict[str, Any]:
    """Return what `config.json` holds.

    Raises:
        FeatureError: there is no such folder, it lacks a file, or it is of a newer version.
    """
    expected = f"expected a model folder with {', '.join(REQUIRED)}; run train"
    if not folder.is_dir():
        raise FeatureError(f"{folder}: no such folder ({expected})")
    for name in REQUIRED:
        if not (folder / name).is_file():
            raise FeatureError(f"{folder}: no {name} in it ({expected})")
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FeatureError(f"{path}: not JSON ({error}); run train again") from error
    found = config.get("format", 1) if isinstance(config, dict) else None  # 1 was not written
    if not isinstance(found, int) or found < 1:
        raise FeatureError(f"{path}: format is {found!r} (expected a whole number from 1 on)")
    if found > FORMAT:
        raise FeatureError(
            f"{path}: format is {found}, of a newer version (expected at most {FORMAT}; "
            "upgrade mitfrnet)"
        )
    if absent := sorted(
        {"architecture", "settings", "dims", "scale", "text", "features", "language", "training"}
        - set(config)
    ):
        raise FeatureError(f"{path}: no key {absent[0]!r} (run train again)")
    return config
