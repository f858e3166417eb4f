"""A finished run on five clips whose names and words try to break out of a page."""

import csv
import shutil

from mitfrnet.modalities import MODALITIES
from tests.helpers.paths import ROOT
from tests.helpers.running import run_stage, write_params

HOSTILE = "</script><img src=x onerror=\"document.title='broken'\">"
VIDEO = "v&lt;'1"
UTTERANCE = f"{VIDEO}/01"  # complete; the other of the test split is `quiet/01`, without words
CORPUS = {"layout": "mmsa", "language": "en", "scale": "mosi"}
MODEL = "models/mine/mitfrnet/0.3/1"


def run_pipeline(folder):
    """Run it in `folder`."""
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
    changes = {"train__max_epochs": 1, "run__workers": 2, "grid__corpora": ["mine"]}
    write_params(folder, corpora={"mine": CORPUS}, **changes)
    run_cell(folder, "mine", 0.3)


def run_cell(folder, corpus, missing_rate):
    """Run the stages up to `evaluate` for one missing rate, with seed 1 of MIT-FRNet."""
    cell = {"corpus": corpus, "model": "mitfrnet", "missing_rate": missing_rate, "seed": 1}
    for stage, item in [
        ("ingest", {"corpus": corpus}),
        *(("extract", {"corpus": corpus, "modality": m}) for m in MODALITIES),
        ("tensors", {"corpus": corpus}),
        ("mask", {"corpus": corpus, "missing_rate": missing_rate}),
        ("train", cell),
        ("evaluate", cell),
    ]:
        process = run_stage(folder, stage, **item)
        assert process.returncode == 0, process.stderr[-3000:]
