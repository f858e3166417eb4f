"""Finds the files of a corpus, in its folder or in object storage."""

import os
import posixpath
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from mitfrnet.corpus.transcripts.timed_text import KINDS
from mitfrnet.errors import CorpusError
from mitfrnet.media.storage import RemoteFolder

# Files that may lie beside a clip under its name: its sidecars, and tables of other tools.
NOT_MEDIA = frozenset({*KINDS, ".csv"})

_LEADS_OUT = "{where}: {path} leads out of the corpus folder (expected a file inside it)"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class ClipFiles:
    """Finds files of a corpus, listing each of its folders once.

    Args:
        folder: the corpus.
        media: URL of the folder in object storage that holds the clips; None: `folder` does.
    """

    def __init__(self, folder: Path, media: str | None = None) -> None:
        self._folder = folder
        self._remote = None if media is None else RemoteFolder(media)
        self._inside = Path(os.path.realpath(folder))
        self._sizes: dict[str, dict[str, int]] = {}
        self._stems: dict[str, dict[str, list[str]]] = {}
        self._leads_out: dict[str, bool] = {}

    def inside(self, path: str, where: str) -> str:
        """Return a path from a table, relative to the folder of clips.

        Args:
            path: as in the table; may be a URL if the clips lie in object storage.
            where: the line of the table.

        Raises:
            CorpusError: it is a URL outside the folder of clips.
        """
        if not _URL.match(path):
            return path
        if self._remote is None:
            raise CorpusError(
                f"{where}: {path} is a URL (expected a path in the corpus folder; for clips in "
                "object storage, set `media` of the corpus in params.yaml)"
            )
        base = f"{self._remote.url}/"
        if not path.startswith(base):
            raise CorpusError(f"{where}: {path} is not in {base} (expected a clip inside `media`)")
        return path.removeprefix(base)

    def by_stem(self, stem: str, where: str) -> str | None:
        """Return the path of the clip `stem`.<any container>; None if there is no such file.

        Args:
            stem: path without ending, relative to the folder of clips.
            where: the line of the table.

        Raises:
            CorpusError: there are several, or it leads out of the folder.
        """
        self._check(stem, where)
        paths = [
            path
            for path in self._paths_of(stem)
            if ending_of(path) not in NOT_MEDIA and not posixpath.basename(path).startswith(".")
        ]
        if len(paths) > 1:
            raise CorpusError(f"{where}: several files for {stem}: {', '.join(paths)} (keep one)")
        return self.at(paths[0], where) if paths else None

    def sidecars(self, stem: str, where: str) -> list[str]:
        """Return the paths of the sidecars of `stem`, in the order of `KINDS`.

        Raises:
            CorpusError: one leads out of the folder.
        """
        paths = [path for path in self._paths_of(stem) if ending_of(path) in KINDS]
        paths.sort(key=lambda path: KINDS.index(ending_of(path)))
        return [path for path in paths if self.at(path, where) is not None]

    def at(self, path: str, where: str) -> str | None:
        """Return `path` if there is a file; else None.

        Args:
            path: relative to the folder of clips.
            where: the line of the table.

        Raises:
            CorpusError: it leads out of the folder.
        """
        self._check(path, where)
        if self._remote is not None:
            return None if self.size(path) is None else path
        try:
            mode = os.lstat(os.path.join(self._folder, path)).st_mode
        except OSError:
            return None
        if stat.S_ISLNK(mode) and self._resolves_outside(path):
            raise CorpusError(_LEADS_OUT.format(where=where, path=path))
        return None if stat.S_ISDIR(mode) else path

    def size(self, path: str) -> int | None:
        """Return the size of the file at `path` in bytes; None if there is no file."""
        if self._remote is not None:
            folder, name = posixpath.split(posixpath.normpath(path))
            return self._remote_sizes(self._remote, folder).get(name)
        try:
            return (self._folder / path).stat().st_size
        except OSError:
            return None

    def table(self, path: str) -> Path:
        """Return where a table lies: always in the corpus folder, never in object storage.

        Raises:
            CorpusError: it leads out of the corpus folder.
        """
        ClipFiles(self._folder).at(path, str(self._folder))
        return self._folder / path

    def _check(self, path: str, where: str) -> None:
        """Refuse a path that leads out of the folder, by itself or through a linked folder."""
        folder, _, _ = path.rpartition("/")
        if folder not in self._leads_out:
            self._leads_out[folder] = self._remote is None and self._resolves_outside(folder)
        by_itself = path.startswith("/") or "\0" in path or ".." in path.split("/")
        if by_itself or self._leads_out[folder]:
            raise CorpusError(_LEADS_OUT.format(where=where, path=path))

    def _resolves_outside(self, path: str) -> bool:
        try:
            return not (self._folder / path).resolve().is_relative_to(self._inside)
        except (OSError, RuntimeError, ValueError):  # a link to itself; the probe gives the reason
            return False

    def _paths_of(self, stem: str) -> Sequence[str]:
        """Return the paths of all files called `stem`.<anything>, sorted."""
        folder, _, name = stem.rpartition("/")
        if folder not in self._stems:
            stems: dict[str, list[str]] = {}
            for file in sorted(self._names_in(folder)):
                path = f"{folder}/{file}" if folder else file
                stems.setdefault(os.path.splitext(file)[0], []).append(path)
            self._stems[folder] = stems
        return self._stems[folder].get(name, ())

    def _names_in(self, folder: str) -> list[str]:
        if self._remote is not None:
            return list(self._remote_sizes(self._remote, folder))
        try:
            with os.scandir(self._folder / folder) as entries:
                return [e.name for e in entries if not e.is_dir(follow_symlinks=False)]
        except (OSError, ValueError):  # no such folder
            return []

    def _remote_sizes(self, remote: RemoteFolder, folder: str) -> dict[str, int]:
        """Return the size in bytes of each file in a remote folder, by name."""
        folder = posixpath.normpath(folder)
        if folder not in self._sizes:
            self._sizes[folder] = remote.sizes(folder)
        return self._sizes[folder]


def ending_of(path: str) -> str:
    """Return the ending of a path in lower case, with its dot."""
    return os.path.splitext(path)[1].lower()
