"""A finished run on five clips whose names and words try to break out of a page."""

import csv
import shutil

from tests.helpers.paths import ROOT
from tests.helpers.running import run_stage, write_params

HOSTILE = "</script><img src=x onerror=\"document.title='broken'\">"
VIDEO = "v&lt;'1"
CELL = {"corpus": "mine", "model": "mitfrnet", "missing_rate": 0.3, "seed": 1}
STAGES = [
    ("ingest", {"corpus": "mine"}),
    *(("extract", {"corpus": "mine", "modality": m}) for m in ("text", "acoustic", "visual")),
    ("tensors", {"corpus": "mine"}),
    ("mask", {"corpus": "mine", "missing_rate": 0.3}),
    ("train", CELL),
    ("evaluate", CELL),
]


def run_pipeline(folder):
    """Run it in `folder`; the test split is `<VIDEO>/01`, complete, and `quiet/01`, no words."""
    rows = [
        (VIDEO, "01", f"The band {HOSTILE} was excellent.", 2.6, "test"),
        ("quiet", "01", "", -1.0, "test"),
        ("b", "01", "I did not like it at all.", -2.0, "train"),
        ("c", "01", "It was fine.", 0.4, "train"),
        ("d", "01", "So so.", 0.2, "valid"),
    ]
    raw = folder / "raw" / "mine"
    clips = sorted((ROOT / "raw" / "sample" / "Raw" / "speaker02_c").glob("*.mp4"))
    for (video_id, clip_id, *_), clip in zip(rows, clips, strict=False):
        (raw / "Raw" / video_id).mkdir(parents=True)
        shutil.copy(clip, raw / "Raw" / video_id / f"{clip_id}.mp4")
    with (raw / "label.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("video_id", "clip_id", "text", "label", "mode"), *rows])
    corpus = {"layout": "mmsa", "language": "en", "scale": "mosi"}
    changes = {"train__max_epochs": 1, "run__workers": 2, "grid__corpora": ["mine"]}
    write_params(folder, corpora={"mine": corpus}, **changes)
    for stage, item in STAGES:
        process = run_stage(folder, stage, **item)
        assert process.returncode == 0, process.stderr[-3000:]
