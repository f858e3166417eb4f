"""Extract one modality of a corpus, shard by shard.

Only clips without a valid stored row are extracted. A shard is written when its last clip is
done, so a killed run loses at most the unfinished shards.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from mitfrnet.corpus.manifest import input_digest, manifest_settings, utterance_duration_s
from mitfrnet.errors import FeatureError, MediaError, ParamsError, printable
from mitfrnet.features.extractor import Clip, Extractor, Features, check_features
from mitfrnet.features.imported import ImportedExtractor
from mitfrnet.features.plugins import (
    PluginExtractor,
    PluginParams,
    extractor_names,
    plugin_params,
)
from mitfrnet.features.shards import (
    Digests,
    FeatureRow,
    ShardFolder,
    extractor_digest,
    feature_schema,
    shard_count,
    shard_of,
)
from mitfrnet.features.text_params import TextParams, encoder_for
from mitfrnet.media.decode import MediaLimits, limit_memory
from mitfrnet.media.storage import ClipStore
from mitfrnet.params import StageParams, parse_params
from mitfrnet.workers.cluster import spread_map
from mitfrnet.workers.local import WorkerFailure, track
from mitfrnet.workers.params import RunParams

# Features, and the reason why the modality is missing; a clip without any face has both.
Extracted = tuple[Features | None, str | None]

# Longer than an orphaned stage needs to notice that its DVC is gone.
_LOCK_WAIT_S = 10


def extractor_params(modality: str, section: Any, *, where: str) -> StageParams:
    """Return the settings of a section `extract.<modality>`.

    Args:
        modality: which one.
        section: settings one by one. Except for text, it may also be the name of a recipe or of
            an installed extractor, or such an extractor's settings with its name as `extractor`.
        where: start of an error message.

    Raises:
        ParamsError: a setting is wrong, or the name is unknown.
        FeatureError: an installed extractor cannot be loaded.
    """
    if modality == "text":  # models encode text themselves when words are hidden
        return parse_params(TextParams, section, where=where)
    module = importlib.import_module(f"mitfrnet.features.{modality}")
    if isinstance(section, str):
        if section in module.RECIPES:
            return module.RECIPES[section]
        names = extractor_names()
        if section not in names:
            raise ParamsError(
                f"{where}: no recipe or installed extractor is called {section!r} (expected "
                f"{', '.join([*module.RECIPES, *names])}, or settings one by one)"
            )
        section = {"extractor": section}
    if isinstance(section, dict) and "extractor" in section:
        settings = {key: value for key, value in section.items() if key != "extractor"}
        return plugin_params(modality, section["extractor"], settings, where=where)
    return parse_params(getattr(module, f"{modality.title()}Params"), section, where=where)


def build_extractor(modality: str, params: StageParams, settings: dict[str, Any]) -> Extractor:
    """Return the extractor of a modality for one corpus.

    Args:
        modality: which one.
        params: its section of `params.yaml`; ignored for a corpus of imported features.
        settings: of the corpus, from its manifest.

    Raises:
        FeatureError: a model is absent, or an installed extractor cannot be used.
    """
    if settings.get("stored"):
        return ImportedExtractor(modality, settings["stored"][modality])
    if isinstance(params, PluginParams):
        return PluginExtractor(params, MediaLimits(**settings["limits"]))
    module = importlib.import_module(f"mitfrnet.features.{modality}")
    extractor = getattr(module, f"{modality.title()}Extractor")
    if modality == "text":
        assert isinstance(params, TextParams)
        encoder = encoder_for(params, settings["language"], settings["text_encoder"])
        return extractor(params, encoder)
    return extractor(params, MediaLimits(**settings["limits"]))


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
        out: the folder of shards; valid rows in it are kept.
        params: of the extractor.
        run: backend, number of workers, and their timeout.

    Raises:
        FeatureError: another process extracts into the same folder, or a model is absent.
        ClusterError: the cluster in `run` cannot be used.
        CorpusError: a clip in object storage differs from the manifest.
        StorageError: the storage server cannot be reached, or refuses access.
    """
    raw = raw.absolute()  # workers may have another working folder
    settings = manifest_settings(manifest)
    limits = MediaLimits(**settings["limits"])
    store = ClipStore(raw, settings.get("media"), limits.max_bytes, run.timeout_seconds)
    extractor = build_extractor(modality, params, settings)
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        folder = ShardFolder(out, feature_schema(extractor), shard_count(len(manifest)))
        valid_digest = extractor_digest(extractor)
        stored = settings.get("stored") is not None
        shards: dict[int, _Shard] = {}  # the unfinished ones
        batches: list[list[Clip]] = []
        progress = _Progress()
        for index, rows in enumerate(_rows_of_shards(manifest, modality, folder.shards)):
            shard = _Shard(modality, rows, valid_digest, stored=stored)
            if folder.is_current(index, shard.digests):
                continue
            clips = shard.clips_to_do(raw, folder.outdated(index, shard.digests))
            if clips:
                shards[index] = shard
                progress.seconds += sum(shard.seconds.values())
                batches += _batches(clips, getattr(extractor, "batch_size", 1))
            else:
                folder.write(index, shard.digests, shard.fresh)
            del shard.digests  # saves memory; computed again when its first clip is done

        reads_media = modality != "text" or stored
        mapped = spread_map(
            partial(_worker, modality, params, settings, store, extractor.identity),
            batches,
            run,
            files=[batch[0].path for batch in batches] if reads_media else (),
        )
        total = sum(map(len, batches))
        with closing(mapped):  # workers must end before the folder is unlocked
            for batch, result in track(
                mapped,
                total=total,
                size=lambda r: len(r[0]),
                description=f"extract {modality}",
                detail=lambda: str(progress),
            ):
                index = shard_of(batch[0].utterance_id, folder.shards)  # a batch has one shard
                shard = shards[index]
                shard.add(batch, result)
                progress.done += sum(shard.seconds[clip.utterance_id] for clip in batch)
                if isinstance(result, WorkerFailure):
                    progress.failed += [f"{clip.utterance_id}: {result.reason}" for clip in batch]
                if not shard.waiting:
                    folder.write(index, shard.digests, shard.fresh)
                    del shards[index]
        folder.remove_others()
    _report_failures(modality, progress.failed, len(manifest), settings["max_bad_fraction"])
    return total


def _report_failures(modality: str, failed: list[str], clips: int, max_bad_fraction: float) -> None:
    """Warn about the clips that cost a worker process, or raise if there are too many."""
    if not failed:
        return
    shown = "; ".join(sorted(failed)[:20]) + (f"; and {len(failed) - 20} more" * (len(failed) > 20))
    if len(failed) > max_bad_fraction * clips:
        raise FeatureError(
            f"{modality}: {len(failed)} of {clips} clips crashed their worker process, or ran "
            f"out of run.timeout_seconds or memory, more than ingest.max_bad_fraction: {shown}"
        )
    print(
        f"warning: {modality} is missing, and tried again next time: {printable(shown)}",
        file=sys.stderr,
    )


@dataclass
class _Progress:
    """Seconds of the corpus to do and done, and the clips that failed, with reasons."""

    seconds: float = 0.0
    done: float = 0.0
    failed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        hours = f"{self.done / 3600:.2f} of {self.seconds / 3600:.2f} hours"
        return hours + (f", {len(self.failed)} failed" if self.failed else "")


class _Shard:
    """One shard while its clips are extracted.

    Args:
        modality: which one.
        rows: the shard's rows of the manifest.
        valid_digest: of the extractor.
        stored: whether the corpus consists of imported features.

    Attributes:
        fresh: the new rows so far.
        seconds: length of each clip to extract, by utterance id.
        waiting: number of clips that are not done yet.
    """

    def __init__(self, modality: str, rows: pa.Table, valid_digest: str, *, stored: bool) -> None:
        self._modality, self._rows = modality, rows
        self._valid_digest, self._stored = valid_digest, stored
        self.fresh: list[FeatureRow] = []
        self.seconds: dict[str, float] = {}
        self.waiting = 0

    @cached_property
    def digests(self) -> Digests:
        """Return the digests that each utterance's row must have."""
        return {
            row["utterance_id"]: (
                input_digest(row, self._modality, stored=self._stored),
                self._valid_digest,
            )
            for row in self._rows.to_pylist()
        }

    def clips_to_do(self, raw: Path, outdated: set[str]) -> list[Clip]:
        """Return the clips to extract, by utterance id.

        Outdated utterances without this modality get their row at once.

        Args:
            raw: the corpus folder.
            outdated: utterances without a valid row.
        """
        clips = []
        for row in sorted(self._rows.to_pylist(), key=lambda row: row["utterance_id"]):
            utterance_id, reason = row["utterance_id"], row[f"{self._modality}_reason"]
            if utterance_id in outdated and reason:
                self.fresh.append(
                    FeatureRow(utterance_id, None, reason, *self.digests[utterance_id])
                )
            elif utterance_id in outdated:
                self.seconds[utterance_id] = utterance_duration_s(row)
                path = raw / (row["path"] or "")
                times = row["start_s"], row["end_s"]
                clips.append(
                    Clip(utterance_id, path, *times, row["transcript"], digest=row["digest"])
                )
        self.waiting = len(clips)
        return clips

    def add(self, batch: list[Clip], result: list[Extracted] | WorkerFailure) -> None:
        """Add the rows of a batch; the next run tries the rows of a failure again."""
        for i, clip in enumerate(batch):
            input_digest, valid = self.digests[clip.utterance_id]
            if isinstance(result, WorkerFailure):
                row = FeatureRow(clip.utterance_id, None, result.reason, input_digest, "")
            else:
                row = FeatureRow(clip.utterance_id, *result[i], input_digest, valid)
            self.fresh.append(row)
        self.waiting -= len(batch)


def _rows_of_shards(manifest: pa.Table, modality: str, shards: int) -> Iterator[pa.Table]:
    """Yield each shard's rows of the manifest."""
    numbers = [shard_of(utterance_id.as_py(), shards) for utterance_id in manifest["utterance_id"]]
    order = np.argsort(numbers, kind="stable")
    ends = np.searchsorted(np.sort(numbers), np.arange(shards), side="right")
    columns = ["utterance_id", "path", "digest", "start_s", "end_s", "duration_s", "transcript"]
    ordered = manifest.select([*columns, f"{modality}_reason"]).take(order)
    for start, end in pairwise([0, *ends.tolist()]):
        yield ordered.slice(start, end - start)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder of shards by a file beside it; the lock ends with this process."""
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        held = lock.acquire(timeout=_LOCK_WAIT_S)
    except Timeout:
        raise FeatureError(f"{folder}: another process extracts into it (wait for it)") from None
    with held:
        yield


def _batches(clips: list[Clip], size: int) -> list[list[Clip]]:
    """Return the clips in batches; batches of several clips hold texts of similar length."""
    if size > 1:
        clips = sorted(clips, key=lambda c: (len(c.transcript), c.utterance_id))
    return [clips[i : i + size] for i in range(0, len(clips), size)]


def _worker(
    modality: str,
    params: StageParams,
    settings: dict[str, Any],
    store: ClipStore,
    identity: dict[str, Any] | None = None,
) -> Callable[[list[Clip]], list[Extracted]]:
    """Build the extractor in a worker process; return the function that extracts a batch.

    Args:
        modality: which one.
        params: of the extractor.
        settings: of the corpus, from its manifest.
        store: opens clips, here or in object storage.
        identity: of the stage's extractor; None: do not compare.

    Raises:
        FeatureError: the extractor built here has another identity.
    """
    name = params.extractor if isinstance(params, PluginParams) else modality
    # Plugins are not limited: they may load models of any size, perhaps on a GPU.
    if name in ("acoustic", "visual") and not settings.get("stored"):
        limit_memory(MediaLimits(**settings["limits"]))
    extractor = build_extractor(modality, params, settings)
    if identity is not None and extractor.identity != identity:
        differ = [key for key, value in identity.items() if extractor.identity.get(key) != value]
        raise FeatureError(
            f"extractor {name!r} differs from that of the stage in {', '.join(differ)} (expected "
            "the same models and packages on every machine)"
        )
    return partial(_extract_batch, name, extractor, store)


def _extract_batch(
    name: str, extractor: Extractor, store: ClipStore, clips: list[Clip]
) -> list[Extracted]:
    """Return features and reason of each clip; `name` stands for the extractor in errors."""
    if hasattr(extractor, "extract_batch"):
        features = extractor.extract_batch(clips)
        for clip, one in zip(clips, features, strict=True):
            check_features(one, extractor, where=f"{clip.utterance_id}: extractor {name!r}")
        return [(one, one.reason) for one in features]
    results: list[Extracted] = []
    for clip in clips:
        try:
            with store.at_hand(clip.path, clip.digest) as path:
                one = extractor.extract(replace(clip, path=path))
        except MediaError as error:
            results.append((None, str(error)))
        else:
            check_features(one, extractor, where=f"{clip.utterance_id}: extractor {name!r}")
            results.append((one, one.reason))
    return results
