"""Join a manifest and the features of three modalities into the tensors of every split."""

import hashlib
import json
import unicodedata
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mitfrnet.corpus.manifest import (
    input_digest,
    manifest_settings,
    quantiles,
    utterance_duration_s,
)
from mitfrnet.corpus.transcripts.words import Word, place_words, spread
from mitfrnet.data.alignment import TensorParams, Timeline, align, segment_timeline, token_timeline
from mitfrnet.data.tensors import ModalityTensors, SplitTensors
from mitfrnet.errors import FeatureError
from mitfrnet.features.shards import description_of
from mitfrnet.modalities import MODALITIES, SPLITS

_ALIGNED = ("acoustic", "visual")


def build_tensors(
    manifest: pa.Table, features: dict[str, pa.Table], params: TensorParams
) -> dict[str, SplitTensors]:
    """Return the tensors of every split; an unlabelled utterance has the label NaN.

    A modality that is naturally missing has no steps, also where its picture was read and no
    face was found in it.

    Args:
        manifest: the corpus's utterances.
        features: the stored features of each modality.
        params: whether and how acoustic and visual features are aligned with the text.

    Raises:
        FeatureError: an utterance of the manifest has no row, or is extracted from other input;
            or words are to be aligned with, and nobody says when any is spoken.
    """
    metadata = _metadata(manifest, features, params)
    row_of = {
        m: {u: i for i, u in enumerate(features[m]["utterance_id"].to_pylist())} for m in MODALITIES
    }
    labelled = manifest.to_pylist()
    stored = manifest_settings(manifest).get("stored") is not None
    spoken = [row for row in labelled if row["transcript"]]
    if params.align == "words" and spoken and not any(row["words"] for row in spoken):
        raise FeatureError(
            "params.yaml: tensors.align is words, and no utterance of the corpus has word times "
            "(put files that hold them beside the clips, or set it to pool or none)"
        )
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
                if found != input_digest(row, modality, stored=stored):
                    raise FeatureError(
                        f"{modality} features: {row['utterance_id']} was extracted from other "
                        "input than the manifest names (run the extract stage)"
                    )
        text = chosen["text"]
        timelines = _timelines(text, rows, params)
        timed = [t.time_s for t, p in zip(timelines, _has_steps(text), strict=True) if p]
        modalities = {"text": _ragged(text, np.concatenate([np.empty(0, np.float32), *timed]))}
        for modality in _ALIGNED:
            ragged = _ragged(chosen[modality], _centres(chosen[modality], rows))
            aligned = params.align != "none"
            modalities[modality] = align(ragged, timelines) if aligned else ragged
        labels = [np.nan if row["label"] is None else row["label"] for row in rows]
        splits[split] = SplitTensors(
            ids=ids,
            label=np.array(labels, dtype=np.float32),
            modalities=modalities,
            token_ids=_flat(text, "input_ids", np.int32),
            special=_flat(text, "special", np.bool_),
            metadata=metadata,
        )
    return splits


def _metadata(
    manifest: pa.Table, features: dict[str, pa.Table], params: TensorParams
) -> dict[str, Any]:
    """Return what the tensors say of themselves.

    An alignment is part of what acoustic and visual features are: it goes into their identity
    and digest, so that a model trained on others refuses them.
    """
    settings = manifest_settings(manifest)
    metadata = {
        "language": settings["language"],
        "scale": settings["scale"],
        "features": {m: description_of(features[m]) for m in MODALITIES},
    }
    if params.align != "none":
        how = params.model_dump(mode="json")
        metadata["align"] = params.align
        for modality in _ALIGNED:
            described = metadata["features"][modality]
            described["identity"] = described["identity"] | {"tensors": how}
            text = json.dumps([described["digest"], how], sort_keys=True)
            described["digest"] = hashlib.sha256(text.encode()).hexdigest()[:32]
    return metadata


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


def _centres(table: pa.Table, rows: list[dict[str, Any]]) -> NDArray[np.float32]:
    """Return the centre of every step: half a step after its start, (steps,) in seconds.

    Where nobody knows when steps start, they share the utterance equally.

    Args:
        table: acoustic or visual features.
        rows: of the manifest, for the same utterances.
    """
    found = zip(rows, table["start_s"].to_pylist(), _has_steps(table), strict=True)
    timed = [(row, np.asarray(start, dtype=np.float64)) for row, start, has in found if has]
    known = [start[:2] for _, start in timed if len(start) > 1 and not np.isnan(start).any()]
    centres = [np.empty(0)]
    for row, start in timed:
        if np.isnan(start).any():
            centres.append((np.arange(len(start)) + 0.5) / len(start) * _duration_s(row))
        else:
            # A clip of one step does not show how long that is, but others do.
            first_two = start[:2] if len(start) > 1 else next(iter(known), np.zeros(2))
            centres.append(start + np.diff(first_two) / 2)
    return np.concatenate(centres).astype(np.float32)


def _timelines(table: pa.Table, rows: list[dict[str, Any]], params: TensorParams) -> list[Timeline]:
    """Return the steps of every utterance's text; segments where it has none.

    Args:
        table: text features.
        rows: of the manifest, for the same utterances.
        params: where words are aligned with, those of an utterance without word times are
            spread over it by their characters.
    """
    timelines = []
    tokens = table.select(["char_start", "char_end", "special"]).to_pylist()
    for row, token, present in zip(rows, tokens, _has_steps(table), strict=True):
        duration_s = _duration_s(row)
        if not present:
            timelines.append(segment_timeline(params.segments, duration_s))
            continue
        words = tuple(Word(**word) for word in row["words"] or ())
        if params.align == "words" and not words:
            evenly = spread(row["transcript"], 0.0, duration_s)
            words = place_words(row["transcript"], evenly)
        timeline = token_timeline(
            np.stack([token["char_start"], token["char_end"]], axis=1),
            np.array(token["special"], dtype=bool),
            words=words,
            characters=len(row["transcript"]),
            duration_s=duration_s,
            align=params.align,
        )
        timelines.append(timeline)
    return timelines


def _duration_s(row: dict[str, Any]) -> float:
    """Return how long an utterance lasts; 1 where nothing in its row says it."""
    last_word = max((word["end_s"] for word in row["words"] or []), default=0.0)
    return utterance_duration_s(row) or last_word or 1.0


def _ragged(table: pa.Table, time_s: NDArray[np.float32]) -> ModalityTensors:
    present = _has_steps(table)
    lengths = [
        len(d) if p else 0 for d, p in zip(table["detected"].to_pylist(), present, strict=True)
    ]
    values = _flat(table, "values", np.float32)
    detected = _flat(table, "detected", np.bool_)
    values[~detected] = 0
    return ModalityTensors(
        values=values,
        detected=detected,
        time_s=time_s,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


def summarise_features(
    manifest: pa.Table,
    features: dict[str, pa.Table],
    splits: dict[str, SplitTensors],
    params: TensorParams,
) -> dict[str, Any]:
    """Return what was extracted and what is naturally missing, per modality and with reasons.

    Of sound with MFCC also the share of each clip's steps that are silent: 80 dB below its loudest
    in all bands, or without any signal. Of text also how many transcripts were cut to the
    encoder's length, and the share of tokens that are not in its vocabulary; under alignment also
    `aligned_by`, how many utterances were aligned by the times of their words, by words spread
    over them, and in equal segments.

    Args:
        manifest: the corpus's utterances.
        features: the stored features of each modality.
        splits: the tensors made of them.
        params: how.
    """
    summary: dict[str, Any] = {}
    for modality, table in features.items():
        reasons = Counter(reason for reason in table["reason"].to_pylist() if reason)
        if params.align != "none":
            without = sum(
                int((np.diff(s.modalities[modality].offsets) == 0).sum()) for s in splits.values()
            )
            if lost := without - reasons.total():
                reasons["outside_words"] = lost
        detected = [np.mean(d) for d in table["detected"].to_pylist() if d]
        summary[modality] = {
            "clips": len(table),
            "missing": dict(sorted(reasons.items())),
            "steps": sum(len(d) for d in table["detected"].to_pylist() if d),
            "detected_share": quantiles(detected),
        }
    silent = _silent_shares(features["acoustic"])
    if silent is not None:
        summary["acoustic"]["silent_share"] = quantiles(silent)
    rows = {row["utterance_id"]: row for row in manifest.to_pylist()}
    text = features["text"]
    present = text.filter(pa.array(_has_steps(text)))
    unknown_id = description_of(text)["identity"]["unknown_id"]
    ids = _flat(text, "input_ids", np.int32)[~_flat(text, "special", np.bool_)]
    summary["text"] |= {
        "truncated": sum(
            _is_cut(rows[utterance_id]["transcript"], max(ends, default=0))
            for utterance_id, ends in zip(
                present["utterance_id"].to_pylist(), present["char_end"].to_pylist(), strict=True
            )
        ),
        "unknown_tokens": float(np.mean(ids == unknown_id)) if len(ids) else None,
    }
    if params.align != "none":
        with_text = set(present["utterance_id"].to_pylist())
        by = Counter(_aligned_by(row, u in with_text, params) for u, row in rows.items())
        summary["aligned_by"] = {how: by[how] for how in ("words", "characters", "segments")}
    return summary


def _silent_shares(acoustic: pa.Table) -> list[np.floating[Any]] | None:
    """Return the share of silent steps of each clip with sound; None: features without MFCC.

    `mitfrnet.features.acoustic` floors all bands 80 dB below the clip's peak. Where all lie at
    the floor they are equal, and equal bands have no coefficient but the first.
    """
    names = description_of(acoustic)["feature_names"]
    mfcc = [i for i, name in enumerate(names) if name.startswith("mfcc_") and name != "mfcc_00"]
    if not mfcc:
        return None
    silent = (np.abs(_flat(acoustic, "values", np.float32)[:, mfcc]) < 1e-2).all(axis=1)
    lengths = [len(d) for d in acoustic.filter(pa.array(_has_steps(acoustic)))["detected"]]
    parts = np.split(silent, np.cumsum(lengths)[:-1])
    return [part.mean() for part in parts if len(part)]


def _is_cut(transcript: str, end: int) -> bool:
    """Return whether anything to be read stands behind the last character of the last token.

    Marks and controls do not count: tokenizers drop them.
    """
    return any(unicodedata.category(c)[0] in "LNPS" for c in transcript[end:])


def _aligned_by(row: dict[str, Any], has_text: bool, params: TensorParams) -> str:
    if params.align == "pool" or not has_text:
        return "segments"
    return "words" if row["words"] else "characters"
