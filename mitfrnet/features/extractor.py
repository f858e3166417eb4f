"""What every extractor takes and returns: a clip in, an array and its step times out.

`mitfrnet/features/<modality>.py` holds one extractor each: a type `<Modality>Params` for its
section of `params.yaml`, and a class `<Modality>Extractor` that implements `Extractor`. Other
packages can add more: `mitfrnet/features/plugins.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mitfrnet.errors import FeatureError


@dataclass(frozen=True)
class Clip:
    """The raw media of one utterance.

    Attributes:
        utterance_id: `<video_id>/<clip_id>`.
        path: the media file, on this machine.
        start_s: where the utterance starts in the file, in seconds; None: at its start.
        end_s: where it ends; None: at the end of the file.
        transcript: the spoken words; may be empty.
        digest: SHA-256 of the file's bytes, from the manifest; None: unknown.
    """

    utterance_id: str
    path: Path
    start_s: float | None = None
    end_s: float | None = None
    transcript: str = ""
    digest: str | None = None


@dataclass(frozen=True)
class Features:
    """One modality of one utterance.

    Attributes:
        values: float32, (steps, dim); NaN in the rows of undetected steps, finite elsewhere.
        detected: bool, (steps,); False where the source shows nothing, e.g. no face.
        start_s: float32, (steps,); when each step starts, in seconds from the utterance's
            start, never decreasing; NaN where that is unknown (tokens without word times).
        columns: more per-step columns by name, each (steps,).
        reason: why the modality counts as missing although it has steps, e.g. `no_face`.
    """

    values: NDArray[np.float32]
    detected: NDArray[np.bool_]
    start_s: NDArray[np.float32]
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    reason: str | None = None


class Extractor(Protocol):
    """Turns clips of one modality into features.

    Attributes:
        version: raised by hand whenever the same settings would give other numbers.
        feature_names: one per column of `values`.
        units: one per column, e.g. `rad`, `1`.
        identity: everything else that decides the numbers (settings, model digests, library
            versions), as JSON values without paths or dates. It is part of the digest that
            tells whether a stored row is still valid.
    """

    version: str
    feature_names: list[str]
    units: list[str]
    identity: dict[str, Any]

    @property
    def columns(self) -> Mapping[str, type[np.generic]]:
        """NumPy types of `Features.columns`."""
        ...

    def extract(self, clip: Clip) -> Features:
        """Return the features of `clip`; earlier clips must not affect them.

        Raises:
            MediaError: the clip has nothing of this modality; the message is the reason.
        """
        ...


def check_features(features: Features, extractor: Extractor, *, where: str) -> None:
    """Check that `features` match `extractor` and the description of `Features`.

    Raises:
        FeatureError: they do not; the message starts with `where`.
    """
    if not isinstance(features, Features):
        raise FeatureError(f"{where} returned {type(features).__name__} (expected Features)")
    if features.columns.keys() != extractor.columns.keys():
        raise FeatureError(
            f"{where}: columns are {list(features.columns)} (expected {list(extractor.columns)})"
        )
    values, detected, start_s = features.values, features.detected, features.start_s
    steps: Any = len(values) if isinstance(values, np.ndarray) and values.ndim == 2 else "steps"
    arrays = [
        ("values", values, np.float32, (steps, len(extractor.feature_names))),
        ("detected", detected, np.bool_, (steps,)),
        ("start_s", start_s, np.float32, (steps,)),
        *(
            (name, features.columns[name], kind, (steps,))
            for name, kind in extractor.columns.items()
        ),
    ]
    for name, array, kind, shape in arrays:
        if not isinstance(array, np.ndarray) or array.dtype != kind or array.shape != shape:
            actual = type(array).__name__
            if isinstance(array, np.ndarray):
                actual = _kind_and_shape(array.dtype, array.shape)
            expected = _kind_and_shape(np.dtype(kind), shape)
            raise FeatureError(f"{where}: {name} is {actual} (expected {expected})")

    wrong = np.where(detected[:, None], ~np.isfinite(values), ~np.isnan(values))
    if wrong.any():
        step, column = np.argwhere(wrong)[0]
        expected = "a finite number" if detected[step] else "NaN: nothing is detected there"
        raise FeatureError(
            f"{where}: {extractor.feature_names[column]} is {values[step, column]} at step {step} "
            f"(expected {expected})"
        )
    if np.isinf(start_s).any() or (np.diff(start_s) < 0).any():
        raise FeatureError(
            f"{where}: start_s decreases or is infinite (expected seconds from the utterance's "
            "start, or NaN where they are unknown)"
        )


def _kind_and_shape(kind: np.dtype[Any], shape: Sequence[Any]) -> str:
    """Return e.g. `float32[5, 2]`."""
    return f"{kind}[{', '.join(map(str, shape))}]"
