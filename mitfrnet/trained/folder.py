"""The files of a trained model's folder, and its `config.json`."""

import json
from pathlib import Path
from typing import Any

from mitfrnet.errors import FeatureError

# Raised whenever the version before could not read a new folder.
FORMAT = 1

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
SCALING = "scaling.safetensors"
CARD = "README.md"  # the model card; the pipeline keeps it in report/cards
ENCODER = "text_encoder"  # a folder, only if the text encoder was fine-tuned

FILES = (WEIGHTS, SCALING, CONFIG, CARD)
REQUIRED = (WEIGHTS, SCALING, CONFIG)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of `config.json`.

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
    # Folders of format 1 do not state it.
    version = config.get("format", 1) if isinstance(config, dict) else None
    if not isinstance(version, int) or version < 1:
        raise FeatureError(f"{path}: format is {version!r} (expected a whole number, 1 or more)")
    if version > FORMAT:
        raise FeatureError(
            f"{path}: format is {version}, of a newer version (expected at most {FORMAT}; "
            "upgrade mitfrnet)"
        )
    if absent := sorted(
        {"architecture", "settings", "dims", "scale", "text", "features", "language", "training"}
        - set(config)
    ):
        raise FeatureError(f"{path}: no key {absent[0]!r} (run train again)")
    return config
