"""Which clips are meant, and the sound and face of one."""

import glob
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mitfrnet.corpus.clips import MEDIA_ENDINGS
from mitfrnet.corpus.transcripts.words import Transcript
from mitfrnet.errors import CorpusError, MediaError
from mitfrnet.features.extractor import Clip, Extractor, Features
from mitfrnet.media import decode


def find_clips(arguments: Iterable[str]) -> list[Path]:
    """Return the clips that arguments of the command name, each once.

    Args:
        arguments: files; folders, of which media files are taken, also from folders in them,
            hidden ones left out; or patterns such as `talks/*.mp4`.

    Raises:
        CorpusError: a folder has no clip in it, or a pattern matches nothing.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            paths = _clips_in(path)
            if not paths:
                raise CorpusError(
                    f"{path}: no clips in this folder (expected media files, such as .mp4)"
                )
        elif glob.has_magic(argument) and not path.exists():
            paths = [Path(p) for p in sorted(glob.glob(argument, recursive=True))]
            paths = [p for p in paths if p.is_file()]
            if not paths:
                raise CorpusError(f"{argument}: no file matches (expected one or more clips)")
        else:
            paths = [path]  # which need not exist: that is said of it as of any unreadable clip
        for clip in paths:
            found.setdefault(os.path.realpath(clip), clip)
    return list(found.values())


def _clips_in(folder: Path) -> list[Path]:
    clips = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        clips += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(c for c in clips if c.suffix.lower() in MEDIA_ENDINGS)


@dataclass(frozen=True)
class ClipFeatures:
    """Sound or face of one clip.

    Attributes:
        duration_s: of the clip.
        features: None where there are none.
        reason: why the modality is missing; None where it is there.
    """

    duration_s: float
    features: Features | None
    reason: str | None


def observe(
    extractor: Extractor, limits: decode.MediaLimits, modality: str, path: Path
) -> ClipFeatures:
    """Return the sound or the face of a clip; bad media give a reason, never an error."""
    probe = decode.probe(path, limits)
    reason = probe.audio_reason if modality == "acoustic" else probe.video_reason
    if reason is not None:
        return ClipFeatures(probe.duration_s, None, reason)
    try:
        features = extractor.extract(Clip(str(path), path))
    except MediaError as error:
        return ClipFeatures(probe.duration_s, None, str(error))
    return ClipFeatures(probe.duration_s, features, features.reason)


def manifest_row(
    path: Path, observed: Mapping[str, ClipFeatures], said: Transcript
) -> dict[str, Any]:
    """Return the clip as the manifest of a corpus would have it."""
    return {
        "utterance_id": str(path),
        "video_id": path.parent.name,
        "clip_id": path.stem,
        "split": "test",
        "path": str(path),
        "digest": None,
        "start_s": None,
        "end_s": None,
        "transcript": said.text,
        "transcript_source": said.source,
        "words": None if said.words is None else [asdict(word) for word in said.words],
        "label": 0.0,  # some losses take no NaN, though nothing asks for them
        "duration_s": max(o.duration_s for o in observed.values()),
        "text_reason": None if said.text else "empty_transcript",
        **{f"{m}_reason": o.reason for m, o in observed.items()},
    }
