"""MIT-FRNet: multimodal sentiment analysis of video clips with missing data.

`load_model`, of `mitfrnet.predict.predictor`, can be taken from here.
"""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    # Only now, and by name: what it needs takes seconds to load, and no stage goes through it.
    if name == "load_model":
        return import_module("mitfrnet.predict.predictor").load_model
    raise AttributeError(f"module 'mitfrnet' has no attribute {name!r}")
