"""The stage's work on real, tiny clips: what is extracted again, and what never changes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from mitfrnet.corpus.ingest import build_manifest, probe_clips, read_corpus
from mitfrnet.corpus.manifest import manifest_settings, write_manifest
from mitfrnet.errors import FeatureError
from mitfrnet.features.acoustic import AcousticParams
from mitfrnet.features.extract import _Progress, _worker, build_extractor, extract_corpus
from mitfrnet.features.shards import read_features
from mitfrnet.media.storage import ClipStore
from mitfrnet.workers.local import track
from mitfrnet.workers.params import RunParams
from tests.helpers.clips import write_small_corpus
from tests.helpers.paths import ROOT
from tests.helpers.reading import INGEST, MOSI

MODES = ("train",) * 8 + ("valid", "test")
PARAMS = AcousticParams(
    sample_rate_hz=16000, hop_length=512, n_fft=2048, n_mels=128, n_mfcc=20, htk=True, n_chroma=12
)


def manifest_of(folder):
    clips = read_corpus(folder, MOSI, INGEST)
    probed = probe_clips(folder, clips, INGEST.limits, RunParams(workers=1, timeout_seconds=60))
    return build_manifest(probed, MOSI, INGEST)


def extract(folder, out, workers=1, params=PARAMS, modality="acoustic"):
    run = RunParams(workers=workers, timeout_seconds=120)
    return extract_corpus(modality, manifest_of(folder), folder, out, params, run)


def rows_in(folder):
    return len(read_features(folder)) if list(folder.glob("*.parquet")) else 0


def contents(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A corpus of ten clips, and its features extracted in one go."""
    folder = tmp_path_factory.mktemp("reference")
    write_small_corpus(folder / "raw", MODES)
    assert extract(folder / "raw", folder / "out") == len(MODES)
    return folder


def test_the_number_of_workers_changes_no_byte(reference, tmp_path):
    extract(reference / "raw", tmp_path / "out", workers=2)
    assert contents(tmp_path / "out") == contents(reference / "out")


def test_a_second_run_extracts_nothing(reference, tmp_path):
    shutil.copytree(reference / "out", tmp_path / "out")
    assert extract(reference / "raw", tmp_path / "out") == 0
    assert contents(tmp_path / "out") == contents(reference / "out")


def test_only_an_added_clip_is_extracted_and_bytes_are_those_of_a_clean_run(reference, tmp_path):
    shutil.copytree(reference / "raw", tmp_path / "raw")
    table = (tmp_path / "raw" / "label.csv").read_text().splitlines()
    fewer = [line for line in table if not line.startswith("v3,")]
    (tmp_path / "raw" / "label.csv").write_text("\n".join(fewer))
    assert extract(tmp_path / "raw", tmp_path / "out") == len(MODES) - 1
    assert extract(reference / "raw", tmp_path / "out") == 1
    assert contents(tmp_path / "out") == contents(reference / "out")


def test_only_a_replaced_clip_is_extracted(reference, tmp_path):
    shutil.copytree(reference / "raw", tmp_path / "raw")
    shutil.copytree(reference / "out", tmp_path / "out")
    (tmp_path / "raw" / "Raw" / "v3" / "01.mkv").write_text("no film")
    assert extract(tmp_path / "raw", tmp_path / "out") == 0  # its manifest says that it is no film
    rows = {r["utterance_id"]: r["reason"] for r in read_features(tmp_path / "out").to_pylist()}
    assert {u for u, reason in rows.items() if reason} == {"v3/01"}
    assert rows["v3/01"] == "not_media"


def test_progress_tells_hours_and_failures():
    progress = _Progress(seconds=7200.0, done=1800.0)
    assert str(progress) == "0.50 of 2.00 hours"
    progress.failed.append("v3/01: timed_out")
    assert str(progress) == "0.50 of 2.00 hours, 1 failed"


def test_all_hours_are_done_in_the_end(reference, tmp_path, monkeypatch):
    """Ten clips that count as an hour each, of which one fails."""
    shown = []

    def listening(results, *, detail, **options):
        for result in track(results, detail=detail, **options):
            yield result
            shown.append(detail())

    monkeypatch.setattr("mitfrnet.features.extract.track", listening)
    monkeypatch.setattr("mitfrnet.features.extract.utterance_duration_s", lambda row: 3600.0)
    monkeypatch.setattr("mitfrnet.features.extract._worker", crash_on({"v3/01"}))
    extract(reference / "raw", tmp_path / "out")
    assert shown[0].startswith("1.00 of 10.00 hours")
    assert shown[-1] == "10.00 of 10.00 hours, 1 failed"


def test_other_settings_extract_all(reference, tmp_path):
    shutil.copytree(reference / "out", tmp_path / "out")
    params = PARAMS.model_copy(update={"hop_length": 256})
    assert extract(reference / "raw", tmp_path / "out", params=params) == len(MODES)


def test_a_worker_with_another_model_is_stopped(reference):
    """As a machine would be where the same name stands for other weights."""
    settings = manifest_settings(manifest_of(reference / "raw"))
    identity = build_extractor("acoustic", PARAMS, settings).identity
    store = ClipStore(reference / "raw", None, max_bytes=10**8, timeout_s=60)
    _worker("acoustic", PARAMS, settings, store, identity)
    other = identity | {"libraries": {"av": "1.0"}}
    with pytest.raises(FeatureError, match="'acoustic' differs from that of the stage in librar"):
        _worker("acoustic", PARAMS, settings, store, other)


def test_a_folder_in_use_is_not_touched(reference, tmp_path, monkeypatch):
    from filelock import FileLock

    monkeypatch.setattr("mitfrnet.features.extract._LOCK_WAIT_S", 0.1)
    with FileLock(tmp_path / ".out.lock"), pytest.raises(FeatureError, match="another process"):
        extract(reference / "raw", tmp_path / "out")


def crash_on(names):
    """Return a stand-in for a decoder that aborts on some clips; workers import it from here."""
    return partial(_crash_on, names)


def _crash_on(names, *setup):
    function = _worker(*setup)

    def work(clips):
        if clips[0].utterance_id in names:
            os.abort()
        return function(clips)

    return work


def test_a_decoder_that_aborts_costs_its_clip_alone_and_is_tried_again(
    reference, tmp_path, monkeypatch, capsys
):
    for _ in range(2):  # the second time this clip is all there is to do
        monkeypatch.setattr("mitfrnet.features.extract._worker", crash_on({"v3/01"}))
        assert extract(reference / "raw", tmp_path / "out") in (len(MODES), 1)
        assert "tried again next time: v3/01: worker_crashed" in capsys.readouterr().err
    rows = {r["utterance_id"]: r["reason"] for r in read_features(tmp_path / "out").to_pylist()}
    assert {u: reason for u, reason in rows.items() if reason} == {"v3/01": "worker_crashed"}
    monkeypatch.undo()
    assert extract(reference / "raw", tmp_path / "out") == 1
    assert contents(tmp_path / "out") == contents(reference / "out")


def test_too_many_aborts_stop_the_stage(reference, tmp_path, monkeypatch):
    names = {"v3/01", "v4/01"}
    monkeypatch.setattr("mitfrnet.features.extract._worker", crash_on(names))
    with pytest.raises(FeatureError, match=r"2 of 10 clips crashed .* v3/01: worker_crashed; v4"):
        extract(reference / "raw", tmp_path / "out")


@pytest.mark.slow
def test_a_killed_run_is_finished_by_the_next_with_the_same_bytes(reference, tmp_path):
    """SIGKILL as soon as the first rows are there; the rest is then extracted, and only that."""
    write_manifest(manifest_of(reference / "raw"), tmp_path / "manifest.parquet")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pipeline.extract", "--modality", "acoustic"]
    paths = ["--manifest", "manifest.parquet", "--raw", str(reference / "raw"), "--out", str(out)]
    stage = subprocess.Popen(
        [*command, *paths], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    while stage.poll() is None and not rows_in(out):
        time.sleep(0.001)
    stage.send_signal(signal.SIGKILL)
    assert stage.wait() == -signal.SIGKILL
    left = len(MODES) - rows_in(out)
    assert 0 < left < len(MODES)
    assert extract(reference / "raw", out) == left
    assert contents(out) == contents(reference / "out")
