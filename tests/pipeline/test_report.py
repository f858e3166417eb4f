import os
import subprocess
import sys

import pytest

from mitfrnet.report.worst import WorstClip, write_worst
from tests.helpers.made_results import TITLE, write_results
from tests.helpers.paths import ROOT

READ = ("metrics", "predictions", "models", "timings")
PATHS = [*(f"--{name}={name}" for name in READ), "--inspected=report/inspect", "--out=report"]
CLIP = WorstClip("one", "video_0/0", "1.00", "-1.00", "What is said.", "a.html")


def run(folder):
    """Run the stage where the results are."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline.report", *PATHS],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def results(tmp_path):
    write_results(tmp_path)
    write_worst([CLIP], tmp_path / "report/inspect/one")
    return tmp_path


def test_the_stage_writes_page_tables_and_plot_data(results):
    finished = run(results)
    assert (finished.returncode, finished.stderr) == (0, "")
    written = {p.relative_to(results / "report").as_posix() for p in results.glob("report/**/*.*")}
    cell = "one/mitfrnet/0.3/1.tsv"
    assert {"index.html", "scores.txt", "scores.csv"} <= written
    assert {f"plots/{kind}/{cell}" for kind in ("losses", "predictions", "signs")} <= written
    assert "plots/scores/one/mitfrnet.tsv" in written
    assert {"tables/scores_one.csv", "tables/timings_one.tex"} <= written
    assert "figures/losses_one_mitfrnet_task.png" in written
    assert f"<title>{TITLE}</title>" in (results / "report/index.html").read_text()


def test_the_page_links_to_pages_that_are_there_and_to_no_others(results):
    link = '<a href="inspect/one/a.html">video_0/0</a>'
    run(results)
    page = (results / "report/index.html").read_text()
    assert "What is said." in page
    assert "mitfrnet inspect one/video_0/0" in page
    assert link not in page
    (results / "report/inspect/one/a.html").write_text("")
    run(results)
    page = (results / "report/index.html").read_text()
    assert link in page
    assert "mitfrnet inspect" not in page


def test_an_absent_cell_is_one_clear_line(results):
    (results / "models/one/mitfrnet/0.3/1/config.json").unlink()
    finished = run(results)
    assert finished.returncode == 1
    assert finished.stderr == (
        "error: models/one/mitfrnet/0.3/1/config.json: absent, though the grid asks for it "
        "(run `dvc repro`)\n"
    )


def test_the_report_needs_no_model_library(results):
    code = (
        "import sys; from pipeline import report; "
        f"report.main({PATHS!r}); "
        "print(sorted({'torch', 'mediapipe', 'librosa', 'cv2', 'transformers'} & set(sys.modules)))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code],
        cwd=results,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.strip() == "[]"
