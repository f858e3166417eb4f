"""Features that an import stored beside a corpus: read back instead of extracted."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mitfrnet.errors import FeatureError, MediaError
from mitfrnet.features.extractor import Clip, Features
from mitfrnet.features.shards import feature_schema

# Rows are read one by one, by id, and each read decodes a whole row group.
ROWS_PER_GROUP = 8

_TEXT_COLUMNS: dict[str, type[np.generic]] = {  # those of TextExtractor
    "input_ids": np.int32,
    "special": np.bool_,
    "char_start": np.int32,
    "char_end": np.int32,
}


class ImportedExtractor:
    """Reads one modality of an utterance from `<corpus folder>/<modality>.parquet`.

    Args:
        modality: which one.
        description: `version`, `feature_names`, `units` and `identity`, as the import wrote them.
    """

    def __init__(self, modality: str, description: dict[str, Any]) -> None:
        self._modality = modality
        self.columns = _TEXT_COLUMNS if modality == "text" else {}
        self.version: str = description["version"]
        self.feature_names: list[str] = description["feature_names"]
        self.units: list[str] = description["units"]
        self.identity: dict[str, Any] = description["identity"]

    def extract(self, clip: Clip) -> Features:
        """Return the stored features of an utterance.

        Args:
            clip: its `path` is the corpus folder.

        Raises:
            MediaError: the modality is missing; the message is the stored reason.
            FeatureError: the file is absent, damaged or from another import, or lacks the row.
        """
        path = clip.path / f"{self._modality}.parquet"
        rows = _open(path)
        if not rows.schema.equals(feature_schema(self), check_metadata=False):
            raise FeatureError(f"{path}: columns differ from the manifest's; run the ingest stage")
        row = rows.read(clip.utterance_id)
        if row["reason"][0].is_valid:
            raise MediaError(row["reason"][0].as_py())
        values = row["values"].combine_chunks().flatten()
        return Features(
            values=_numpy(values.flatten(), np.float32).reshape(-1, len(self.feature_names)),
            detected=_flat(row, "detected", np.bool_),
            start_s=_flat(row, "start_s", np.float32),
            columns={name: _flat(row, name, kind) for name, kind in self.columns.items()},
        )


def _flat(row: pa.Table, column: str, kind: type[np.generic]) -> np.ndarray:
    return _numpy(row[column].combine_chunks().flatten(), kind)


def _numpy(array: pa.Array, kind: type[np.generic]) -> np.ndarray:
    return array.to_numpy(zero_copy_only=False).astype(kind)


class _Rows:
    """The rows of one Parquet file by utterance id; keeps the row group read last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = pq.ParquetFile(path)
            self.schema = self._file.schema_arrow
            ids = self._file.read(["utterance_id"])["utterance_id"].to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(path, error) from error
        metadata = self._file.metadata
        sizes = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
        places = ((group, i) for group, size in enumerate(sizes) for i in range(size))
        self._place_of = dict(zip(ids, places, strict=True))
        self._group: tuple[int, pa.Table] | None = None

    def read(self, utterance_id: str) -> pa.Table:
        """Return the row of an utterance.

        Raises:
            FeatureError: it is absent or damaged.
        """
        if utterance_id not in self._place_of:
            raise FeatureError(f"{self._path}: no row for {utterance_id}; import the corpus again")
        group, index = self._place_of[utterance_id]
        if self._group is None or self._group[0] != group:
            try:
                self._group = group, self._file.read_row_group(group)
            except (OSError, pa.ArrowException) as error:
                raise _unreadable(self._path, f"row group {group}: {error}") from error
        return self._group[1].slice(index, 1)


@lru_cache(maxsize=1)
def _rows_of(path: Path, version: tuple[int, int]) -> _Rows:
    return _Rows(path)


def _open(path: Path) -> _Rows:
    """Return the rows of a file, which is opened once until it changes."""
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error.strerror) from error
    return _rows_of(path, (status.st_mtime_ns, status.st_ino))


def _unreadable(path: Path, cause: object) -> FeatureError:
    return FeatureError(f"{path}: cannot be read ({cause}); import the corpus again")
