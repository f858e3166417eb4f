"""Finds what is wrong with a corpus that can be read."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mitfrnet.corpus.clips import LabelledClip
from mitfrnet.corpus.ingest import IngestParams, ProbedClip
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.corpus.transcripts.writing_systems import script_of, scripts_of
from mitfrnet.labels import ClassScale
from mitfrnet.media import decode
from mitfrnet.modalities import SPLITS
from mitfrnet.validate.figures import duration_s, kinds_of, videos_on_two_sides

_SLACK_S = 0.1  # published times are rounded
_MIN_FPS = 5
_SMALL_SPLIT = 0.05
# A larger share of transcripts in another script contradicts the declared language.
_FOREIGN_SHARE = 0.05

# Why a clip or one of its streams is unusable, and what would be right. The names in braces are
# limits and the length of the utterance.
_WORDS = {
    "no_file": "no file (expected video or sound)",
    "unreadable_file": "the system refuses to open it (expected permission to read it)",
    "empty_file": "empty (expected video or sound; copy it again)",
    "not_media": "not a media file, or a broken one (expected one that plays)",
    "unsupported_container": "an unsupported container (expected one of "
    f"{decode.CONTAINERS.replace(',', ', ')})",
    "too_large": "too many bytes (expected at most {max_bytes}, ingest.limits.max_bytes)",
    "too_long": "lasts {seconds:.6g} s (expected at most {max_duration_s:g}, "
    "ingest.limits.max_duration_s)",
    "too_many_streams": "too many streams (expected at most {max_streams}, "
    "ingest.limits.max_streams)",
    "frame_too_large": "too many pixels (expected at most {max_pixels}, ingest.limits.max_pixels)",
    "segment_outside": "nothing between its start and its end (expected times within the video)",
    "undecodable_audio": "its sound cannot be decoded (expected one that plays)",
    "undecodable_video": "its picture cannot be decoded (expected one that plays)",
    "worker_crashed": "the decoder crashed on it (expected one that plays)",
    "timed_out": "the decoder took too long (expected less than run.timeout_seconds)",
    "out_of_memory": "reading it takes too much memory (expected at most {max_memory_mb} MB, "
    "ingest.limits.max_memory_mb)",
    "no_audio_stream": "no sound (its acoustic features will be missing)",
    "no_video_stream": "no picture (its visual features will be missing)",
    "cover_art_only": "no picture except cover art (its visual features will be missing)",
}

# Kinds of warnings, the worst first.
KINDS = (
    *_WORDS,
    "no_duration",
    "beyond_the_end",
    "words_beyond_the_end",
    "low_frame_rate",
    "duplicate_media",
    "two_sides",
    "language",
    "one_label",
    "one_class",
    "unequal_splits",
    "reading",
    "no_letters",
    "no_transcript",
)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        level: `error`: the pipeline would stop; `warning`: it would not.
        kind: kind of problem, e.g. `no_audio_stream`.
        line: where it is, what is there, and what would be right.
    """

    level: Literal["error", "warning"]
    kind: str
    line: str


def worst_first(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return errors before warnings, and one problem of each kind before a second of any."""
    nth: Counter[tuple[str, str]] = Counter()
    ranked = []
    for problem in problems:
        alike = (problem.level, problem.kind)
        rank = KINDS.index(problem.kind) if problem.level == "warning" else 0
        ranked.append((problem.level == "warning", nth[alike], rank, problem))
        nth[alike] += 1
    return tuple(problem for *_, problem in sorted(ranked, key=lambda r: r[:3]))


def check_readable(
    folder: Path, probed: Sequence[tuple[LabelledClip, ProbedClip]], max_bad_fraction: float
) -> Iterator[Problem]:
    """Yield the error that the ingest stage would stop with."""
    bad = sum(not file.probe.usable for _, file in probed)
    if bad > max_bad_fraction * len(probed):
        yield Problem(
            "error",
            "unreadable",
            f"{folder}: {bad} of {len(probed)} clips have neither usable sound nor a usable "
            f"picture (expected at most a share of {max_bad_fraction:g}, ingest.max_bad_fraction)",
        )


def check_clips(
    folder: Path,
    probed: Sequence[tuple[LabelledClip, ProbedClip]],
    corpus: CorpusParams,
    ingest: IngestParams,
) -> Iterator[Problem]:
    """Yield what is wrong with single clips."""
    limits = ingest.limits.model_dump()
    expects_transcripts = corpus.asr is None and any(clip.transcript for clip, _ in probed)
    for clip, file in probed:
        for kind, what in (*_of_media(clip, file, limits), *_of_times(clip, file)):
            yield Problem("warning", kind, f"{_place(corpus.media or folder, clip)}: {what}")
        if clip.transcript and script_of(clip.transcript) is None:
            what = f"transcript {_brief(clip.transcript)} has no letters (expected what is said)"
            yield Problem("warning", "no_letters", f"{clip.where}: {what}")
        elif expects_transcripts and not clip.transcript:
            what = "no transcript (its text features will be missing)"
            yield Problem("warning", "no_transcript", f"{clip.where}: {what}")
    yield from _duplicates(probed)


def _place(folder: Path | str, clip: LabelledClip) -> str:
    """Return the line of a clip in its table, and its file."""
    path = clip.path or (f"{clip.stem}.*" if clip.stem else clip.utterance_id)
    return clip.where if clip.where == f"{folder}/{path}" else f"{clip.where}: {path}"


def _brief(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:39]}…")


def _of_media(
    clip: LabelledClip, file: ProbedClip, limits: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield kind and words of each problem of a file."""
    probe = file.probe
    for reason in dict.fromkeys((probe.audio_reason, probe.video_reason)):
        start, end = clip.start_s or 0.0, probe.duration_s
        if reason == "segment_outside" and start >= end > 0:
            late = f"{start - end:.3g} s beyond the video's {end:.6g} s"
            yield reason, f"starts at {start:g} s, {late} (expected a start within it)"
        elif reason is not None:
            yield reason, _WORDS[reason].format(seconds=duration_s(clip, file), **limits)
    if probe.container and probe.usable and not probe.duration_s:
        yield "no_duration", "lasts 0 s (expected video or sound with time stamps)"
    if probe.fps is not None and probe.fps < _MIN_FPS:
        yield "low_frame_rate", f"{probe.fps:.3g} frames a second (expected at least {_MIN_FPS})"


def _of_times(clip: LabelledClip, file: ProbedClip) -> Iterator[tuple[str, str]]:
    """Yield kind and words of each time beyond the end of the file."""
    start, duration = clip.start_s or 0.0, file.probe.duration_s
    if clip.end_s is not None and start < duration < clip.end_s - _SLACK_S:
        late = f"{clip.end_s - duration:.3g} s beyond the video's {duration:.6g} s"
        yield "beyond_the_end", f"ends at {clip.end_s:g} s, {late} (expected an end within it)"
    length = duration_s(clip, file)
    last = max((word.end_s for word in clip.words or ()), default=0.0)
    if length and last > length + _SLACK_S:
        late = f"{last - length:.3g} s beyond the clip's {length:.6g} s"
        what = f"the last word ends at {last:g} s, {late} (expected an end within it)"
        yield "words_beyond_the_end", what


def _duplicates(probed: Sequence[tuple[LabelledClip, ProbedClip]]) -> Iterator[Problem]:
    """Yield clips that are the same part of the same bytes as an earlier clip."""
    clip_by_content: dict[tuple[str, float | None, float | None], LabelledClip] = {}
    for clip, file in probed:
        if file.digest is None or clip.path is None:
            continue
        first = clip_by_content.setdefault((file.digest, clip.start_s, clip.end_s), clip)
        if first is not clip:
            sides = "" if first.split == clip.split else f", in {first.split} and {clip.split}"
            yield Problem(
                "warning",
                "duplicate_media",
                f"{clip.where}: {clip.utterance_id} has the same media as {first.utterance_id} of "
                f"{first.where}{sides} (expected one of them)",
            )


def check_whole(
    folder: Path, clips: Sequence[LabelledClip], corpus: CorpusParams
) -> Iterator[Problem]:
    """Yield what is wrong with the corpus as a whole."""
    for kind, line in (
        *_of_videos(clips),
        *_of_sizes(folder, clips),
        *_of_languages(clips, corpus.language),
        *_of_labels(folder, clips, corpus),
    ):
        yield Problem("warning", kind, line)


def _of_videos(clips: Sequence[LabelledClip]) -> Iterator[tuple[str, str]]:
    for video, together in videos_on_two_sides(clips).items():
        sides = Counter(clip.split for clip in together)
        counts = " and ".join(f"{sides[split]} in {split}" for split in SPLITS if sides[split])
        yield (
            "two_sides",
            f"{together[0].where}: video {video!r} has {counts} (expected all of a video in one "
            "split, or models are tested on what they have seen)",
        )


def _of_sizes(folder: Path, clips: Sequence[LabelledClip]) -> Iterator[tuple[str, str]]:
    sizes = Counter(clip.split for clip in clips)
    if not all(sizes[split] for split in SPLITS):  # an error of its own, or no labels
        return
    for split in SPLITS:
        if sizes[split] < _SMALL_SPLIT * len(clips):
            share = f"{split} has {sizes[split]} of {len(clips)} clips"
            yield "unequal_splits", f"{folder}: {share} (expected at least {_SMALL_SPLIT:.0%})"
        if sizes[split] > sizes["train"]:
            both = f"{split} has {sizes[split]} clips, and train {sizes['train']}"
            yield "unequal_splits", f"{folder}: {both} (expected most in train)"


def _of_languages(clips: Sequence[LabelledClip], language: str) -> Iterator[tuple[str, str]]:
    """Yield each script that many transcripts have but the declared language does not use."""
    expected = scripts_of(language)
    by_script: dict[str, list[LabelledClip]] = defaultdict(list)
    for clip in clips:
        if script := script_of(clip.transcript):
            by_script[script].append(clip)
    written = sum(map(len, by_script.values()))
    for script, same in by_script.items():
        if expected and script not in expected and len(same) >= _FOREIGN_SHARE * written:
            yield (
                "language",
                f"{same[0].where}: mostly {script} letters, like {len(same)} of {written} "
                f"transcripts (expected {' or '.join(expected)} for `language: {language}` of the "
                "corpus)",
            )


def _of_labels(
    folder: Path, clips: Sequence[LabelledClip], corpus: CorpusParams
) -> Iterator[tuple[str, str]]:
    scale = corpus.resolved_scale
    labels = [clip.label for clip in clips if clip.label is not None]
    if scale is None or not labels:
        return
    if len(set(labels)) == 1:
        label = scale.classes[int(labels[0])] if isinstance(scale, ClassScale) else f"{labels[0]:g}"
        yield "one_label", f"{folder}: every label is {label} (expected several, to learn from)"
        return
    for split in SPLITS:
        own = [clip.label for clip in clips if clip.split == split and clip.label is not None]
        kinds = [kind for kind, n in kinds_of(own, scale).items() if n]
        if len(kinds) == 1:
            yield "one_class", f"{folder}: all of {split} is {kinds[0]} (expected several classes)"
