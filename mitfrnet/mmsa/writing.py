"""Export the tensors of a corpus as a feature file for MMSA.

The file is a pickle, since MMSA reads nothing else; we write no other pickles. It has further keys
that MMSA ignores, so that an import gives back the same arrays: `config`, and in each split
`audio_steps`, `audio_detected` and `audio_reason`, and the same for vision.
"""

import io
import json
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitfrnet.corpus.manifest import manifest_settings, read_manifest
from mitfrnet.data.tensors import ModalityTensors, SplitTensors, read_tensors
from mitfrnet.errors import FeatureError
from mitfrnet.features.text_encoder import load_tokenizer
from mitfrnet.files import replacing
from mitfrnet.labels import ClassScale, parse_scale
from mitfrnet.mmsa.columns import SEPARATOR
from mitfrnet.mmsa.reading import LETTERS, NAMES
from mitfrnet.modalities import MODALITIES, SPLITS

_PROTOCOL = 4  # what MMSA-FET writes


def write(corpus_data_folder: Path, path: Path) -> None:
    """Write the features of a corpus as MMSA 2.2.1 reads them.

    Every modality is padded at the end to its longest utterance; nothing is cut. The form is the
    aligned one if every modality has one step per token. Since MMSA accepts no length of 0, a
    missing modality has one step of zeros, and an empty transcript [CLS] and [SEP]. Undetected
    steps are zeros.

    Args:
        corpus_data_folder: `data/<corpus>`, with its manifest and tensors.
        path: the file to write.

    Raises:
        FeatureError: the tensors are absent or from another manifest, the corpus has no scores
            for MMSA to predict, or `path` is a folder.
    """
    corpus_data_folder, path = Path(corpus_data_folder), Path(path)
    if path.is_dir():
        raise FeatureError(f"{path}: a folder (expected the file to write)")
    manifest = read_manifest(corpus_data_folder / "manifest.parquet")
    settings = manifest_settings(manifest)
    if settings["scale"] is None:
        raise FeatureError(
            f"{corpus_data_folder}: an unlabelled corpus (MMSA reads corpora with scores)"
        )
    scale = parse_scale(settings["scale"])
    if isinstance(scale, ClassScale):
        raise FeatureError(
            f"{corpus_data_folder}: labels are classes, {', '.join(scale.classes)} "
            "(MMSA reads corpora with scores)"
        )
    labelled = {row["utterance_id"]: row for row in manifest.to_pylist()}
    tensors = corpus_data_folder / "tensors"
    aligned, any_rows = True, False
    described: dict[str, Any] = {}
    widths = dict.fromkeys(MODALITIES, 1)
    for split in read_tensors(tensors).values():
        _check_ids(split, labelled, tensors)
        described = split.metadata["features"]
        lengths = {m: _lengths(split.modalities[m]) for m in MODALITIES}
        widths["text"] = max(widths["text"], 2, int(lengths["text"].max(initial=0)))
        for m in NAMES:
            widths[m] = max(widths[m], int(lengths[m].max(initial=0)))
            equal = lengths[m] == lengths["text"]
            aligned &= bool((equal | (lengths[m] == 0)).all())
            any_rows |= bool((equal & (lengths[m] > 0)).any())
    aligned &= any_rows
    if aligned:
        widths = dict.fromkeys(MODALITIES, widths["text"])

    tokenizer = load_tokenizer(described["text"]["identity"]["encoder"])
    modality_labels = [m for m in MODALITIES if not manifest[f"label_{m}"].null_count]
    source = _Source(
        tensors=tensors,
        rows=labelled,
        widths=widths,
        aligned=aligned,
        neutral=scale.neutral_point,
        empty_text=(tokenizer.cls_token_id, tokenizer.sep_token_id),
        modality_labels=modality_labels if len(modality_labels) == len(MODALITIES) else [],
    )
    description = {
        "features": {
            m: {k: described[m][k] for k in ("version", "feature_names", "units", "identity")}
            for m in MODALITIES
        },
        "language": settings["language"],
        "scale": settings["scale"],
    }
    content: dict[str, Any] = {split: _Late(partial(source.split, split)) for split in SPLITS}
    content["config"] = {"mitfrnet": json.dumps(description, sort_keys=True)}
    with replacing(path) as temporary, temporary.open("wb") as file:
        _Pickler(file).dump(content)


def _lengths(ragged: ModalityTensors) -> NDArray[np.int64]:
    return np.diff(ragged.offsets)


def _check_ids(split: SplitTensors, rows: dict[str, Any], tensors: Path) -> None:
    for i in split.ids:
        if i not in rows:
            raise FeatureError(
                f"{tensors}: {i} is not in the manifest beside it (run the tensors stage)"
            )


@dataclass(frozen=True)
class _Late:
    """A value that is made when it is written, and freed afterwards."""

    make: Callable[[], Any]


class _Pickler(pickle.Pickler):
    """Writes the values that `_Late` objects make, one after the other.

    It has no memo. A memo would keep every array in memory, and the bytes would depend on which
    equal strings happen to be one object.
    """

    def __init__(self, file: io.BufferedWriter) -> None:
        super().__init__(file, _PROTOCOL)
        self.fast = True

    def reducer_override(self, value: Any) -> Any:
        """Return the reduction of a late value; leave other values to the base class."""
        if not isinstance(value, _Late):
            return NotImplemented
        content = value.make()
        if isinstance(content, dict):
            return OrderedDict, (), None, None, iter(content.items())
        return content.__reduce_ex__(_PROTOCOL)


@dataclass(frozen=True)
class _Source:
    """The corpus, and how its splits are laid out.

    Attributes:
        tensors: the folder of tensors.
        rows: of the manifest, by utterance id.
        widths: number of steps to which each modality is padded.
        aligned: whether all modalities have one step per token.
        neutral: the point between negative and positive labels.
        empty_text: ids of [CLS] and [SEP].
        modality_labels: modalities with their own labels, all or none.
    """

    tensors: Path
    rows: dict[str, dict[str, Any]]
    widths: dict[str, int]
    aligned: bool
    neutral: float
    empty_text: tuple[int, int]
    modality_labels: list[str]

    def split(self, name: str) -> dict[str, Any]:
        """Return the content of one split, whose arrays are made when they are written."""
        split = read_tensors(self.tensors, [name])[name]
        rows = [self.rows[i] for i in split.ids]
        lengths = {m: _lengths(split.modalities[m]) for m in MODALITIES}
        side = np.sign(split.label - np.float32(self.neutral)).astype(np.int64)
        keys: dict[str, Any] = {
            "id": [f"{r['video_id']}{SEPARATOR}{r['clip_id']}" for r in rows],
            "raw_text": [r["transcript"] for r in rows],
            "text": _Late(partial(self._padded, split, "text")),
            "text_bert": _Late(partial(self._tokens, split)),
            "annotations": [("Negative", "Neutral", "Positive")[s + 1] for s in side],
            "classification_labels": side + 1,
            "regression_labels": split.label,
            **{
                f"regression_labels_{LETTERS[m]}": np.array(
                    [r[f"label_{m}"] for r in rows], np.float64
                )
                for m in self.modality_labels
            },
        }
        for m, key in NAMES.items():
            keys[key] = _Late(partial(self._padded, split, m))
            keys[f"{key}_steps"] = lengths[m].tolist()
            keys[f"{key}_detected"] = self._spread(split, m, split.modalities[m].detected)
            keys[f"{key}_reason"] = [r[f"{m}_reason"] or "" for r in rows]
            if not self.aligned:
                keys[f"{key}_lengths"] = np.maximum(lengths[m], 1).tolist()
        return keys

    def _spread(self, split: SplitTensors, modality: str, flat: NDArray[Any]) -> NDArray[Any]:
        """Return values per step as (utterances, steps, ...), zero on padding."""
        own = np.arange(self.widths[modality]) < _lengths(split.modalities[modality])[:, None]
        padded = np.zeros((*own.shape, *flat.shape[1:]), flat.dtype)
        padded[own] = flat
        return padded

    def _padded(self, split: SplitTensors, modality: str) -> NDArray[np.float32]:
        return self._spread(split, modality, split.modalities[modality].values)

    def _tokens(self, split: SplitTensors) -> NDArray[np.float32]:
        """Return ids, mask and segments, (utterances, 3, tokens)."""
        ids = self._spread(split, "text", split.token_ids)
        mask = self._spread(split, "text", np.ones_like(split.token_ids))
        empty = _lengths(split.modalities["text"]) == 0
        ids[empty, :2] = self.empty_text
        mask[empty, :2] = 1
        return np.stack([ids, mask, np.zeros_like(ids)], axis=1).astype(np.float32)
