"""An utterance of a corpus, as the stages stored it."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mitfrnet.corpus.manifest import manifest_settings, read_manifest
from mitfrnet.data.tensors import ModalityTensors, SplitTensors, read_tensors
from mitfrnet.errors import CorpusError, FeatureError
from mitfrnet.features.extractor import Clip
from mitfrnet.inspection.subject import Subject, make_subject
from mitfrnet.media.decode import MediaLimits
from mitfrnet.media.storage import ClipStore
from mitfrnet.modalities import MODALITIES
from mitfrnet.params import PARAMS_FILE, load_params
from mitfrnet.workers.params import RunParams


@contextmanager
def gather_utterance(corpus: str, utterance_id: str, root: Path = Path()) -> Iterator[Subject]:
    """Give an utterance of a corpus; its clip is on this machine until the block ends.

    Args:
        corpus: its name.
        utterance_id: `<video_id>/<clip_id>`.
        root: the folder of the project.

    Raises:
        CorpusError: the corpus has no such utterance, or its clip has changed since the corpus was
            ingested.
        FeatureError: a stage has not run, or its files cannot be used.
        StorageError: its clip cannot be downloaded.
    """
    folder = root / "data" / corpus
    manifest = read_manifest(folder / "manifest.parquet")
    row = _row_of(manifest, corpus, utterance_id)
    features = {m: _features_of(folder / "features" / m, utterance_id) for m in MODALITIES}
    part = row["split"]
    split = read_tensors(folder / "tensors", [part])[part]
    if utterance_id not in split.ids:
        raise FeatureError(f"{folder / 'tensors'}: no {utterance_id} (run the tensors stage)")
    settings = manifest_settings(manifest)
    limits = MediaLimits(**settings["limits"])
    raw, media_url = root / "raw" / corpus, settings.get("media")
    if row["digest"] is None:  # there is no file, and the probe gives the reason
        media_url = None
    path = raw / (row["path"] or "")
    run = load_params(RunParams, section="run", path=root / PARAMS_FILE)
    store = ClipStore(raw, media_url, limits.max_bytes, run.timeout_seconds)
    with store.at_hand(path, row["digest"]) as file:
        yield make_subject(
            name=utterance_id,
            corpus=corpus,
            file=path.name if row["path"] else "",
            clip=Clip(utterance_id, file, row["start_s"], row["end_s"], row["transcript"]),
            limits=limits,
            row=row,
            features=features,
            tensors=only(split, split.ids.index(utterance_id)),
        )


def _row_of(manifest: pa.Table, corpus: str, utterance_id: str) -> dict[str, Any]:
    ids = manifest["utterance_id"].to_pylist()
    if utterance_id not in ids:
        close = difflib.get_close_matches(utterance_id, ids, n=3, cutoff=0.5) or ids[:3]
        raise CorpusError(
            f"{corpus}: no utterance {utterance_id!r} (close ones: {', '.join(close)})"
        )
    return manifest.slice(ids.index(utterance_id), 1).to_pylist()[0]


def _features_of(folder: Path, utterance_id: str) -> pa.Table:
    """Return the stored row of one utterance, from the shard that holds it."""
    for path in sorted(folder.glob("*-of-*.parquet")):
        try:
            table = pq.read_table(path, filters=[("utterance_id", "=", utterance_id)])
        except (OSError, pa.ArrowInvalid) as error:
            raise FeatureError(
                f"{path}: cannot be read ({error}); run the extract stage"
            ) from error
        if len(table):
            return table.combine_chunks()
    raise FeatureError(f"{folder}: no features of {utterance_id} (run the extract stage)")


def only(split: SplitTensors, index: int) -> SplitTensors:
    """Return the split of one utterance of `split`."""
    modalities, steps_of = {}, {}
    for modality, ragged in split.modalities.items():
        steps = steps_of[modality] = slice(*ragged.offsets[index : index + 2])
        modalities[modality] = ModalityTensors(
            values=ragged.values[steps],
            detected=ragged.detected[steps],
            time_s=ragged.time_s[steps],
            offsets=np.array([0, steps.stop - steps.start], dtype=np.int64),
        )
    return replace(
        split,
        ids=[split.ids[index]],
        label=split.label[index : index + 1],
        modalities=modalities,
        token_ids=split.token_ids[steps_of["text"]],
        special=split.special[steps_of["text"]],
    )
