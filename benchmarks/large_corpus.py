"""How much memory training takes on a corpus of many clips: python -m benchmarks.large_corpus.

The clips are made: durations of a gamma distribution as those of CMU-MOSI, three features with
the widths that its users train on. They are written as the tensors stage writes them, and trained
on for one epoch by the cheapest model, in a process of its own; the same is done with a
fiftieth of them. What the process holds beyond what it held with few clips is due to the clips:
its own memory, and pages of mapped files, which the system drops when others need the room.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from mitfrnet.data.tensors import ModalityTensors, SplitTensors, read_tensors, write_tensors
from mitfrnet.features.text_encoder import load_tokenizer, vocabulary_digest, weights_digest
from mitfrnet.labels import SCALES
from mitfrnet.missing import MaskParams, mask_corpus
from mitfrnet.modalities import MODALITIES
from mitfrnet.params import load_params
from mitfrnet.training.load import load_model_params
from mitfrnet.training.loop import train
from mitfrnet.training.settings import TrainParams

WIDTHS = {"text": 384, "acoustic": 33, "visual": 168}
STEPS_PER_SECOND = {"text": 3.6, "acoustic": 31.25, "visual": 10.0}  # of the shipped settings


def make_split(clips: int, name: str) -> SplitTensors:
    """Return `clips` utterances of random features."""
    random = np.random.default_rng([clips, len(name)])
    seconds = np.clip(random.gamma(2.8, 1.5, clips), 0.5, 11.7)
    modalities = {}
    for modality, width in WIDTHS.items():
        lengths = np.ceil(seconds * STEPS_PER_SECOND[modality]).astype(np.int64) + 2
        offsets = np.concatenate([[0], lengths.cumsum()])
        total = int(offsets[-1])
        values = random.standard_normal((total, width), dtype=np.float32)
        time_s = np.arange(total, dtype=np.float32)
        modalities[modality] = ModalityTensors(values, np.ones(total, bool), time_s, offsets)
    tokens = len(modalities["text"].values)
    return SplitTensors(
        ids=[f"{name}/{i:06d}" for i in range(clips)],
        label=random.uniform(-3, 3, clips).astype(np.float32),
        modalities=modalities,
        token_ids=random.integers(2000, 9000, tokens).astype(np.int32),
        special=np.zeros(tokens, dtype=bool),
        metadata=metadata(),
    )


def metadata() -> dict[str, Any]:
    """Return what tensors say of a made corpus whose text is that of the embedded encoder."""
    identity = {
        "encoder": "embedded",
        "weights": weights_digest("embedded"),
        "vocabulary": vocabulary_digest(load_tokenizer("embedded")),
        "unknown_id": 100,
    }
    features = {m: {"digest": m, "identity": identity if m == "text" else {}} for m in MODALITIES}
    return {"language": "en", "scale": SCALES["mosi"].model_dump(), "features": features}


def measure(folder: Path, model: str, rate: float) -> dict[str, float]:
    """Train on the tensors in `folder` for an epoch, in this process, and return what it took."""
    splits = read_tensors(folder, ["train", "valid"])
    steps = {name: split.steps for name, split in splits.items()}
    masks = mask_corpus(steps, rate=rate, params=load_params(MaskParams, section="mask"))
    params = load_params(TrainParams, section="train").model_copy(update={"max_epochs": 1})
    with tempfile.TemporaryDirectory() as work:
        trained = train(
            splits,
            masks,
            name=model,
            model_params=load_model_params(model),
            params=params,
            seed=1,
            curves=Path(work) / "curves",
            text_cache=folder / "text",
            unfinished=Path(work) / "training",
        )
    return {
        "resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "s_per_epoch": trained.cost["seconds_per_epoch"],
    }


def watched(command: list[str]) -> dict[str, float]:
    """Run `command` and return what it prints last, with the most memory it had of its own."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    own_kib = 0
    while process.poll() is None:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                own_kib = max(own_kib, int(line.split()[1]))
        time.sleep(0.1)
    assert process.stdout is not None
    if process.returncode:
        sys.exit(process.returncode)
    return json.loads(process.stdout.read().splitlines()[-1]) | {"own_mb": own_kib / 1024}


def main() -> None:
    """Print memory with few and with many clips, and their difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=20000)
    parser.add_argument("--model", default="tfn")
    parser.add_argument("--rate", type=float, default=0.3)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.model, args.rate)))
        return
    peaks: list[dict[str, float]] = []
    caches = ("empty", "warm")
    with tempfile.TemporaryDirectory() as folder:
        for clips in (args.clips // 50, args.clips):
            tensors = Path(folder) / str(clips)
            splits = {"train": make_split(clips, "train"), "valid": make_split(50, "valid")}
            size = sum(r.values.nbytes for r in splits["train"].modalities.values())
            write_tensors(splits, tensors)
            del splits
            words = ["-m", "benchmarks.large_corpus", "--model", args.model]
            words += ["--rate", str(args.rate), "--measure", str(tensors)]
            for cache in caches:
                found = watched([sys.executable, *words])
                peaks.append(found)
                print(
                    f"{clips:6d} clips, {size / 2**20:5.0f} MB of features, text cache {cache}: "
                    f"at the peak {found['own_mb']:.0f} MB of its own and "
                    f"{found['resident_mb']:.0f} MB with mapped files, "
                    f"{found['s_per_epoch']:.1f} s an epoch",
                    flush=True,
                )
    for cache, few, many in zip(caches, peaks[:2], peaks[2:], strict=True):
        own, resident = (many[key] - few[key] for key in ("own_mb", "resident_mb"))
        print(
            f"text cache {cache}, more with all clips: {own:.0f} MB of its own, "
            f"{resident:.0f} MB with mapped files"
        )


if __name__ == "__main__":
    main()
