"""A corpus with one of each defect that `mitfrnet validate` reports.

`python -m tests.helpers.defects raw/defects` writes it and prints its block for
params.yaml.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import yaml

from tests.helpers.clips import tone, write_clip

BLOCK = {
    "layout": "table",
    "language": "en",
    "scale": "mosi",
    "table": {
        "file": "clips.csv",
        "path": "{video_id}/{clip_id}.*",
        "columns": {
            "video_id": "video_id", "clip_id": "clip_id", "text": "text", "label": "label",
            "split": "split", "start": "start", "end": "end",
        },
    },
}  # fmt: skip

INGEST = {
    "max_bad_fraction": 0.1,
    "split": {"train": 0.7, "valid": 0.1, "test": 0.2, "seed": 1},
    "limits": {
        "max_duration_s": 5, "max_pixels": 10**6, "max_bytes": 10**6, "max_streams": 8
    },
}  # fmt: skip

# video_id, clip_id, text, label, split, start, end
ROWS = [
    ("good", "1", "a fine day", 1, "train", "", ""),  # line 2
    ("good", "2", "an awful day", -2, "train", "", ""),
    ("good", "3", "neither", 0, "train", "", ""),
    ("gone", "1", "its file is not there", 1, "train", "", ""),
    ("zero", "1", "a file without a byte", 0, "train", "", ""),
    ("page", "1", "a page of text", -1, "train", "", ""),
    ("mute", "1", "no sound", 1, "train", "", ""),
    ("dark", "1", "no picture", 2, "train", "", ""),
    ("long", "1", "six seconds", -1, "train", "", ""),
    ("slow", "1", "two frames a second", 3, "train", "", ""),  # line 11
    ("film", "1", "it ends too late", 1, "train", "0.5", "4.5"),
    ("film", "2", "it starts too late", 2, "train", "3", "3.5"),
    ("copy", "1", "the same film as good", -2, "test", "", ""),
    ("here", "1", "one of a video", 1, "train", "", ""),
    ("here", "2", "another of the video", -1, "test", "", ""),
    ("mark", "1", "?! … \x1b[7;1~", 0, "train", "", ""),
    ("none", "1", "", 0, "train", "", ""),
    ("word", "1", "words beyond", 1, "train", "", ""),
    ("lang", "1", "сегодня хороший день", 2, "train", "", ""),
    ("same", "1", "the only valid clip", 1, "valid", "", ""),  # line 21
    ("twice", "1", "first", 1, "train", "", ""),
    ("twice", "1", "second", 1, "train", "", ""),
    ("high", "1", "out of scale", 7, "train", "", ""),
    ("half", "1", "of no split", 1, "[red]dev", "", ""),
    ("back", "1", "it ends first", 1, "train", "2", "1"),
    ("../out", "1", "its id leads out", 1, "train", "", ""),
]


def write_defects(folder):
    """Write the corpus of `ROWS`, and return its folder."""
    folder.mkdir(parents=True)
    with (folder / "clips.csv").open("w", encoding="utf-8", newline="") as file:
        columns = ["video_id", "clip_id", "text", "label", "split", "start", "end"]
        csv.writer(file).writerows([columns, *ROWS])
    frames, seconds = np.arange(10) / 10, 1.0
    special = {
        "mute/1": lambda path: write_clip(path, frames),
        "dark/1": lambda path: write_clip(path, (), tone(seconds)),
        "long/1": lambda path: write_clip(path, np.arange(60) / 10, tone(6)),
        "slow/1": lambda path: write_clip(path, (0, 0.5, 1, 1.5), tone(2)),
        "zero/1": lambda path: path.write_bytes(b""),
        "page/1": lambda path: path.write_text("no film"),
        "copy/1": lambda path: path.write_bytes((folder / "good/1.mkv").read_bytes()),
    }
    for nth, (video_id, clip_id, *_) in enumerate(ROWS):
        path = folder / video_id / f"{clip_id}.mkv"
        if video_id in {"gone", "../out"} or path.exists():
            continue
        path.parent.mkdir(exist_ok=True)
        clip = f"{video_id}/{clip_id}"
        if clip in special:
            special[clip](path)
        else:  # each with its own pitch, so that no two are equal
            write_clip(path, frames, tone(seconds, hz=400 + 10 * nth))
    times = [
        {"word": "words", "start": 0.1, "end": 0.4},
        {"word": "beyond", "start": 1.2, "end": 1.75},
    ]
    (folder / "word" / "1.json").write_text(json.dumps(times))
    return folder


if __name__ == "__main__":
    to = write_defects(Path(sys.argv[1]))
    print(yaml.safe_dump({to.name: BLOCK}, sort_keys=False, default_flow_style=False), end="")
