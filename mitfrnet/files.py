"""Files that are written completely or not at all, their metadata, and their digests."""

import hashlib
import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mitfrnet.errors import OutputError, system_words

# Our one key in the metadata of Parquet and safetensors files.
METADATA_KEY = "mitfrnet"


def with_metadata(schema: Any, values: Any) -> Any:
    """Return an Arrow schema with `values`, as JSON, in its metadata."""
    return schema.with_metadata({METADATA_KEY: json.dumps(values, sort_keys=True)})


def metadata_of(schema: Any) -> Any:
    """Return what `with_metadata` stored in an Arrow schema.

    Raises:
        KeyError: there is nothing of ours in it.
    """
    return json.loads((schema.metadata or {})[METADATA_KEY.encode()])


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it replaces `path` if the block succeeds.

    Raises:
        OutputError: the disk is full, or this user may not write there.
    """
    # Random, since processes on several machines or in containers may share a process id.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.errno is None:
            raise
        raise OutputError(f"{path}: cannot be written: {system_words(error.errno)}") from error
    except SafetensorError as error:  # holds the system's error number only in its text
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OutputError(f"{path}: cannot be written: {system_words(int(number[1]))}") from error


def write_json(values: Any, path: Path) -> None:
    """Write `values` as JSON with sorted keys."""
    text = json.dumps(values, indent=2, sort_keys=True, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
