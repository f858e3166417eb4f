"""From a corpus as published to its manifest: read the table, probe the clips, sum up."""

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

from mitfrnet.corpus.clips import LabelledClip, Problems
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

    max_bad_fraction: float = Field(ge=0, le=1)  # more unreadable clips than this stop the stage
    split: SplitParams
    limits: decode.MediaLimits


@dataclass(frozen=True, slots=True)  # there may be a million
class ProbedClip:
    """What was found on disk for one labelled clip."""

    digest: str | None
    probe: decode.Probe


Probed = tuple[LabelledClip, ProbedClip]


def read_corpus(
    folder: Path, corpus: CorpusParams, ingest: IngestParams, problems: Problems | None = None
) -> list[LabelledClip]:
    """Return the clips of `folder`, sorted by utterance id, every one with a split.

    Transcripts and word times that lie beside the clips are read as well.

    Args:
        folder: the corpus.
        corpus: its block.
        ingest: how it is split where it does not say.
        problems: takes what is wrong, so that all of it can be shown; None: the first error is
            raised.

    Raises:
        CorpusError: the folder or its table cannot be used at all.
        StorageError: nor can the clips' folder in object storage.
    """
    found = Problems() if problems is None else problems
    if not folder.is_dir():
        raise CorpusError(f"{folder}: no such folder (expected the corpus, layout {corpus.layout})")
    if corpus.media is not None:
        RemoteFolder(corpus.media).check()
    clips = LAYOUTS[corpus.layout](folder, corpus, found)
    clips.sort(key=lambda c: c.utterance_id)
    clips = complete(folder, clips, corpus, found)
    if all(c.split is None for c in clips):
        groups = [c.split_group for c in clips]
        splits = assign_splits(groups, [c.label for c in clips], ingest.split)
        for i, split in enumerate(splits):
            clips[i] = clips[i].with_split(split)
    counts = Counter(c.split for c in clips)
    empty = [split for split in SPLITS if not counts[split]]
    if corpus.labelled and empty and not found.errors:
        found.errors.append(
            f"{folder}: split {empty[0]!r} is empty "
            f"(found: {', '.join(f'{s} {counts[s]}' for s in SPLITS)}; every split needs clips, "
            "and where the table names none, at least three videos or groups)"
        )
    if problems is None:
        found.raise_errors(folder)
    return clips


def probe_clips(
    folder: Path,
    clips: Sequence[LabelledClip],
    limits: decode.MediaLimits,
    run: RunParams,
    *,
    media_url: str | None = None,
) -> Iterator[Probed]:
    """Yield each clip with its digest and what its streams hold, as they are probed.

    Clips that are segments of one video are probed together. One that is too large to be fetched
    from object storage has no digest.

    Args:
        folder: the corpus.
        clips: as its layout gives them.
        limits: what a clip may cost.
        run: where and by how many workers; one file may take `timeout_seconds`, half of it to be
            fetched.
        media_url: where clips lie in object storage; None: in `folder`.

    Raises:
        StorageError: the server cannot be reached, or refuses.
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


def _with_shared_names(found: ProbedClip) -> ProbedClip:
    """Return the same with names that all clips share: each comes out of a worker as a copy."""
    shared: dict[str, Any] = {}
    for name in ("video_codec", "audio_codec", "container", "video_reason", "audio_reason"):
        text = getattr(found.probe, name)
        shared[name] = None if text is None else sys.intern(text)
    return replace(found, probe=replace(found.probe, **shared))


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
                if path.is_file():  # reading a pipe would wait for ever
                    digest = sha256_of(path)
            except OSError:  # of which the probe gives the reason
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
    """Return the clips, those with sound and without transcript as the corpus's model hears them.

    Args:
        folder: the corpus.
        probed: clips, and what was found on disk.
        corpus: its block; without `asr`, clips stay as they are.
        limits: what a clip may cost.
        store: a Parquet file in which transcripts are kept from run to run.
        run: workers and timeout.

    Raises:
        CorpusError: the model is not to be had, or does not know the language.
    """
    mute = [
        (clip, found.digest)
        for clip, found in probed
        if not clip.transcript and found.digest and found.probe.audio_reason is None
    ]
    heard = transcribe(
        folder,
        [] if corpus.layout == "features" else mute,
        model=corpus.asr,
        language=corpus.language,
        limits=limits,
        store=store,
        run=run,
        media_url=corpus.media,
    )
    if not heard:
        return list(probed)
    completed = []
    for clip, found in probed:
        said = heard.get(clip.utterance_id)
        if said is not None and said.text:
            clip = clip.with_transcript(said.text, "asr", said.words)
        completed.append((clip, found))
    return completed


def build_manifest(
    probed: Iterable[Probed],
    corpus: CorpusParams,
    ingest: IngestParams,
    stored: dict[str, Any] | None = None,
) -> pa.Table:
    """Return the manifest, sorted by utterance id, the corpus's settings in its metadata.

    Args:
        probed: clips, and what was found on disk.
        corpus: its block.
        ingest: limits and the share of unreadable clips.
        stored: of layout `features`, what describes each modality's.
    """
    left = sorted(probed, key=lambda pair: pair[0].utterance_id, reverse=True)
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
    # Taken off the list, so that of a million clips no more is there twice than need be.
    return make_manifest((_manifest_row(*left.pop()) for _ in range(len(left))), settings)


def _manifest_row(clip: LabelledClip, found: ProbedClip) -> dict[str, Any]:
    return {
        "utterance_id": clip.utterance_id,
        "video_id": clip.video_id,
        "clip_id": clip.clip_id,
        "split": clip.split,
        "path": clip.path,
        "digest": found.digest,
        "start_s": clip.start_s,
        "end_s": clip.end_s,
        "transcript": clip.transcript,
        "transcript_source": clip.transcript_source,
        "words": None if clip.words is None else [asdict(word) for word in clip.words],
        "label": clip.label,
        **{f"label_{m}": clip.modality_labels.get(m) for m in MODALITIES},
        **{name: getattr(found.probe, name) for name in PROBE_FIELDS},
        # Of a stored utterance only its features say it.
        "text_reason": None if clip.transcript or clip.digest else "empty_transcript",
        "acoustic_reason": found.probe.audio_reason,
        "visual_reason": found.probe.video_reason,
    }


def check_bad_fraction(probed: Sequence[Probed], max_bad_fraction: float, folder: Path) -> None:
    """Stop where too many clips have neither usable sound nor a usable picture.

    Raises:
        CorpusError: lists those clips with their reasons.
    """
    lost = [
        (clip, found.probe.video_reason)
        for clip, found in probed
        if found.probe.video_reason and found.probe.audio_reason
    ]
    if len(lost) > max_bad_fraction * len(probed):
        lost.sort(key=lambda pair: pair[0].utterance_id)
        bad = [f"{clip.path or clip.utterance_id}: {reason}" for clip, reason in lost]
        shown = "; ".join(bad[:20]) + (f"; and {len(bad) - 20} more" if len(bad) > 20 else "")
        raise CorpusError(
            f"{folder}: {len(bad)} of {len(probed)} clips cannot be read, more than "
            f"ingest.max_bad_fraction ({max_bad_fraction:g}): {shown}"
        )


def summarise(manifest: pa.Table) -> dict[str, Any]:
    """Return what `quality.json` holds: counts, hours, and what is naturally missing and why."""
    scale = manifest_settings(manifest)["scale"]
    times = manifest_rows(manifest.select(["start_s", "end_s", "duration_s"]))
    seconds = np.fromiter(map(utterance_duration_s, times), float, len(manifest))
    splits = _counts(manifest["split"])
    sides = manifest.group_by("video_id").aggregate([("split", "count_distinct")])
    return {
        "clips": len(manifest),
        "videos": len(sides),
        "videos_on_two_sides": pc.sum(pc.greater(sides["split_count_distinct"], 1)).as_py() or 0,
        "hours": float(seconds.sum()) / 3600,
        "duration_s": quantiles(seconds),
        "splits": {split: splits.get(split, 0) for split in SPLITS},
        "label": scale and _label_counts(manifest["label"].to_numpy(), parse_scale(scale)),
        "transcripts": _counts(manifest["transcript_source"]),
        "with_word_times": len(manifest) - manifest["words"].null_count,
        "naturally_missing": {m: _counts(manifest[f"{m}_reason"]) for m in MODALITIES},
    }


def _counts(values: pa.ChunkedArray) -> dict[str, int]:
    """Return how often each value occurs, null left out."""
    counted = pc.value_counts(values.drop_null()).to_pylist()
    return dict(sorted((pair["values"], pair["counts"]) for pair in counted))


def _label_counts(labels: NDArray[np.float64], scale: LabelScale) -> dict[str, Any]:
    """Return clips per class, or per side of the neutral point with their mean label."""
    if isinstance(scale, ClassScale):
        return {"classes": {c: int((labels == i).sum()) for i, c in enumerate(scale.classes)}}
    neutral = scale.neutral_point
    return {
        "negative": int((labels < neutral).sum()),
        "zero": int((labels == neutral).sum()),
        "positive": int((labels > neutral).sum()),
        "mean": float(labels.mean()),
    }
