"""Layout `table`: any table of clips, its columns named in `params.yaml`."""

import math
import re
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from mitfrnet.corpus.clip_files import ClipFiles
from mitfrnet.corpus.clips import (
    LabelledClip,
    Problems,
    fill_pattern,
    identifier,
    ids_of_path,
    label_of,
    segment_of,
    split_of,
    stem_of,
)
from mitfrnet.corpus.params import CorpusParams, TableParams
from mitfrnet.corpus.tables import read_table
from mitfrnet.modalities import MODALITIES

_TO_BE_NUMBERED = "0000"


def read_table_layout(folder: Path, corpus: CorpusParams, problems: Problems) -> list[LabelledClip]:
    """Return the rows of the corpus's table.

    Without columns of ids, `ids_of_path` gives the ids. In a table with times, where rows are
    segments of longer files, `video_id` is the whole path without ending, joined by `-`, and
    `clip_id` numbers the rows of a video by their time: `0001`, `0002`, ...

    An empty start or end is that of the file. A row with an empty path has no file. In an
    unlabelled corpus without a column of splits, all clips are in the test split.

    Raises:
        CorpusError: the table cannot be used at all.
    """
    assert corpus.table is not None  # the block is checked
    row_of = _RowReader(folder, corpus, corpus.table)
    rows = read_table(
        row_of.files.table(corpus.table.file),
        problems,
        required=row_of.required_columns,
        ids=row_of.id_columns,
        encoding=corpus.encoding,
    )
    clips = []
    for where, row in rows:
        with problems.collecting():
            clips.append(row_of.read(row, where))
    return _numbered(clips, problems) if row_of.numbers_segments else clips


class _RowReader:
    """Turns rows of a table into clips."""

    def __init__(self, folder: Path, corpus: CorpusParams, table: TableParams) -> None:
        self.files = ClipFiles(folder, corpus.media)
        self._folder = folder
        self._scale = corpus.resolved_scale
        self._pattern = table.path or ""
        self._split_names = {str(split): name for split, name in table.splits.items()}
        self._columns = table.columns
        self._named = {n: c for n, c in table.columns.model_dump().items() if c is not None}
        self._segments = table.columns.start is not None or table.columns.end is not None
        self._split = None if corpus.labelled or table.columns.split else "test"

    @property
    def numbers_segments(self) -> bool:
        """Return whether `clip_id` is the number of a segment."""
        return self._segments and self._columns.clip_id is None

    @property
    def id_columns(self) -> list[str]:
        """Return the columns of ids."""
        ids = (self._columns.video_id, self._columns.clip_id, self._columns.group)
        return [column for column in ids if column is not None]

    @property
    def required_columns(self) -> list[str]:
        """Return the columns that the block names, including those in its path pattern."""
        named = set(re.findall(r"\{([^{}]*)\}", self._pattern)) - set(self._named)
        return sorted({*self._named.values(), *named})

    def read(self, row: dict[str, str], where: str) -> LabelledClip:
        """Return the clip of a row; `_numbered` later gives a segment its `clip_id`.

        Raises:
            CorpusError: a value does not fit its column.
        """
        columns, scale = self._columns, self._scale

        def cell(column: str | None) -> str:
            return row[column].strip() if column else ""

        ids = {
            key: identifier(row[column], column, where)
            for key, column in (("video_id", columns.video_id), ("clip_id", columns.clip_id))
            if column is not None
        }
        path, stem = self._find(row, ids, where)
        video_id, clip_id = self._ids_by_path(stem)
        transcript = cell(columns.text)
        start_s, end_s = segment_of(
            cell(columns.start),
            cell(columns.end),
            (columns.start or "start", columns.end or "end"),
            where,
        )
        label, modality_labels = None, {}
        if scale is not None:
            assert columns.label is not None  # the block is checked
            label = label_of(row[columns.label], columns.label, scale, where)
            by_modality = {m: getattr(columns, f"label_{m}") for m in MODALITIES}
            modality_labels = {
                m: label_of(row[c], c, scale, where) for m, c in by_modality.items() if cell(c)
            }
        return LabelledClip(
            where=where,
            video_id=ids.get("video_id") or identifier(video_id, "path", where),
            clip_id=ids.get("clip_id") or identifier(clip_id, "path", where),
            path=path,
            stem=stem,
            transcript=transcript,
            transcript_source="table" if transcript else None,
            label=label,
            modality_labels=modality_labels,
            split=(
                split_of(row[columns.split], columns.split, where, self._split_names)
                if columns.split
                else self._split
            ),
            group=cell(columns.group) or None,
            start_s=start_s,
            end_s=end_s,
        )

    def _find(
        self, row: dict[str, str], ids: dict[str, str], where: str
    ) -> tuple[str | None, str | None]:
        """Return the path of a row's clip or None, and its path without ending."""
        if self._columns.path is not None:
            path = self.files.inside(row[self._columns.path].strip(), where)
        else:
            named = {name: row[column] for name, column in self._named.items()}
            path = fill_pattern(self._pattern, row | named | ids, "table.path", where)
        if not path:
            return None, None
        if path.endswith(".*"):
            stem = path.removesuffix(".*")
            return self.files.by_stem(stem, where), stem
        return self.files.at(path, where), stem_of(path)

    def _ids_by_path(self, stem: str | None) -> tuple[str, str]:
        """Return the ids that follow from the path; empty without a path."""
        if not stem:
            return "", ""
        if self._segments:
            return stem.replace("/", "-"), _TO_BE_NUMBERED
        return ids_of_path(stem, self._folder)


def _numbered(clips: list[LabelledClip], problems: Problems) -> list[LabelledClip]:
    """Return the clips with those of each video numbered by their time, from 1."""
    by_video: dict[str, list[LabelledClip]] = defaultdict(list)
    for clip in clips:
        by_video[clip.video_id].append(clip)
    numbered = []
    for segments in by_video.values():
        segments.sort(key=_place)
        for before, clip in pairwise(segments):
            if _place(before) == _place(clip):
                problems.errors.append(
                    f"{clip.where}: the same segment as {before.where} (expected each once)"
                )
        numbered += [replace(clip, clip_id=f"{n:04d}") for n, clip in enumerate(segments, start=1)]
    return numbered


def _place(clip: LabelledClip) -> tuple[str, float, float]:
    return clip.stem or "", clip.start_s or 0.0, math.inf if clip.end_s is None else clip.end_s
