"""Layout `cmu`: CMU-MOSI and CMU-MOSEI as CMU distributes them.

The corpus folder holds `Raw/` of the archive and, beside it or in `labels/`, the labels:
`CMU_MOSI_Opinion_Labels.csd` or `CMU_MOSEI_Labels.csd`, which are HDF5 files.

Names and groups of the label files, the order of their columns, and the standard folds in
`cmu_folds.json` are from CMU-MultimodalSDK (https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK,
commit 3e27d37). The folders, the form of the transcripts and how labels match them are from other
code that reads the archives. The archives themselves were not available for a check.
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
from mitfrnet.corpus.clips import LabelledClip, Problems, identifier, score_of, stem_of
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
        labels: file of labels.
        group: group of that file that holds the labels.
        columns: columns of the labels, in order.
        full, segmented: folders of whole videos, and of segments `<video>_<n>`.
        transcripts: folder of transcripts, one file per video.
        ending: ending of a transcript.
        timed: whether transcript lines have times that match them to labels; if not, label n
            belongs to line n.
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
    """Return the labelled segments of the videos in the standard folds.

    A segment is cut out of the whole video by its times; without the whole video, the segment's
    own file is used. Its number in the transcript is its `clip_id`. A label without a transcript
    keeps its clip; in MOSEI, where only transcripts have numbers, its times become the `clip_id`.

    Skipped with a warning, as in the SDK: videos in no fold, labels of zero length, and
    transcript lines without a label, which are many in MOSEI. If MOSEI has several labels for
    the same times, the first counts.

    Raises:
        CorpusError: the labels are absent or unusable, or h5py is not installed.
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
    return clips


class _Reader:
    """Turns the labels of videos into clips, and counts what is skipped."""

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
        """Add a warning for each kind of thing that was counted."""
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
            where: place of the video's labels.
        """
        if video_id not in self._split_of:
            self._note("videos are in no standard fold and skipped", where)
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
                self._note("labels have zero length and are skipped", segment)
            elif key in done:
                self._note("labels repeat earlier times and are skipped", segment)
            else:
                if line is None:
                    self._note("labels have no transcript", segment)
                with self._problems.collecting():
                    clips.append(self._clip(video_id, str(number), score, interval, line, segment))
            done.add(key)
        for key, line in lines.items():
            if key not in done:
                self._note("transcript lines have no label and are skipped", line.where)
        return clips

    def _note(self, what: str, where: str) -> None:
        """Count one more of a kind; `report` makes one warning of them."""
        self._noted.setdefault(what, []).append(where)

    def _key(self, number: str, interval: Sequence[float] | None) -> Any:
        """Return the key that matches labels to lines: the times, or the number."""
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
            self._note("labels start before their video; its start is used", where)
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
        """Return the file of a segment or None, and whether to cut it out by its times."""
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
    number, delimiter, text = line.partition("_DELIM_")
    if not (delimiter and number.isdecimal()):
        raise CorpusError(f"{where}: {line[:60]!r} (expected number_DELIM_text)")
    return _Line(where, number, None, text)


def _timed_line(line: str, video_id: str, where: str) -> _Line:
    # Ids and texts may contain the delimiter: cut off the id, and do not split the text.
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
    """Return which of the two corpora this is, and its file of labels.

    Raises:
        CorpusError: there are labels of neither or of both.
    """
    files = ClipFiles(folder)
    places = [(p, f"{at}{p.labels}") for p in _CORPORA for at in ("", "labels/")]
    present = [(p, place) for p, place in places if files.at(place, str(folder)) is not None]
    if len(present) != 1:
        names = ", ".join(place for _, place in present) or "none"
        raise CorpusError(
            f"{folder}: label files: {names} (expected "
            f"{' or '.join(p.labels for p in _CORPORA)}, there or in labels/)"
        )
    ((published, place),) = present
    return published, folder / place


def _split_of(corpus: str) -> dict[str, str]:
    """Return the split of each video of the standard folds."""
    text = (resources("mitfrnet.corpus.layouts") / "cmu_folds.json").read_text("utf-8")
    folds = json.loads(text)[corpus]
    return {video_id: split for split, ids in folds.items() for video_id in ids}
