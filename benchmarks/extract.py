"""Compare the extraction of sound and face with a bare loop over the same frames and samples.

    python -m benchmarks.extract [--clips raw/sample] [--seconds 120] [--rounds 5]

Every contender starts in a new process, so imports and the loading of models count. Contenders
take turns; medians and ratios are over all rounds.

- floor: only PyAV, MediaPipe's FaceMesh and librosa on the same frames and samples; one or two
  processes, each with its share of the clips, pinned to a core or not.
- ours: the stage's code for both modalities, which also writes the shards.
- dump: what MMSA-FET does for such features, in one process: write every frame at the same rate as
  a BMP, read it back by OpenCV, and make a FaceMesh for each clip. The files are written by PyAV,
  and if it is installed by the command ffmpeg, run twice for each clip as in MMSA-FET. It is timed
  on some of the clips, and its time is scaled to the frames of the floor.

Seconds of sound are decoding and analysis for the floor, a whole stage for ours, and reading and
analysis for dumps. Memory is the peak of the largest process.

With `--memory` it measures how much more memory a clip of 20 minutes at 1080p takes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from shutil import which
from typing import Any

import av
import pyarrow as pa
from rich import box
from rich.console import Console
from rich.table import Table

from mitfrnet.corpus.ingest import IngestParams, build_manifest, probe_clips, read_corpus
from mitfrnet.corpus.manifest import read_manifest, write_manifest
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.features.extract import build_extractor, extract_corpus, extractor_params
from mitfrnet.features.shards import read_features
from mitfrnet.params import load_params, read_section
from mitfrnet.workers.params import RunParams

ROOT = Path(__file__).parents[1]
MODALITIES = ("acoustic", "visual")
# Each worker of ours and each process of the floor uses one thread.
ENVIRONMENT = os.environ | dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)


@dataclass(frozen=True)
class Result:
    """One round of a contender, over all clips."""

    seconds: float  # of the whole process
    sound_seconds: float
    peak_mb: float  # of the largest process that extracts
    frames: int
    steps: int
    loop_seconds: float = 0.0  # of a bare loop, without imports


def repeated_manifest(raw: Path, times: int) -> pa.Table:
    """Return the manifest of the corpus, with each clip repeated under other ids."""
    corpus = CorpusParams(layout="mmsa", language="en", scale="mosi")
    ingest = load_params(IngestParams, section="ingest")
    run = RunParams(workers=2, timeout_seconds=60)
    probed = probe_clips(raw, read_corpus(raw, corpus, ingest), ingest.limits, run)
    once = build_manifest(probed, corpus, ingest)
    column = once.schema.get_field_index("utterance_id")
    tables = []
    for i in range(times):
        ids = pa.array([f"{i:03d}/{utterance_id}" for utterance_id in once[column].to_pylist()])
        tables.append(once.set_column(column, once.schema.field(column), ids))
    return pa.concat_tables(tables).combine_chunks()


def module(*arguments: Any) -> dict[str, Any]:
    """Run `python -m`, and return the JSON of its last line."""
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, check=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def bare(loop: str, manifest: pa.Table, raw: Path, folder: Path, cores: list[int | None]) -> Result:
    """Run a bare loop in one process per entry of `cores`; None: not pinned."""
    settings = {m: read_section(f"extract.{m}") for m in MODALITIES}
    clips = [str((raw / path).absolute()) for path in manifest["path"].to_pylist()]

    def run(i: int) -> dict[str, Any]:
        work = folder / f"work{i}.json"
        work.write_text(json.dumps({"clips": clips[i :: len(cores)], "settings": settings}))
        core = cores[i]
        pinned = [] if core is None else ["--core", core]
        return module("benchmarks.bare", loop, work, *pinned)

    begin = time.perf_counter()
    with ThreadPoolExecutor(len(cores)) as pool:
        results = list(pool.map(run, range(len(cores))))
    seconds = time.perf_counter() - begin
    return Result(
        seconds=seconds,
        loop_seconds=max(r["seconds"] for r in results),
        sound_seconds=max(r["sound_seconds"] for r in results),
        peak_mb=max(r["peak_mb"] for r in results),
        frames=sum(r["frames"] for r in results),
        steps=sum(r["steps"] for r in results),
    )


def ours(folder: Path, raw: Path, workers: int) -> Result:
    """Run the stage's code for each modality in turn, in a process as DVC does."""
    seconds, peaks = {}, []
    with tempfile.TemporaryDirectory() as out:
        for modality in MODALITIES:
            begin = time.perf_counter()
            done = module("benchmarks.extract", "--stage", modality, folder, raw, out, workers)
            seconds[modality] = time.perf_counter() - begin
            peaks.append(done["peak_mb"])
        steps = {m: sum(map(len, read_features(Path(out) / m)["detected"])) for m in MODALITIES}
    whole = sum(seconds.values())
    return Result(
        seconds=whole,
        sound_seconds=seconds["acoustic"],
        peak_mb=max(peaks),
        frames=steps["visual"],
        steps=steps["acoustic"],
    )


def stage(modality: str, folder: str, raw: str, out: str, workers: str) -> None:
    """Extract one modality of the manifest in `folder`."""
    params = extractor_params(modality, read_section(f"extract.{modality}"), where="params.yaml")
    run = RunParams(workers=int(workers), timeout_seconds=300)
    manifest = read_manifest(Path(folder) / "manifest.parquet")
    extract_corpus(modality, manifest, Path(raw), Path(out) / modality, params, run)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps({"peak_mb": peak}))


def table_of(results: dict[str, list[Result]], clips: int, hours: float) -> Table:
    """Return medians and ratios as a table."""
    median = {name: statistics.median(r.seconds for r in rs) for name, rs in results.items()}
    least = {
        n: min(median[k] for k in median if k.startswith(f"floor, {n}"))
        for n in (1, 2)
        if any(k.startswith(f"floor, {n}") for k in median)
    }
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("", "s", "of each round", "sound, s", "clips/s", "frames/s", "x real time",
                   "peak MB", "/ floor"):  # fmt: skip
        table.add_column(column, justify="left" if not column else "right")
    for name, rounds in results.items():
        seconds = median[name]
        processes = 2 if ", 2" in name else 1
        ratio = f"{seconds / least[processes]:.2f}" if processes in least else ""
        table.add_row(
            name,
            f"{seconds:.1f}",
            " ".join(f"{r.seconds:.0f}" for r in rounds),
            f"{statistics.median(r.sound_seconds for r in rounds):.1f}",
            f"{clips / seconds:.1f}",
            f"{rounds[0].frames / seconds:.0f}",
            f"{3600 * hours / seconds:.1f}",
            f"{max(r.peak_mb for r in rounds):.0f}",
            ratio,
        )
    return table


def compare(raw: Path, seconds: float, rounds: int, dump_part: int) -> None:
    console = Console(width=120)
    cores = sorted(os.sched_getaffinity(0))[:2]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        once = repeated_manifest(raw, 1)
        measured = bare("floor", once, raw, folder, [cores[0]])
        times = max(1, round(seconds / measured.seconds + 0.5))
        manifest = repeated_manifest(raw, times)
        write_manifest(manifest, folder / "manifest.parquet")
        clips, hours = len(manifest), sum(manifest["duration_s"].to_pylist()) / 3600
        console.print(
            f"{raw}: {len(once)} clips, repeated {times} times, {hours:.2f} hours in all; "
            f"the floor takes {measured.seconds:.0f} s for one repetition"
        )
        contenders = {
            "floor, 1 process, pinned": lambda: bare("floor", manifest, raw, folder, cores[:1]),
            "floor, 1 process": lambda: bare("floor", manifest, raw, folder, [None]),
            "ours, 1 worker": lambda: ours(folder, raw, 1),
            "floor, 2 processes, pinned": lambda: bare("floor", manifest, raw, folder, cores),
            "floor, 2 processes": lambda: bare("floor", manifest, raw, folder, [None, None]),
            "ours, 2 workers": lambda: ours(folder, raw, 2),
        }
        results: dict[str, list[Result]] = {name: [] for name in contenders}
        part = manifest.take(list(range(0, clips, dump_part))) if dump_part else None
        dumps = {"dump by PyAV": "dump"} | ({"dump by ffmpeg": "ffmpeg"} if which("ffmpeg") else {})
        dumped: dict[str, list[Result]] = {name: [] for name in dumps if part is not None}
        for i in range(rounds):
            for name, run in contenders.items():
                results[name].append(run())
                console.print(f"round {i + 1}: {name}: {results[name][-1].seconds:.1f} s")
            for name, rounds_of in dumped.items():
                rounds_of.append(bare(dumps[name], part, raw, folder, [cores[0]]))
                console.print(f"round {i + 1}: {name}: {rounds_of[-1].seconds:.1f} s")
        for name, rounds_of in dumped.items():
            frames = results["ours, 1 worker"][0].frames
            results[f"{name}, pinned"] = [scaled(r, frames) for r in rounds_of]
        console.print(table_of(results, clips, hours))
        counts = {rounds[0].frames for name, rounds in results.items() if "dump" not in name}
        if len(counts) > 1:
            sys.exit(f"error: different numbers of frames: {sorted(counts)}")
        one = statistics.median(r.seconds for r in results["ours, 1 worker"])
        for name in dumped:
            ratio = statistics.median(r.seconds for r in results[f"{name}, pinned"]) / one
            console.print(f"{name} / ours with 1 worker: {ratio:.2f}")


def scaled(part: Result, frames: int) -> Result:
    """Return a result scaled to so many frames; imports count once."""
    times = frames / part.frames
    return replace(
        part,
        seconds=part.seconds + (times - 1) * part.loop_seconds,
        sound_seconds=times * part.sound_seconds,
        frames=frames,
    )


def write_long_clip(source: Path, path: Path, seconds: int) -> None:
    """Repeat the start of a clip at 1920 x 1080 and 5 frames a second."""
    with av.open(str(source)) as clip:
        faces = [f.reformat(1920, 1080, "yuv420p") for f in clip.decode(video=0)][::5][:10]
    with av.open(str(source)) as clip:
        sound = [f.to_ndarray() for f in clip.decode(audio=0)]
        rate = clip.streams.audio[0].rate
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=5, options={"preset": "ultrafast", "crf": "30"})
        video.width, video.height, video.pix_fmt = 1920, 1080, "yuv420p"
        audio = out.add_stream("aac", rate=rate, layout="mono")
        samples = 0
        for i in range(5 * seconds):
            frame = faces[i % len(faces)]
            frame.pts, frame.time_base = i, Fraction(1, 5)
            out.mux(video.encode(frame))
            while samples < (i + 1) * rate / 5:
                piece = sound[samples // 1024 % len(sound)][:1]
                chunk = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
                chunk.sample_rate, chunk.pts = rate, samples
                out.mux(audio.encode(chunk))
                samples += piece.shape[1]
        out.mux(video.encode(None))
        out.mux(audio.encode(None))


def one_clip(modality: str, path: str) -> None:
    """Extract one clip as a worker does, and print this process's peak."""
    from mitfrnet.features.extractor import Clip

    params = extractor_params(modality, read_section(f"extract.{modality}"), where="params.yaml")
    limits = read_section("ingest.limits") | {"max_duration_s": 3600}
    features = build_extractor(modality, params, {"limits": limits}).extract(
        Clip("a/b", Path(path))
    )
    # Not `ru_maxrss`, which starts at the peak of the process that started this one.
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    share = float(features.detected.mean())
    print(json.dumps({"peak_mb": peak, "steps": len(features.detected), "detected": share}))


def memory(raw: Path) -> None:
    source = min(raw.glob("Raw/*/*"))
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("", "steps", "detected", "peak MB", "more than 5 s"):
        table.add_column(column, justify="left" if not column else "right")
    with tempfile.TemporaryDirectory() as name:
        for seconds in (5, 1200):
            write_long_clip(source, Path(name) / f"{seconds}.mp4", seconds)
        for modality in MODALITIES:
            short = None
            for seconds in (5, 1200):
                clip = Path(name) / f"{seconds}.mp4"
                measured = module("benchmarks.extract", "--one-clip", modality, clip)
                short = measured["peak_mb"] if short is None else short
                table.add_row(f"{modality}, {seconds} s", str(measured["steps"]),
                              f"{measured['detected']:.2f}", f"{measured['peak_mb']:.0f}",
                              f"{measured['peak_mb'] - short:.0f}")  # fmt: skip
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, default=Path("raw/sample"), help="a corpus")
    parser.add_argument("--seconds", type=float, default=120, help="the floor takes at least this")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dump-part", type=int, default=4, metavar="N",
                        help="dump only every Nth clip; 0: none")  # fmt: skip
    parser.add_argument("--memory", action="store_true", help="measure memory of a long clip")
    parser.add_argument("--stage", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--one-clip", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        stage(*args.stage)
    elif args.one_clip:
        one_clip(*args.one_clip)
    elif args.memory:
        memory(args.clips)
    else:
        compare(args.clips, args.seconds, args.rounds, args.dump_part)


if __name__ == "__main__":
    main()
