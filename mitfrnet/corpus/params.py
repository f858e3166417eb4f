"""The blocks of `corpora` in `params.yaml`: how each corpus is laid out and labelled."""

import io
import re
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from mitfrnet.labels import SCALES, ClassNames, ClassScale, LabelScale, Scale
from mitfrnet.modalities import MODALITIES, SPLITS
from mitfrnet.params import StageParams

# The labels that are published, by layout.
PUBLISHED_LABELS = {
    "cmu": ("sentiment", "happy", "sad", "anger", "surprise", "disgust", "fear"),
    "meld": ("sentiment", "emotion"),
}

# Layouts whose labels are of one kind.
_TASKS = {"media_only": "unlabelled", "cmu": "regression", "meld": "classification"}


class ColumnNames(StageParams):
    """What the columns of a table are called; None: there is no such column.

    Attributes:
        video_id: the recording a clip is from. Without it, the folder that the file lies in.
        clip_id: tells the clips of a video apart. Without it, the name of the file.
        path: of the media file, relative to the corpus folder.
        text: the transcript.
        label: of the whole clip; None in an unlabelled corpus.
        label_text, label_acoustic, label_visual: the same, given to single modalities.
        split: which side a clip is on.
        group: clips of one group stay on one side of a drawn split; `video_id` where absent.
        start, end: the utterance's place in an untrimmed video, in seconds.
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
        columns: their names.
        path: where a clip lies, in place of a column of paths, e.g. `{video_id}/{clip_id}.mp4`;
            any column of the table may stand in braces too, and the ending `.*` is any container.
        splits: what train, valid and test are called in the column of splits, where it is not
            that.
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
            raise ValueError("two splits have the same name, expected three names")
        return named

    @model_validator(mode="after")
    def _finds_clips(self) -> "TableParams":
        if (self.path is None) == (self.columns.path is None):
            raise ValueError(
                "either path (a pattern such as {video_id}/{clip_id}.mp4) or columns.path "
                "(a column that holds it) must be given, and not both"
            )
        return self

    @model_validator(mode="after")
    def _pattern_is_whole(self) -> "TableParams":
        if self.path is not None:
            around = re.sub(r"\{[^{}]+\}", "", self.path)
            if around == self.path or "{" in around or "}" in around:
                raise ValueError("path: expected columns in braces, e.g. {video_id}/{clip_id}.mp4")
        return self


class CorpusParams(StageParams):
    """A block of `corpora`.

    Attributes:
        layout: which reader the folder takes, described in docs/corpora.md.
        language: of the transcripts, an ISO 639 code; picks the text encoder.
        task: `regression`: labels are scores; `classification`: they are names of classes;
            `unlabelled`: there are none, and nothing can be trained.
        scale: of scores: `mosi` ([-3, 3]), `sims` ([-1, 1]), or a scale of its own.
        classes: of class labels: their names; a label is stored as an index into them.
        text_encoder: takes the place of `extract.text.encoders` for this corpus.
        table: of layout `table`: its file and columns.
        label: of layouts `cmu` and `meld`: which of the published labels; of `cmu` the sentiment
            by default.
        encoding: of the table and of transcripts.
        sidecars: where transcripts and word times of a clip lie, as a path without ending, e.g.
            `Alignments/{video_id}/{clip_id}`; None: beside the clip, under its own name.
        asr: a Whisper-type model that transcribes clips without transcript; None: none does.
        media: URL of the folder in object storage in which the clips lie, e.g.
            `s3://bucket/folder`; None: in the corpus folder, as tables and transcripts always do.
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
            raise ValueError(f"not of layout {layout}, expected {only}")
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
            of_modalities = [f"columns.label_{m}" for m in MODALITIES]
            given = [c for c in of_modalities if getattr(table.columns, c.partition(".")[2])]
            if unlabelled and given:
                raise ValueError(f"{given[0]} is given, and task is unlabelled")
            if unlabelled != (table.columns.label is None):
                raise ValueError(
                    "columns.label is "
                    + ("given, and task is unlabelled" if unlabelled else "absent")
                    + " (name the column of labels, or set task: unlabelled)"
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
                    "absent, and required for layout meld, expected sentiment, emotion"
                )
        elif published is None and layout is not None:
            raise ValueError(f"only for layouts cmu and meld, and layout is {layout}")
        elif published is not None and label not in published:
            raise ValueError(f"not published, expected {', '.join(published)}")
        return label

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        try:
            io.TextIOWrapper(io.BytesIO(), encoding=encoding)  # refuses base64 and the like too
        except LookupError:
            raise ValueError("unknown encoding, expected e.g. utf-8, cp1252, gb18030") from None
        return encoding

    @field_validator("media")
    @classmethod
    def _names_a_remote_folder(cls, media: str | None, info: ValidationInfo) -> str | None:
        if media is None:
            return None
        if info.data.get("layout") == "features":
            raise ValueError("layout features has no clips, expected none")
        scheme, found, place = media.partition("://")
        chained = "::" in media  # what fsspec takes for one URL inside another
        if not (found and re.fullmatch("[a-z][a-z0-9+.-]*", scheme) and place) or chained:
            raise ValueError("no URL of a folder, expected e.g. s3://bucket/folder")
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
    """Refuse a value that is absent though `key` is as wanted, or present though it is not."""
    found = info.data.get(key)
    if found is None:  # an error of its own
        return
    if value is None and found == wanted:
        raise ValueError(f"absent, and required for {key} {wanted} ({expected})")
    if value is not None and found != wanted:
        raise ValueError(f"only for {key} {wanted}, and {key} is {found}")
