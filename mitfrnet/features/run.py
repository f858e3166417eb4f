"""Extract one modality of a corpus: who runs what, resumably.

Only clips whose stored row no longer holds are extracted. A shard is written when its last clip
is done, so a killed run loses at most the shards in hand.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout

from mitfrnet.corpus.manifest import input_digest, manifest_settings
from mitfrnet.errors import FeatureError, MediaError
from mitfrnet.features.extractor import Clip, Extractor, Features
from mitfrnet.features.store import (
    Digests,
    Row,
    ShardFolder,
    extractor_digest,
    feature_schema,
    shard_count,
    shard_of,
)
from mitfrnet.media import MediaLimits
from mitfrnet.params import StageParams
from mitfrnet.workers import RunParams, WorkerFailure, supervised_map, track

# Features, and the reason why the modality is missing; where no face is ever found, both.
Extracted = tuple[Features | None, str | None]

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
    settings = manifest_settings(manifest)
    extractor = build_extractor(modality, params, settings)
    out.mkdir(parents=True, exist_ok=True)
    with _alone_in(out):
        folder = ShardFolder(out, feature_schema(extractor), shard_count(len(manifest)))
        shards = _plan(modality, manifest, raw, folder, extractor_digest(extractor))
        batches: list[list[Clip]] = []
        for shard in shards:
            batches += _batches(shard.clips_to_do, getattr(extractor, "batch_size", 1))
            if not shard.waiting and not folder.is_current(shard.index, shard.digests):
                folder.write(shard.index, shard.digests, shard.fresh)

        results = supervised_map(
            partial(_worker, modality, params, settings),
            batches,
            workers=run.slots,
            timeout_s=run.timeout_seconds,
        )
        total = sum(map(len, batches))
        failed: list[str] = []
        for batch, result in track(
            results, total=total, size=lambda r: len(r[0]), description=f"extract {modality}"
        ):
            shard = shards[shard_of(batch[0].utterance_id, len(shards))]  # the same for all
            shard.add(batch, result)
            if isinstance(result, WorkerFailure):
                failed += [f"{clip.utterance_id}: {result.reason}" for clip in batch]
            if not shard.waiting:
                folder.write(shard.index, shard.digests, shard.fresh)
                shard.fresh.clear()
        folder.remove_others()
    _report_failures(modality, failed, len(manifest), settings["max_bad_fraction"])
    return total


def _report_failures(modality: str, failed: list[str], clips: int, max_bad_fraction: float) -> None:
    """Say which clips cost a worker process, and stop where that is no longer their own fault."""
    if not failed:
        return
    shown = "; ".join(sorted(failed)[:20]) + (f"; and {len(failed) - 20} more" * (len(failed) > 20))
    if len(failed) > max_bad_fraction * clips:
        raise FeatureError(
            f"{modality}: {len(failed)} of {clips} clips crashed their worker process or ran out "
            f"of run.timeout_seconds, more than ingest.max_bad_fraction: {shown}"
        )
    print(f"warning: {modality} is missing, and tried again next time: {shown}", file=sys.stderr)


@dataclass
class _Shard:
    """What one shard shall hold, which rows of it are new, and which are still waited for."""

    index: int
    wanted: dict[str, _Wanted]
    digests: Digests
    fresh: list[Row]
    waiting: set[str]

    @property
    def clips_to_do(self) -> list[Clip]:
        return [self.wanted[utterance_id].clip for utterance_id in sorted(self.waiting)]

    def add(self, batch: list[Clip], result: list[Extracted] | WorkerFailure) -> None:
        """Take in the results of a batch; a failure makes rows that the next run tries again."""
        for i, clip in enumerate(batch):
            input_digest, valid = self.digests[clip.utterance_id]
            if isinstance(result, WorkerFailure):
                row = Row(clip.utterance_id, None, result.reason, input_digest, "")
            else:
                row = Row(clip.utterance_id, *result[i], input_digest, valid)
            self.fresh.append(row)
            self.waiting.discard(clip.utterance_id)


def _plan(
    modality: str, manifest: pa.Table, raw: Path, folder: ShardFolder, valid_digest: str
) -> list[_Shard]:
    """Return all shards, with what each of them lacks."""
    members: list[dict[str, _Wanted]] = [{} for _ in range(shard_count(len(manifest)))]
    for wanted in _wanted(modality, manifest, raw):
        utterance_id = wanted.clip.utterance_id
        members[shard_of(utterance_id, len(members))][utterance_id] = wanted
    shards = []
    for index, here in enumerate(members):
        digests = {u: (w.input_digest, valid_digest) for u, w in here.items()}
        outdated = folder.outdated(index, digests)
        missing = {u for u in outdated if here[u].reason}
        rows = [Row(u, None, here[u].reason, *digests[u]) for u in missing]
        shards.append(_Shard(index, here, digests, rows, outdated - missing))
    return shards


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder of shards; it lies beside it, and goes with its process."""
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        held = lock.acquire(timeout=_LOCK_WAIT_S)
    except Timeout:
        raise FeatureError(f"{folder}: another process extracts into it (wait for it)") from None
    with held:
        yield


def _wanted(modality: str, manifest: pa.Table, raw: Path) -> Iterator[_Wanted]:
    for row in manifest.to_pylist():
        yield _Wanted(
            clip=Clip(
                utterance_id=row["utterance_id"],
                path=raw / (row["path"] or ""),
                start_s=row["start_s"],
                end_s=row["end_s"],
                transcript=row["transcript"],
            ),
            input_digest=input_digest(row, modality),
            reason=row[f"{modality}_reason"],
        )


def _batches(clips: list[Clip], size: int) -> list[list[Clip]]:
    """Return the clips in batches, those of like length together where `size` allows."""
    if size > 1:
        clips = sorted(clips, key=lambda c: (len(c.transcript), c.utterance_id))
    return [clips[i : i + size] for i in range(0, len(clips), size)]


def _worker(
    modality: str, params: StageParams, settings: dict[str, Any]
) -> Callable[[list[Clip]], list[Extracted]]:
    """Build the extractor in a worker process and return what is applied to each batch."""
    return partial(_extract_batch, build_extractor(modality, params, settings))


def _extract_batch(extractor: Extractor, clips: list[Clip]) -> list[Extracted]:
    """Return what each clip has of the modality."""
    if hasattr(extractor, "extract_batch"):
        return [(f, f.reason) for f in extractor.extract_batch(clips)]
    results: list[Extracted] = []
    for clip in clips:
        try:
            features = extractor.extract(clip)
        except MediaError as error:
            results.append((None, str(error)))
        else:
            results.append((features, features.reason))
    return results
