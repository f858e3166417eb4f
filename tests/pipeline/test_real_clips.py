"""Ingest and all extractors on real clips, against what was measured independently."""

import csv

import numpy as np
import pyarrow.parquet as pq
import pytest

from mitfrnet.features.shards import read_features
from mitfrnet.modalities import MODALITIES
from tests.helpers.running import REAL_CLIPS, ingest_real_clips, needs_real_clips, run_stage

pytestmark = [pytest.mark.slow, needs_real_clips]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    ingest_real_clips(folder)
    for modality in MODALITIES:
        process = run_stage(folder, "extract", corpus="sample", modality=modality)
        assert process.returncode == 0, process.stderr
    return folder / "data" / "sample"


@pytest.fixture(scope="module")
def measured():
    with (REAL_CLIPS / "measured.csv").open(newline="") as file:
        return {f"{r['video_id']}/{r['clip_id']}": r for r in csv.DictReader(file)}


def test_the_manifest_agrees_with_the_measurement(run, measured):
    rows = pq.read_table(run / "manifest.parquet").to_pylist()
    assert {r["utterance_id"] for r in rows} == set(measured)
    for row in rows:
        expected = measured[row["utterance_id"]]
        assert row["duration_s"] == pytest.approx(float(expected["duration_s"]), abs=0.1)
        assert row["fps"] == pytest.approx(float(expected["fps"]), abs=0.1)
        size = (int(expected["width"]), int(expected["height"]))
        assert (row["width"], row["height"]) == size
        assert row["video_codec"] == expected["video_codec"]
        assert (row["audio_codec"] or "") == expected["audio_codec"]


def test_modalities_are_missing_for_the_right_reason(run):
    reasons = {}
    for modality in ("text", "acoustic", "visual"):
        rows = read_features(run / "features" / modality).to_pylist()
        reasons[modality] = {r["utterance_id"]: r["reason"] for r in rows if r["reason"]}
    assert reasons["acoustic"] == {"edge/no_audio_stream": "no_audio_stream"}
    assert reasons["visual"] == {"edge/cartoon_no_face": "no_face"}
    assert set(reasons["text"].values()) == {"empty_transcript"}
    assert len(reasons["text"]) == 7  # all but the seven of the GRID corpus


def test_the_share_of_frames_with_a_face_agrees(run, measured):
    for row in read_features(run / "features" / "visual").to_pylist():
        share = np.mean(row["detected"])
        expected = float(measured[row["utterance_id"]]["face_fraction"])
        assert share == pytest.approx(expected, abs=0.1), row["utterance_id"]


def test_values_are_finite_where_detected_and_nan_elsewhere(run):
    for modality, dim in (("text", 384), ("acoustic", 33), ("visual", 168)):
        for row in read_features(run / "features" / modality).to_pylist():
            values = np.array(row["values"], dtype=np.float32).reshape(-1, dim)
            detected = np.array(row["detected"], dtype=bool)
            assert np.isfinite(values[detected]).all()
            assert np.isnan(values[~detected]).all()


def test_digital_silence_is_a_value(run):
    rows = {r["utterance_id"]: r for r in read_features(run / "features/acoustic").to_pylist()}
    silent = np.array(rows["edge/digital_silence"]["values"])
    assert len(silent) == pytest.approx(7.2 * 16000 / 512, abs=2)
    assert not silent[:, 0].any()
