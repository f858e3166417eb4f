"""From a corpus as published to its manifest: read the table, probe the clips, sum up."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator

from mitfrnet import media
from mitfrnet.corpus.layouts import LAYOUTS, LabelledClip
from mitfrnet.corpus.manifest import PROBE_FIELDS, make_manifest, manifest_settings
from mitfrnet.corpus.splits import SplitParams, assign_splits
from mitfrnet.errors import CorpusError
from mitfrnet.files import sha256_of
from mitfrnet.metrics import SCALES, ClassNames, ClassScale, LabelScale, Scale, parse_scale
from mitfrnet.modalities import MODALITIES, SPLITS
from mitfrnet.params import StageParams
from mitfrnet.workers import WorkerFailure, supervised_map


class CorpusParams(StageParams):
    """A block of `corpora`: how one corpus is laid out and labelled.

    Attributes:
        layout: reader of the folder.
        language: of the transcripts, an ISO 639 code.
        task: `regression`: labels are scores; `classification`: they are names of classes.
        scale: of scores: `mosi` ([-3, 3]), `sims` ([-1, 1]), or a scale of its own.
        classes: of class labels: their names; a label is stored as an index into them.
        text_encoder: takes the place of `extract.text.encoder` for this corpus.
    """

    layout: str
    language: str = Field(pattern="^[a-z]{2,3}$")
    task: Literal["regression", "classification"] = "regression"
    scale: Scale | None = Field(default=None, validate_default=True)
    classes: ClassNames | None = Field(default=None, validate_default=True)
    text_encoder: str | None = None

    @field_validator("layout")
    @classmethod
    def _known_layout(cls, name: str) -> str:
        if name not in LAYOUTS:
            raise ValueError(f"unknown layout, expected {', '.join(LAYOUTS)}")
        return name

    @field_validator("scale", mode="before")
    @classmethod
    def _known_scale(cls, scale: Any, info: ValidationInfo) -> Any:
        forms = f"{', '.join(SCALES)}, or low and high with family, or with own cuts"
        _check_presence(scale, info, "regression", f"expected {forms}")
        if isinstance(scale, str):
            if scale not in SCALES:
                raise ValueError(f"unknown scale, expected {forms}")
            return SCALES[scale]
        return scale

    @field_validator("classes")
    @classmethod
    def _known_classes(
        cls, classes: tuple[str, ...] | None, info: ValidationInfo
    ) -> tuple[str, ...] | None:
        _check_presence(classes, info, "classification", "expected the names of the classes")
        return classes

    @property
    def resolved_scale(self) -> LabelScale:
        """Return the bounds and cuts of the labels, or their classes."""
        scale = self.scale if self.classes is None else ClassScale(classes=self.classes)
        assert scale is not None  # checked with the block
        return scale


def _check_presence(value: Any, info: ValidationInfo, task: str, expected: str) -> None:
    """Refuse a key that is absent under its task, or present under the other."""
    asked = info.data.get("task", task)  # an unknown task has its own error
    if value is None and asked == task:
        raise ValueError(f"absent, and required for {task} ({expected})")
    if value is not None and asked != task:
        raise ValueError(f"only for task {task}, and task is {asked}")


class IngestParams(StageParams):
    """Section `ingest`."""

    max_bad_fraction: float = Field(ge=0, le=1)  # more unreadable clips than this stop the stage
    split: SplitParams
    limits: media.MediaLimits


@dataclass(frozen=True)
class ProbedClip:
    """What was found on disk for one labelled clip."""

    digest: str | None
    probe: media.Probe


def read_corpus(folder: Path, corpus: CorpusParams, ingest: IngestParams) -> list[LabelledClip]:
    """Return the labelled clips of `folder`, sorted by utterance id, every one with a split.

    Raises:
        CorpusError: the folder or its table cannot be used, or a split is empty.
    """
    if not folder.is_dir():
        raise CorpusError(f"{folder}: no such folder (expected the corpus, layout {corpus.layout})")
    clips = LAYOUTS[corpus.layout](folder, corpus.resolved_scale)
    clips.sort(key=lambda c: c.utterance_id)
    if all(c.split is None for c in clips):
        splits = assign_splits([c.video_id for c in clips], ingest.split)
        clips = [c.with_split(split) for c, split in zip(clips, splits, strict=True)]
    counts = Counter(c.split for c in clips)
    for split in SPLITS:
        if not counts[split]:
            found = ", ".join(f"{s} {counts[s]}" for s in SPLITS)
            raise CorpusError(
                f"{folder}: split {split!r} is empty (found: {found}; every split needs clips, "
                "and without a mode column at least three videos)"
            )
    return clips


def probe_clips(
    folder: Path,
    clips: Sequence[LabelledClip],
    limits: media.MediaLimits,
    *,
    workers: int,
    timeout_s: float,
) -> Iterable[tuple[LabelledClip, ProbedClip]]:
    """Yield each clip with its digest and what its streams hold, as they are probed."""
    probing = supervised_map(
        partial(_prober, folder, limits), clips, workers=workers, timeout_s=timeout_s
    )
    for clip, result in probing:
        if isinstance(result, WorkerFailure):
            result = ProbedClip(digest=None, probe=media.unusable(result.reason))
        yield clip, result


def _prober(folder: Path, limits: media.MediaLimits) -> "partial[ProbedClip]":
    return partial(_probe_clip, folder, limits)


def _probe_clip(folder: Path, limits: media.MediaLimits, clip: LabelledClip) -> ProbedClip:
    if clip.path is None:
        return ProbedClip(digest=None, probe=media.unusable("no_file"))
    path = folder / clip.path
    try:
        digest = sha256_of(path)
    except OSError:  # of which the probe gives the reason
        digest = None
    return ProbedClip(digest=digest, probe=media.probe(path, limits))


def build_manifest(
    probed: Iterable[tuple[LabelledClip, ProbedClip]], corpus: CorpusParams, ingest: IngestParams
) -> pa.Table:
    """Return the manifest, sorted by utterance id, the corpus's settings in its metadata."""
    rows = []
    for clip, found in sorted(probed, key=lambda pair: pair[0].utterance_id):
        rows.append(
            {
                "utterance_id": clip.utterance_id,
                "video_id": clip.video_id,
                "clip_id": clip.clip_id,
                "split": clip.split,
                "path": clip.path,
                "digest": found.digest,
                "transcript": clip.transcript,
                "label": clip.label,
                **{f"label_{m}": clip.modality_labels.get(m) for m in MODALITIES},
                **{name: getattr(found.probe, name) for name in PROBE_FIELDS},
                "text_reason": None if clip.transcript else "empty_transcript",
                "acoustic_reason": found.probe.audio_reason,
                "visual_reason": found.probe.video_reason,
            }
        )
    settings = {
        "language": corpus.language,
        "scale": corpus.resolved_scale.model_dump(mode="json"),
        "text_encoder": corpus.text_encoder,
        "limits": ingest.limits.model_dump(),
        "max_bad_fraction": ingest.max_bad_fraction,
    }
    return make_manifest(rows, settings)


def check_bad_fraction(manifest: pa.Table, max_bad_fraction: float, folder: Path) -> None:
    """Stop where too many clips have neither usable sound nor a usable picture.

    Raises:
        CorpusError: lists those clips with their reasons.
    """
    columns = ["utterance_id", "path", "acoustic_reason", "visual_reason"]
    bad = [
        f"{row['path'] or row['utterance_id']}: {row['visual_reason']}"
        for row in manifest.select(columns).to_pylist()
        if row["visual_reason"] and row["acoustic_reason"]
    ]
    if len(bad) > max_bad_fraction * len(manifest):
        shown = "; ".join(bad[:20]) + (f"; and {len(bad) - 20} more" if len(bad) > 20 else "")
        raise CorpusError(
            f"{folder}: {len(bad)} of {len(manifest)} clips cannot be read, more than "
            f"ingest.max_bad_fraction ({max_bad_fraction:g}): {shown}"
        )


def summarise(manifest: pa.Table) -> dict[str, Any]:
    """Return what `quality.json` holds: counts, hours, and what is naturally missing and why."""
    scale = parse_scale(manifest_settings(manifest)["scale"])
    video_splits = set(zip(*(manifest[c].to_pylist() for c in ("video_id", "split")), strict=True))
    videos = Counter(video for video, _ in video_splits)
    durations = [d for d in manifest["duration_s"].to_pylist() if d is not None]
    return {
        "clips": len(manifest),
        "videos": len(videos),
        "videos_on_two_sides": sum(n > 1 for n in videos.values()),
        "hours": sum(durations) / 3600,
        "splits": {s: manifest["split"].to_pylist().count(s) for s in SPLITS},
        "label": _label_counts(manifest["label"].to_numpy(), scale),
        "naturally_missing": {
            m: dict(sorted(Counter(r for r in manifest[f"{m}_reason"].to_pylist() if r).items()))
            for m in MODALITIES
        },
    }


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
