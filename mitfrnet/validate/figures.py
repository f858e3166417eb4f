"""What a corpus holds, in numbers."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mitfrnet.corpus.clip_files import ClipFiles
from mitfrnet.corpus.clips import LabelledClip
from mitfrnet.corpus.ingest import ProbedClip
from mitfrnet.corpus.manifest import utterance_duration_s
from mitfrnet.labels import ClassScale, LabelScale, Scale

_MAX_BARS = 11  # of a histogram of scores


def counts(values: Iterable[str | None]) -> dict[str, int]:
    """Return how often each value occurs, the most frequent first, without `None`."""
    count_by_value = Counter(value for value in values if value is not None)
    return dict(sorted(count_by_value.items(), key=lambda pair: (-pair[1], pair[0])))


def duration_s(clip: LabelledClip, file: ProbedClip) -> float:
    """Return `utterance_duration_s` of a clip that is in no manifest yet."""
    return utterance_duration_s(
        {"start_s": clip.start_s, "end_s": clip.end_s, "duration_s": file.probe.duration_s}
    )


def size_of(folder: Path, clips: Iterable[LabelledClip], media_url: str | None = None) -> int:
    """Return the size in bytes of all media; in layout `features`, of its tables."""
    paths = {clip.path for clip in clips if clip.path is not None}
    tables = [] if paths else [path.name for path in folder.glob("*.parquet")]
    files = ClipFiles(folder, media_url)
    return sum(files.size(path) or 0 for path in (*paths, *tables))


def videos_on_two_sides(clips: Iterable[LabelledClip]) -> dict[str, list[LabelledClip]]:
    """Return the clips of each video that has some in more than one split."""
    by_video: dict[str, list[LabelledClip]] = {}
    for clip in clips:
        by_video.setdefault(clip.video_id, []).append(clip)
    return {v: clips for v, clips in by_video.items() if len({c.split for c in clips}) > 1}


def kinds_of(labels: Sequence[float], scale: LabelScale) -> dict[str, int]:
    """Return the number of labels per class, or per side of the neutral point."""
    if isinstance(scale, ClassScale):
        return {name: labels.count(i) for i, name in enumerate(scale.classes)}
    neutral = scale.neutral_point
    return {
        "negative": sum(label < neutral for label in labels),
        "neutral": sum(label == neutral for label in labels),
        "positive": sum(label > neutral for label in labels),
    }


def histogram(labels: Sequence[float], scale: LabelScale) -> dict[str, int]:
    """Return the number of labels per class, or nearest to each of some round values."""
    if isinstance(scale, ClassScale):
        return kinds_of(labels, scale)
    step = _step(scale)
    bars = np.arange(scale.low, scale.high + step / 2, step)
    nearest = np.floor((np.array(labels) - scale.low) / step + 0.5 + 1e-9).astype(int)
    counted = np.bincount(np.minimum(nearest, len(bars) - 1), minlength=len(bars))
    return {f"{bar:g}": int(n) for bar, n in zip(bars.round(9) + 0.0, counted, strict=True)}


def _step(scale: Scale) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that needs at most `_MAX_BARS` bars."""
    least = (scale.high - scale.low) / (_MAX_BARS - 1) * (1 - 1e-9)
    power = 10 ** np.floor(np.log10(least))
    return float(next(n * power for n in (1, 2, 5, 10) if n * power >= least))
