"""The manifest: a row per labelled clip, with its media and why modalities are missing."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mitfrnet.errors import FeatureError
from mitfrnet.files import metadata_of, replacing, with_metadata
from mitfrnet.modalities import MODALITIES

# Rows held as Python objects at a time; they take ten times the memory of Arrow.
_ROWS_TOGETHER = 8192

PROBE_FIELDS = {
    "duration_s": pa.float64(),
    "fps": pa.float64(),
    "frames": pa.int64(),
    "width": pa.int32(),
    "height": pa.int32(),
    "video_codec": pa.string(),
    "audio_codec": pa.string(),
    "audio_duration_s": pa.float64(),
    "audio_sample_rate_hz": pa.int32(),
    "container": pa.string(),
}

# A word's place in the transcript, and its time in seconds from the utterance's start.
WORD = pa.struct(
    [
        pa.field("char_start", pa.int32()),
        pa.field("char_end", pa.int32()),
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
    ]
)

SCHEMA = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("path", pa.string()),
        pa.field("digest", pa.string()),
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
        pa.field("transcript", pa.string(), nullable=False),
        pa.field("transcript_source", pa.string()),  # `table`, or a kind of file; null: none
        pa.field("words", pa.list_(pa.field("element", WORD))),  # null: times unknown
        pa.field("label", pa.float64()),  # null: unlabelled corpus
        *(pa.field(f"label_{m}", pa.float64()) for m in MODALITIES),
        *(pa.field(name, kind) for name, kind in PROBE_FIELDS.items()),
        # Why the modality is missing; null: it is there.
        *(pa.field(f"{m}_reason", pa.string()) for m in MODALITIES),
    ]
)


def make_manifest(rows: Iterable[dict[str, Any]], settings: dict[str, Any]) -> pa.Table:
    """Return the manifest of `rows`, with the corpus's `settings` in its metadata."""
    schema = with_metadata(SCHEMA, settings)
    rows = iter(rows)
    batches = []
    while batch := list(itertools.islice(rows, _ROWS_TOGETHER)):
        batches.append(pa.RecordBatch.from_pylist(batch, schema=schema))
    return pa.Table.from_batches(batches, schema=schema)


def manifest_rows(manifest: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the rows of a manifest, holding few of them as Python objects at a time."""
    for batch in manifest.to_batches(max_chunksize=_ROWS_TOGETHER):
        yield from batch.to_pylist()


def input_digest(row: dict[str, Any], modality: str, *, stored: bool = False) -> str:
    """Return the digest of the data from which `modality` of an utterance is extracted.

    Args:
        row: of the manifest.
        modality: which one.
        stored: whether the corpus has layout `features`, where text too is stored.
    """
    if modality == "text" and not stored:
        source = [row["transcript"]]
    else:
        source = [row["digest"], row["start_s"], row["end_s"]]
    # The reason is included: a clip must come back when a limit is raised.
    text = json.dumps([*source, row[f"{modality}_reason"]])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def utterance_duration_s(row: dict[str, Any]) -> float:
    """Return how long an utterance lasts, in seconds; 0 if unknown.

    An end beyond the end of the file counts as the file's end.

    Args:
        row: of the manifest; `start_s`, `end_s` and `duration_s` are read.
    """
    ends = [end for end in (row["end_s"], row["duration_s"] or None) if end is not None]
    return max(0.0, min(ends, default=0.0) - (row["start_s"] or 0.0))


def quantiles(values: Sequence[Any] | NDArray[Any]) -> dict[str, float | None]:
    """Return the mean and the 5th, 50th and 95th percentile; None without values."""
    if not len(values):
        return dict.fromkeys(("mean", "p05", "p50", "p95"))
    percentiles = {f"p{q:02d}": float(np.percentile(values, q)) for q in (5, 50, 95)}
    return {"mean": float(np.mean(values)), **percentiles}


def write_manifest(manifest: pa.Table, path: Path) -> None:
    """Write the manifest."""
    with replacing(path) as temporary:
        pq.write_table(manifest, temporary, compression="zstd")


def read_manifest(path: Path) -> pa.Table:
    """Return the manifest at `path`.

    Raises:
        FeatureError: the file is absent, or not a manifest of this version.
    """
    try:
        manifest = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise FeatureError(f"{path}: cannot be read ({error}); run the ingest stage") from error
    if not manifest.schema.equals(SCHEMA, check_metadata=False):
        raise FeatureError(f"{path}: columns differ from this version's; run the ingest stage")
    return manifest


def manifest_settings(manifest: pa.Table) -> dict[str, Any]:
    """Return the corpus's settings, as `mitfrnet.corpus.ingest.build_manifest` stores them."""
    return metadata_of(manifest.schema)
