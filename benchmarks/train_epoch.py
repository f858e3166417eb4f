"""Measure whole epochs of training, in one process and in several, beside MMSA's TFR-Net.

    python -m benchmarks.train_epoch [--models mitfrnet tfrnet] [--rounds 3]

The clips are those of `benchmarks.train_step` with the shapes of MOSI, and text encoded once and
for all: 384 features for ours, from the embedded encoder, 768 for MMSA's. Ours are trained as the
stage does it, from tensors on the disk, with masks, batches of like length and the validation of
24 clips; what counts is the median epoch. MMSA's steps are timed on batches at even places of such
an epoch, padded as it pads them, and multiplied. All contenders have the same cores, and take
turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch loads; see NOTES.md

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.large_corpus import metadata
from benchmarks.steps import CLIPS, MISSING_RATE, SHAPES, TEXT_DIM, draw_utterances
from mitfrnet.data.tensors import ModalityTensors, SplitTensors, read_tensors, write_tensors
from mitfrnet.missing import MaskParams, mask_corpus
from mitfrnet.modalities import MODALITIES
from mitfrnet.params import load_params
from mitfrnet.training.load import load_model_params
from mitfrnet.training.loop import train
from mitfrnet.training.settings import TrainParams
from mitfrnet.workers.params import RunParams

ENCODER = "minilm"  # whose features the frozen, embedded encoder gives


def make_split(clips: int, name: str) -> SplitTensors:
    """Return the clips of `benchmarks.train_step` as the tensors stage writes them."""
    shape = SHAPES["mosi"]
    utterances = draw_utterances(shape, TEXT_DIM[ENCODER], clips)
    modalities = {}
    for m in MODALITIES:
        values = torch.cat([u.target[m] for u in utterances]).numpy()
        offsets = np.cumsum([0, *(len(u.target[m]) for u in utterances)])
        seconds = np.arange(len(values), dtype=np.float32)
        modalities[m] = ModalityTensors(values, np.ones(len(values), bool), seconds, offsets)
    token_ids = torch.cat([u.token_ids for u in utterances]).numpy().astype(np.int32)
    return SplitTensors(
        ids=[f"{name}/{u.utterance_id}" for u in utterances],
        label=np.array([u.label for u in utterances], dtype=np.float32),
        modalities=modalities,
        token_ids=token_ids,
        special=np.zeros(len(token_ids), dtype=bool),
        metadata=metadata(),
    )


def their_epoch(threads: int, steps: int) -> float:
    """Return the seconds that MMSA's steps of an epoch take."""
    with tempfile.TemporaryDirectory() as name:
        found = Path(name) / "found.json"
        words = ["--models", "mmsa_tfrnet", "--shapes", "mosi", "--encoders", "none"]
        words += ["--steps", str(steps), "--rounds", "1", "--threads", str(threads)]
        command = [sys.executable, "-m", "benchmarks.train_step", *words, "--json", str(found)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads(found.read_text())[0]["epoch_s"]


def epoch(folder: Path, model: str, processes: int, threads: int) -> None:
    """Train for three epochs and print the seconds of the median one."""
    splits = read_tensors(folder, ["train", "valid"])
    steps = {name: split.steps for name, split in splits.items()}
    masks = mask_corpus(steps, rate=MISSING_RATE, params=load_params(MaskParams, section="mask"))
    params = load_params(TrainParams, section="train")
    run = RunParams(workers=1, timeout_seconds=60, devices=processes)
    with tempfile.TemporaryDirectory() as work:
        trained = train(
            splits,
            masks,
            name=model,
            model_params=load_model_params(model),
            params=params.model_copy(update={"max_epochs": 3, "threads": threads}),
            seed=1,
            curves=Path(work),
            run=run,
            text_cache=folder / "text",
        )
    if trained.first:
        print(json.dumps(trained.cost))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["mitfrnet", "tfrnet"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5, help="of MMSA's, to stand for an epoch")
    parser.add_argument("--epoch", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.epoch:
        folder, model, processes, threads = args.epoch
        epoch(Path(folder), model, int(processes), int(threads))
        return
    theirs = "MMSA's TFR_NET"
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        splits = {"train": make_split(CLIPS, "train"), "valid": make_split(24, "valid")}
        write_tensors(splits, Path(name))
        del splits
        words = [sys.executable, "-m", "benchmarks.train_epoch", "--epoch", name]
        for i in range(args.rounds):
            for model in args.models:
                for processes in (1, args.cores):
                    threads = args.cores // processes
                    done = subprocess.run(
                        [*words, model, str(processes), str(threads)],
                        check=True, text=True, stdout=subprocess.PIPE,
                    )  # fmt: skip
                    found = json.loads(done.stdout.splitlines()[-1])["seconds_per_epoch"]
                    plural = "es" if processes > 1 else ""
                    key = f"{model}, {processes} process{plural}"
                    seconds.setdefault(key, []).append(found)
                    print(f"round {i + 1}: {key}: {found:.1f} s", flush=True)
            found = their_epoch(args.cores, args.steps)
            seconds.setdefault(theirs, []).append(found)
            print(f"round {i + 1}: {theirs}: {found:.1f} s", flush=True)
    table = Table(box=box.MARKDOWN)
    for column in (f"an epoch of {CLIPS} clips", "s", "of each round", f"{theirs} takes"):
        table.add_column(column, justify="right" if table.columns else "left")
    median = {key: statistics.median(each) for key, each in seconds.items()}
    for key, each in seconds.items():
        table.add_row(
            key,
            f"{median[key]:.1f}",
            " ".join(f"{s:.1f}" for s in each),
            f"{median[theirs] / median[key]:.1f} times",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
