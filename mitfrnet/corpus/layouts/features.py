"""Layout `features`: stored features in place of clips, as `mitfrnet import-mmsa` writes them.

`utterances.parquet` has a row per utterance; `<modality>.parquet` holds the features, in the
columns of the extract stage.
"""

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mitfrnet.corpus.clips import LabelledClip, Problems, identifier, score_of, split_of
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.errors import CorpusError
from mitfrnet.files import metadata_of
from mitfrnet.labels import ClassScale, LabelScale
from mitfrnet.modalities import MODALITIES

UTTERANCES_FILE = "utterances.parquet"

UTTERANCES_SCHEMA = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("transcript", pa.string(), nullable=False),
        pa.field("transcript_source", pa.string()),
        pa.field("label", pa.float64(), nullable=False),  # a score, or the index of a class
        *(pa.field(f"label_{m}", pa.float64()) for m in MODALITIES),
        pa.field("digest", pa.string(), nullable=False),  # of everything stored for it
    ]
)


def read_features_layout(
    folder: Path, corpus: CorpusParams, problems: Problems
) -> list[LabelledClip]:
    """Return the rows of `utterances.parquet`.

    Raises:
        CorpusError: the table cannot be used at all.
    """
    scale = corpus.resolved_scale
    assert scale is not None  # the layout has labels
    path = folder / UTTERANCES_FILE
    clips = []
    for number, row in enumerate(_read(path).to_pylist(), start=1):
        where = f"{path}:{number}"
        with problems.collecting():
            labels = {m: row[f"label_{m}"] for m in MODALITIES}
            clips.append(
                LabelledClip(
                    where=where,
                    video_id=identifier(row["video_id"], "video_id", where),
                    clip_id=identifier(row["clip_id"], "clip_id", where),
                    transcript=row["transcript"],
                    transcript_source=row["transcript_source"],
                    label=_label(row["label"], "label", scale, where),
                    modality_labels={
                        m: _label(label, f"label_{m}", scale, where)
                        for m, label in labels.items()
                        if label is not None
                    },
                    split=split_of(row["split"], "split", where),
                    digest=row["digest"],
                )
            )
    if not clips and not problems.errors:
        raise CorpusError(f"{path}: no rows (expected one per utterance)")
    return clips


def stored_descriptions(folder: Path) -> dict[str, dict[str, Any]]:
    """Return `version, feature_names, units, identity` of each modality's features.

    Raises:
        CorpusError: the corpus does not have this layout.
    """
    return metadata_of(_read(folder / UTTERANCES_FILE).schema)["stored"]


def is_features_folder(folder: Path) -> bool:
    """Return whether `folder` is a corpus of this layout and holds nothing else."""
    names = {UTTERANCES_FILE, *(f"{m}.parquet" for m in MODALITIES)}
    try:
        _read(folder / UTTERANCES_FILE)
    except CorpusError:
        return False
    return {path.name for path in folder.iterdir()} <= names


def _read(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
        stored = metadata_of(table.schema)["stored"]
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"{path}: cannot be read ({error}); import the corpus again") from error
    except (KeyError, TypeError, ValueError) as error:
        raise CorpusError(f"{path}: not written by mitfrnet import-mmsa") from error
    if not table.schema.equals(UTTERANCES_SCHEMA, check_metadata=False) or set(stored) != set(
        MODALITIES
    ):
        raise CorpusError(f"{path}: columns differ from this version's; import the corpus again")
    return table


def _label(label: float, column: str, scale: LabelScale, where: str) -> float:
    if not isinstance(scale, ClassScale):
        return score_of(label, column, scale, where)
    if not (math.isfinite(label) and label % 1 == 0 and 0 <= label < len(scale.classes)):
        raise CorpusError(
            f"{where}: {column} is {label:g}, not the index of a class "
            f"(expected 0 to {len(scale.classes) - 1}: {', '.join(scale.classes)})"
        )
    return label
