"""Variants of a model: a section of `model` that names its `base` and what differs."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from mitfrnet.errors import ParamsError
from mitfrnet.params import closest


def resolve(name: str, models: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Return the section of a model with everything that it takes from its base.

    Maps are merged key by key, all other values replaced.

    Args:
        name: of the model.
        models: section `model`.
        where: opens an error's line: the place of section `model`.

    Raises:
        ParamsError: there is no such model or base, a base is its own variant, or a variant
            names an architecture other than that of its base.
    """
    chain: list[str] = []
    base: Any = name
    while base is not None:
        place = f"{where}.{chain[-1]}.base" if chain else where
        if base in chain:
            circle = " > ".join([*chain[chain.index(base) :], base])
            raise ParamsError(f"{place}: {circle} (a model cannot be its own base)")
        if not isinstance(base, str) or base not in models:
            raise ParamsError(f"{place}: unknown model {base!r} ({closest(str(base), models)})")
        section = models[base]
        if not isinstance(section, dict):
            raise ParamsError(f"{where}.{base}: {section!r} (expected a section)")
        chain.append(base)
        base = section.get("base")
    resolved: dict[str, Any] = {}
    for ancestor in reversed(chain):
        own = {key: value for key, value in models[ancestor].items() if key != "base"}
        architecture = resolved.get("architecture")
        if architecture is not None and own.get("architecture", architecture) != architecture:
            raise ParamsError(
                f"{where}.{ancestor}.architecture: {own['architecture']} (expected {architecture}, "
                "that of its base, or no such key)"
            )
        resolved = _merged(resolved, own)
    return resolved


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = deepcopy(dict(base))
    for key, value in own.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if nested else deepcopy(value)
    return merged
