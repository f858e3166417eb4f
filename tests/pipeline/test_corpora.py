"""Corpora of other layouts through the stages, with parts of videos and speech recognition."""

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from mitfrnet.features.shards import read_features
from tests.helpers.clips import tone, write_clip
from tests.helpers.mmsa_files import file_of
from tests.helpers.paths import ROOT
from tests.helpers.running import run_stage, write_params
from tests.helpers.tiny_whisper import write_whisper

pytestmark = pytest.mark.slow

BLOCK = {
    "layout": "table",
    "language": "en",
    "scale": "mosi",
    "table": {
        "file": "parts.csv",
        "columns": {"video_id": "film", "start": "from", "end": "to", "text": "said",
                    "label": "score"},
        "path": "{film}.mkv",
    },
}  # fmt: skip


def write_parts(folder, words="well said"):
    """Write three videos of 3 s, whose sound doubles its pitch each second, and a table."""
    folder.mkdir(parents=True)
    rows = ["film,from,to,said,score"]
    for i in range(3):
        sound = np.concatenate([tone(1.0, 400 * 2**k) for k in range(3)])
        write_clip(folder / f"v{i}.mkv", np.arange(30) / 10, sound)
        rows += [f"v{i},{k},{k + 1},{words},{k - 1}" for k in range(3)]
    (folder / "parts.csv").write_text("\n".join(rows) + "\n")


def ran(folder, stage, **item):
    process = run_stage(folder, stage, **item)
    assert process.returncode == 0, process.stderr[-2000:]
    return process


def test_parts_of_uncut_videos_are_sought_and_not_cut(tmp_path):
    """The zero-crossing rate of part k is that of its second: 2 · 400 · 2^k / 16000."""
    write_parts(tmp_path / "raw" / "parts")
    write_params(tmp_path, corpora__parts=BLOCK)
    ran(tmp_path, "ingest", corpus="parts")
    rows = pq.read_table(tmp_path / "data/parts/manifest.parquet").to_pylist()
    assert [(r["start_s"], r["end_s"]) for r in rows[:3]] == [(0, 1), (1, 2), (2, 3)]
    assert {r["split"] for r in rows if r["video_id"] == "v0"} != {"train", "test"}
    quality = json.loads((tmp_path / "metrics/parts/quality.json").read_text())
    assert quality["hours"] == pytest.approx(9 / 3600)
    assert quality["duration_s"] == dict.fromkeys(("mean", "p05", "p50", "p95"), pytest.approx(1))
    assert quality["videos"] == 3
    ran(tmp_path, "extract", corpus="parts", modality="acoustic")
    for row in read_features(tmp_path / "data/parts/features/acoustic").to_pylist():
        k = int(row["utterance_id"][-1]) - 1
        crossings = np.array(row["values"])[8:-8, 0]
        assert np.mean(crossings) == pytest.approx(2 * 400 * 2**k / 16000, rel=0.02)
        assert len(row["values"]) == 1 + 16000 // 512


def test_speech_is_recognised_once_where_there_is_no_transcript(tmp_path):
    write_parts(tmp_path / "raw" / "parts", words="")
    model = write_whisper(tmp_path / "whisper")
    write_params(tmp_path, corpora__parts=BLOCK | {"asr": str(model)}, run__workers=1)
    assert "transcribe" in ran(tmp_path, "ingest", corpus="parts").stderr
    store = tmp_path / "data/parts/transcripts.parquet"
    kept = store.read_bytes()
    rows = pq.read_table(tmp_path / "data/parts/manifest.parquet").to_pylist()
    heard = {r["utterance_id"]: r["transcript"] for r in pq.read_table(store).to_pylist()}
    assert len(heard) == 9
    assert all(r["transcript"] == heard[r["utterance_id"]] for r in rows)
    assert {r["transcript_source"] for r in rows if r["transcript"]} == {"asr"}
    assert all(r["words"] for r in rows if r["transcript"])
    assert "transcribe" not in ran(tmp_path, "ingest", corpus="parts").stderr
    assert store.read_bytes() == kept


def test_clips_without_labels_go_as_far_as_masks(tmp_path):
    folder = tmp_path / "raw" / "clips"
    folder.mkdir(parents=True)
    for i in range(3):
        write_clip(folder / f"{i}.mkv", np.arange(10) / 10, tone(1.0))
        (folder / f"{i}.txt").write_text(f"clip number {i}\n")
    write_params(tmp_path, corpora__clips={"layout": "media_only", "language": "en"})
    ran(tmp_path, "ingest", corpus="clips")
    for modality in ("text", "acoustic", "visual"):
        ran(tmp_path, "extract", corpus="clips", modality=modality)
    ran(tmp_path, "tensors", corpus="clips")
    ran(tmp_path, "mask", corpus="clips", missing_rate=0.5)
    masks = pq.read_table(tmp_path / "data/clips/masks/0.5.parquet")
    assert masks["utterance_id"].to_pylist() == ["clips/0", "clips/1", "clips/2"]
    cell = {"corpus": "clips", "model": "mitfrnet", "missing_rate": 0.5, "seed": 1}
    process = run_stage(tmp_path, "train", **cell)
    assert process.returncode == 1
    assert "error: the corpus has no labels to train on" in process.stderr.splitlines()[-1]


def test_a_feature_file_of_mmsa_is_trained_on_as_clips_are(tmp_path):
    """The command imports it, stages go on from there, and what is exported comes in again."""
    file, again = tmp_path / "unaligned_50.pkl", tmp_path / "again.pkl"
    file.write_bytes(pickle.dumps(file_of()))

    def command(*words):
        process = subprocess.run(
            [sys.executable, "-m", "mitfrnet.cli", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert process.returncode == 0, process.stderr
        return process.stdout

    printed = command("import-mmsa", file.name, "--corpus", "mosi", "--text-encoder", "embedded")
    block = yaml.safe_load(printed.partition("under corpora:\n")[2])
    assert "10 utterances (train 5, valid 3, test 2)" in printed
    write_params(tmp_path, corpora=block, grid__corpora=["mosi"], train__max_epochs=1)
    cell = {"corpus": "mosi", "model": "mitfrnet", "missing_rate": 0.3, "seed": 1}
    ran(tmp_path, "ingest", corpus="mosi")
    for modality in ("text", "acoustic", "visual"):
        ran(tmp_path, "extract", corpus="mosi", modality=modality)
    ran(tmp_path, "tensors", corpus="mosi")
    ran(tmp_path, "mask", corpus="mosi", missing_rate=0.3)
    ran(tmp_path, "train", **cell)
    ran(tmp_path, "evaluate", **cell)
    scores = json.loads((tmp_path / "metrics/mosi/mitfrnet/0.3/1.json").read_text())
    assert scores["n"] == 2
    command("export-mmsa", "mosi", again.name)
    assert command("import-mmsa", again.name, "--corpus", "again").startswith("raw/again: 10 ")
