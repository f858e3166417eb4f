"""Join a manifest and the features of three modalities into the tensors of every split."""

import hashlib
import json
import unicodedata
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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
    """Return the tensors of every split; the label of an unlabelled utterance is NaN.

    A naturally missing modality has no steps, even if its clip has a picture without any face.

    Args:
        manifest: the corpus's utterances.
        features: the stored features of each modality.
        params: whether and how acoustic and visual features are aligned with the text.

    Raises:
        FeatureError: an utterance has no features, or they were extracted from other input; or
            `params.align` is `words` and no utterance has word times.
    """
    metadata = _metadata(manifest, features, params)
    all_rows = manifest.to_pylist()
    stored = manifest_settings(manifest).get("stored") is not None
    spoken = [row for row in all_rows if row["transcript"]]
    if params.align == "words" and spoken and not any(row["words"] for row in spoken):
        raise FeatureError(
            "params.yaml: tensors.align is words, but no utterance of the corpus has word times "
            "(put files with word times beside the clips, or set it to pool or none)"
        )
    splits = {}
    for split in SPLITS:
        rows = [row for row in all_rows if row["split"] == split]
        tables = {m: _features_of(rows, features[m], m, stored=stored) for m in MODALITIES}
        text = tables["text"]
        durations_s = [utterance_duration_s(row) or _last_word_s(row) or 1.0 for row in rows]
        timelines = _timelines(text, rows, durations_s, params)
        timed = [t.time_s for t, p in zip(timelines, _has_steps(text), strict=True) if p]
        modalities = {"text": _ragged(text, np.concatenate([np.empty(0, np.float32), *timed]))}
        for modality in _ALIGNED:
            ragged = _ragged(tables[modality], _centres(tables[modality], durations_s))
            modalities[modality] = ragged if params.align == "none" else align(ragged, timelines)
        labels = [np.nan if row["label"] is None else row["label"] for row in rows]
        splits[split] = SplitTensors(
            ids=[row["utterance_id"] for row in rows],
            label=np.array(labels, dtype=np.float32),
            modalities=modalities,
            token_ids=_flat(text, "input_ids", np.int32),
            special=_flat(text, "special", np.bool_),
            metadata=metadata,
        )
    return splits


def _features_of(
    rows: list[dict[str, Any]], features: pa.Table, modality: str, *, stored: bool
) -> pa.Table:
    """Return the features of these rows of the manifest, in their order.

    Raises:
        FeatureError: an utterance has no features, or they were extracted from other input.
    """
    ids = pa.array([row["utterance_id"] for row in rows], pa.string())
    indices = pc.index_in(ids, value_set=features["utterance_id"])
    if indices.null_count:
        absent = ids.filter(indices.is_null())
        others = f" and {len(absent) - 1} more" * (len(absent) > 1)
        raise FeatureError(
            f"{modality} features: no row for {absent[0]}{others} (run the extract stage)"
        )
    table = features.take(indices)
    for row, digest in zip(rows, table["input_digest"].to_pylist(), strict=True):
        if digest != input_digest(row, modality, stored=stored):
            raise FeatureError(
                f"{modality} features: {row['utterance_id']} was extracted from other input than "
                "the manifest's (run the extract stage)"
            )
    return table


def _metadata(
    manifest: pa.Table, features: dict[str, pa.Table], params: TensorParams
) -> dict[str, Any]:
    """Return the description of the tensors.

    An alignment changes acoustic and visual features. So it is part of their identity and digest,
    and a model trained on other features refuses them.
    """
    settings = manifest_settings(manifest)
    metadata = {
        "language": settings["language"],
        "scale": settings["scale"],
        "features": {m: description_of(features[m]) for m in MODALITIES},
    }
    if params.align != "none":
        settings = params.model_dump(mode="json")
        metadata["align"] = params.align
        for modality in _ALIGNED:
            description = metadata["features"][modality]
            description["identity"] = description["identity"] | {"tensors": settings}
            text = json.dumps([description["digest"], settings], sort_keys=True)
            description["digest"] = hashlib.sha256(text.encode()).hexdigest()[:32]
    return metadata


def _has_steps(table: pa.Table) -> NDArray[np.bool_]:
    return np.array([reason is None for reason in table["reason"].to_pylist()], dtype=bool)


def _flat(table: pa.Table, column: str, kind: Any) -> NDArray[Any]:
    """Return the steps of `column` end to end, without utterances that lack the modality."""
    present = table.filter(pa.array(_has_steps(table)))[column].combine_chunks()
    flat = present.flatten()
    if pa.types.is_fixed_size_list(flat.type):
        dim = flat.type.list_size
        return flat.flatten().to_numpy(zero_copy_only=False).astype(kind).reshape(-1, dim)
    return flat.to_numpy(zero_copy_only=False).astype(kind)


def _centres(table: pa.Table, durations_s: list[float]) -> NDArray[np.float32]:
    """Return the centre of every step: half a step after its start, (steps,) in seconds.

    Steps with unknown starts share the utterance equally.

    Args:
        table: acoustic or visual features.
        durations_s: length of each utterance.
    """
    starts = zip(durations_s, table["start_s"].to_pylist(), _has_steps(table), strict=True)
    timed = [(duration, np.asarray(start, np.float64)) for duration, start, has in starts if has]
    first_two = [start[:2] for _, start in timed if len(start) > 1 and not np.isnan(start).any()]
    centres = [np.empty(0)]
    for duration_s, start_s in timed:
        if np.isnan(start_s).any():
            centres.append((np.arange(len(start_s)) + 0.5) / len(start_s) * duration_s)
        else:
            # A single step does not show its own length, so another clip's steps do.
            two = start_s[:2] if len(start_s) > 1 else next(iter(first_two), np.zeros(2))
            centres.append(start_s + np.diff(two) / 2)
    return np.concatenate(centres).astype(np.float32)


def _timelines(
    table: pa.Table, rows: list[dict[str, Any]], durations_s: list[float], params: TensorParams
) -> list[Timeline]:
    """Return the steps of every utterance's text, or segments if it has none.

    Args:
        table: text features.
        rows: of the manifest, for the same utterances.
        durations_s: length of each utterance.
        params: with `align: words`, words without times are spread over the utterance by their
            characters.
    """
    timelines = []
    tokens = table.select(["char_start", "char_end", "special"]).to_pylist()
    present = _has_steps(table)
    for row, duration_s, token, has_text in zip(rows, durations_s, tokens, present, strict=True):
        if not has_text:
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


def _last_word_s(row: dict[str, Any]) -> float:
    """Return the end of the last word; 0 if there are no word times."""
    return max((word["end_s"] for word in row["words"] or ()), default=0.0)


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
    """Return counts of clips and steps, and of naturally missing clips by reason, per modality.

    It also returns:
    - for sound with MFCC, the share of each clip's steps that are silent: 80 dB below its loudest
      in all bands, or without any signal;
    - for text, the number of transcripts that were cut to the encoder's length, and the share of
      tokens that are not in its vocabulary;
    - with an alignment, `aligned_by`: the numbers of utterances aligned by word times, by words
      spread over the utterance, and by equal segments.

    Args:
        manifest: the corpus's utterances.
        features: the stored features of each modality.
        splits: their tensors.
        params: of the tensors.
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
    """Return the share of silent steps of each clip with sound; None if there are no MFCC.

    `mitfrnet.features.acoustic` raises all bands to 80 dB below the clip's peak. If all bands are
    at that floor they are equal, so all coefficients but the first are zero.
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
    """Return whether the transcript goes on after the last token's last character.

    Marks and control characters do not count: tokenizers drop them.
    """
    return any(unicodedata.category(c)[0] in "LNPS" for c in transcript[end:])


def _aligned_by(row: dict[str, Any], has_text: bool, params: TensorParams) -> str:
    if params.align == "pool" or not has_text:
        return "segments"
    return "words" if row["words"] else "characters"
