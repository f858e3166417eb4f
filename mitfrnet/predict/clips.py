"""Which clips the arguments of the command name."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from mitfrnet.corpus.clips import MEDIA_ENDINGS
from mitfrnet.errors import CorpusError


def find_clips(arguments: Iterable[str]) -> list[Path]:
    """Return the clips that arguments of the command name, each once.

    Args:
        arguments: files; folders, searched for media files at any depth except in hidden folders;
            or patterns such as `talks/*.mp4`.

    Raises:
        CorpusError: a folder has no clip in it, or a pattern matches nothing.
    """
    clips: dict[str, Path] = {}
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
            paths = [path]  # a file that does not exist is reported as one that cannot be read
        for clip in paths:
            clips.setdefault(os.path.realpath(clip), clip)
    return list(clips.values())


def _clips_in(folder: Path) -> list[Path]:
    clips = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        clips += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(c for c in clips if c.suffix.lower() in MEDIA_ENDINGS)
