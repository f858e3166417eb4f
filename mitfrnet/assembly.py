"""Join a manifest and the features of three modalities into the tensors of every split."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mitfrnet.corpus.manifest import input_digest, manifest_settings
from mitfrnet.data.tensors import Ragged, SplitTensors
from mitfrnet.errors import FeatureError
from mitfrnet.features.store import description_of
from mitfrnet.modalities import MODALITIES, SPLITS


def build_tensors(manifest: pa.Table, features: dict[str, pa.Table]) -> dict[str, SplitTensors]:
    """Return the tensors of every split.

    A modality that is naturally missing has no steps, also where its picture was read and no
    face was found in it.

    Args:
        manifest: the corpus's utterances.
        features: the stored features of each modality.

    Raises:
        FeatureError: an utterance of the manifest has no row, or is extracted from other input.
    """
    settings = manifest_settings(manifest)
    described = {m: description_of(features[m]) for m in MODALITIES}
    metadata = {
        "language": settings["language"],
        "scale": settings["scale"],
        "features": described,
    }
    row_of = {
        m: {u: i for i, u in enumerate(features[m]["utterance_id"].to_pylist())} for m in MODALITIES
    }
    labelled = manifest.to_pylist()
    splits = {}
    for split in SPLITS:
        rows = [row for row in labelled if row["split"] == split]
        ids = [row["utterance_id"] for row in rows]
        chosen: dict[str, pa.Table] = {}
        for modality in MODALITIES:
            absent = [u for u in ids if u not in row_of[modality]]
            if absent:
                raise FeatureError(
                    f"{modality} features: no row for {absent[0]} and {len(absent) - 1} more "
                    "(run the extract stage)"
                )
            indices = pa.array([row_of[modality][u] for u in ids], pa.int64())
            table = chosen[modality] = features[modality].take(indices)
            for row, found in zip(rows, table["input_digest"].to_pylist(), strict=True):
                if found != input_digest(row, modality):
                    raise FeatureError(
                        f"{modality} features: {row['utterance_id']} was extracted from other "
                        "input than the manifest names (run the extract stage)"
                    )
        text = chosen["text"]
        splits[split] = SplitTensors(
            ids=ids,
            label=np.array([row["label"] for row in rows], dtype=np.float32),
            modalities={
                m: _ragged(chosen[m], _spread(text, rows) if m == "text" else _centres(chosen[m]))
                for m in MODALITIES
            },
            token_ids=_flat(text, "input_ids", np.int32),
            special=_flat(text, "special", np.bool_),
            metadata=metadata,
        )
    return splits


def _has_steps(table: pa.Table) -> NDArray[np.bool_]:
    return np.array([reason is None for reason in table["reason"].to_pylist()], dtype=bool)


def _flat(table: pa.Table, column: str, kind: Any) -> NDArray[Any]:
    """Return the steps of `column` end to end, without those of missing modalities."""
    present = table.filter(pa.array(_has_steps(table)))[column].combine_chunks()
    flat = present.flatten()
    if pa.types.is_fixed_size_list(flat.type):
        dim = flat.type.list_size
        return flat.flatten().to_numpy(zero_copy_only=False).astype(kind).reshape(-1, dim)
    return flat.to_numpy(zero_copy_only=False).astype(kind)


def _centres(table: pa.Table) -> NDArray[np.float32]:
    """Return the centre of every step: half a step after its start, (steps,) in seconds."""
    present = table.filter(pa.array(_has_steps(table)))
    starts = [np.asarray(s, dtype=np.float64) for s in present["start_s"].to_pylist()]
    # Steps are equally long in all clips, and a clip of one does not show how long.
    step = next((s[1] - s[0] for s in starts if len(s) > 1), 0.0)
    return (np.concatenate([np.empty(0), *starts]) + step / 2).astype(np.float32)


def _spread(table: pa.Table, rows: list[dict[str, Any]]) -> NDArray[np.float32]:
    """Return when every token is spoken, as if all characters took equally long, (steps,).

    Special tokens, which have no place in the transcript, stand at 0.

    Args:
        table: text features.
        rows: of the manifest, for the same utterances.
    """
    times = [np.empty(0)]
    places = table.select(["char_start", "char_end"]).to_pylist()
    for row, features, present in zip(rows, places, _has_steps(table), strict=True):
        if present:
            middle = np.add(features["char_start"], features["char_end"]) / 2
            times.append(middle / len(row["transcript"]) * _duration_s(row))
    return np.concatenate(times).astype(np.float32)


def _duration_s(row: dict[str, Any]) -> float:
    """Return how long an utterance lasts; 1 where neither its file nor the corpus says it."""
    ends = [end for end in (row["end_s"], row["duration_s"] or None) if end is not None]
    duration = min(ends, default=0.0) - (row["start_s"] or 0.0)
    return duration if duration > 0 else 1.0


def _ragged(table: pa.Table, time_s: NDArray[np.float32]) -> Ragged:
    present = _has_steps(table)
    lengths = [
        len(d) if p else 0 for d, p in zip(table["detected"].to_pylist(), present, strict=True)
    ]
    values = _flat(table, "values", np.float32)
    detected = _flat(table, "detected", np.bool_)
    values[~detected] = 0
    return Ragged(
        values=values,
        detected=detected,
        time_s=time_s,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


def summarise_features(features: dict[str, pa.Table]) -> dict[str, Any]:
    """Return what was extracted and what is naturally missing, per modality and with reasons."""
    summary: dict[str, Any] = {}
    for modality, table in features.items():
        reasons = Counter(reason for reason in table["reason"].to_pylist() if reason)
        shares = np.array([np.mean(d) for d in table["detected"].to_pylist() if d])
        summary[modality] = {
            "clips": len(table),
            "missing": dict(sorted(reasons.items())),
            "steps": sum(len(d) for d in table["detected"].to_pylist() if d),
            "detected_share": {
                "mean": float(shares.mean()) if len(shares) else None,
                **{
                    f"p{q:02d}": float(np.percentile(shares, q)) if len(shares) else None
                    for q in (5, 50)
                },
            },
        }
    return summary
