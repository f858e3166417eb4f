"""Extraction of clips that lie in object storage, on a real S3 server."""

import shutil

import pyarrow.parquet as pq
import pytest

from mitfrnet.corpus.ingest import build_manifest, probe_clips, read_corpus
from mitfrnet.errors import CorpusError, StorageError
from mitfrnet.features.extract import build_extractor, extract_corpus, extractor_params
from mitfrnet.features.shards import read_features
from mitfrnet.workers.params import RunParams
from tests.features.test_extract import PARAMS, contents
from tests.helpers.clips import write_small_corpus
from tests.helpers.reading import INGEST, MOSI

pytestmark = pytest.mark.slow

REMOTE = MOSI.model_copy(update={"media": "s3://clips/mine"})
CLIP = "mine/Raw/v1/01.mkv"


@pytest.fixture
def raw(s3, tmp_path):
    """Return the folder of a corpus of four clips, which lie in the bucket alone."""
    folder = write_small_corpus(tmp_path / "raw" / "mine")
    s3.upload(folder / "Raw", "clips", "mine/Raw")
    shutil.move(folder / "Raw", tmp_path / "Raw")
    return folder


def manifest_of(raw, corpus=REMOTE):
    clips = read_corpus(raw, corpus, INGEST)
    run = RunParams(workers=1, timeout_seconds=60)
    probed = probe_clips(raw, clips, INGEST.limits, run, media_url=corpus.media)
    return build_manifest(probed, corpus, INGEST)


def extract(manifest, raw, out, modality="acoustic", params=PARAMS, workers=1):
    run = RunParams(workers=workers, timeout_seconds=120)
    return extract_corpus(modality, manifest, raw, out, params, run)


def test_bytes_are_those_of_the_same_clips_in_a_folder(raw, tmp_path):
    remote = manifest_of(raw)
    assert extract(remote, raw, tmp_path / "1") == 4
    assert extract(remote, raw, tmp_path / "2", workers=2) == 4
    shutil.move(tmp_path / "Raw", raw / "Raw")
    assert extract(manifest_of(raw, MOSI), raw, tmp_path / "local") == 4
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "local")
    assert read_features(tmp_path / "1")["reason"].null_count == 4


def test_text_fetches_nothing(raw, s3, tmp_path):
    manifest = manifest_of(raw)
    settings = {"encoders": {"en": "embedded"}, "max_tokens": 16, "batch_size": 1, "device": "cpu"}
    params = extractor_params("text", settings, where="x")
    s3.asked.clear()
    assert extract(manifest, raw, tmp_path / "out", "text", params) == 4
    assert s3.asked == []


def test_a_clip_replaced_since_ingest_is_not_mixed_in(raw, s3, tmp_path):
    """It stops the stage; once it is ingested again, it alone is extracted."""
    manifest, out = manifest_of(raw), tmp_path / "out"
    assert extract(manifest, raw, out) == 4
    before = contents(out)
    fewer = manifest.filter([row != "v1/01" for row in manifest["utterance_id"].to_pylist()])
    assert extract(fewer, raw, out) == 0
    other = s3.client.get_object(Bucket="clips", Key=CLIP)["Body"].read() + b"x"
    s3.client.put_object(Bucket="clips", Key=CLIP, Body=other)
    with pytest.raises(CorpusError, match=r"v1/01.mkv: changed .*dvc repro -f ingest@mine\)$"):
        extract(manifest, raw, out)
    assert len(read_features(out)) == 3
    assert extract(manifest_of(raw), raw, out) == 1
    rows = {r["utterance_id"]: r for r in read_features(out).to_pylist()}
    assert len(rows) == 4
    assert contents(out) != before  # its row has another digest


def test_a_server_that_is_down_leaves_finished_shards(raw, s3, tmp_path):
    manifest, out = manifest_of(raw), tmp_path / "out"
    extract(manifest, raw, out)
    before = contents(out)
    with_rows = [p.name for p in out.iterdir() if pq.read_metadata(p).num_rows]
    assert sum(pq.read_metadata(out / name).num_rows for name in with_rows) == 4
    s3.stop()
    assert extract(manifest, raw, out) == 0  # nothing is to be fetched
    params = PARAMS.model_copy(update={"hop_length": 256})
    with pytest.raises(StorageError, match=r"01.mkv: cannot be read: Could not connect"):
        extract(manifest, raw, out, params=params)
    after = contents(out)
    assert all(after[name] == before[name] for name in with_rows)


def test_the_extractor_does_not_know_where_clips_lie(raw):
    """Rows of clips that move into a bucket still hold."""
    settings = {"limits": INGEST.limits.model_dump(), "media": None}
    here = build_extractor("acoustic", PARAMS, settings)
    there = build_extractor("acoustic", PARAMS, settings | {"media": REMOTE.media})
    assert here.identity == there.identity
