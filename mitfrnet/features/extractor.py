"""What every extractor takes and returns: a clip in, an array and its step times out.

`mitfrnet/features/<modality>.py` holds one extractor each: a type `<Modality>Params` for its
section of `params.yaml`, and a class `<Modality>Extractor` that fulfils `Extractor`. Other
packages may bring more: `mitfrnet/features/installed.py`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Clip:
    """The raw media of one utterance.

    Attributes:
        utterance_id: `<video_id>/<clip_id>`.
        path: the media file, on this machine.
        start_s: where the utterance starts in the file, in seconds; None: at its start.
        end_s: where it ends; None: at the end of the file.
        transcript: what is said; may be empty.
        digest: SHA-256 of the file's bytes as the manifest has it; None: not known.
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
        columns: further per-step columns by name, (steps,).
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
        columns: numpy types of the further per-step columns.
        identity: everything else that decides the numbers (settings, model digests, library
            versions), as JSON-ready values without paths or dates; part of the digest by
            which stored rows are recognised as still valid.
    """

    version: str
    feature_names: list[str]
    units: list[str]
    columns: ClassVar[dict[str, type[np.generic]]]
    identity: dict[str, Any]

    def extract(self, clip: Clip) -> Features:
        """Return the features of `clip`, whatever clips came before it.

        Raises:
            MediaError: the clip has nothing of this modality; the message is the reason.
        """
        ...
