"""Measure the stages on a million clips, without decoding: python -m benchmarks.million_clips.

It makes a corpus of the default layout in a temporary folder: a table with transcripts, and empty
files. The stages ingest, extract and mask run on it as DVC runs them, each in its own process.
Three things are made up: the result of probing a clip, an extractor of two steps of four numbers,
and tensors of one feature, with the lengths of the shipped settings. So it measures all work that
is done per row of the manifest; `benchmarks.extract` measures the work per frame.

Memory is the peak of a stage's anonymous memory in each part. Pages of mapped files do not count:
the system drops them when it needs room. Worker processes do not count either: their memory does
not depend on the number of clips. The exit status is 1 if a part takes 2 GB or more.
"""

import argparse
import csv
import importlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mitfrnet.corpus.clips import LabelledClip
from mitfrnet.corpus.ingest import ProbedClip
from mitfrnet.data.tensors import ModalityTensors, SplitTensors, read_tensors, write_tensors
from mitfrnet.features.plugins import GROUP
from mitfrnet.media.decode import Probe
from mitfrnet.missing import read_masks

ROOT = Path(__file__).parents[1]
PARTS = "parts.jsonl"  # a stage writes a line here after each part
TARGET_MB = 2000
CLIPS_OF_A_VIDEO = 40
SHARES = {"train": 0.7, "valid": 0.1, "test": 0.2}
STEPS_PER_SECOND = {"text": 3.6, "acoustic": 31.25, "visual": 10.0}  # of the shipped settings
WORDS_PER_SECOND = 2.6

# Installed as a plugin.
EXTRACTOR = """
import numpy as np
from mitfrnet.features.extractor import Features

class Made:
    modality = "acoustic"
    version = "1"
    feature_names = ("a", "b", "c", "d")
    units = ("1", "1", "1", "1")
    identity = {}

    def __init__(self, limits):
        pass

    def extract(self, clip):
        values = np.full((2, 4), len(clip.transcript), np.float32)
        return Features(values, np.ones(2, bool), np.array([0, 0.5], np.float32))
"""


def make_corpus(folder: Path, clips: int) -> None:
    """Write a corpus of empty files."""
    rng = random.Random(1)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(1, 9))) for _ in range(5000)]
    raw = folder / "raw" / "made"
    raw.mkdir(parents=True)
    with (raw / "label.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        head = "video_id clip_id text label label_T label_A label_V annotation"
        writer.writerow(head.split())
        for first in range(0, clips, CLIPS_OF_A_VIDEO):
            video = f"{sha256(str(first).encode()).hexdigest()[:11]}"  # as long as YouTube's
            (raw / "Raw" / video).mkdir(parents=True)
            for i in range(min(CLIPS_OF_A_VIDEO, clips - first)):
                seconds = rng.gammavariate(2.8, 1.5)
                said = rng.choices(words, k=1 + round(WORDS_PER_SECOND * seconds))
                labels = [f"{rng.uniform(-3, 3):.1f}" for _ in range(4)]
                writer.writerow([video, f"{i + 1:04d}", " ".join(said), *labels, "Neutral"])
                os.mknod(raw / "Raw" / video / f"{i + 1:04d}.mp4")


def make_project(folder: Path) -> None:
    """Write the parameters, and the package of the extractor."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["corpora"]["made"] = {"layout": "mmsa", "language": "en", "scale": "mosi"}
    params["extract"]["acoustic"] = "made"
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    metadata = folder / "made_extractor-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: made\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\nmade = made_extractor:Made\n")
    (folder / "made_extractor.py").write_text(EXTRACTOR)


def make_tensors(folder: Path, clips: int) -> None:
    """Write tensors of one feature; durations follow a gamma distribution, as in CMU-MOSI."""
    splits = {name: round(clips * share) for name, share in SHARES.items()}
    for name, count in splits.items():
        rng = np.random.default_rng([clips, len(name)])
        seconds = np.clip(rng.gamma(2.8, 1.5, count), 0.5, 11.7)
        modalities = {}
        for modality, per_second in STEPS_PER_SECOND.items():
            lengths = np.ceil(seconds * per_second).astype(np.int64) + 2
            lengths[rng.random(count) < 0.01] = 0  # naturally missing
            offsets = np.concatenate([[0], lengths.cumsum()])
            total = int(offsets[-1])
            time_s = np.arange(total) - np.repeat(offsets[:-1], lengths)
            modalities[modality] = ModalityTensors(
                values=np.ones((total, 1), np.float32),
                detected=rng.random(total) > 0.1 if modality == "visual" else np.ones(total, bool),
                time_s=(time_s / per_second).astype(np.float32),
                offsets=offsets,
            )
        text = modalities["text"]
        special = np.zeros(len(text.values), bool)
        present = np.diff(text.offsets) > 0
        special[text.offsets[:-1][present]] = special[text.offsets[1:][present] - 1] = True
        split = SplitTensors(
            ids=[f"{name}{i // CLIPS_OF_A_VIDEO:06d}/{i:07d}" for i in range(count)],
            label=np.zeros(count, np.float32),
            modalities=modalities,
            token_ids=np.ones(len(special), np.int32),
            special=special,
            metadata={},
        )
        write_tensors({name: split}, folder)


def made_probe(
    probe_clips: Callable[..., Any], *args: Any, **keywords: Any
) -> Iterator[tuple[LabelledClip, ProbedClip]]:
    """Probe the empty clips, and replace each result by that of a usable clip."""
    for clip, probed in probe_clips(*args, **keywords):
        number = zlib.crc32(clip.utterance_id.encode())
        seconds = 0.5 + number % 9000 / 1000
        probe = Probe(
            duration_s=seconds,
            fps=29.97 + number % 7 / 100,
            frames=round(30 * seconds),
            width=1280,
            height=720,
            video_codec="h264",
            audio_codec="aac",
            audio_duration_s=seconds - 0.01,
            audio_sample_rate_hz=44100,
            container="mov,mp4,m4a,3gp,3g2,mj2",
            video_reason=None,
            audio_reason="no_audio_stream" if number % 200 == 0 else None,
        )
        digest = sha256(clip.utterance_id.encode()).hexdigest()
        yield clip, replace(probed, digest=digest, probe=probe)


def mark(part: str) -> None:
    """Tell the watching process that a part of the work has ended."""
    with open(PARTS, "a") as file:
        print(json.dumps({"part": part, "cpu_s": time.process_time()}), file=file)


def around(module: Any, name: str, *, before: str = "", after: str = "") -> None:
    """Wrap a function of a module: a call first ends the part `before`, then the part `after`."""
    function = getattr(module, name)

    def wrapper(*args: Any, **keywords: Any) -> Any:
        if before:
            mark(before)
        result = function(*args, **keywords)
        if after:
            mark(after)
        return result

    setattr(module, name, wrapper)


def ingest() -> None:
    """Run the stage, marking its parts."""
    stage = importlib.import_module("pipeline.ingest")
    stage.probe_clips = partial(made_probe, stage.probe_clips)
    around(stage, "read_corpus", before="imports", after="read the table, draw the split")
    around(stage, "check_bad_fraction", before="hand clips to workers and back")
    around(stage, "build_manifest", after="build the manifest")
    around(stage, "write_manifest", after="write it")
    files = "--out data/manifest.parquet --transcripts data/heard.parquet --quality quality.json"
    stage.main(["--corpus", "made", "--raw", "raw/made", *files.split()])
    mark("sum it up")


def extract(part: str) -> None:
    """Run the stage for sound, marking its parts."""
    stage = importlib.import_module("pipeline.extract")
    around(stage, "read_manifest", before="imports", after="read the manifest")
    around(importlib.import_module("mitfrnet.features.extract"), "track", before="plan the shards")
    files = "--manifest data/manifest.parquet --raw raw/made --out data/features/acoustic"
    stage.main(["--modality", "acoustic", *files.split()])
    mark(part)


def mask() -> None:
    """Run the stage, marking its parts."""
    stage = importlib.import_module("pipeline.mask")
    around(stage, "read_steps", before="imports", after="read the lengths")
    around(stage, "mask_corpus", after="draw three masks a clip")
    around(stage, "write_masks", after="write them")
    files = "--tensors data/tensors --out data/0.3.parquet --summary mask.json"
    stage.main(["--missing-rate", "0.3", *files.split()])
    mark("rest")


def train() -> None:
    """Read masks, as training does first."""
    splits = read_tensors(Path("data/tensors"))
    steps = {name: split.steps for name, split in splits.items()}
    mark("imports, read the lengths")
    read_masks(Path("data/0.3.parquet"), steps)
    mark("read the masks")


STAGES: dict[str, Callable[[], None]] = {
    "ingest": ingest,
    "extract, all": partial(extract, "extract, write shards"),
    "extract, none": partial(extract, "rest"),
    "mask": mask,
    "train": train,
}
WRITES = {"ingest": "manifest.parquet", "extract, all": "features", "mask": "0.3.parquet"}


def watched(stage: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Run a stage in `folder`; yield the time and memory of each part."""
    parts, log = folder / PARTS, folder / "log"
    parts.write_text("")
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.million_clips", "--stage", stage],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])},
            stdout=output,
            stderr=output,
        )
    began, cpu_s, own_kib, running = time.perf_counter(), 0.0, 0, True
    with parts.open() as lines:
        while running:
            running = process.poll() is None  # lines written after this are read next time
            own_kib = max(own_kib, _own_kib(process.pid))
            for line in lines:
                part, now = json.loads(line), time.perf_counter()
                yield {
                    "part": part["part"],
                    "seconds": now - began,
                    "cpu_s": part["cpu_s"] - cpu_s,
                    "own_mb": own_kib * 1024 / 1e6,
                }
                began, cpu_s, own_kib = now, part["cpu_s"], _own_kib(process.pid)
            time.sleep(0.02)
    if process.returncode:
        sys.exit(f"{stage}: {log.read_text()[-3000:]}")


def _own_kib(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)


def _bytes_in(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def main() -> None:
    """Print the time and memory of each part of each stage, for each number of clips."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        STAGES[args.stage]()
        return
    worst = 0.0
    for clips in args.clips:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_project(folder)
            if {"ingest", "extract, all"} & {*args.only}:
                make_corpus(folder, clips)
            if {"mask", "train"} & {*args.only}:
                make_tensors(folder / "data" / "tensors", clips)
            print(f"{clips:,} clips")
            print("| stage | part | s | CPU, µs a clip | own memory, MB | MB written |")
            print("|---|---|---|---|---|---|", flush=True)
            for stage in args.only:
                for part in watched(stage, folder):
                    worst = max(worst, part["own_mb"])
                    print(
                        f"| {stage} | {part['part']} | {part['seconds']:.1f} | "
                        f"{1e6 * part['cpu_s'] / clips:.1f} | {part['own_mb']:.0f} | |",
                        flush=True,
                    )
                if stage in WRITES:
                    written = _bytes_in(folder / "data" / WRITES[stage]) / 1e6
                    print(f"| {stage} | | | | | {written:.1f} |", flush=True)
    print(f"most memory of its own: {worst:.0f} MB (target: under {TARGET_MB} MB)")
    if worst >= TARGET_MB:
        sys.exit(1)


if __name__ == "__main__":
    main()
