"""Extractors from other packages, found by their entry points in group `mitfrnet.extractors`.

docs/extractors.md shows how to write and choose one.
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


class PluginParams(StageParams):
    """Section `extract.<modality>` when it names an installed extractor."""

    extractor: str
    settings: dict[str, JsonValue]  # checked by the extractor's class


class _Description(StageParams):
    """The attributes that an extractor must have."""

    version: str
    feature_names: list[str] = Field(min_length=1)
    units: list[str]
    identity: dict[str, JsonValue]

    @model_validator(mode="after")
    def _fit_together(self) -> "_Description":
        if len(set(self.feature_names)) < len(self.feature_names):
            raise ValueError("feature_names has a name twice")
        if len(self.units) != len(self.feature_names):
            raise ValueError(
                f"{len(self.units)} units for {len(self.feature_names)} feature_names, must be one "
                "each"
            )
        return self


class PluginExtractor:
    """Wraps a class from another package as an `Extractor`, and checks everything it gives.

    The identity includes its settings and the name and version of its package. So an upgrade
    extracts again, without any work by its author. It has no further columns: only text needs
    them.

    Raises:
        FeatureError: the class cannot be loaded or built.
        ParamsError: one of its attributes is absent or wrong.
    """

    columns: ClassVar[dict[str, type[np.generic]]] = {}

    def __init__(self, params: PluginParams, limits: MediaLimits) -> None:
        self._name = params.extractor
        entry_point, package = _find(params.extractor, where=GROUP)
        plugin = _load(entry_point)
        try:
            self._inner = plugin(limits, **params.settings)
        except Exception as error:
            raise FeatureError(
                f"extractor {self._name!r} cannot be built ({_cause(error)})"
            ) from error
        names = [name for name in _Description.model_fields if hasattr(self._inner, name)]
        description = parse_params(
            _Description,
            {name: getattr(self._inner, name) for name in names},
            where=f"extractor {self._name!r}: {plugin.__name__}",
        )
        self.version = description.version
        self.feature_names, self.units = description.feature_names, description.units
        self.identity: dict[str, Any] = {
            "extractor": self._name,
            "package": [package.metadata["Name"], package.version],
            "settings": params.settings,
            "identity": description.identity,
        }

    def extract(self, clip: Clip) -> Features:
        """Return what the plugin returns for `clip`.

        Raises:
            MediaError: the plugin raised it; the message is the reason.
            FeatureError: the plugin raised another error.
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
    """Return the names of all installed extractors, for any modality."""
    return sorted({entry_point.name for entry_point in entry_points(group=GROUP)})


def plugin_params(
    modality: str, name: Any, settings: dict[str, Any], *, where: str
) -> PluginParams:
    """Return the settings of an installed extractor, checked against the signature of its class.

    Args:
        modality: which one it must extract.
        name: of its entry point.
        settings: keyword arguments of its class.
        where: start of an error message.

    Raises:
        ParamsError: there is no such extractor, it extracts another modality, or it takes
            other settings.
        FeatureError: its class cannot be loaded.
    """
    params = parse_params(PluginParams, {"extractor": name, "settings": settings}, where=where)
    plugin = _load(_find(params.extractor, where=where)[0])
    actual = getattr(plugin, "modality", None)
    if actual != modality:
        raise ParamsError(
            f"{where}: extractor {name!r} has modality {actual!r} (expected {modality!r})"
        )
    signature = inspect.signature(plugin)
    try:
        signature.bind(None, **params.settings)
    except TypeError as error:
        names = ", ".join(list(signature.parameters)[1:]) or "none"
        raise ParamsError(
            f"{where}: extractor {name!r}: {error} (its settings: {names})"
        ) from error
    return params


def _find(name: str, *, where: str) -> tuple[EntryPoint, Distribution]:
    """Return the entry point with this name, and its package."""
    matches = list(entry_points(group=GROUP, name=name))
    if not matches:
        installed = ", ".join(extractor_names()) or "none"
        raise ParamsError(
            f"{where}: no installed extractor is called {name!r} (installed: {installed})"
        )
    packages = [entry_point.dist for entry_point in matches if entry_point.dist is not None]
    if len(packages) != 1:
        names = ", ".join(package.metadata["Name"] for package in packages)
        raise ParamsError(
            f"{where}: extractor {name!r} comes from several packages: {names} (uninstall all but "
            "one)"
        )
    return matches[0], packages[0]


def _load(entry_point: EntryPoint) -> type[Any]:
    """Return the class that an entry point names."""
    try:
        plugin = entry_point.load()
    except Exception as error:
        raise FeatureError(
            f"extractor {entry_point.name!r} cannot be loaded from {entry_point.value} "
            f"({_cause(error)})"
        ) from error
    if not inspect.isclass(plugin) or not callable(getattr(plugin, "extract", None)):
        raise FeatureError(
            f"extractor {entry_point.name!r}: {entry_point.value} is not a class with a method "
            "`extract`"
        )
    return plugin


def _cause(error: Exception) -> str:
    """Return a plugin's error as one line, with the place in its code."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}, line {frame.lineno}"
    return f"{place}: {type(error).__name__}: {' '.join(str(error).split())}"
