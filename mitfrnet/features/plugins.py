"""Extractors of other packages, found by their entry points in group `mitfrnet.extractors`.

docs/extractors.md shows how one is written and chosen.
"""

import inspect
import traceback
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, JsonValue, model_validator

from mitfrnet.errors import FeatureError, MediaError, ParamsError
from mitfrnet.features.extractor import Clip, Features
from mitfrnet.media.decode import MediaLimits
from mitfrnet.params import StageParams, parse_params

GROUP = "mitfrnet.extractors"


class InstalledParams(StageParams):
    """Section `extract.<modality>` where it names an installed extractor."""

    extractor: str
    settings: dict[str, JsonValue]  # its own, which its class checks


class _Description(StageParams):
    """What an extractor tells of itself."""

    version: str
    feature_names: list[str] = Field(min_length=1)
    units: list[str]
    identity: dict[str, JsonValue]

    @model_validator(mode="after")
    def _fit_together(self) -> "_Description":
        if len(set(self.feature_names)) < len(self.feature_names):
            raise ValueError("feature_names hold a name twice")
        if len(self.units) != len(self.feature_names):
            raise ValueError(
                f"{len(self.units)} units, must be one for each of the "
                f"{len(self.feature_names)} feature_names"
            )
        return self


class InstalledExtractor:
    """Fulfils `Extractor` by a class of another package, of which nothing is taken on trust.

    Its package's name and version and its settings are part of the identity, so that its
    author need not think of them, and an upgrade extracts anew. It has no columns beside
    `values`: only text needs them.

    Raises:
        FeatureError: the class cannot be loaded or built.
        ParamsError: what it tells of itself is absent or wrong.
    """

    columns: ClassVar[dict[str, type[np.generic]]] = {}

    def __init__(self, params: InstalledParams, limits: MediaLimits) -> None:
        self._name = params.extractor
        entry_point, distribution = _find(params.extractor, where=GROUP)
        kind = _load(entry_point)
        try:
            self._inner = kind(limits, **params.settings)
        except Exception as error:
            raise FeatureError(
                f"extractor {self._name!r} cannot be built ({_cause(error)})"
            ) from error
        attributes = [name for name in _Description.model_fields if hasattr(self._inner, name)]
        described = parse_params(
            _Description,
            {name: getattr(self._inner, name) for name in attributes},
            where=f"extractor {self._name!r}: {kind.__name__}",
        )
        self.version = described.version
        self.feature_names, self.units = described.feature_names, described.units
        self.identity: dict[str, Any] = {
            "extractor": self._name,
            "package": [distribution.metadata["Name"], distribution.version],
            "settings": params.settings,
            "identity": described.identity,
        }

    def extract(self, clip: Clip) -> Features:
        """Return what the class returns for `clip`.

        Raises:
            MediaError: the class says so; the message is the reason.
            FeatureError: it raised another error.
        """
        try:
            return self._inner.extract(clip)
        except (MediaError, MemoryError):
            raise
        except Exception as error:
            raise FeatureError(
                f"{clip.utterance_id}: extractor {self._name!r} failed ({_cause(error)})"
            ) from error


def extractor_names() -> list[str]:
    """Return the names of all installed extractors, of whatever modality."""
    return sorted({entry_point.name for entry_point in entry_points(group=GROUP)})


def installed_params(
    modality: str, name: Any, settings: dict[str, Any], *, where: str
) -> InstalledParams:
    """Return the choice of an installed extractor, checked as far as its class allows.

    Args:
        modality: what it shall extract.
        name: of its entry point.
        settings: its own.
        where: opens the error's line.

    Raises:
        ParamsError: there is no such extractor, it is one of another modality, or it takes
            other settings.
        FeatureError: its class cannot be loaded.
    """
    params = parse_params(InstalledParams, {"extractor": name, "settings": settings}, where=where)
    kind = _load(_find(params.extractor, where=where)[0])
    given = getattr(kind, "modality", None)
    if given != modality:
        raise ParamsError(
            f"{where}: extractor {name!r} has modality {given!r} (expected {modality!r})"
        )
    signature = inspect.signature(kind)
    try:
        signature.bind(None, **params.settings)
    except TypeError as error:
        known = ", ".join(list(signature.parameters)[1:]) or "none"
        raise ParamsError(
            f"{where}: extractor {name!r}: {error} (its settings: {known})"
        ) from error
    return params


def _find(name: str, *, where: str) -> tuple[EntryPoint, Distribution]:
    """Return the entry point of that name, and the package it belongs to."""
    found = [entry_point for entry_point in entry_points(group=GROUP) if entry_point.name == name]
    if not found:
        known = ", ".join(extractor_names()) or "none"
        raise ParamsError(
            f"{where}: no installed extractor is called {name!r} (installed: {known})"
        )
    packages = [entry_point.dist for entry_point in found if entry_point.dist is not None]
    if len(packages) != 1:
        names = ", ".join(package.metadata["Name"] for package in packages)
        raise ParamsError(
            f"{where}: extractor {name!r} comes from several packages: {names} (uninstall all but "
            "one)"
        )
    return found[0], packages[0]


def _load(entry_point: EntryPoint) -> type[Any]:
    """Return the class an entry point names."""
    try:
        kind = entry_point.load()
    except Exception as error:
        raise FeatureError(
            f"extractor {entry_point.name!r} cannot be loaded from {entry_point.value} "
            f"({_cause(error)})"
        ) from error
    if not inspect.isclass(kind) or not callable(getattr(kind, "extract", None)):
        raise FeatureError(
            f"extractor {entry_point.name!r}: {entry_point.value} is not a class with a method "
            "`extract`"
        )
    return kind


def _cause(error: Exception) -> str:
    """Return another package's error as one line, with the place in its code."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}, line {frame.lineno}"
    return f"{place}: {type(error).__name__}: {' '.join(str(error).split())}"
