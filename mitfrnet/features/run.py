"""Extract one modality of a corpus: who runs what, resumably.

Only clips whose stored row no longer holds are extracted. A shard is written when its last clip
is done, so a killed run loses at most the shards in hand.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout

from mitfrnet.corpus.manifest import manifest_settings
from mitfrnet.errors import FeatureError, MediaError
from mitfrnet.features.extractor import Clip, Extractor
from mitfrnet.features.store import (
    Row,
    ShardFolder,
    digest_of,
    extractor_digest,
    feature_schema,
    shard_count,
    shard_of,
)
from mitfrnet.media import MediaLimits
from mitfrnet.params import StageParams
from mitfrnet.workers import RunParams, WorkerFailure, supervised_map, track

# Longer than a stage needs to notice that its DVC is gone.
_LOCK_WAIT_S = 10


@dataclass(frozen=True)
class _Wanted:
    """An utterance as the manifest describes it."""

    clip: Clip
    input_digest: str
    reason: str | None


def params_type(modality: str) -> type[StageParams]:
    """Return the type of the section `extract.<modality>`."""
    module = importlib.import_module(f"mitfrnet.features.{modality}")
    return getattr(module, f"{modality.title()}Params")


def build_extractor(modality: str, params: StageParams, settings: dict[str, Any]) -> Extractor:
    """Return the extractor of a modality for one corpus.

    Args:
        modality: which one.
        params: its section of `params.yaml`.
        settings: of the corpus, from its manifest.

    Raises:
        FeatureError: a model it needs is not there.
    """
    module = importlib.import_module(f"mitfrnet.features.{modality}")
    kind = getattr(module, f"{modality.title()}Extractor")
    if modality == "text":
        encoder = settings["text_encoder"]
        return kind(params.model_copy(update={"encoder": encoder}) if encoder else params)
    return kind(params, MediaLimits(**settings["limits"]))


def extract_corpus(
    modality: str,
    manifest: pa.Table,
    raw: Path,
    out: Path,
    params: StageParams,
    run: RunParams,
) -> int:
    """Bring the shards in `out` up to date with the manifest; return how many clips were run.

    Args:
        modality: which one.
        manifest: the corpus's utterances.
        raw: the corpus folder.
        out: the folder of shards; rows in it that still hold are kept.
        params: of the extractor.
        run: workers and timeout.

    Raises:
        FeatureError: another process works on the same folder, or a model is not there.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out.parent / f".{out.name}.lock", timeout=_LOCK_WAIT_S)
    try:
        lock.acquire()
    except Timeout:
        raise FeatureError(f"{out}: another process extracts into it (wait, or end it)") from None
    with lock:
        return _extract_locked(modality, manifest, raw, out, params, run)


def _extract_locked(
    modality: str,
    manifest: pa.Table,
    raw: Path,
    out: Path,
    params: StageParams,
    run: RunParams,
) -> int:
    settings = manifest_settings(manifest)
    extractor = build_extractor(modality, params, settings)
    valid_digest = extractor_digest(extractor)
    shards = shard_count(len(manifest))
    folder = ShardFolder(out, feature_schema(extractor), shards)

    members: dict[int, dict[str, _Wanted]] = {shard: {} for shard in range(shards)}
    for wanted in _wanted(modality, manifest, raw):
        utterance_id = wanted.clip.utterance_id
        members[shard_of(utterance_id, shards)][utterance_id] = wanted

    fresh: dict[int, list[Row]] = {}
    open_clips: dict[int, set[str]] = {}
    batches: list[list[Clip]] = []
    for shard, wanted_here in members.items():
        digests = {u: (w.input_digest, valid_digest) for u, w in wanted_here.items()}
        todo = [wanted_here[u] for u in sorted(folder.outdated(shard, digests))]
        fresh[shard] = [
            Row(w.clip.utterance_id, None, w.reason, w.input_digest, valid_digest)
            for w in todo
            if w.reason
        ]
        clips = [w.clip for w in todo if not w.reason]
        open_clips[shard] = {clip.utterance_id for clip in clips}
        if clips:
            batches.extend(_batches(clips, getattr(extractor, "batch_size", 1)))
        elif not folder.is_current(shard, digests):
            folder.write(shard, digests, fresh.pop(shard))

    results = supervised_map(
        partial(_worker, modality, params, settings),
        batches,
        workers=run.slots,
        timeout_s=run.timeout_seconds,
    )
    clips_todo = sum(map(len, batches))
    failed = 0
    for batch, result in track(
        results, total=clips_todo, size=lambda pair: len(pair[0]), description=f"extract {modality}"
    ):
        for i, clip in enumerate(batch):
            shard = shard_of(clip.utterance_id, shards)
            wanted = members[shard][clip.utterance_id]
            if isinstance(result, WorkerFailure):
                failed += 1
                row = Row(clip.utterance_id, None, result.reason, wanted.input_digest, "")
            else:
                features, reason = result[i]
                row = Row(clip.utterance_id, features, reason, wanted.input_digest, valid_digest)
            fresh[shard].append(row)
            open_clips[shard].discard(clip.utterance_id)
            if not open_clips[shard]:
                digests = {u: (w.input_digest, valid_digest) for u, w in members[shard].items()}
                folder.write(shard, digests, fresh.pop(shard))
    folder.remove_others()
    if failed and failed == clips_todo:
        raise FeatureError(
            f"{modality}: every worker process crashed or ran out of time, on all {failed} clips "
            "(not the clips but the installation is at fault, or run.timeout_seconds too short)"
        )
    return clips_todo


def _wanted(modality: str, manifest: pa.Table, raw: Path) -> Iterator[_Wanted]:
    for row in manifest.to_pylist():
        reason = row[f"{modality}_reason"]
        if modality == "text":
            source = [row["transcript"]]
        else:
            source = [row["digest"], row["start_s"], row["end_s"]]
        yield _Wanted(
            clip=Clip(
                utterance_id=row["utterance_id"],
                path=raw / (row["path"] or ""),
                start_s=row["start_s"],
                end_s=row["end_s"],
                transcript=row["transcript"],
            ),
            input_digest=digest_of([*source, reason]),
            reason=reason,
        )


def _batches(clips: list[Clip], size: int) -> list[list[Clip]]:
    """Return the clips in batches, those of like length together where `size` allows."""
    if size > 1:
        clips = sorted(clips, key=lambda c: (len(c.transcript), c.utterance_id))
    return [clips[i : i + size] for i in range(0, len(clips), size)]


def _worker(
    modality: str, params: StageParams, settings: dict[str, Any]
) -> Callable[[list[Clip]], list[tuple[Any, str | None]]]:
    """Build the extractor in a worker process and return what is applied to each batch."""
    return partial(_extract_batch, build_extractor(modality, params, settings))


def _extract_batch(extractor: Extractor, clips: list[Clip]) -> list[tuple[Any, str | None]]:
    """Return the features and the reason why the modality is missing, for each clip.

    Where no face is ever found there are both: undetected steps, and the reason.
    """
    if hasattr(extractor, "extract_batch"):
        return [(features, None) for features in extractor.extract_batch(clips)]
    results: list[tuple[Any, str | None]] = []
    for clip in clips:
        try:
            features = extractor.extract(clip)
        except MediaError as error:
            results.append((None, str(error)))
        else:
            results.append((features, None if features.detected.any() else "no_face"))
    return results
