"""The blocks of `corpora` in `params.yaml`: how each corpus is laid out and labelled."""

import io
import re
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from mitfrnet.labels import SCALES, ClassNames, ClassScale, LabelScale, Scale
from mitfrnet.modalities import MODALITIES, SPLITS
from mitfrnet.params import StageParams

# The published labels by layout.
PUBLISHED_LABELS = {
    "cmu": ("sentiment", "happy", "sad", "anger", "surprise", "disgust", "fear"),
    "meld": ("sentiment", "emotion"),
}

# Layouts that allow one task only.
_TASKS = {"media_only": "unlabelled", "cmu": "regression", "meld": "classification"}


class ColumnNames(StageParams):
    """Names of the columns of a table; None: the table has no such column.

    Attributes:
        video_id: the recording of a clip; None: the file's folder.
        clip_id: tells the clips of a video apart; None: the file's name.
        path: the media file, relative to the corpus folder.
        text: the transcript.
        label: label of the whole clip; None in an unlabelled corpus.
        label_text, label_acoustic, label_visual: labels of single modalities.
        split: the split of a clip.
        group: a drawn split keeps the clips of one group together; None: those of one video.
        start, end: the utterance in an untrimmed video, in seconds.
    """

    video_id: str | None = None
    clip_id: str | None = None
    path: str | None = None
    text: str | None = None
    label: str | None = None
    label_text: str | None = None
    label_acoustic: str | None = None
    label_visual: str | None = None
    split: str | None = None
    group: str | None = None
    start: str | None = None
    end: str | None = None


class TableParams(StageParams):
    """Block `table` of a corpus with layout `table`.

    Attributes:
        file: the table in the corpus folder: CSV, TSV, Parquet or JSON Lines, by its ending.
        columns: names of its columns.
        path: pattern for the path of a clip, instead of a column of paths, e.g.
            `{video_id}/{clip_id}.mp4`; any column may stand in braces, and the ending `.*` stands
            for any container.
        splits: the table's names of train, valid and test, if they differ.
    """

    file: str
    columns: ColumnNames
    path: str | None = None
    splits: dict[Literal["train", "valid", "test"], str] = Field(default={}, validate_default=True)

    @field_validator("splits")
    @classmethod
    def _names_differ(cls, splits: dict[str, str]) -> dict[str, str]:
        named = {split: splits.get(split, split) for split in SPLITS}
        if len(set(named.values())) < len(named):
            raise ValueError("two splits have the same name, expected three different names")
        return named

    @model_validator(mode="after")
    def _finds_clips(self) -> "TableParams":
        if (self.path is None) == (self.columns.path is None):
            raise ValueError(
                "expected either path (a pattern such as {video_id}/{clip_id}.mp4) or columns.path "
                "(the column of paths), and not both"
            )
        return self

    @model_validator(mode="after")
    def _pattern_is_whole(self) -> "TableParams":
        if self.path is not None:
            rest = re.sub(r"\{[^{}]+\}", "", self.path)
            if rest == self.path or "{" in rest or "}" in rest:
                raise ValueError("path: expected columns in braces, e.g. {video_id}/{clip_id}.mp4")
        return self


class CorpusParams(StageParams):
    """A block of `corpora`.

    Attributes:
        layout: how the folder is laid out; docs/corpora.md describes each layout.
        language: of the transcripts, an ISO 639 code; selects the text encoder.
        task: `regression`: labels are scores; `classification`: labels are names of classes;
            `unlabelled`: there are no labels, and nothing can be trained.
        scale: of scores: `mosi` ([-3, 3]), `sims` ([-1, 1]), or its own.
        classes: names of the classes; a label is stored as an index into them.
        text_encoder: replaces `extract.text.encoders` for this corpus.
        table: file and columns of layout `table`.
        label: which published label to use, in layouts `cmu` (default: sentiment) and `meld`.
        encoding: of the table and of transcripts.
        sidecars: where a clip's transcript and word times lie, as a path without ending, e.g.
            `Alignments/{video_id}/{clip_id}`; None: beside the clip, under its name.
        asr: a Whisper-type model that transcribes clips without a transcript; None: none.
        media: URL of the folder in object storage that holds the clips, e.g.
            `s3://bucket/folder`; None: the corpus folder. Tables and transcripts always lie there.
    """

    layout: Literal["mmsa", "table", "cmu", "meld", "media_only", "features"]
    language: str = Field(pattern="^[a-z]{2,3}$")
    task: Literal["regression", "classification", "unlabelled"] = "regression"
    scale: Scale | None = Field(default=None, validate_default=True)
    classes: ClassNames | None = Field(default=None, validate_default=True)
    text_encoder: str | None = None
    table: TableParams | None = Field(default=None, validate_default=True)
    label: str | None = Field(default=None, validate_default=True)
    encoding: str = "utf-8"
    sidecars: str | None = None
    asr: str | None = None
    media: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _task_of_its_layout(cls, block: Any) -> Any:
        if isinstance(block, dict) and (task := _TASKS.get(str(block.get("layout")))):
            return {"task": task} | block
        return block

    @field_validator("task")
    @classmethod
    def _labelled_where_there_are_labels(cls, task: str, info: ValidationInfo) -> str:
        layout = info.data.get("layout")
        only = _TASKS.get(str(layout), task)
        if task != only:
            raise ValueError(f"not possible with layout {layout}, expected {only}")
        if task == "unlabelled" and layout not in {"media_only", "table", None}:
            raise ValueError(f"layout {layout} has labels, expected regression or classification")
        return task

    @field_validator("scale", mode="before")
    @classmethod
    def _known_scale(cls, scale: Any, info: ValidationInfo) -> Any:
        forms = f"{', '.join(SCALES)}, or low and high with family, or with own cuts"
        _check_presence(scale, info, "task", "regression", f"expected {forms}")
        if isinstance(scale, str):
            if scale not in SCALES:
                raise ValueError(f"unknown scale, expected {forms}")
            return SCALES[scale]
        return scale

    @field_validator("classes")
    @classmethod
    def _known_classes(
        cls, classes: tuple[str, ...] | None, info: ValidationInfo
    ) -> tuple[str, ...] | None:
        _check_presence(classes, info, "task", "classification", "expected their names")
        return classes

    @field_validator("table")
    @classmethod
    def _table_of_its_layout(
        cls, table: TableParams | None, info: ValidationInfo
    ) -> TableParams | None:
        _check_presence(table, info, "layout", "table", "expected its file and columns")
        if table is not None and "task" in info.data:
            unlabelled = info.data["task"] == "unlabelled"
            labels = ["label", *(f"label_{m}" for m in MODALITIES)]
            named = [name for name in labels if getattr(table.columns, name)]
            if unlabelled and named:
                raise ValueError(f"columns.{named[0]} is set, but task is unlabelled")
            if not unlabelled and table.columns.label is None:
                raise ValueError(
                    "columns.label is absent (name the column of labels, or set task: unlabelled)"
                )
        return table

    @field_validator("label")
    @classmethod
    def _label_of_its_layout(cls, label: str | None, info: ValidationInfo) -> str | None:
        layout = info.data.get("layout")
        published = PUBLISHED_LABELS.get(str(layout))
        if label is None:
            if layout == "meld":
                raise ValueError(
                    "absent, but required for layout meld, expected sentiment, emotion"
                )
        elif published is None and layout is not None:
            raise ValueError(f"only for layouts cmu and meld, but layout is {layout}")
        elif published is not None and label not in published:
            raise ValueError(f"not published, expected {', '.join(published)}")
        return label

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        try:
            io.TextIOWrapper(io.BytesIO(), encoding=encoding)  # also refuses base64 and the like
        except LookupError:
            raise ValueError("unknown encoding, expected e.g. utf-8, cp1252, gb18030") from None
        return encoding

    @field_validator("media")
    @classmethod
    def _names_a_remote_folder(cls, media: str | None, info: ValidationInfo) -> str | None:
        if media is None:
            return None
        if info.data.get("layout") == "features":
            raise ValueError("layout features has no clips, expected no media")
        scheme, _, place = media.partition("://")
        chained = "::" in media  # fsspec reads this as one URL inside another
        if not (re.fullmatch("[a-z][a-z0-9+.-]*", scheme) and place) or chained:
            raise ValueError("not the URL of a folder, expected e.g. s3://bucket/folder")
        if scheme in {"file", "local"}:
            raise ValueError(
                "on this machine, expected object storage (raw/<corpus> may be a link to a folder)"
            )
        return media.rstrip("/")

    @property
    def labelled(self) -> bool:
        """Return whether clips have labels."""
        return self.task != "unlabelled"

    @property
    def resolved_scale(self) -> LabelScale | None:
        """Return the bounds and cuts of the labels, or their classes; None without labels."""
        return self.scale if self.classes is None else ClassScale(classes=self.classes)


def _check_presence(value: Any, info: ValidationInfo, key: str, wanted: str, expected: str) -> None:
    """Require a value if `key` has the wanted value, and refuse it otherwise."""
    actual = info.data.get(key)
    if actual is None:  # an error of its own
        return
    if value is None and actual == wanted:
        raise ValueError(f"absent, but required for {key} {wanted} ({expected})")
    if value is not None and actual != wanted:
        raise ValueError(f"only for {key} {wanted}, but {key} is {actual}")
