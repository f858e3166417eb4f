"""Clips in object storage: folders are listed, and a clip is fetched only while it is decoded.

The URL of a folder comes from `params.yaml` alone; paths in tables are looked up below it. Server
and credentials are set as the client library expects them (environment, profiles), never here.
"""

import posixpath
import queue
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mitfrnet.errors import CorpusError, MediaError, MitfrnetError, StorageError
from mitfrnet.files import sha256_of

_BLOCK_BYTES = 8 * 2**20
_MAX_ENDING = 16  # a longer ending tells a demuxer nothing

Result = TypeVar("Result")


@dataclass(frozen=True)
class ClipStore:
    """Where the clips of a corpus lie; gives each of them as a local file.

    Attributes:
        folder: the corpus.
        media: URL of the folder in object storage that holds its clips; None: `folder` does.
        max_bytes: a larger clip is not fetched.
        timeout_s: time that a worker may take for a clip; fetching may take half of it.
    """

    folder: Path
    media: str | None
    max_bytes: int
    timeout_s: float

    @contextmanager
    def at_hand(self, path: Path, digest: str | None = None) -> Iterator[Path]:
        """Give a clip as a local file: its own, or a fetched copy that is removed afterwards.

        Args:
            path: where it lies, or would lie, in the corpus folder.
            digest: required digest of a clip in object storage; None: any.

        Raises:
            MediaError: it is absent from object storage, or too large, and no digest is required;
                the message is a reason of `mitfrnet.media.decode`.
            CorpusError: it no longer matches the digest.
            StorageError: it cannot be fetched, through no fault of the clip.
        """
        if self.media is None:
            yield path
            return
        inside = path.relative_to(self.folder).as_posix()
        ending = path.suffix if len(path.suffix) <= _MAX_ENDING else ""
        with tempfile.TemporaryDirectory(prefix="mitfrnet-") as folder:
            file = Path(folder, f"clip{ending}")
            self._fetch(self.media, inside, file, digest)
            yield file

    def _fetch(self, media: str, inside: str, file: Path, digest: str | None) -> None:
        url = f"{media}/{inside}"
        seconds = self.timeout_s / 2
        try:
            _within(
                seconds,
                partial(RemoteFolder(media).fetch, inside, file, max_bytes=self.max_bytes),
                f"{url}: not fetched within {seconds:g} s, half of run.timeout_seconds (expected a "
                "faster connection, or a larger value)",
            )
            changed = digest is not None and sha256_of(file) != digest
        except MediaError:
            if digest is None:
                raise
            changed = True
        if changed:
            raise CorpusError(
                f"{url}: changed or removed since the corpus was ingested (expected the clip of "
                f"the manifest; to take the new one: dvc repro -f ingest@{self.folder.name})"
            )


class RemoteFolder:
    """A folder of clips in object storage.

    Args:
        url: any URL that fsspec knows, e.g. `s3://bucket/folder`.

    Raises:
        StorageError: no installed package reads such URLs, or it contains a password.
    """

    def __init__(self, url: str) -> None:
        import fsspec  # not needed by corpora with local clips

        self.url = url.rstrip("/")
        if ":" in url.partition("://")[2].partition("/")[0].rpartition("@")[0]:
            raise StorageError(
                "params.yaml: media of a corpus contains a password (expected none: client "
                "libraries read it from the environment or from their own files)"
            )
        try:
            self._fs, root = fsspec.url_to_fs(self.url)
        except (ImportError, ValueError) as error:  # no package for it, or an unknown kind of URL
            extra = " (expected: pip install 'mitfrnet[s3]')" if url.startswith("s3:") else ""
            raise StorageError(f"{self.url}: {_brief(error)}{extra}") from error
        self._root = root.rstrip("/")

    def check(self) -> None:
        """Raise an error unless the folder contains something.

        Raises:
            StorageError: it is absent or empty, or the server cannot be reached, or refuses access.
        """
        try:
            with _reaching(self.url):
                self._fs.invalidate_cache()
                self._fs.info(self._root)
        except FileNotFoundError as error:
            raise StorageError(
                f"{self.url}: no such folder, or nothing in it (expected the clips of the corpus)"
            ) from error

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the size in bytes of each file in a folder, by name; none without the folder.

        Args:
            folder: relative to this one.

        Raises:
            StorageError: the server cannot be reached, or refuses access.
        """
        inner = posixpath.normpath(folder)
        base = self._root if inner == "." else f"{self._root}/{inner}"
        try:
            with _reaching(self.url):
                self._fs.invalidate_cache()
                entries = self._fs.ls(base, detail=True)
        except FileNotFoundError:
            return {}
        sizes = self._files(entries, f"{base}/")
        return {path: size for path, size in sizes.items() if "/" not in path}

    def walk(self) -> dict[str, int]:
        """Return the size in bytes of each file below the folder, by relative path, sorted.

        Raises:
            StorageError: the server cannot be reached, or refuses access.
        """
        with _reaching(self.url):
            self._fs.invalidate_cache()
            entries = self._fs.find(self._root, detail=True).values()
        return self._files(entries, f"{self._root}/")

    def fetch(self, path: str, file: Path, *, max_bytes: int) -> None:
        """Write the file at `path`, relative to this folder, to the local `file`.

        Raises:
            MediaError: it is absent (`no_file`), or has more than `max_bytes` (`too_large`) and is
                not fetched further.
            StorageError: the server cannot be reached, or refuses access; or the disk is full.
        """
        try:
            with file.open("wb") as target:
                for block in self._blocks(path, max_bytes):
                    target.write(block)
        except OSError as error:  # a local error: `_reaching` has converted remote ones
            raise StorageError(
                f"{file.parent}: cannot be written: {error.strerror} (expected room for one "
                "clip; set TMPDIR to a folder that has it)"
            ) from error

    def _blocks(self, path: str, max_bytes: int) -> Iterator[bytes]:
        url = f"{self.url}/{path}"
        try:
            with _reaching(url):
                source = self._fs.open(f"{self._root}/{path}", "rb", block_size=_BLOCK_BYTES)
            with source:
                read = 0
                while max(read, getattr(source, "size", None) or 0) <= max_bytes:
                    with _reaching(url):
                        block = source.read(_BLOCK_BYTES)
                    if not block:
                        return
                    read += len(block)
                    yield block
        except FileNotFoundError as error:
            self.check()  # raises if the whole folder is gone
            raise MediaError("no_file") from error
        raise MediaError("too_large")

    def _files(self, entries: Any, base: str) -> dict[str, int]:
        return {
            entry["name"].removeprefix(base): entry.get("size") or 0
            for entry in sorted(entries, key=lambda entry: entry["name"])
            if entry["type"] == "file" and entry["name"].startswith(base)
        }


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Turn errors of client libraries into a `StorageError` of one line, except an absent file."""
    try:
        yield
    except (FileNotFoundError, MitfrnetError, MemoryError):
        raise
    except PermissionError as error:
        raise StorageError(
            f"{url}: access refused: {_brief(error)} (expected credentials that may list and read "
            "it, where the client library looks for them)"
        ) from error
    except Exception as error:  # each library has its own kinds
        raise StorageError(
            f"{url}: cannot be read: {_brief(error)} (expected a server that answers, and "
            "credentials where the client library looks for them)"
        ) from error


def _brief(error: Exception) -> str:
    """Return the text of an error in one line, without secrets that a URL may contain."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"//[^/\s@]*@", "//", text)
    return re.sub(r"\?[^\s'\"]*", "", text)[:300]


def _within(seconds: float, work: Callable[[], Result], late: str) -> Result:
    """Return the result of `work`; if it takes too long, abandon it and raise `late`.

    Client libraries retry for minutes, each in its own way. A worker that waited for them would
    be killed as if the clip had hung its decoder.

    Raises:
        StorageError: it takes longer than `seconds`.
    """
    answer: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answer.put((work(), None))
        except BaseException as error:
            answer.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        result, error = answer.get(timeout=seconds)
    except queue.Empty:
        raise StorageError(late) from None
    if error is not None:
        raise error
    return result
