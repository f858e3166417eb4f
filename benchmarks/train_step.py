"""Measure one training step of our models, and of MMSA's TFR-Net and MulT, on random clips.

    python -m benchmarks.train_step --help

A step is forward, loss, backward, clipping and Adam, in train mode with dropout. All models see the
same clips. Ours get batches of similar length, padded to the longest clip; MMSA's are padded to the
full length of its feature files. Batches are spread over the epoch, and models take turns on each.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch loads; see NOTES.md

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from benchmarks.steps import (
    CLIPS,
    ENCODERS,
    OURS,
    SHAPES,
    TEXT_DIM,
    THEIRS,
    Shape,
    Step,
    bucketed,
    build,
    draw_utterances,
)
from mitfrnet.data.batches import Utterance


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def timed(step: Step, i: int) -> tuple[float, float]:
    """Return the seconds of one step, and its processor seconds over all threads."""
    synchronise(step.device)
    wall, processor = time.perf_counter(), time.process_time()
    step(i)
    synchronise(step.device)
    return time.perf_counter() - wall, time.process_time() - processor


def measure(
    steps: list[Step], epoch: list[list[Utterance]], args: argparse.Namespace
) -> dict[str, tuple[float, float]]:
    """Return mean seconds and processor seconds of a step over an epoch, by model.

    The epoch is represented by `args.steps` batches, evenly spaced in the order of length, and each
    batch by the median of `args.rounds` rounds. Models alternate.
    """
    places = [int((k + 0.5) * len(epoch) / args.steps) for k in range(args.steps)]
    for step in steps:
        for i in places:
            step.prepare(i, epoch[i])
        step(places[len(places) // 2])  # warm up
    seconds: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for _ in range(args.rounds):
        for i in places:
            for step in steps:
                seconds.setdefault((step.name, i), []).append(timed(step, i))
    means = {}
    for step in steps:
        medians = [
            [statistics.median(kind) for kind in zip(*seconds[step.name, i], strict=True)]
            for i in places
        ]
        wall, processor = (statistics.mean(kind) for kind in zip(*medians, strict=True))
        means[step.name] = (wall, processor)
    return means


def peak_memory_mb(name: str, shape: Shape, args: argparse.Namespace) -> float:
    """Return the peak memory of two steps on the epoch's longest clips, in MB.

    On a CPU it is the memory of a process that does nothing else, libraries included.
    """
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        _two_longest_steps(name, shape, args)
        return torch.cuda.max_memory_allocated() / 1e6
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_two_longest_steps, name, shape, args).result()


def _two_longest_steps(name: str, shape: Shape, args: argparse.Namespace) -> float:
    torch.set_num_threads(args.threads)
    clips = draw_utterances(shape, TEXT_DIM[args.encoder], args.clips)
    step = build(name, shape, args)
    step.prepare(0, bucketed(clips, shape.batch_size)[-1])
    for _ in range(2):
        step(0)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def show(console: Console, title: str, columns: list[str], rows: list[list[str]]) -> None:
    table = Table(title=title, box=box.MARKDOWN, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def compare(console: Console, shape_name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the models on one shape with one encoder, and print the table."""
    shape = SHAPES[shape_name]
    clips = draw_utterances(shape, TEXT_DIM[args.encoder], args.clips)
    epoch = bucketed(clips, shape.batch_size)
    steps = [build(name, shape, args) for name in args.models]
    means = measure(steps, epoch, args)
    # On the CPU, ratios compare processor time, which a busy machine disturbs less.
    kind = 0 if args.device == "cuda" else 1
    reference = args.models[-1] if args.reference is None else args.reference
    rows, results = [], []
    for step in steps:
        wall, processor = means[step.name]
        memory = peak_memory_mb(step.name, shape, args) if args.memory else None
        result = {
            "shape": shape_name,
            "encoder": args.encoder,
            "text": args.text,
            "model": step.name,
            "ms": 1000 * wall,
            "processor_ms": 1000 * processor,
            "clips_per_s": len(clips) / (wall * len(epoch)),
            "epoch_s": wall * len(epoch) * CLIPS / len(clips),
            "parameters": step.parameters,
            "peak_memory_mb": memory,
            "times_faster": means[reference][kind] / means[step.name][kind],
        }
        results.append(result)
        rows.append(
            [
                step.name,
                f"{result['ms']:.0f}",
                f"{result['processor_ms']:.0f}",
                f"{result['clips_per_s']:.1f}",
                f"{result['epoch_s']:.1f}",
                f"{step.parameters:,}",
                "" if memory is None else f"{memory:.0f}",
                f"{result['times_faster']:.2f}",
            ]
        )
    text = "no text encoder" if args.encoder == "none" else f"{args.encoder}, {args.text}"
    columns = ["model", "ms/step", "CPU ms", "clips/s", "s/epoch", "parameters", "MB"]
    title = f"{shape_name}, {text}, {args.device}, {args.threads} threads"
    show(console, title, [*columns, f"times {reference}"], rows)
    if args.profile:
        slowest = max(steps, key=lambda step: means[step.name][kind])
        print_profile(slowest, sorted(slowest.batches)[len(slowest.batches) // 2])
    return results


def print_profile(step: Step, i: int) -> None:
    """Print the operations that take the most time of a step."""
    activities = [ProfilerActivity.CPU]
    if step.device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as record:
        step(i)
        synchronise(step.device)
    key = "self_cuda_time_total" if step.device == "cuda" else "self_cpu_time_total"
    print(f"{step.name}, batch {i} of the epoch:")
    print(record.key_averages().table(sort_by=key, row_limit=25, max_name_column_width=60))


def scaling(console: Console, shape_name: str, args: argparse.Namespace) -> None:
    """Print the time of a step with 1, 2 and 4 times the clips, or steps, of a median batch."""
    shape = SHAPES[shape_name]
    rows = []
    for name in args.models:
        if name in THEIRS:
            continue
        step = build(name, shape, args)
        for i, (clips, length) in enumerate([(1, 1), (2, 1), (4, 1), (1, 2), (1, 4)]):
            drawn = draw_utterances(shape, TEXT_DIM[args.encoder], args.clips, scale=length)
            middle = bucketed(drawn, shape.batch_size)[args.clips // shape.batch_size // 2]
            step.prepare(i, middle * clips)
        for i in step.batches:
            step(i)
        times = {
            i: statistics.median(timed(step, i)[1] for _ in range(args.rounds))
            for i in step.batches
        }
        rows.append([name] + [f"{1000 * t:.0f} ({t / times[0]:.1f})" for t in times.values()])
    columns = ["model", "1x", "clips 2x", "clips 4x", "steps 2x", "steps 4x"]
    show(console, f"{shape_name}: CPU ms of a step (times the first)", columns, rows)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=[*OURS, *THEIRS], default=[*OURS, *THEIRS])
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument(
        "--encoders",
        nargs="+",
        choices=["none", *ENCODERS],
        default=["none", *ENCODERS],
        help="text encoders, with random weights",
    )
    parser.add_argument(
        "--text", nargs="+", choices=["frozen", "finetuned"], default=["frozen", "finetuned"]
    )
    parser.add_argument("--steps", type=int, default=9, help="batches that represent the epoch")
    parser.add_argument("--rounds", type=int, default=3, help="times each is repeated")
    parser.add_argument("--clips", type=int, default=CLIPS, help="clips of the random corpus")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    parser.add_argument("--reference", help="model that ratios refer to (default: the last one)")
    parser.add_argument("--memory", action="store_true", help="measure peak memory")
    parser.add_argument("--profile", action="store_true", help="operations of the slowest model")
    parser.add_argument("--scaling", action="store_true", help="with more clips and longer ones")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    console = Console(width=120)
    results = []
    for shape in args.shapes:
        for encoder in args.encoders:
            for text in args.text if encoder != "none" else ["frozen"]:
                run = argparse.Namespace(**{**vars(args), "encoder": encoder, "text": text})
                if args.scaling:
                    scaling(console, shape, run)
                else:
                    results += compare(console, shape, run)
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
