"""Which files a corpus has, in its folder or in object storage."""

import os
import posixpath
import re
import stat
from pathlib import Path

from mitfrnet.corpus.clips import SIDECARS
from mitfrnet.errors import CorpusError
from mitfrnet.media.storage import RemoteFolder

_LEADS_OUT = "{where}: {path} leads out of the corpus folder (expected a file inside it)"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class ClipFiles:
    """Finds the media files of a corpus, listing each of its folders once.

    Args:
        folder: of the corpus.
        media: URL of the folder in object storage in which its clips lie; None: in `folder`.
    """

    def __init__(self, folder: Path, media: str | None = None) -> None:
        self._folder = folder
        self._remote = None if media is None else RemoteFolder(media)
        self._inside = Path(os.path.realpath(folder))
        self._names: dict[str, dict[str, int]] = {}
        self._stems: dict[str, dict[str, list[str]]] = {}
        self._leads_out: dict[str, bool] = {}

    def inside(self, path: str, where: str) -> str:
        """Return the path that a table gives, relative to the folder of clips.

        Args:
            path: as given; also a URL, where the clips lie in object storage.
            where: the line that gives it.

        Raises:
            CorpusError: it is a URL of something else.
        """
        if not _URL.match(path):
            return path
        if self._remote is None:
            raise CorpusError(
                f"{where}: {path} is a URL (expected a path in the corpus folder; or the folder "
                "of the clips as `media` of the corpus in params.yaml)"
            )
        base = f"{self._remote.url}/"
        if not path.startswith(base):
            raise CorpusError(f"{where}: {path} is not in {base} (expected a clip inside `media`)")
        return path.removeprefix(base)

    def by_stem(self, stem: str, where: str) -> str | None:
        """Return the file `stem`.<any container>, relative to the folder of clips.

        Args:
            stem: relative to it, without ending.
            where: the line that asks.

        Returns:
            None where there is no file.

        Raises:
            CorpusError: there are several, or it leads out of the folder.
        """
        self._check(stem, where)
        folder, _, name = stem.rpartition("/")
        found = self._in(folder).get(name, [])
        if len(found) > 1:
            raise CorpusError(f"{where}: several files for {stem}: {', '.join(found)} (keep one)")
        return self.at(found[0], where) if found else None

    def at(self, path: str, where: str) -> str | None:
        """Return `path` if there is a file, as given.

        Args:
            path: relative to the folder of clips.
            where: the line that asks.

        Raises:
            CorpusError: it leads out of the folder.
        """
        self._check(path, where)
        if self._remote is not None:
            return None if self.size(path) is None else path
        try:
            found = os.lstat(os.path.join(self._folder, path))
        except OSError:
            return None
        if stat.S_ISLNK(found.st_mode) and self._resolves_outside(path):
            raise CorpusError(_LEADS_OUT.format(where=where, path=path))
        return None if stat.S_ISDIR(found.st_mode) else path

    def size(self, path: str) -> int | None:
        """Return the bytes of the file at `path`; None where there is none."""
        if self._remote is not None:
            folder, name = posixpath.split(posixpath.normpath(path))
            return self._listed(self._remote, folder).get(name)
        try:
            return (self._folder / path).stat().st_size
        except OSError:
            return None

    def table(self, path: str) -> Path:
        """Return where a table lies, which is always in the corpus folder.

        Args:
            path: relative to the corpus folder.

        Raises:
            CorpusError: it leads out of the corpus folder.
        """
        ClipFiles(self._folder).at(path, str(self._folder))
        return self._folder / path

    def _check(self, path: str, where: str) -> None:
        """Refuse a path that leads out of the folder by itself or by a folder's link."""
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

    def _in(self, folder: str) -> dict[str, list[str]]:
        """Return the media files of a folder by their names without ending."""
        if folder not in self._stems:
            stems: dict[str, list[str]] = {}
            for name in sorted(self._names_in(folder)):
                stem, ending = os.path.splitext(name)
                if ending.lower() not in SIDECARS and not name.startswith("."):
                    path = f"{folder}/{name}" if folder else name
                    stems.setdefault(stem, []).append(path)
            self._stems[folder] = stems
        return self._stems[folder]

    def _names_in(self, folder: str) -> list[str]:
        if self._remote is not None:
            return list(self._listed(self._remote, folder))
        try:
            with os.scandir(self._folder / folder) as entries:
                return [e.name for e in entries if not e.is_dir(follow_symlinks=False)]
        except OSError:  # no folder, so no files
            return []

    def _listed(self, remote: RemoteFolder, folder: str) -> dict[str, int]:
        """Return the bytes of the files in a remote folder, by their names."""
        folder = posixpath.normpath(folder)
        if folder not in self._names:
            self._names[folder] = remote.sizes(folder)
        return self._names[folder]
