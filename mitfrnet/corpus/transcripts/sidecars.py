"""Transcripts and word times that lie beside clips: which file is whose, and what it says."""

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from mitfrnet.corpus.clip_files import ClipFiles
from mitfrnet.corpus.clips import LabelledClip, Problems, fill_pattern
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.corpus.transcripts.timed_text import KINDS, Sidecar, read_sidecar
from mitfrnet.corpus.transcripts.words import TimedWord, join_words, place_words


def complete(
    folder: Path, clips: Sequence[LabelledClip], corpus: CorpusParams, problems: Problems
) -> list[LabelledClip]:
    """Return the clips with what their sidecars hold.

    The first kind of file, in the order of `KINDS`, that has a transcript gives it to a clip
    without one; the first that has word times gives them, whoever gave the transcript.

    Where a clip is a segment of a longer video, a file is the segment's own if `corpus.sidecars`
    names `{clip_id}`. Else it is about the whole video, and only the words whose middle lies in
    the segment are taken; a `.txt` then says nothing.

    Args:
        folder: of the corpus.
        clips: as its layout gives them.
        corpus: its block.
        problems: takes what is wrong with files.

    Raises:
        CorpusError: `corpus.sidecars` is no pattern of `video_id` and `clip_id`.
    """
    files = _SidecarFiles(folder, corpus, problems)
    return [_completed(clip, files, problems) for clip in clips]


def _completed(clip: LabelledClip, files: "_SidecarFiles", problems: Problems) -> LabelledClip:
    timed: tuple[TimedWord, ...] = ()
    timed_by = ""
    for path in files.beside(clip):
        if clip.transcript and (timed or clip.words is not None):
            break
        if clip.transcript and _ending(path) == ".txt":
            continue
        sidecar = files.read(path, clip)
        if not clip.transcript and sidecar.transcript:
            source = _ending(path).removeprefix(".")
            clip = replace(clip, transcript=sidecar.transcript, transcript_source=source)
        if not timed and sidecar.words:
            timed, timed_by = sidecar.words, path
    if not (clip.transcript and timed) or clip.words is not None:
        return clip
    words = place_words(clip.transcript, timed)
    if 2 * len(words) < len(timed):
        problems.warnings.append(
            f"{files.folder / timed_by}: {len(words)} of {len(timed)} words are in the transcript "
            f"of {clip.utterance_id} (expected times of what is said there)"
        )
    return replace(clip, words=words or None)


class _SidecarFiles:
    """Finds and reads files beside clips, listing each folder once."""

    def __init__(self, folder: Path, corpus: CorpusParams, problems: Problems) -> None:
        self.folder = folder
        self._pattern, self._encoding = corpus.sidecars, corpus.encoding
        self._problems = problems
        self._inside = ClipFiles(folder)
        self._listed: dict[str, dict[str, list[str]]] = {}
        # Segments of one video come one after another, so few files are needed at a time.
        self._read = lru_cache(maxsize=64)(self._read_once)

    def beside(self, clip: LabelledClip) -> list[str]:
        """Return the sidecars of a clip, relative to the corpus folder, the preferred ones first.

        Raises:
            CorpusError: the pattern names what no clip has.
        """
        stem = clip.stem
        if self._pattern is not None:
            ids = {"video_id": clip.video_id, "clip_id": clip.clip_id}
            stem = fill_pattern(self._pattern, ids, "sidecars", clip.where)
        if stem is None:
            return []
        folder, _, name = stem.rpartition("/")
        paths = [f"{folder}/{n}" if folder else n for n in self._in(folder).get(name, [])]
        with self._problems.collecting():
            return [path for path in paths if self._inside.at(path, clip.where) is not None]
        return []

    def read(self, path: str, clip: LabelledClip) -> Sidecar:
        """Return what the file at `path` says of a clip; nothing, if it cannot be read."""
        sidecar = self._read(path)
        of_the_clip = self._pattern is not None and "{clip_id}" in self._pattern
        if of_the_clip or (clip.start_s is None and clip.end_s is None):
            return sidecar
        return _cut(sidecar, clip.start_s or 0.0, math.inf if clip.end_s is None else clip.end_s)

    def _read_once(self, path: str) -> Sidecar:
        with self._problems.collecting():
            return read_sidecar(self.folder / path, self._encoding)
        return Sidecar("", None)

    def _in(self, folder: str) -> dict[str, list[str]]:
        """Return the sidecars in a folder by their names without ending."""
        if folder not in self._listed:
            stems: dict[str, list[str]] = {}
            try:
                names = sorted(os.listdir(self.folder / folder))
            except (OSError, ValueError):  # no folder, so no files
                names = []
            for name in names:
                if _ending(name) in KINDS:
                    stems.setdefault(os.path.splitext(name)[0], []).append(name)
            for found in stems.values():
                found.sort(key=lambda n: KINDS.index(_ending(n)))
            self._listed[folder] = stems
        return self._listed[folder]


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _cut(sidecar: Sidecar, start_s: float, end_s: float) -> Sidecar:
    """Return what a file about a whole video says of a segment, times from the segment's start."""
    words = tuple(
        TimedWord(w.text, max(w.start_s, start_s) - start_s, min(w.end_s, end_s) - start_s)
        for w in sidecar.words or ()
        if start_s <= (w.start_s + w.end_s) / 2 < end_s
    )
    return Sidecar(join_words([w.text for w in words]), words)
