"""Import a feature file of MMSA as a corpus folder of layout `features`."""

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
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
ENCODERS = {"en": "bert-base-uncased", "zh": "bert-base-chinese"}  # those of the published files

_ROWS_PER_WRITE = 8 * ROWS_PER_GROUP


@dataclass(frozen=True)
class ImportSummary:
    """The result of an import.

    Attributes:
        folder: the corpus it wrote.
        utterances: number in each split.
        aligned: whether all modalities have one step per token.
        dims: features per step of each modality.
        block: for `corpora.<name>` in `params.yaml`.
        text: source of the text vectors.
        transcripts_differing: number of utterances whose transcript does not give the stored
            tokens.
        missing: number of utterances without a modality, by reason.
        notes: number of utterances by other change.
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
        """Return the summary as lines to print."""
        total = sum(self.utterances.values())
        splits = ", ".join(f"{split} {n}" for split, n in self.utterances.items())
        dims = ", ".join(f"{m} {n}" for m, n in self.dims.items())
        lines = [
            f"{self.folder}: {total} utterances ({splits})",
            f"features per step: {dims}; modalities {'' if self.aligned else 'not '}aligned",
            f"text vectors: {self.text}",
        ]
        if self.transcripts_differing:
            lines.append(f"{self.transcripts_differing} transcripts do not give the stored tokens")
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
    """Make a corpus of layout `features` from a feature file of MMSA, atomically.

    Words are hidden before they are encoded, so the stored token ids must come from the encoder's
    vocabulary; this is checked against the transcripts. The file's text vectors are kept if the
    encoder gives the same (to 1e-3, on 16 utterances); otherwise all are computed. Such files do
    not tell when steps start, so the start is NaN.

    Args:
        file: as MMSA 2 or MMSA-FET writes it.
        raw_folder: `raw/<corpus>`; an earlier import there is replaced.
        language: of the transcripts.
        scale: of the labels; classes if the file has only class labels.
        text_encoder: the encoder of the token ids. None: the one that the file names, else
            `bert-base-uncased` for `en` and `bert-base-chinese` for `zh`.

    Raises:
        FeatureError: the file cannot be used, or `raw_folder` exists and is not an import.
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

    missing: dict[str, Counter[str]] = {m: Counter() for m in MODALITIES}
    notes: Counter[str] = Counter()
    ordered = sorted(places, key=lambda place: source.splits[place[0]].utterance_id(place[1]))
    chunks = [ordered[i : i + _ROWS_PER_WRITE] for i in range(0, len(ordered), _ROWS_PER_WRITE)]
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
                modalities = {
                    "text": text.features(place, utterance, vector),
                    "acoustic": _features(utterance.acoustic),
                    "visual": _features(utterance.visual),
                }
                digest = _digest(modalities)
                for m, (features, reason) in modalities.items():
                    rows[m].append(
                        FeatureRow(utterance.utterance_id, features, reason, digest, digests[m])
                    )
                    missing[m].update([reason] if reason else [])
                notes.update([*utterance.notes, *text.notes(utterance)])
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
        missing={m: dict(sorted(reasons.items())) for m, reasons in missing.items()},
        notes=dict(sorted(notes.items())),
    )


def _labels(utterance: MmsaUtterance, scale: LabelScale, where: str) -> dict[str, Any]:
    """Return ids and labels of an utterance as columns of the table."""
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
    """Return a label, after checking that it is on the scale or the index of a class."""
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
    """Return the block of `corpora` for the imported corpus."""
    block: dict[str, Any] = {"layout": "features", "language": language}
    values = scale.model_dump(mode="json")
    if isinstance(scale, ClassScale):
        block |= {"task": "classification", "classes": list(scale.classes)}
    elif values.keys() == {"low", "high", "family"}:
        block["scale"] = scale.family
    else:
        block["scale"] = values
    return block | {"text_encoder": encoder}


def _encoder_name(source: MmsaFile, language: str, named: str | None) -> str:
    if named is not None:
        return named
    with suppress(KeyError, TypeError):  # the file has no description, or one of another form
        return str(source.description["features"]["text"]["identity"]["encoder"])  # type: ignore[index]
    if language not in ENCODERS:
        raise FeatureError(
            f"{source.path}: no text encoder is known for language {language!r} (name the encoder "
            "of the file's token ids)"
        )
    return ENCODERS[language]


def _descriptions(source: MmsaFile, text: ImportedText) -> dict[str, dict[str, Any]]:
    """Return the description of each modality's features.

    A file that we wrote contains them, so a model of the original features scores these too.
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


def _digest(modalities: dict[str, tuple[Features | None, str | None]]) -> str:
    """Return a digest of the features and reasons of an utterance."""
    digest = hashlib.sha256()
    for features, reason in modalities.values():
        digest.update(repr(reason).encode())
        if features is not None:
            for array in (features.values, features.detected, *features.columns.values()):
                digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _check_replaceable(folder: Path) -> None:
    """Raise if the folder exists and is not an earlier import."""
    if (folder.exists() or folder.is_symlink()) and (
        folder.is_symlink() or not is_features_folder(folder)
    ):
        raise FeatureError(
            f"{folder}: exists and is not an earlier import (choose another name, or move it away)"
        )


@contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, which replaces `folder` when the block ends without an error."""
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
