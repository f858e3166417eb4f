"""The architectures by the names that their papers give them."""

from collections.abc import Mapping
from typing import Any

ARCHITECTURES = {
    "mitfrnet": "MIT-FRNet",
    "tfn": "TFN",
    "mult": "MulT",
    "misa": "MISA",
    "tfrnet": "TFR-Net",
}


def lacking(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return which parts of MIT-FRNet are switched off in a model's config: `mmr`, `mitr`."""
    if config["architecture"] != "mitfrnet":
        return ()
    return tuple(part for part in ("mmr", "mitr") if not config["settings"].get(part, True))


def full_name(config: Mapping[str, Any]) -> str:
    """Return a model's name as its paper writes it, and what a variant lacks."""
    name = ARCHITECTURES.get(config["architecture"], config["architecture"])
    return " ".join([name, *(f"without {part.upper()}" for part in lacking(config))])
