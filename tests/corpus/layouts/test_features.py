"""The folder that an import writes, read as a corpus."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mitfrnet.corpus.layouts.features import (
    UTTERANCES_SCHEMA,
    is_features_folder,
    stored_descriptions,
)
from mitfrnet.errors import CorpusError
from mitfrnet.files import METADATA_KEY
from mitfrnet.modalities import MODALITIES
from tests.helpers.reading import read, refusal

STORED = {m: {"version": "1"} for m in MODALITIES}
SCORES = {"layout": "features", "scale": "mosi"}
CLASSES = {
    "layout": "features",
    "task": "classification",
    "classes": ["anger", "joy"],
}


def row(clip_id, **changes):
    return {
        "utterance_id": f"v1/{clip_id}",
        "video_id": "v1",
        "clip_id": clip_id,
        "split": "train",
        "transcript": "a film, 😀",
        "transcript_source": "mmsa",
        "label": 1.5,
        "label_text": -0.5,
        "digest": "d" + clip_id,
    } | changes


def write(folder, rows, schema=UTTERANCES_SCHEMA, metadata=None):
    value = json.dumps({"stored": STORED} if metadata is None else metadata)
    table = pa.Table.from_pylist(rows, schema=schema.with_metadata({METADATA_KEY: value}))
    pq.write_table(table, folder / "utterances.parquet")


def test_every_column_is_read(tmp_path):
    write(tmp_path, [row("007"), row("2", transcript="", transcript_source=None, split="test")])
    (first, second), errors, _ = read(tmp_path, SCORES)
    assert errors == []
    assert (first.utterance_id, first.split, first.label) == ("v1/007", "train", 1.5)
    assert first.modality_labels == {"text": -0.5}
    assert (first.transcript, first.transcript_source) == ("a film, 😀", "mmsa")
    assert (first.digest, first.path) == ("d007", None)
    assert first.where == f"{tmp_path}/utterances.parquet:1"
    assert (second.transcript, second.transcript_source, second.split) == ("", None, "test")
    assert stored_descriptions(tmp_path) == STORED


def test_labels_of_classes_are_their_indices(tmp_path):
    write(tmp_path, [row("1", label=1, label_text=None), row("2", label=2, label_text=None)])
    (clip,), errors, _ = read(tmp_path, CLASSES)
    assert clip.label == 1
    assert errors == [
        "utterances.parquet:2: label is 2, not the index of a class (expected 0 to 1: anger, joy)"
    ]


WRONG = {
    "a label out of scale": (row("1", label=3.5), "label is 3.5, out of scale"),
    "an id that leads elsewhere": (row("1", video_id="../v"), "video_id is '../v'"),
    "an unknown split": (row("1", split="dev"), "split is 'dev'"),
    "a duplicate": (row("0"), "duplicate id 'v1/0'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_row_that_cannot_be_used_is_noted_with_its_number(tmp_path, name):
    wrong, message = WRONG[name]
    write(tmp_path, [row("0"), wrong])
    clips, (error,), _ = read(tmp_path, SCORES)
    assert len(clips) == 1
    assert error.startswith("utterances.parquet:2: ")
    assert message in error


def test_what_is_no_such_corpus_is_said(tmp_path):
    assert refusal(tmp_path, SCORES).startswith("utterances.parquet: cannot be read (")
    (tmp_path / "utterances.parquet").write_bytes(b"no Parquet")
    assert refusal(tmp_path, SCORES).endswith("; import the corpus again")
    write(tmp_path, [row("1")], metadata={})
    with pytest.raises(CorpusError, match="not written by mitfrnet import-mmsa"):
        stored_descriptions(tmp_path)
    write(tmp_path, [{"utterance_id": "a"}], pa.schema([("utterance_id", pa.string())]))
    assert "columns differ from this version's" in refusal(tmp_path, SCORES)
    write(tmp_path, [])
    assert "no rows" in refusal(tmp_path, SCORES)


def test_a_folder_with_anything_else_in_it_is_none_to_be_replaced(tmp_path):
    assert not is_features_folder(tmp_path)
    write(tmp_path, [row("1")])
    assert is_features_folder(tmp_path)
    (tmp_path / "label.csv").touch()
    assert not is_features_folder(tmp_path)
