"""From a feature file of MMSA to a corpus folder of layout `features`."""

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mitfrnet.corpus.layouts.features import (
    UTTERANCES_FILE,
    UTTERANCES_SCHEMA,
    is_features_folder,
)
from mitfrnet.errors import FeatureError
from mitfrnet.features.extractor import Features
from mitfrnet.features.imported import ROWS_PER_GROUP, ImportedExtractor
from mitfrnet.features.shards import FeatureRow, extractor_digest, feature_schema, to_table
from mitfrnet.files import sha256_of, with_metadata
from mitfrnet.labels import ClassScale, LabelScale
from mitfrnet.mmsa.reading import NAMES, MmsaFile, MmsaUtterance, ModalitySteps, read
from mitfrnet.mmsa.text import ImportedText, Place, stated_description
from mitfrnet.modalities import MODALITIES, SPLITS
from mitfrnet.workers.local import track

VERSION = "1"
ENCODERS = {"en": "bert-base-uncased", "zh": "bert-base-chinese"}  # that the published files use

_WRITTEN_TOGETHER = 8 * ROWS_PER_GROUP


@dataclass(frozen=True)
class ImportSummary:
    """What an import found and did.

    Attributes:
        folder: the corpus it wrote.
        utterances: per split.
        aligned: whether all modalities have one step per token.
        dims: features per step of each modality.
        block: of `params.yaml`, for `corpora.<name>`.
        text: where the text vectors are from.
        transcripts_differing: utterances whose transcript gives other tokens than are stored.
        missing: utterances without a modality, by reason.
        notes: how many utterances something else was done to.
    """

    folder: Path
    utterances: dict[str, int]
    aligned: bool
    dims: dict[str, int]
    block: dict[str, Any]
    text: str
    transcripts_differing: int
    missing: dict[str, dict[str, int]]
    notes: dict[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return the summary as lines to be shown."""
        total = sum(self.utterances.values())
        splits = ", ".join(f"{split} {n}" for split, n in self.utterances.items())
        dims = ", ".join(f"{m} {n}" for m, n in self.dims.items())
        lines = [
            f"{self.folder}: {total} utterances ({splits})",
            f"features per step: {dims}; modalities {'' if self.aligned else 'not '}aligned",
            f"text vectors: {self.text}",
        ]
        if self.transcripts_differing:
            lines.append(f"{self.transcripts_differing} transcripts give other tokens than stored")
        for modality, reasons in self.missing.items():
            lines += [f"{n} without {modality}: {reason}" for reason, n in reasons.items()]
        lines += [f"{n}: {note}" for note, n in self.notes.items()]
        lines.append("params.yaml, under corpora:")
        block = yaml.safe_dump({self.folder.name: self.block}, sort_keys=False, allow_unicode=True)
        return lines + [f"  {line}" for line in block.splitlines()]


def import_corpus(
    file: Path,
    raw_folder: Path,
    *,
    language: str,
    scale: LabelScale,
    text_encoder: str | None = None,
) -> ImportSummary:
    """Make a corpus of layout `features` from a feature file of MMSA; all of it or nothing.

    Words are hidden before they are encoded, so the encoder must be the one whose vocabulary
    the stored token ids are from; this is checked against the transcripts. The file's text
    vectors are kept if they are what that encoder gives (to 1e-3, on 16 utterances), else all
    are computed. Such files know no seconds: when a step starts is unknown, NaN.

    Args:
        file: as MMSA 2 or MMSA-FET writes it.
        raw_folder: `raw/<corpus>`; an earlier import there is replaced.
        language: of the transcripts.
        scale: of the labels; classes where the file has class labels alone.
        text_encoder: whose vocabulary the token ids are from; None: what the file itself says,
            else `bert-base-uncased` for `en` and `bert-base-chinese` for `zh`.

    Raises:
        FeatureError: the file cannot be used, or `raw_folder` is something else than an import.
    """
    file, raw_folder = Path(file), Path(raw_folder)
    _check_replaceable(raw_folder)
    source = read(file)
    _check_task(source, scale)
    places: list[Place] = [(s, r) for s in SPLITS for r in range(len(source.splits[s]))]
    text = ImportedText(source, _encoder_name(source, language, text_encoder), places)
    descriptions = _descriptions(source, text)
    extractors = {m: ImportedExtractor(m, descriptions[m]) for m in MODALITIES}
    schemas = {m: feature_schema(extractor) for m, extractor in extractors.items()}
    digests = {m: extractor_digest(extractor) for m, extractor in extractors.items()}

    counts = _Counts({m: Counter() for m in MODALITIES}, Counter())
    ordered = sorted(places, key=lambda place: source.splits[place[0]].utterance_id(place[1]))
    chunks = [ordered[i : i + _WRITTEN_TOGETHER] for i in range(0, len(ordered), _WRITTEN_TOGETHER)]
    table: list[dict[str, Any]] = []
    with _replacing_folder(raw_folder) as temporary, ExitStack() as open_files:
        writers = {
            m: open_files.enter_context(
                pq.ParquetWriter(temporary / f"{m}.parquet", schema, compression="zstd")
            )
            for m, schema in schemas.items()
        }
        for chunk in track(chunks, total=len(ordered), size=len, description="import"):
            utterances = [source.splits[split][row] for split, row in chunk]
            vectors = text.vectors(utterances)
            rows: dict[str, list[FeatureRow]] = {m: [] for m in MODALITIES}
            for place, utterance, vector in zip(chunk, utterances, vectors, strict=True):
                found = {
                    "text": text.features(place, utterance, vector),
                    "acoustic": _features(utterance.acoustic),
                    "visual": _features(utterance.visual),
                }
                digest = _digest(found)
                for m, (features, reason) in found.items():
                    rows[m].append(
                        FeatureRow(utterance.utterance_id, features, reason, digest, digests[m])
                    )
                    counts.missing[m].update([reason] if reason else [])
                counts.notes.update([*utterance.notes, *text.notes(utterance)])
                where = f"{file}: {place[0]} row {place[1]} ({utterance.utterance_id})"
                table.append(
                    {
                        "split": place[0],
                        **_labels(utterance, scale, where),
                        **text.transcript(utterance),
                        "digest": digest,
                    }
                )
            for m, writer in writers.items():
                writer.write_table(to_table(rows[m], schemas[m]), row_group_size=ROWS_PER_GROUP)
        _write_utterances(table, descriptions, file, temporary / UTTERANCES_FILE)
    return ImportSummary(
        folder=raw_folder,
        utterances={name: len(split) for name, split in source.splits.items()},
        aligned=source.aligned,
        dims={m: len(extractors[m].feature_names) for m in MODALITIES},
        block=_block(language, scale, text.encoder_name),
        text=text.vectors_from,
        transcripts_differing=text.differing,
        missing={m: dict(sorted(reasons.items())) for m, reasons in counts.missing.items()},
        notes=dict(sorted(counts.notes.items())),
    )


@dataclass(frozen=True)
class _Counts:
    """What is missing, by modality and reason, and what else was done, by note."""

    missing: dict[str, Counter[str]]
    notes: Counter[str]


def _labels(utterance: MmsaUtterance, scale: LabelScale, where: str) -> dict[str, Any]:
    """Return ids and labels of an utterance, as a row of the table has them."""
    return {
        "utterance_id": utterance.utterance_id,
        "video_id": utterance.video_id,
        "clip_id": utterance.clip_id,
        "label": _label(utterance.label, scale, where),
        **{
            f"label_{m}": _label(label, scale, f"{where}: {m}")
            for m, label in utterance.modality_labels.items()
        },
    }


def _write_utterances(
    rows: list[dict[str, Any]], descriptions: Mapping[str, Any], file: Path, path: Path
) -> None:
    metadata = {
        "stored": descriptions,
        "source": {"name": file.name, "sha256": sha256_of(file)},
    }
    schema = with_metadata(UTTERANCES_SCHEMA, metadata)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")


def _check_task(source: MmsaFile, scale: LabelScale) -> None:
    classes = isinstance(scale, ClassScale)
    if classes and source.task == "regression":
        raise FeatureError(f"{source.path}: labels are scores (expected a scale, not classes)")
    if not classes and source.task == "classification":
        raise FeatureError(
            f"{source.path}: no regression_labels, only classes (expected their names)"
        )


def _label(label: float, scale: LabelScale, where: str) -> float:
    """Return a label that lies on the scale, or is the index of a class."""
    if isinstance(scale, ClassScale):
        if label % 1 or not 0 <= label < len(scale.classes):
            raise FeatureError(
                f"{where}: label {label:g} (expected 0 to {len(scale.classes) - 1}, one of "
                f"{', '.join(scale.classes)})"
            )
    elif not scale.low <= label <= scale.high:
        raise FeatureError(
            f"{where}: label {label:g}, out of scale "
            f"(expected a number in [{scale.low:g}, {scale.high:g}])"
        )
    return label


def _block(language: str, scale: LabelScale, encoder: str) -> dict[str, Any]:
    """Return the block of `corpora` that reads what was imported."""
    block: dict[str, Any] = {"layout": "features", "language": language}
    values = scale.model_dump(mode="json")
    if isinstance(scale, ClassScale):
        block |= {"task": "classification", "classes": list(scale.classes)}
    elif values.keys() == {"low", "high", "family"}:
        block["scale"] = scale.family
    else:
        block["scale"] = values
    return block | {"text_encoder": encoder}


def _encoder_name(source: MmsaFile, language: str, asked: str | None) -> str:
    if asked is not None:
        return asked
    try:
        assert source.description is not None
        return str(source.description["features"]["text"]["identity"]["encoder"])
    except (AssertionError, KeyError, TypeError):
        pass
    if language not in ENCODERS:
        raise FeatureError(
            f"{source.path}: no text encoder is known for language {language!r} (name the one "
            "whose vocabulary the file's token ids are from)"
        )
    return ENCODERS[language]


def _descriptions(source: MmsaFile, text: "ImportedText") -> dict[str, dict[str, Any]]:
    """Return what describes each modality's features.

    A file that we wrote says it itself; its features are the same as those it was made from, and
    a model of the one scores the other.
    """
    digest = sha256_of(source.path)
    descriptions = {"text": text.description()}
    for modality, key in NAMES.items():
        dim = source.dims[modality]
        assert dim is not None
        stated = stated_description(source, modality, dim)
        descriptions[modality] = stated or {
            "version": VERSION,
            "feature_names": [f"{key}_{i:03d}" for i in range(dim)],
            "units": ["unknown"] * dim,
            "identity": {"source": digest, "key": key},
        }
    return descriptions


def _features(steps: ModalitySteps) -> tuple[Features | None, str | None]:
    if steps.reason is not None:
        return None, steps.reason
    count = len(steps.detected)
    unknown = np.full(count, np.nan, dtype=np.float32)
    return Features(values=steps.values, detected=steps.detected, start_s=unknown), None


def _digest(found: dict[str, tuple[Features | None, str | None]]) -> str:
    """Return a digest of all that is stored for an utterance."""
    digest = hashlib.sha256()
    for features, reason in found.values():
        digest.update(repr(reason).encode())
        if features is not None:
            for array in (features.values, features.detected, *features.columns.values()):
                digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _check_replaceable(folder: Path) -> None:
    """Refuse to write over anything but an earlier import."""
    if (folder.exists() or folder.is_symlink()) and (
        folder.is_symlink() or not is_features_folder(folder)
    ):
        raise FeatureError(
            f"{folder}: exists, and is no earlier import (choose another name, or move it away)"
        )


@contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder, which takes the place of `folder` when the block ends well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    before = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if folder.exists():
            folder.replace(before)
        try:
            temporary.replace(folder)
        except OSError:
            if before.exists():
                before.replace(folder)
            raise
        shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
