"""Reports what a corpus holds and what is wrong with it, before extraction."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, median

from mitfrnet.corpus.clips import LabelledClip, Problems
from mitfrnet.corpus.ingest import IngestParams, ProbedClip, probe_clips, read_corpus
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.corpus.transcripts.writing_systems import script_of
from mitfrnet.labels import LabelScale, Scale
from mitfrnet.media import decode
from mitfrnet.modalities import SPLITS
from mitfrnet.validate import figures
from mitfrnet.validate.figures import counts
from mitfrnet.validate.problems import (
    Problem,
    check_clips,
    check_readable,
    check_whole,
    worst_first,
)
from mitfrnet.workers.local import track
from mitfrnet.workers.params import RunParams


@dataclass(frozen=True)
class Split:
    """One split of the corpus.

    Attributes:
        clips, videos: how many.
        mean_label: None for classes, or without labels or clips.
        kinds: number of clips per class, or per side of the neutral point.
    """

    clips: int
    videos: int
    mean_label: float | None
    kinds: dict[str, int]


@dataclass(frozen=True)
class Report:
    """What `mitfrnet validate` reports; `to_json` uses these names as keys.

    Attributes:
        folder: the corpus.
        layout, language, task: from its block.
        probed: whether media were opened; if not, picture and sound are unknown.
        clips, videos: how many.
        hours: length of all utterances together; None if unknown.
        bytes: size of all media; in layout `features`, of its tables.
        pictures: clips per size and frame rate, e.g. `640x480, 25 fps`, the most frequent first.
        sounds: clips per sample rate, e.g. `44100 Hz`.
        transcripts: clips per source of their transcript; `none`: without one.
        transcript_lengths: `min, median, max` in characters; empty without transcripts.
        scripts: transcripts per script of most of their letters, e.g. `Latin`.
        word_times: number of clips with word times.
        labels: clips per class, or per nearest of some round scores, in order.
        splits: each split by name.
        videos_on_two_sides: number of videos with clips in more than one split.
        missing: for each modality, clips per reason why it is missing.
        errors, warnings: how many.
        problems: `level, kind, line` of each, the worst first, one of each kind before a second
            of any.
    """

    folder: str
    layout: str
    language: str
    task: str
    probed: bool
    clips: int
    videos: int
    hours: float | None
    bytes: int
    pictures: dict[str, int]
    sounds: dict[str, int]
    transcripts: dict[str, int]
    transcript_lengths: dict[str, float]
    scripts: dict[str, int]
    word_times: int
    labels: dict[str, int]
    splits: dict[str, Split]
    videos_on_two_sides: int
    missing: dict[str, dict[str, int]]
    errors: int = field(init=False)
    warnings: int = field(init=False)
    problems: tuple[Problem, ...]

    def __post_init__(self) -> None:
        levels = [problem.level for problem in self.problems]
        object.__setattr__(self, "errors", levels.count("error"))
        object.__setattr__(self, "warnings", levels.count("warning"))


def check_corpus(
    folder: Path, corpus: CorpusParams, ingest: IngestParams, run: RunParams | None
) -> Report:
    """Return what `folder` holds and what is wrong with it.

    Args:
        folder: the corpus.
        corpus: its block.
        ingest: limits, the share of unreadable clips, and how to split a corpus without splits.
        run: workers that probe clips; None: no media are opened.
    """
    reading = Problems()
    clips: list[LabelledClip] = []
    with reading.collecting():
        clips = read_corpus(folder, corpus, ingest, reading)
    clips.sort(key=_line)
    probed = _probe(folder, clips, corpus, ingest, run)
    problems = [
        *check_readable(folder, probed, ingest.max_bad_fraction),
        *(Problem("error", "reading", line) for line in reading.errors),
        *(Problem("warning", "reading", line) for line in reading.warnings),
        *check_clips(folder, probed, corpus, ingest),
        *check_whole(folder, clips, corpus),
    ]
    probes = [file.probe for _, file in probed]
    seconds = sum(figures.duration_s(clip, file) for clip, file in probed)
    lengths = [len(clip.transcript) for clip in clips if clip.transcript]
    scale = corpus.resolved_scale
    return Report(
        folder=str(folder),
        layout=corpus.layout,
        language=corpus.language,
        task=corpus.task,
        probed=run is not None,
        clips=len(clips),
        videos=len({clip.video_id for clip in clips}),
        hours=seconds / 3600 if seconds else None,
        bytes=figures.size_of(folder, clips, corpus.media),
        pictures=counts(f"{p.width}x{p.height}, {p.fps or 0:.4g} fps" for p in probes if p.width),
        sounds=counts(f"{p.audio_sample_rate_hz} Hz" for p in probes if p.audio_sample_rate_hz),
        transcripts=counts(clip.transcript_source or "none" for clip in clips),
        transcript_lengths=_spread(lengths),
        scripts=counts(script_of(clip.transcript) for clip in clips),
        word_times=sum(clip.words is not None for clip in clips),
        labels={} if scale is None else figures.histogram(_labels(clips), scale),
        splits={split: _split([c for c in clips if c.split == split], scale) for split in SPLITS},
        videos_on_two_sides=len(figures.videos_on_two_sides(clips)),
        missing={
            "text": counts("no_transcript" for clip in clips if not clip.transcript),
            "acoustic": counts(p.audio_reason for p in probes),
            "visual": counts(p.video_reason for p in probes),
        },
        problems=worst_first(problems),
    )


def to_json(report: Report) -> str:
    """Return the report as a JSON object with the attributes of `Report` as keys."""
    return json.dumps(asdict(report), indent=2, allow_nan=False)


def _probe(
    folder: Path,
    clips: Sequence[LabelledClip],
    corpus: CorpusParams,
    ingest: IngestParams,
    run: RunParams | None,
) -> list[tuple[LabelledClip, ProbedClip]]:
    """Return each clip with what its file holds, in order."""
    if run is None:
        absent, unknown = decode.unusable("no_file"), decode.unprobed()
        return [
            (clip, ProbedClip(None, unknown if clip.path or clip.digest else absent))
            for clip in clips
        ]
    probing = probe_clips(folder, clips, ingest.limits, run, media_url=corpus.media)
    results = track(probing, total=len(clips), size=lambda _: 1, description="probe")
    return sorted(results, key=lambda pair: _line(pair[0]))


def _line(clip: LabelledClip) -> tuple[str, int, str]:
    """Return a key that sorts clips in the order of their tables."""
    file, _, line = clip.where.rpartition(":")
    return (file, int(line), "") if line.isdecimal() else (clip.where, 0, clip.utterance_id)


def _labels(clips: Sequence[LabelledClip]) -> list[float]:
    return [clip.label for clip in clips if clip.label is not None]


def _spread(lengths: Sequence[int]) -> dict[str, float]:
    if not lengths:
        return {}
    return {"min": min(lengths), "median": median(lengths), "max": max(lengths)}


def _split(clips: Sequence[LabelledClip], scale: LabelScale | None) -> Split:
    labels = _labels(clips)
    return Split(
        clips=len(clips),
        videos=len({clip.video_id for clip in clips}),
        mean_label=mean(labels) if labels and isinstance(scale, Scale) else None,
        kinds={} if scale is None else figures.kinds_of(labels, scale),
    )
