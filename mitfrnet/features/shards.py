"""Features on disk: Parquet shards whose bytes depend only on the clips, never on history."""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mitfrnet.errors import FeatureError
from mitfrnet.features.extractor import Extractor, Features
from mitfrnet.files import metadata_of, replacing, with_metadata

# Small enough shards that a killed run loses little; few enough files for a large corpus.
_MIN_SHARDS = 8
_ROWS_PER_SHARD = 256

_KEY_COLUMNS = ["utterance_id", "input_digest", "extractor_digest"]

# By utterance id, the input digest and the extractor digest that a valid row has.
Digests = dict[str, tuple[str, str]]


@dataclass(frozen=True)
class FeatureRow:
    """One modality of one utterance, as stored.

    Attributes:
        features: None if the modality is naturally missing and has no steps.
        reason: why it is naturally missing; None if it is not.
        input_digest: of the clip's bytes and times, or of the transcript.
        extractor_digest: of the extractor's version, columns and identity; empty after a crash
            or a timeout, so that the next run tries again.
    """

    utterance_id: str
    features: Features | None
    reason: str | None
    input_digest: str
    extractor_digest: str


def shard_count(utterances: int) -> int:
    """Return the number of shards for so many utterances, a power of two."""
    return max(_MIN_SHARDS, 2 ** math.ceil(math.log2(max(1, utterances) / _ROWS_PER_SHARD)))


def shard_of(utterance_id: str, shards: int) -> int:
    """Return the shard of an utterance, which depends only on its id."""
    digest = hashlib.sha256(utterance_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") % shards


def extractor_digest(extractor: Extractor) -> str:
    """Return the digest that a valid row of `extractor` has."""
    text = json.dumps(_description(extractor), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _description(extractor: Extractor) -> dict[str, Any]:
    return {
        "version": extractor.version,
        "feature_names": extractor.feature_names,
        "units": extractor.units,
        "identity": extractor.identity,
    }


def feature_schema(extractor: Extractor) -> pa.Schema:
    """Return the schema of all shards of `extractor`.

    `values` is a list of fixed-size lists of float32, (steps, dim). Undetected steps are NaN:
    with a null inside a fixed-size list, the file could not be read back.
    """
    per_step = {name: pa.from_numpy_dtype(kind) for name, kind in extractor.columns.items()}
    step = pa.field("element", pa.float32())
    fields = [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("values", _list_of(pa.list_(step, len(extractor.feature_names)))),
        pa.field("detected", _list_of(pa.bool_())),
        pa.field("start_s", _list_of(pa.float32())),
        *(pa.field(name, _list_of(kind)) for name, kind in per_step.items()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("input_digest", pa.string(), nullable=False),
        pa.field("extractor_digest", pa.string(), nullable=False),
    ]
    description = _description(extractor) | {"digest": extractor_digest(extractor)}
    return with_metadata(pa.schema(fields), description)


def _list_of(kind: pa.DataType) -> pa.DataType:
    # Parquet's name for the items; with Arrow's own, a file read back has another type.
    return pa.list_(pa.field("element", kind))


def to_table(rows: Iterable[FeatureRow], schema: pa.Schema) -> pa.Table:
    """Return `rows` as one table of `schema`, sorted by utterance id."""
    ordered = sorted(rows, key=lambda r: r.utterance_id)
    steps = [len(r.features.detected) if r.features else 0 for r in ordered]
    offsets = pa.array(np.concatenate([[0], np.cumsum(steps)]), type=pa.int32())
    features = [r.features for r in ordered if r.features]

    def ragged(name: str, arrays: Sequence[np.ndarray]) -> pa.Array:
        kind = schema.field(name).type
        inner = kind.value_type
        if pa.types.is_fixed_size_list(inner):
            flat = np.concatenate([np.empty((0, inner.list_size), np.float32), *arrays])
            content = pa.FixedSizeListArray.from_arrays(
                pa.array(flat.ravel(), type=pa.float32()), type=inner
            )
        else:
            content = pa.array(np.concatenate(arrays) if arrays else [], type=inner)
        return pa.ListArray.from_arrays(offsets, content, type=kind)

    columns: dict[str, pa.Array] = {
        "utterance_id": pa.array([r.utterance_id for r in ordered], pa.string()),
        "status": pa.array(["missing" if r.reason else "ok" for r in ordered], pa.string()),
        "reason": pa.array([r.reason for r in ordered], pa.string()),
        "input_digest": pa.array([r.input_digest for r in ordered], pa.string()),
        "extractor_digest": pa.array([r.extractor_digest for r in ordered], pa.string()),
    }
    for name in schema.names:
        if name in ("values", "detected", "start_s"):
            columns[name] = ragged(name, [getattr(f, name) for f in features])
        elif name not in columns:
            columns[name] = ragged(name, [f.columns[name] for f in features])
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _keys(table: pa.Table) -> list[tuple[str, str, str]]:
    return list(zip(*(table[c].to_pylist() for c in _KEY_COLUMNS), strict=True))


class ShardFolder:
    """The shards of one modality, each of which can be brought up to date.

    Args:
        folder: of the shards.
        schema: of the extractor; shards with another schema count as absent.
        shards: their number.
    """

    def __init__(self, folder: Path, schema: pa.Schema, shards: int) -> None:
        self._folder, self._schema = folder, schema
        self.shards = shards

    def _path(self, shard: int) -> Path:
        return self._folder / f"{shard:05d}-of-{self.shards:05d}.parquet"

    @cached_property
    def _earlier(self) -> dict[int, dict[int, Path]]:
        """Return the files from when the corpus had another number of shards.

        They are keyed by that number, then by the shard's index.
        """
        files: dict[int, dict[int, Path]] = {}
        for path in self._folder.glob("*-of-*.parquet"):
            index, count = (int(part) for part in path.stem.split("-of-"))
            if count != self.shards:
                files.setdefault(count, {})[index] = path
        return files

    def _may_hold(self, shard: int) -> list[Path]:
        """Return the files that may hold rows of `shard`, earlier ones included.

        Counts are powers of two, so an utterance of shard k was in shard k mod n when there were
        n < `shards`.
        """
        paths = [self._path(shard)] if self._path(shard).exists() else []
        for count, files in self._earlier.items():
            indices = range(shard, count, self.shards) if count > self.shards else [shard % count]
            paths += [files[index] for index in indices if index in files]
        return sorted(paths)

    def _read(self, path: Path, columns: list[str] | None = None) -> pa.Table | None:
        """Return a shard; None if it is damaged or from other settings."""
        try:
            table = pq.read_table(path, columns=columns)
        except (OSError, pa.ArrowInvalid):
            return None
        expected = self._schema
        if columns is not None:
            expected = pa.schema([expected.field(c) for c in columns], expected.metadata)
        return table if table.schema.equals(expected, check_metadata=True) else None

    def is_current(self, shard: int, digests: Digests) -> bool:
        """Return whether the file of `shard` holds exactly these rows, all valid."""
        path = self._path(shard)
        table = self._read(path, _KEY_COLUMNS) if path.exists() else None
        return table is not None and _keys(table) == [(u, *digests[u]) for u in sorted(digests)]

    def _valid_rows(
        self, shard: int, digests: Digests, columns: list[str] | None = None
    ) -> pa.Table | None:
        """Return the stored rows that have these digests; None if no file can be read."""
        tables = []
        kept: set[str] = set()
        for path in self._may_hold(shard):
            table = self._read(path, columns)
            if table is None:
                continue
            indices = []
            for i, (utterance_id, *stored) in enumerate(_keys(table)):
                if tuple(stored) == digests.get(utterance_id) and utterance_id not in kept:
                    kept.add(utterance_id)
                    indices.append(i)
            tables.append(table.take(pa.array(indices, pa.int64())))
        return pa.concat_tables(tables) if tables else None

    def outdated(self, shard: int, digests: Digests) -> set[str]:
        """Return the utterances of `shard` without a valid row.

        Args:
            shard: which one.
            digests: of the shard's utterances.
        """
        rows = self._valid_rows(shard, digests, _KEY_COLUMNS)
        return set(digests) - set(rows["utterance_id"].to_pylist() if rows else [])

    def write(self, shard: int, digests: Digests, fresh: list[FeatureRow]) -> None:
        """Write `shard` from its valid stored rows and the fresh ones, atomically.

        A row gives the same bytes whether it is fresh or stored.
        """
        stored = self._valid_rows(shard, digests)
        new = to_table(fresh, self._schema)
        table = new if stored is None else pa.concat_tables([stored, new])
        table = table.take(pc.sort_indices(table["utterance_id"])).combine_chunks()
        assert table["utterance_id"].to_pylist() == sorted(digests)
        with replacing(self._path(shard)) as temporary:
            pq.write_table(table, temporary, compression="zstd")

    def remove_others(self) -> None:
        """Remove every file that is not one of the present shards."""
        ours = {self._path(shard) for shard in range(self.shards)}
        for path in set(self._folder.iterdir()) - ours:
            path.unlink()


def read_features(folder: Path) -> pa.Table:
    """Return all rows of one modality, sorted by utterance id.

    Raises:
        FeatureError: no shard, a shard that cannot be read, or shards of different extractors.
    """
    paths = sorted(folder.glob("*-of-*.parquet"))
    if not paths:
        raise FeatureError(f"{folder}: no features (expected *.parquet; run the extract stage)")
    tables = [_read_shard(path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if not table.schema.equals(tables[0].schema, check_metadata=True):
            raise FeatureError(
                f"{path}: other settings than in {paths[0].name} (run extract again)"
            )
    whole = pa.concat_tables(tables).combine_chunks()
    return whole.take(pc.sort_indices(whole["utterance_id"]))


def _read_shard(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise FeatureError(f"{path}: cannot be read ({error}); run the extract stage") from error


def description_of(table: pa.Table) -> dict[str, Any]:
    """Return `version`, `feature_names`, `units`, `identity` and `digest` of stored features."""
    return metadata_of(table.schema)
