"""Transcripts and word times beside clips: finds the files of each clip and applies them."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from mitfrnet.corpus.clip_files import ClipFiles, ending_of
from mitfrnet.corpus.clips import LabelledClip, Problems, fill_pattern
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.corpus.transcripts.timed_text import Sidecar, read_sidecar
from mitfrnet.corpus.transcripts.words import TimedWord, join_words, place_words


def complete(
    folder: Path, clips: Sequence[LabelledClip], corpus: CorpusParams, problems: Problems
) -> list[LabelledClip]:
    """Return the clips with transcripts and word times from their sidecars.

    A clip without a transcript takes it from the first kind of file, in the order of `KINDS`,
    that has one. Word times come from the first kind that has them, wherever the transcript is
    from.

    If `corpus.sidecars` names `{clip_id}`, a file belongs to one segment. Otherwise it covers
    the whole video, and a segment takes the words whose middle lies within it; a `.txt` file of
    a whole video gives it nothing.

    Args:
        folder: the corpus.
        clips: from its layout.
        corpus: its block.
        problems: collects unreadable files.

    Raises:
        CorpusError: `corpus.sidecars` names something other than `video_id` and `clip_id`.
    """
    files = _SidecarFiles(folder, corpus, problems)
    return [_completed(clip, files, problems) for clip in clips]


def _completed(clip: LabelledClip, files: "_SidecarFiles", problems: Problems) -> LabelledClip:
    timed: tuple[TimedWord, ...] = ()
    timed_path = ""
    for path in files.of(clip):
        if clip.transcript and (timed or clip.words is not None):
            break
        if clip.transcript and ending_of(path) == ".txt":
            continue
        sidecar = files.read(path, clip)
        if not clip.transcript and sidecar.transcript:
            source = ending_of(path).removeprefix(".")
            clip = replace(clip, transcript=sidecar.transcript, transcript_source=source)
        if not timed and sidecar.words:
            timed, timed_path = sidecar.words, path
    if not (clip.transcript and timed) or clip.words is not None:
        return clip
    words = place_words(clip.transcript, timed)
    if 2 * len(words) < len(timed):
        problems.warnings.append(
            f"{files.folder / timed_path}: {len(words)} of {len(timed)} words are in the "
            f"transcript of {clip.utterance_id} (expected the times of its words)"
        )
    return replace(clip, words=words or None)


class _SidecarFiles:
    """Finds and reads the sidecars of clips."""

    def __init__(self, folder: Path, corpus: CorpusParams, problems: Problems) -> None:
        self.folder = folder
        self._pattern, self._encoding = corpus.sidecars, corpus.encoding
        self._problems = problems
        self._files = ClipFiles(folder)
        # Segments of one video follow each other, so few files are needed at a time.
        self._read = lru_cache(maxsize=64)(self._read_once)

    def of(self, clip: LabelledClip) -> list[str]:
        """Return the sidecars of a clip, relative to the corpus folder, in order of preference.

        Raises:
            CorpusError: the pattern names something that clips do not have.
        """
        stem = clip.stem
        if self._pattern is not None:
            ids = {"video_id": clip.video_id, "clip_id": clip.clip_id}
            stem = fill_pattern(self._pattern, ids, "sidecars", clip.where)
        with self._problems.collecting():
            return [] if stem is None else self._files.sidecars(stem, clip.where)
        return []

    def read(self, path: str, clip: LabelledClip) -> Sidecar:
        """Return what the file at `path` holds for a clip; nothing if it cannot be read."""
        sidecar = self._read(path)
        of_segment = self._pattern is not None and "{clip_id}" in self._pattern
        if of_segment or (clip.start_s is None and clip.end_s is None):
            return sidecar
        return _cut(sidecar, clip.start_s or 0.0, math.inf if clip.end_s is None else clip.end_s)

    def _read_once(self, path: str) -> Sidecar:
        with self._problems.collecting():
            return read_sidecar(self.folder / path, self._encoding)
        return Sidecar("", None)


def _cut(sidecar: Sidecar, start_s: float, end_s: float) -> Sidecar:
    """Return the part of a whole video's file for a segment, times from the segment's start."""
    words = tuple(
        TimedWord(w.text, max(w.start_s, start_s) - start_s, min(w.end_s, end_s) - start_s)
        for w in sidecar.words or ()
        if start_s <= (w.start_s + w.end_s) / 2 < end_s
    )
    return Sidecar(join_words([w.text for w in words]), words)
