"""The folder that an import writes, read as a corpus."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mitfrnet.corpus.clips import Problems
from mitfrnet.corpus.layouts.features import (
    UTTERANCES_SCHEMA,
    is_features_folder,
    read_features_layout,
    stored_descriptions,
)
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.errors import CorpusError
from mitfrnet.files import METADATA_KEY
from mitfrnet.modalities import MODALITIES
from mitfrnet.params import parse_params

STORED = {m: {"version": "1"} for m in MODALITIES}
SCORES = {"layout": "features", "language": "en", "scale": "mosi"}
CLASSES = {
    "layout": "features",
    "language": "en",
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


def read(folder, block=SCORES):
    problems = Problems()
    clips = read_features_layout(folder, parse_params(CorpusParams, block, where="x"), problems)
    return clips, problems.errors


def test_every_column_is_read(tmp_path):
    write(tmp_path, [row("007"), row("2", transcript="", transcript_source=None, split="test")])
    (first, second), errors = read(tmp_path)
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
    (clip,), errors = read(tmp_path, CLASSES)
    assert clip.label == 1
    assert errors == [
        f"{tmp_path}/utterances.parquet:2: label is 2, no index of a class "
        "(expected 0 to 1: anger, joy)"
    ]


WRONG = {
    "a label out of scale": (row("1", label=3.5), "label is 3.5, out of scale"),
    "an id that leads elsewhere": (row("1", video_id="../v"), "video_id is '../v'"),
    "an unknown split": (row("1", split="dev"), "split is 'dev'"),
    "a duplicate": (row("0"), "duplicate id 'v1/0'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_row_that_cannot_be_used_is_noted_with_its_number(tmp_path, name):
    wrong, said = WRONG[name]
    write(tmp_path, [row("0"), wrong])
    clips, (error,) = read(tmp_path)
    assert len(clips) == 1
    assert error.startswith(f"{tmp_path}/utterances.parquet:2: ")
    assert said in error


def test_what_is_no_such_corpus_is_said(tmp_path):
    with pytest.raises(CorpusError, match=r"utterances\.parquet: cannot be read .*import"):
        read(tmp_path)
    (tmp_path / "utterances.parquet").write_bytes(b"no Parquet")
    with pytest.raises(CorpusError, match=r"utterances\.parquet: cannot be read"):
        read(tmp_path)
    write(tmp_path, [row("1")], metadata={})
    with pytest.raises(CorpusError, match="not written by mitfrnet import-mmsa"):
        stored_descriptions(tmp_path)
    write(tmp_path, [{"utterance_id": "a"}], pa.schema([("utterance_id", pa.string())]))
    with pytest.raises(CorpusError, match="columns differ from this version's"):
        read(tmp_path)
    write(tmp_path, [])
    with pytest.raises(CorpusError, match="no rows"):
        read(tmp_path)


def test_a_folder_with_anything_else_in_it_is_none_to_be_replaced(tmp_path):
    assert not is_features_folder(tmp_path)
    write(tmp_path, [row("1")])
    assert is_features_folder(tmp_path)
    (tmp_path / "label.csv").touch()
    assert not is_features_folder(tmp_path)
