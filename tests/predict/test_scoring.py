"""Many clips scored: by the command, and from Python."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mitfrnet.predict.scoring import score_clips
from tests.helpers.clips import tone, write_clip
from tests.helpers.inspected_project import run_cell
from tests.helpers.made_model import edit_features
from tests.helpers.paths import ROOT
from tests.helpers.predicting import SAMPLE, SPOKEN, run_predict
from tests.helpers.running import write_params


@pytest.mark.slow
def test_scores_do_not_depend_on_the_other_clips(folder, predictor, tmp_path):
    other = write_clip(tmp_path / "other.mkv", np.arange(0, 1, 0.1), sound=tone(1))
    texts = {SPOKEN: "The band was excellent."}
    scored = score_clips(folder, [other, SPOKEN], texts, workers=2)
    assert [clip for clip, _ in scored] == [other, SPOKEN]
    assert scored[1:] == score_clips(folder, [SPOKEN], texts, workers=2)
    # Sound may differ in its last bits between processes.
    alone = predictor.predict(SPOKEN, texts[SPOKEN])
    assert scored[1][1].score == pytest.approx(alone.score, abs=1e-5)


@pytest.mark.slow
class TestCommand:
    def test_bad_clips_cost_themselves_alone(self, folder, tmp_path):
        (tmp_path / "empty.mp4").touch()
        (tmp_path / "text.mp4").write_text("no media")
        write_clip(tmp_path / "long.mkv", [0, 36000])
        good = shutil.copy(SPOKEN, tmp_path / "good.mp4")
        process = run_predict(tmp_path, "gone.mp4", good, "--model", folder, "--json")
        assert process.returncode == 1
        records = {Path(r["clip"]).name: r for r in json.loads(process.stdout)}
        assert list(records) == ["empty.mp4", "good.mp4", "long.mkv", "text.mp4", "gone.mp4"]
        assert records["good.mp4"]["error"] is None
        assert isinstance(records["good.mp4"]["score"], float)
        errors = process.stderr.splitlines()
        assert errors == [f"error: {r['error']}" for n, r in records.items() if n != "good.mp4"]
        for name, reason in {
            "empty.mp4": "empty_file",
            "text.mp4": "not_media",
            "long.mkv": "too_long (expected at most 600 s; see --max-seconds)",
            "gone.mp4": "no_file",
        }.items():
            assert records[name]["score"] is None
            assert f"{name}: cannot be read: " in records[name]["error"]
            assert reason in records[name]["error"]

    def test_a_table_for_people_and_a_file_for_machines(self, folder, tmp_path):
        out = tmp_path / "new" / "scores.parquet"
        process = run_predict(
            SPOKEN, "--model", folder, "--text", "The band was excellent.", "--parquet", out
        )
        assert (process.returncode, process.stderr) == (0, "")
        head, row = process.stdout.splitlines()
        assert head.split() == "clip score in [-3, 3] class tokens sound face missing".split()  # noqa: SIM905
        (record,) = pq.read_table(out).to_pylist()
        assert row.split() == [
            str(SPOKEN),
            f"{record['score']:+.2f}",
            record["class_name"],
            *("5", "1.8", "s", "100%", "-"),
        ]
        assert record["transcript"] == "The band was excellent."
        assert record["text_reason"] is record["error"] is None

    @pytest.mark.parametrize(
        ("argv", "status", "line"),
        [
            (["--model", "gone"], 1, "error: gone: no such folder"),
            (["--parquet", "."], 2, "is a folder"),
            ([str(ROOT / "raw"), "--text", "x"], 2, "--text needs exactly one clip"),
            ([str(ROOT / "docs")], 1, "docs: no clips in this folder"),
        ],
    )
    def test_wrong_arguments_are_answered(self, folder, argv, status, line):
        model = [] if "--model" in argv else ["--model", folder]
        process = run_predict(SPOKEN, *argv, *model)
        assert process.returncode == status
        assert line in " ".join(process.stderr.replace("│", " ").split())
        assert "Traceback" not in process.stderr

    def test_a_warning_stands_on_stderr_once(self, folder, copy):
        edit_features(copy, "acoustic", identity__libraries__librosa="0.1", digest="x")
        process = run_predict(SAMPLE / "Raw" / "speaker02_c", "--model", copy, "--other-versions")
        assert process.returncode == 0
        (line,) = process.stderr.splitlines()
        assert "clips: " in line
        assert "librosa is" in line


@pytest.mark.slow
def test_the_command_gives_what_evaluate_gave(tmp_path):
    """All test clips of the sample corpus, by a model trained at missing rate 0."""
    with (SAMPLE / "label.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    left, kept = {"train": 12, "valid": 3, "test": 40}, []
    raw = tmp_path / "raw" / "sample"
    for row in rows:
        if left[row["mode"]]:
            left[row["mode"]] -= 1
            kept.append(row)
            clip = raw / "Raw" / row["video_id"] / f"{row['clip_id']}.mp4"
            clip.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(SAMPLE / clip.relative_to(raw), clip)
            if row["mode"] == "test":
                clip.with_suffix(".txt").write_text(row["text"])
    with (raw / "label.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(kept)
    write_params(tmp_path, train__max_epochs=1, run__workers=2)
    run_cell(tmp_path, "sample", 0.0)
    predicted = pq.read_table(tmp_path / "predictions/sample/mitfrnet/0.0/1.parquet")
    clips = [raw / "Raw" / f"{u}.mp4" for u in predicted["utterance_id"].to_pylist()]
    assert len(clips) == 40
    process = run_predict(*clips, "--model", "models/sample/mitfrnet/0.0/1", "--json", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    records = json.loads(process.stdout)
    assert [Path(r["clip"]) for r in records] == clips
    scores = np.array([r["score"] for r in records])
    assert np.abs(scores - predicted["prediction"].to_numpy()).max() < 1e-5
    assert sum(r["text_reason"] is not None for r in records) == 1  # one says nothing
    assert np.ptp(scores) > 0.01
