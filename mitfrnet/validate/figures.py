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

# Of a histogram of scores, at most.
_BARS = 11


def counts(values: Iterable[str | None]) -> dict[str, int]:
    """Return how often each value occurs, the most frequent first, `None` left out."""
    found = Counter(value for value in values if value is not None)
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


def duration_s(clip: LabelledClip, found: ProbedClip) -> float:
    """Return how long an utterance lasts, in seconds; 0 where nobody knows."""
    return utterance_duration_s(
        {"start_s": clip.start_s, "end_s": clip.end_s, "duration_s": found.probe.duration_s}
    )


def size_of(folder: Path, clips: Iterable[LabelledClip], media_url: str | None = None) -> int:
    """Return the bytes of all media, or of the tables that stand in place of them."""
    paths = {clip.path for clip in clips if clip.path is not None}
    tables = [] if paths else [path.name for path in folder.glob("*.parquet")]
    files = ClipFiles(folder, media_url)
    # Of a file that cannot be read the probe gives the reason.
    return sum(files.size(path) or 0 for path in (*paths, *tables))


def videos_on_two_sides(clips: Iterable[LabelledClip]) -> dict[str, list[LabelledClip]]:
    """Return the clips of each video that has some in more than one split."""
    by_video: dict[str, list[LabelledClip]] = {}
    for clip in clips:
        by_video.setdefault(clip.video_id, []).append(clip)
    return {video: of for video, of in by_video.items() if len({c.split for c in of}) > 1}


def kinds_of(labels: Sequence[float], scale: LabelScale) -> dict[str, int]:
    """Return how many labels there are of each class, or on each side of the neutral point."""
    if isinstance(scale, ClassScale):
        return {name: labels.count(i) for i, name in enumerate(scale.classes)}
    neutral = scale.neutral_point
    return {
        "negative": sum(label < neutral for label in labels),
        "neutral": sum(label == neutral for label in labels),
        "positive": sum(label > neutral for label in labels),
    }


def histogram(labels: Sequence[float], scale: LabelScale) -> dict[str, int]:
    """Return how many labels there are of each class, or nearest to each of some round values."""
    if isinstance(scale, ClassScale):
        return kinds_of(labels, scale)
    step = _step(scale)
    bars = np.arange(scale.low, scale.high + step / 2, step)
    nearest = np.floor((np.array(labels) - scale.low) / step + 0.5 + 1e-9).astype(int)
    found = np.bincount(np.minimum(nearest, len(bars) - 1), minlength=len(bars))
    return {f"{bar:g}": int(n) for bar, n in zip(bars.round(9) + 0.0, found, strict=True)}


def _step(scale: Scale) -> float:
    """Return the least of 1, 2, 5 times a power of ten with which there are few enough bars."""
    least = (scale.high - scale.low) / (_BARS - 1) * (1 - 1e-9)
    power = 10 ** np.floor(np.log10(least))
    return float(next(n * power for n in (1, 2, 5, 10) if n * power >= least))
