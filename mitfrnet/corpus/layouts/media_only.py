"""Layout `media_only`: clips in a folder, without labels."""

import os
from pathlib import Path

from mitfrnet.corpus.clips import (
    MEDIA_ENDINGS,
    SIDECARS,
    ClipFiles,
    LabelledClip,
    Problems,
    identifier,
    ids_of_path,
    stem_of,
    unique,
)
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.errors import CorpusError


def read_media_only(folder: Path, corpus: CorpusParams, problems: Problems) -> list[LabelledClip]:
    """Return every clip under `folder`, all of them in the test split.

    The ids are those of `ids_of_path`. Hidden files and linked folders are left out.

    Raises:
        CorpusError: there is no clip.
    """
    files = ClipFiles(folder)
    clips = []
    for path in _files_in(folder, problems):
        where = str(folder / path)
        ending = os.path.splitext(path)[1].lower()
        if ending in SIDECARS:
            continue
        if ending not in MEDIA_ENDINGS:
            problems.warnings.append(f"{where}: left out, no media file by its ending")
            continue
        with problems.collecting():
            video_id, clip_id = ids_of_path(stem_of(path), folder)
            clips.append(
                LabelledClip(
                    where=where,
                    video_id=identifier(video_id, "video_id", where),
                    clip_id=identifier(clip_id, "clip_id", where),
                    path=files.at(path, where),
                    stem=stem_of(path),
                    split="test",
                )
            )
    if not clips and not problems.errors:
        raise CorpusError(f"{folder}: no clips (expected media files in it or in its folders)")
    return unique(clips, problems)


def _files_in(folder: Path, problems: Problems) -> list[str]:
    """Return the paths of the files under a folder, relative to it, in order."""
    found = []
    for parent, folders, names in os.walk(folder):
        for name in folders:
            if os.path.islink(os.path.join(parent, name)):  # walk does not follow it
                problems.warnings.append(
                    f"{os.path.join(parent, name)}: left out, a link to a folder "
                    "(expected the folder itself)"
                )
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(parent).relative_to(folder)
        found += [(inside / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(found)
