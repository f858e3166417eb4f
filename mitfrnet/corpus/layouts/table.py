"""Layout `table`: any table of clips, its columns named in `params.yaml`."""

import math
import re
from collections import defaultdict
from dataclasses import replace
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
    unique,
)
from mitfrnet.corpus.params import CorpusParams, TableParams
from mitfrnet.corpus.tables import read_table
from mitfrnet.modalities import MODALITIES

_TO_BE_NUMBERED = "0000"


def read_table_layout(folder: Path, corpus: CorpusParams, problems: Problems) -> list[LabelledClip]:
    """Return the rows of the corpus's table.

    Ids without a column follow from the path, as in `ids_of_path`. In a table with times, where
    rows are segments of longer files, `video_id` is the whole path joined by `-`, without
    ending, and `clip_id` numbers the rows of a `video_id` by their time: `0001`, `0002`, ...

    An empty start or end is that of the file. A row whose path is empty has no file. In an
    unlabelled corpus without a column of splits all clips are in the test split, as nothing can
    be trained.

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
    if row_of.numbers_segments:
        clips = _numbered(clips, problems)
    return unique(clips, problems)


class _RowReader:
    """Makes clips of rows."""

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
        """Return the columns that the block names, those in its path pattern among them."""
        named = set(re.findall(r"\{([^{}]*)\}", self._pattern)) - set(self._named)
        return sorted({*self._named.values(), *named})

    def read(self, row: dict[str, str], where: str) -> LabelledClip:
        """Return the clip of a row; of a segment to be numbered, `clip_id` does not count yet.

        Raises:
            CorpusError: a value is not what its column is for.
        """
        columns = self._columns
        ids = {
            key: identifier(row[column], column, where)
            for key, column in (("video_id", columns.video_id), ("clip_id", columns.clip_id))
            if column is not None
        }
        path, stem = self._find(row, ids, where)
        video_id, clip_id = self._ids_by_path(stem)
        transcript = row[columns.text].strip() if columns.text else ""
        start_s, end_s = segment_of(
            row[columns.start] if columns.start else "",
            row[columns.end] if columns.end else "",
            (columns.start or "start", columns.end or "end"),
            where,
        )
        return LabelledClip(
            where=where,
            video_id=ids.get("video_id") or identifier(video_id, "path", where),
            clip_id=ids.get("clip_id") or identifier(clip_id, "path", where),
            path=path,
            stem=stem,
            transcript=transcript,
            transcript_source="table" if transcript else None,
            label=self._label(row, columns.label, where),
            modality_labels=self._modality_labels(row, where),
            split=(
                split_of(row[columns.split], columns.split, where, self._split_names)
                if columns.split
                else self._split
            ),
            group=(row[columns.group].strip() or None) if columns.group else None,
            start_s=start_s,
            end_s=end_s,
        )

    def _find(
        self, row: dict[str, str], ids: dict[str, str], where: str
    ) -> tuple[str | None, str | None]:
        """Return the file of a row, None if there is none, and its path without ending."""
        if self._columns.path is not None:
            written = self.files.inside(row[self._columns.path].strip(), where)
        else:
            named = {name: row[column] for name, column in self._named.items()}
            written = fill_pattern(self._pattern, row | named | ids, "table.path", where)
        if not written:
            return None, None
        if written.endswith(".*"):
            stem = written.removesuffix(".*")
            return self.files.by_stem(stem, where), stem
        return self.files.at(written, where), stem_of(written)

    def _ids_by_path(self, stem: str | None) -> tuple[str, str]:
        """Return the ids of a row that has none; empty where it has no path either."""
        if not stem:
            return "", ""
        if self._segments:
            return stem.replace("/", "-"), _TO_BE_NUMBERED
        return ids_of_path(stem, self._folder)

    def _label(self, row: dict[str, str], column: str | None, where: str) -> float | None:
        if self._scale is None or column is None:
            return None
        return label_of(row[column], column, self._scale, where)

    def _modality_labels(self, row: dict[str, str], where: str) -> dict[str, float]:
        labels = {}
        for modality in MODALITIES:
            column = getattr(self._columns, f"label_{modality}")
            if column is not None and row[column].strip():
                label = self._label(row, column, where)
                if label is not None:
                    labels[modality] = label
        return labels


def _numbered(clips: list[LabelledClip], problems: Problems) -> list[LabelledClip]:
    """Return the clips of each video numbered by their time, from 1."""
    by_video: dict[str, list[LabelledClip]] = defaultdict(list)
    for clip in clips:
        by_video[clip.video_id].append(clip)
    numbered = []
    for together in by_video.values():
        together.sort(key=_place)
        for number, clip in enumerate(together, start=1):
            before = together[number - 2] if number > 1 else None
            if before is not None and _place(before) == _place(clip):
                problems.errors.append(
                    f"{clip.where}: the same segment as {before.where} (expected each once)"
                )
            numbered.append(replace(clip, clip_id=f"{number:04d}"))
    return numbered


def _place(clip: LabelledClip) -> tuple[str, float, float]:
    return clip.stem or "", clip.start_s or 0.0, math.inf if clip.end_s is None else clip.end_s
