"""Layout `cmu`: CMU-MOSI and CMU-MOSEI as CMU distributes them.

The corpus folder holds `Raw/` of the archive and, beside it or in `labels/`, the labels:
`CMU_MOSI_Opinion_Labels.csd` or `CMU_MOSEI_Labels.csd`, which are HDF5 files.

Taken from CMU-MultimodalSDK (https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK, its commit
3e27d37): the names and groups of the label files, the order of their columns, and the standard
folds in `cmu_folds.json`. Taken from code of others that reads the archives: the folders, the
form of the transcripts, and how labels go with them. The archives themselves were not at hand.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitfrnet.corpus.clip_files import ClipFiles
from mitfrnet.corpus.clips import (
    LabelledClip,
    Problems,
    identifier,
    score_of,
    stem_of,
    unique,
)
from mitfrnet.corpus.params import PUBLISHED_LABELS, CorpusParams
from mitfrnet.corpus.tables import check_file, read_lines
from mitfrnet.errors import CorpusError
from mitfrnet.labels import Scale

_MAX_TRANSCRIPT_BYTES = 16 * 2**20


@dataclass(frozen=True)
class _Published:
    """How one of the two corpora is laid out.

    Attributes:
        folds: its name in `cmu_folds.json`.
        labels: the file of labels.
        group: of that file, in which they are.
        columns: of that file, in order.
        full, segmented: folders of whole videos, and of segments `<video>_<n>`.
        transcripts: folder of transcripts, a file a video.
        ending: of a transcript.
        timed: whether lines of transcripts have times, by which labels are found; else the first
            label is that of segment 1, the next of 2, and so on.
    """

    folds: str
    labels: str
    group: str
    columns: tuple[str, ...]
    full: str
    segmented: str
    transcripts: str
    ending: str
    timed: bool


_CORPORA = (
    _Published(
        folds="mosi",
        labels="CMU_MOSI_Opinion_Labels.csd",
        group="Opinion Segment Labels",
        columns=PUBLISHED_LABELS["cmu"][:1],
        full="Raw/Video/Full",
        segmented="Raw/Video/Segmented",
        transcripts="Raw/Transcript/Segmented",
        ending=".annotprocessed",
        timed=False,
    ),
    _Published(
        folds="mosei",
        labels="CMU_MOSEI_Labels.csd",
        group="All Labels",
        columns=PUBLISHED_LABELS["cmu"],
        full="Raw/Videos/Full/Combined",
        segmented="Raw/Videos/Segmented/Combined",
        transcripts="Raw/Transcript/Segmented/Combined",
        ending=".txt",
        timed=True,
    ),
)


@dataclass(frozen=True)
class _Line:
    """A line of a transcript: the segment's number, its times if the file has them, its text."""

    where: str
    number: str
    interval: tuple[float, float] | None
    text: str


def read_cmu(folder: Path, corpus: CorpusParams, problems: Problems) -> list[LabelledClip]:
    """Return the labelled segments of the videos of the standard folds.

    A segment is cut out of the whole video by its times; where only the segment's own file is
    there, that is taken. The segment's number in the transcript is its `clip_id`; a label
    without transcript keeps its clip, in MOSEI, where only the line has a number, under the name
    of its times. Left out with a warning, as the SDK leaves them out: videos of no fold, labels
    of no length, and lines without label, of which MOSEI has many. Of labels of the same times in
    MOSEI the first is taken.

    Raises:
        CorpusError: the labels are absent or cannot be used at all, or h5py is not installed.
    """
    try:
        from mitfrnet.corpus.layouts.cmu_labels import read_labels
    except ImportError as error:
        raise CorpusError(
            f"{folder}: layout cmu needs h5py (expected: pip install 'mitfrnet[cmu]')"
        ) from error
    published, path = _labels_file(folder)
    label = corpus.label or PUBLISHED_LABELS["cmu"][0]
    if label not in published.columns:
        raise CorpusError(
            f"{path}: no label {label!r} (expected label: {', '.join(published.columns)})"
        )
    column = published.columns.index(label)
    reader = _Reader(folder, published, corpus, problems)
    clips: list[LabelledClip] = []
    for video_id, scores, intervals in read_labels(
        path, published.group, len(published.columns), problems
    ):
        clips += reader.clips_of(video_id, scores[:, column], intervals, f"{path}: {video_id}")
    reader.report(path)
    if not clips and not problems.errors:
        raise CorpusError(f"{path}: no labelled segment (expected videos of the standard folds)")
    return unique(clips, problems)


class _Reader:
    """Makes clips of the labels of videos, and counts what is left out."""

    def __init__(
        self, folder: Path, published: _Published, corpus: CorpusParams, problems: Problems
    ) -> None:
        assert isinstance(corpus.scale, Scale)  # the block is checked
        self._split_of = _split_of(published.folds)
        self._folder, self._published, self._scale = folder, published, corpus.scale
        self._encoding, self._problems = corpus.encoding, problems
        self._files, self._beside = ClipFiles(folder, corpus.media), ClipFiles(folder)
        self._noted: dict[str, list[str]] = {}

    def report(self, path: Path) -> None:
        """Warn of what was counted."""
        for what, places in self._noted.items():
            self._problems.warnings.append(f"{path}: {len(places)} {what} (first: {places[0]})")

    def clips_of(
        self,
        video_id: str,
        scores: NDArray[np.float64],
        intervals: NDArray[np.float64],
        where: str,
    ) -> list[LabelledClip]:
        """Return the segments of a video.

        Args:
            video_id: the video.
            scores: (segments,).
            intervals: starts and ends in seconds, (segments, 2).
            where: the labels of the video.
        """
        if video_id not in self._split_of:
            self._note("videos are of no standard fold and left out", where)
            return []
        lines = {self._key(line.number, line.interval): line for line in self._lines_of(video_id)}
        clips = []
        done = set()
        for number, (score, interval) in enumerate(
            zip(scores.tolist(), intervals.tolist(), strict=True), start=1
        ):
            segment = f"{where}, segment {number}"
            key = self._key(str(number), interval)
            line = lines.get(key)
            if interval[0] == interval[1]:
                self._note("labels are of no length and left out", segment)
            elif key in done:
                self._note("labels are there once more for the same times and left out", segment)
            else:
                if line is None:
                    self._note("labels have no transcript", segment)
                with self._problems.collecting():
                    clips.append(self._clip(video_id, str(number), score, interval, line, segment))
            done.add(key)
        for key, line in lines.items():
            if key not in done:
                self._note("lines of transcripts have no label and are left out", line.where)
        return clips

    def _note(self, what: str, where: str) -> None:
        """Count something that goes into one warning with others of its kind."""
        self._noted.setdefault(what, []).append(where)

    def _key(self, number: str, interval: Sequence[float] | None) -> Any:
        """Return by what labels and lines are matched."""
        if not self._published.timed or interval is None:
            return number.lstrip("0")
        return round(interval[0], 3), round(interval[1], 3)

    def _clip(
        self,
        video_id: str,
        number: str,
        score: float,
        interval: Sequence[float],
        line: _Line | None,
        where: str,
    ) -> LabelledClip:
        start_s, end_s = interval
        if start_s < 0 < end_s:
            self._note("labels start before their video, and are taken from its start", where)
            start_s = 0.0
        if not 0 <= start_s < end_s < math.inf:
            raise CorpusError(
                f"{where}: the times are {start_s:g} and {end_s:g} (expected seconds, the end "
                "after the start)"
            )
        if line is not None:
            clip_id, where = identifier(line.number, "the number", line.where), line.where
        else:
            clip_id = f"{start_s:.3f}-{end_s:.3f}" if self._published.timed else number
        path, whole = self._find(video_id, clip_id, where)
        transcript = line.text.strip() if line is not None else ""
        return LabelledClip(
            where=where,
            video_id=video_id,
            clip_id=clip_id,
            path=path,
            stem=None if path is None else stem_of(path),
            transcript=transcript,
            transcript_source="table" if transcript else None,
            label=score_of(score, "the label", self._scale, where),
            split=self._split_of[video_id],
            start_s=start_s if whole else None,
            end_s=end_s if whole else None,
        )

    def _find(self, video_id: str, clip_id: str, where: str) -> tuple[str | None, bool]:
        """Return the file of a segment, None if there is none, and whether it is a whole video."""
        full = self._files.by_stem(f"{self._published.full}/{video_id}", where)
        if full is not None:
            return full, True
        stem = f"{self._published.segmented}/{video_id}_{clip_id}"
        segment = self._files.by_stem(stem, where)
        return segment, segment is None

    def _lines_of(self, video_id: str) -> list[_Line]:
        """Return the lines of a video's transcript; none if it cannot be read."""
        name = f"{self._published.transcripts}/{video_id}{self._published.ending}"
        with self._problems.collecting():
            if self._beside.at(name, str(self._folder)) is None:
                return []
            path = self._folder / name
            check_file(path, "a transcript", _MAX_TRANSCRIPT_BYTES)
            parse = _timed_line if self._published.timed else _plain_line
            return [
                parse(line.strip(), video_id, f"{path}:{number}")
                for number, line in enumerate(read_lines(path, self._encoding), start=1)
                if line.strip()
            ]
        return []


def _plain_line(line: str, video_id: str, where: str) -> _Line:
    number, found, text = line.partition("_DELIM_")
    if not (found and number.isdecimal()):
        raise CorpusError(f"{where}: {line[:60]!r} (expected number_DELIM_text)")
    return _Line(where, number, None, text)


def _timed_line(line: str, video_id: str, where: str) -> _Line:
    # Ids and texts have underscores too, so the id is cut off and the text left in one piece.
    fields = line.removeprefix(f"{video_id}___").split("___", 3)
    try:
        number, start, end, text = fields
        interval = (float(start), float(end))
    except ValueError:
        raise CorpusError(
            f"{where}: {line[:60]!r} (expected {video_id}___number___start___end___text)"
        ) from None
    return _Line(where, number, interval, text)


def _labels_file(folder: Path) -> tuple[_Published, Path]:
    """Return which corpus it is, and its labels.

    Raises:
        CorpusError: the labels of neither or of both are there.
    """
    files = ClipFiles(folder)
    places = [(p, f"{at}{p.labels}") for p in _CORPORA for at in ("", "labels/")]
    found = [(p, place) for p, place in places if files.at(place, str(folder)) is not None]
    if len(found) != 1:
        names = ", ".join(place for _, place in found) or "none"
        raise CorpusError(
            f"{folder}: label files: {names} (expected "
            f"{' or '.join(p.labels for p in _CORPORA)}, there or in labels/)"
        )
    return found[0][0], folder / found[0][1]


def _split_of(corpus: str) -> dict[str, str]:
    """Return the split of each video of the standard folds."""
    text = (resources("mitfrnet.corpus.layouts") / "cmu_folds.json").read_text("utf-8")
    folds = json.loads(text)[corpus]
    return {video_id: split for split, ids in folds.items() for video_id in ids}
