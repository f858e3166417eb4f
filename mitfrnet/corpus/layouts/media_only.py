"""Layout `media_only`: clips in a folder, without a table or labels."""

import os
from pathlib import Path

from mitfrnet.corpus.clip_files import NOT_MEDIA, ClipFiles, ending_of
from mitfrnet.corpus.clips import (
    MEDIA_ENDINGS,
    LabelledClip,
    Problems,
    identifier,
    ids_of_path,
    stem_of,
)
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.errors import CorpusError
from mitfrnet.media.storage import RemoteFolder


def read_media_only(folder: Path, corpus: CorpusParams, problems: Problems) -> list[LabelledClip]:
    """Return every clip under `folder`, or in object storage; all of them in the test split.

    `ids_of_path` gives the ids. Hidden files and linked folders are skipped.

    Raises:
        CorpusError: there is no clip.
    """
    files = ClipFiles(folder, corpus.media)
    clips = []
    base = folder if corpus.media is None else corpus.media
    paths = _files_in(folder, problems) if corpus.media is None else _files_at(corpus.media)
    for path in paths:
        where = f"{base}/{path}"
        if ending_of(path) in NOT_MEDIA:
            continue
        if ending_of(path) not in MEDIA_ENDINGS:
            problems.warnings.append(f"{where}: skipped, not a media file by its ending")
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
        raise CorpusError(f"{base}: no clips (expected media files in it or in its folders)")
    return clips


def _files_at(media: str) -> list[str]:
    """Return the paths of the files below a folder in object storage, relative to it, sorted."""
    paths = RemoteFolder(media).walk()
    return [path for path in paths if not any(n.startswith(".") for n in path.split("/"))]


def _files_in(folder: Path, problems: Problems) -> list[str]:
    """Return the paths of the files below a folder, relative to it, sorted."""
    paths: list[str] = []
    for parent, folders, names in os.walk(folder):
        for name in folders:
            if os.path.islink(os.path.join(parent, name)):  # walk does not follow it
                problems.warnings.append(
                    f"{os.path.join(parent, name)}: skipped, a link to a folder "
                    "(expected the folder itself)"
                )
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(parent).relative_to(folder)
        paths += [(inside / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(paths)
