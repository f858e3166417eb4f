"""Turns a corpus as published into its manifest: read the table, probe the clips, summarise."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from mitfrnet.corpus.clips import LabelledClip, Problems, unique
from mitfrnet.corpus.layouts import LAYOUTS
from mitfrnet.corpus.manifest import (
    PROBE_FIELDS,
    make_manifest,
    manifest_rows,
    manifest_settings,
    quantiles,
    utterance_duration_s,
)
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.corpus.splits import SplitParams, assign_splits
from mitfrnet.corpus.transcripts.asr import transcribe
from mitfrnet.corpus.transcripts.sidecars import complete
from mitfrnet.errors import CorpusError, MediaError
from mitfrnet.files import sha256_of
from mitfrnet.labels import ClassScale, LabelScale, parse_scale
from mitfrnet.media import decode
from mitfrnet.media.storage import ClipStore, RemoteFolder
from mitfrnet.modalities import MODALITIES, SPLITS
from mitfrnet.params import StageParams
from mitfrnet.workers.cluster import spread_map
from mitfrnet.workers.local import WorkerFailure
from mitfrnet.workers.params import RunParams


class IngestParams(StageParams):
    """Section `ingest`."""

    max_bad_fraction: float = Field(ge=0, le=1)  # more unreadable clips stop the stage
    split: SplitParams
    limits: decode.MediaLimits


@dataclass(frozen=True, slots=True)  # there may be a million
class ProbedClip:
    """What the media file of one labelled clip holds."""

    digest: str | None
    probe: decode.Probe


Probed = tuple[LabelledClip, ProbedClip]


def read_corpus(
    folder: Path, corpus: CorpusParams, ingest: IngestParams, problems: Problems | None = None
) -> list[LabelledClip]:
    """Return the clips of `folder`, sorted by utterance id, each with a split.

    Transcripts and word times from sidecars are included.

    Args:
        folder: the corpus.
        corpus: its block.
        ingest: how to split a corpus that names no splits.
        problems: collects everything that is wrong; None: the first error is raised.

    Raises:
        CorpusError: the folder or its table cannot be used at all.
        StorageError: the folder in object storage cannot be used.
    """
    collected = Problems() if problems is None else problems
    if not folder.is_dir():
        raise CorpusError(f"{folder}: no such folder (expected the corpus, layout {corpus.layout})")
    if corpus.media is not None:
        RemoteFolder(corpus.media).check()
    clips = unique(LAYOUTS[corpus.layout](folder, corpus, collected), collected)
    clips.sort(key=lambda c: c.utterance_id)
    clips = complete(folder, clips, corpus, collected)
    if all(c.split is None for c in clips):
        groups = [c.split_group for c in clips]
        splits = assign_splits(groups, [c.label for c in clips], ingest.split)
        for i, split in enumerate(splits):
            clips[i] = replace(clips[i], split=split)
    counts = Counter(c.split for c in clips)
    empty = [split for split in SPLITS if not counts[split]]
    if corpus.labelled and empty and not collected.errors:
        collected.errors.append(
            f"{folder}: split {empty[0]!r} is empty "
            f"(found: {', '.join(f'{s} {counts[s]}' for s in SPLITS)}; every split needs clips; "
            "a table without splits needs at least three videos or groups)"
        )
    if problems is None:
        collected.raise_errors(folder)
    return clips


def probe_clips(
    folder: Path,
    clips: Sequence[LabelledClip],
    limits: decode.MediaLimits,
    run: RunParams,
    *,
    media_url: str | None = None,
) -> Iterator[Probed]:
    """Yield each clip with its digest and its streams, in the order in which probing ends.

    Segments of one video are probed together. A clip too large to fetch from object storage has
    no digest.

    Args:
        folder: the corpus.
        clips: from its layout.
        limits: what a clip may cost.
        run: the workers; one file may take `timeout_seconds`, and fetching it half of that.
        media_url: URL of the clips in object storage; None: they lie in `folder`.

    Raises:
        StorageError: the server cannot be reached, or refuses access.
    """
    folder = folder.absolute()  # workers may run elsewhere
    store = ClipStore(folder, media_url, limits.max_bytes, run.timeout_seconds)
    for clip in clips:
        if clip.digest is not None:
            yield clip, ProbedClip(clip.digest, decode.unprobed())
        elif clip.path is None:
            yield clip, ProbedClip(None, decode.unusable("no_file"))
    on_disk = [clip for clip in clips if clip.digest is None and clip.path is not None]
    on_disk.sort(key=_path)
    by_path = [list(together) for _, together in groupby(on_disk, key=_path)]
    probing = spread_map(
        partial(_prober, store, limits),
        by_path,
        run,
        files=[folder / _path(together[0]) for together in by_path],
    )
    for together, results in probing:
        if isinstance(results, WorkerFailure):
            results = [ProbedClip(None, decode.unusable(results.reason))] * len(together)
        yield from zip(together, map(_with_shared_names, results), strict=True)


def _path(clip: LabelledClip) -> str:
    return clip.path or ""


def _with_shared_names(clip: ProbedClip) -> ProbedClip:
    """Return the clip with one string object per name; workers send a copy for each clip."""
    names = ("video_codec", "audio_codec", "container", "video_reason", "audio_reason")
    texts = {name: getattr(clip.probe, name) for name in names}
    shared: dict[str, Any] = {n: None if t is None else sys.intern(t) for n, t in texts.items()}
    return replace(clip, probe=replace(clip.probe, **shared))


def _prober(store: ClipStore, limits: decode.MediaLimits) -> "partial[list[ProbedClip]]":
    decode.limit_memory(limits)
    return partial(_probe_file, store, limits)


def _probe_file(
    store: ClipStore, limits: decode.MediaLimits, clips: list[LabelledClip]
) -> list[ProbedClip]:
    digest = None
    try:
        with store.at_hand(store.folder / (clips[0].path or "")) as path:
            try:
                if path.is_file():  # reading a pipe would wait forever
                    digest = sha256_of(path)
            except OSError:  # the probe gives the reason
                pass
            probes = decode.probe_segments(path, limits, [(c.start_s, c.end_s) for c in clips])
    except MediaError as error:
        probes = [decode.unusable(str(error))] * len(clips)
    return [ProbedClip(digest, probe) for probe in probes]


def add_transcripts(
    folder: Path,
    probed: Sequence[Probed],
    corpus: CorpusParams,
    limits: decode.MediaLimits,
    *,
    store: Path,
    run: RunParams,
) -> list[Probed]:
    """Return the clips; those that have sound but no transcript are transcribed.

    Args:
        folder: the corpus.
        probed: the probed clips.
        corpus: its block; without `asr`, nothing is transcribed.
        limits: what a clip may cost.
        store: Parquet file that keeps transcripts between runs.
        run: workers and timeout.

    Raises:
        CorpusError: the model cannot be found, or does not know the language.
    """
    untranscribed = [
        (clip, file.digest)
        for clip, file in probed
        if not clip.transcript and file.digest and file.probe.audio_reason is None
    ]
    transcripts = transcribe(
        folder,
        [] if corpus.layout == "features" else untranscribed,
        model=corpus.asr,
        language=corpus.language,
        limits=limits,
        store=store,
        run=run,
        media_url=corpus.media,
    )
    completed = []
    for clip, file in probed:
        asr = transcripts.get(clip.utterance_id)
        if asr is not None and asr.text:
            clip = replace(clip, transcript=asr.text, transcript_source="asr", words=asr.words)
        completed.append((clip, file))
    return completed


def build_manifest(
    probed: Iterable[Probed],
    corpus: CorpusParams,
    ingest: IngestParams,
    stored: dict[str, Any] | None = None,
) -> pa.Table:
    """Return the manifest, sorted by utterance id, with the corpus's settings in its metadata.

    Args:
        probed: the probed clips.
        corpus: its block.
        ingest: limits and the share of unreadable clips.
        stored: description of each modality's features in layout `features`; else None.
    """
    waiting = sorted(probed, key=lambda pair: pair[0].utterance_id, reverse=True)
    scale = corpus.resolved_scale
    settings = {
        "layout": corpus.layout,
        "media": corpus.media,
        "language": corpus.language,
        "scale": None if scale is None else scale.model_dump(mode="json"),
        "text_encoder": corpus.text_encoder,
        "stored": stored,
        "limits": ingest.limits.model_dump(),
        "max_bad_fraction": ingest.max_bad_fraction,
    }
    # Clips leave the list as their rows are made: a million of them fit in memory only once.
    return make_manifest((_manifest_row(*waiting.pop()) for _ in range(len(waiting))), settings)


def _manifest_row(clip: LabelledClip, file: ProbedClip) -> dict[str, Any]:
    return {
        "utterance_id": clip.utterance_id,
        "video_id": clip.video_id,
        "clip_id": clip.clip_id,
        "split": clip.split,
        "path": clip.path,
        "digest": file.digest,
        "start_s": clip.start_s,
        "end_s": clip.end_s,
        "transcript": clip.transcript,
        "transcript_source": clip.transcript_source,
        "words": None if clip.words is None else [asdict(word) for word in clip.words],
        "label": clip.label,
        **{f"label_{m}": clip.modality_labels.get(m) for m in MODALITIES},
        **{name: getattr(file.probe, name) for name in PROBE_FIELDS},
        # A clip with a digest has stored features, which tell whether its text is missing.
        "text_reason": None if clip.transcript or clip.digest else "empty_transcript",
        "acoustic_reason": file.probe.audio_reason,
        "visual_reason": file.probe.video_reason,
    }


def check_bad_fraction(probed: Sequence[Probed], max_bad_fraction: float, folder: Path) -> None:
    """Refuse a corpus in which too many clips have neither usable sound nor a usable picture.

    Raises:
        CorpusError: there are too many; lists them with their reasons.
    """
    bad = [(clip, file.probe.video_reason) for clip, file in probed if not file.probe.usable]
    if len(bad) > max_bad_fraction * len(probed):
        bad.sort(key=lambda pair: pair[0].utterance_id)
        lines = [f"{clip.path or clip.utterance_id}: {reason}" for clip, reason in bad]
        shown = "; ".join(lines[:20]) + (f"; and {len(bad) - 20} more" if len(bad) > 20 else "")
        raise CorpusError(
            f"{folder}: {len(bad)} of {len(probed)} clips cannot be read, more than "
            f"ingest.max_bad_fraction ({max_bad_fraction:g}): {shown}"
        )


def summarise(manifest: pa.Table) -> dict[str, Any]:
    """Return the content of `quality.json`: counts, hours, and why modalities are missing."""
    scale = manifest_settings(manifest)["scale"]
    times = manifest_rows(manifest.select(["start_s", "end_s", "duration_s"]))
    seconds = np.fromiter(map(utterance_duration_s, times), float, len(manifest))
    splits = _counts(manifest["split"])
    videos = manifest.group_by("video_id").aggregate([("split", "count_distinct")])
    return {
        "clips": len(manifest),
        "videos": len(videos),
        "videos_on_two_sides": pc.sum(pc.greater(videos["split_count_distinct"], 1)).as_py() or 0,
        "hours": float(seconds.sum()) / 3600,
        "duration_s": quantiles(seconds),
        "splits": {split: splits.get(split, 0) for split in SPLITS},
        "label": scale and _label_counts(manifest["label"].to_numpy(), parse_scale(scale)),
        "transcripts": _counts(manifest["transcript_source"]),
        "with_word_times": len(manifest) - manifest["words"].null_count,
        "naturally_missing": {m: _counts(manifest[f"{m}_reason"]) for m in MODALITIES},
    }


def _counts(values: pa.ChunkedArray) -> dict[str, int]:
    """Return how often each value occurs, without null."""
    pairs = pc.value_counts(values.drop_null()).to_pylist()
    return dict(sorted((pair["values"], pair["counts"]) for pair in pairs))


def _label_counts(labels: NDArray[np.float64], scale: LabelScale) -> dict[str, Any]:
    """Return clips per class; or, of scores, per side of the neutral point, and the mean."""
    if isinstance(scale, ClassScale):
        return {"classes": {c: int((labels == i).sum()) for i, c in enumerate(scale.classes)}}
    neutral = scale.neutral_point
    return {
        "negative": int((labels < neutral).sum()),
        "zero": int((labels == neutral).sum()),
        "positive": int((labels > neutral).sum()),
        "mean": float(labels.mean()),
    }
