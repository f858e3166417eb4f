"""Probe damaged clips and extract their features: python -m benchmarks.fuzz_media.

Real clips are damaged at random, and run as one corpus through the functions of the stages, in
supervised workers. Every clip must give features or a reason, within the limits on time and
memory; otherwise the exit status is 1. The same seed makes the same files; whether one of them
runs out of time depends on the machine. Linux only.
"""

import argparse
import csv
import hashlib
import json
import random
import re
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich import box
from rich.console import Console
from rich.table import Table

from mitfrnet.corpus import ingest
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.features import extract as extraction
from mitfrnet.features.shards import read_features
from mitfrnet.media import decode
from mitfrnet.params import load_params, read_section
from mitfrnet.workers.params import RunParams

ROOT = Path(__file__).parents[1]
PARAMS = ROOT / "params.yaml"
SAMPLE = ROOT / "raw" / "sample" / "Raw"
REAL = ROOT.parent / "shared" / "clips" / "Raw"  # may be absent
MODALITIES = ("acoustic", "visual")

# Every reason that a clip may have.
FAILURES = ("worker_crashed", "timed_out", "out_of_memory")
KNOWN = {*decode.REASONS, *FAILURES, "no_face"}

# In MP4 and QuickTime, the fields that control reading stand before and after these names; in
# MPEG, headers begin with the start codes.
BOXES = (
    b"ftyp moov mvhd trak tkhd edts elst mdia mdhd hdlr minf vmhd smhd dinf dref stbl stsd avc1 "
    b"avcC hvc1 hvcC mp4v mp4a esds stts ctts stss stsc stsz stco sgpd sbgp udta meta ilst mdat"
).split()
START_CODES = tuple(b"\0\0\1" + bytes([code]) for code in (0xBA, 0xBB, 0xB3, 0xB8, 0xE0, 0xC0))
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x05FFFFFF)


@dataclass
class Summary:
    """The results of all damaged clips.

    Attributes:
        outcomes: number of clips by modality, then by reason (or `features`).
        failed: clips that ended their worker, with the damage done to them.
        unaccounted: clips without a proper result.
        longest_s: longest time for one clip, by step.
        peak_mb: peak resident memory of a worker, by step, if it survived the clip.
        wall_s: of the whole run.
        digest: of all damaged files.
    """

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    unaccounted: list[str] = field(default_factory=list)
    longest_s: dict[str, float] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)
    wall_s: float = 0.0
    digest: str = ""


def mutate(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Return a damaged copy of a file, and the names of the operations."""
    damaged = bytearray(data)
    names = []
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        name = rng.choices(list(OPERATIONS), weights=[4, 6, 2, 1, 1, 1, 1])[0]
        OPERATIONS[name](damaged, rng)
        names.append(name)
        if not damaged:
            break
    return bytes(damaged), " ".join(names)


def _somewhere(data: bytearray, rng: random.Random) -> int:
    """Return a random position in a file, half of the time in its headers."""
    if rng.random() < 0.5:
        start = data.find(b"moov") if b"moov" in data else 0
        return min(len(data) - 1, start + rng.randrange(2500))
    return rng.randrange(len(data))


def _flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 4, 16, 64))):
        data[_somewhere(data, rng)] ^= 1 << rng.randrange(8)


def _set_field(data: bytearray, rng: random.Random) -> None:
    """Set the size before a box's name, or a field after it, to an extreme or random value."""
    names = [name for name in (*BOXES, *START_CODES) if name in data]
    at = _somewhere(data, rng)
    if names and rng.random() < 0.9:
        name = rng.choice(names)
        places = [match.start() for match in re.finditer(re.escape(name), data)]
        at = rng.choice(places) + rng.choice((-4, 4, 8, 12, 16, 20, 24, 28, rng.randrange(4, 100)))
    width = rng.choice((4, 4, 4, 2, 1))
    value = rng.choice((*EXTREMES, rng.getrandbits(32))) & (1 << 8 * width) - 1
    at = max(0, min(at, len(data) - width))
    data[at : at + width] = struct.pack(">I", value)[-width:]


def _overwrite(data: bytearray, rng: random.Random) -> None:
    at, length = _span(data, rng)
    data[at : at + length] = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))


def _truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _insert(data: bytearray, rng: random.Random) -> None:
    at, length = _span(data, rng)
    data[at:at] = rng.randbytes(length)


def _duplicate(data: bytearray, rng: random.Random) -> None:
    at, length = _span(data, rng)
    to = _somewhere(data, rng)
    data[to:to] = data[at : at + length]


def _remove(data: bytearray, rng: random.Random) -> None:
    at, length = _span(data, rng)
    del data[at : at + length]


def _span(data: bytearray, rng: random.Random) -> tuple[int, int]:
    at = _somewhere(data, rng)
    return at, min(len(data) - at, int(2 ** rng.uniform(0, 13)))


OPERATIONS: dict[str, Callable[[bytearray, random.Random], None]] = {
    "flip": _flip,
    "field": _set_field,
    "overwrite": _overwrite,
    "truncate": _truncate,
    "insert": _insert,
    "duplicate": _duplicate,
    "remove": _remove,
}


def source_clips(real: Path) -> list[Path]:
    """Return the clips to damage: the sample's and, about as often, those in `real`."""
    synthetic, filmed = (sorted(folder.glob("*/*")) for folder in (SAMPLE, real))
    return [*synthetic, *filmed * (len(synthetic) // max(1, len(filmed)))]


def write_corpus(
    folder: Path, sources: list[Path], mutations: int, seed: int
) -> tuple[dict[str, str], str]:
    """Write damaged clips as a corpus of layout `mmsa`.

    Returns:
        The damage by utterance id, and a digest of all files.
    """
    damage, digest = {}, hashlib.sha256()
    (folder / "Raw" / "fuzz").mkdir(parents=True)
    with (folder / "label.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["video_id", "clip_id", "text", "label", "mode"])
        for i in range(mutations):
            rng = random.Random(f"{seed} {i}")
            source = rng.choice(sources)
            damaged, names = mutate(source.read_bytes(), rng)
            digest.update(damaged)
            (folder / "Raw" / "fuzz" / f"{i:05d}{source.suffix}").write_bytes(damaged)
            damage[f"fuzz/{i:05d}"] = f"{source.parent.name}/{source.name}: {names}"
            table.writerow(["fuzz", f"{i:05d}", "words", 0, ("train", "valid", "test")[i % 3]])
    return damage, digest.hexdigest()


def _setup(step: str, log: Path, *args: Any) -> Callable[[Any], Any]:
    """Return the stage's function for clips, wrapped to be measured; called in the worker."""
    build: Callable[..., Callable[[Any], Any]] = (
        ingest._prober if step == "probe" else extraction._worker
    )
    return partial(_measured, build(*args), step, log)


def _measured(work: Callable[[Any], Any], step: str, log: Path, clips: list[Any]) -> Any:
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak of this process's memory
    start = time.perf_counter()
    try:
        return work(clips)
    finally:
        status = Path("/proc/self/status").read_text()
        peak_kib = int(status.split("VmHWM:")[1].split()[0])
        line = {
            "step": step,
            "clip": clips[0].utterance_id,
            "s": time.perf_counter() - start,
            "mb": peak_kib / 1024,
        }
        with log.open("a") as file:
            file.write(json.dumps(line) + "\n")


def read_measured(
    folder: Path, params: ingest.IngestParams, *, timeout_s: float, fps: float
) -> tuple[dict[str, list[dict[str, Any]]], list[dict[str, Any]]]:
    """Probe and extract the corpus in `folder`/raw as the stages do, and measure each clip.

    Args:
        folder: features and measurements are written beside the corpus.
        params: limits, and how many clips may be unreadable.
        timeout_s: for each step of one clip.
        fps: frames a second in which faces are sought.

    Returns:
        The rows of features by modality, and those of the manifest as `manifest`. Then, for each
        clip and step (`probe` or a modality) that did not end its worker, seconds and peak memory
        in MB.
    """
    log = folder / "log.jsonl"
    run = RunParams(workers=0, timeout_seconds=timeout_s)
    corpus = CorpusParams(layout="mmsa", language="en", scale="mosi")
    clips = ingest.read_corpus(folder / "raw", corpus, params)
    with patch.object(ingest, "_prober", partial(_setup, "probe", log)):
        probed = list(ingest.probe_clips(folder / "raw", clips, params.limits, run))
    manifest = ingest.build_manifest(probed, corpus, params)
    rows = {"manifest": manifest.to_pylist()}
    for modality in MODALITIES:
        section = read_section(f"extract.{modality}", PARAMS)
        if modality == "visual":
            section = {**section, "fps": fps}
        settings = extraction.extractor_params(modality, section, where=modality)
        out = folder / modality
        with patch.object(extraction, "_worker", partial(_setup, modality, log)):
            extraction.extract_corpus(modality, manifest, folder / "raw", out, settings, run)
        columns = ["utterance_id", "values", "reason"]
        rows[modality] = read_features(out).select(columns).to_pylist()
    return rows, [json.loads(line) for line in log.read_text().splitlines()]


def fuzz(
    folder: Path,
    sources: list[Path],
    *,
    mutations: int,
    seed: int,
    timeout_s: float,
    fps: float,
) -> Summary:
    """Damage clips, probe and extract them, and return a summary.

    Args:
        folder: empty; gets the corpus and its features.
        sources: the clips; one that is listed twice is chosen twice as often.
        mutations: number of damaged clips.
        seed: decides which clips, and the damage.
        timeout_s: for each step of one clip.
        fps: frames a second in which faces are sought.
    """
    start = time.perf_counter()
    summary = Summary()
    damage, summary.digest = write_corpus(folder / "raw", sources, mutations, seed)
    params = load_params(ingest.IngestParams, section="ingest", path=PARAMS)
    params = params.model_copy(update={"max_bad_fraction": 1.0})
    rows, log = read_measured(folder, params, timeout_s=timeout_s, fps=fps)
    for modality in MODALITIES:
        summary.outcomes[modality] = Counter(row["reason"] or "features" for row in rows[modality])
        summary.unaccounted += unaccounted(modality, damage, rows[modality])
        summary.failed += [
            f"{modality}: {row['reason']}: {row['utterance_id']}: {damage[row['utterance_id']]}"
            for row in rows[modality]
            if row["reason"] in FAILURES
        ]
    for line in log:
        step = line["step"]
        summary.longest_s[step] = max(summary.longest_s.get(step, 0.0), line["s"])
        summary.peak_mb[step] = max(summary.peak_mb.get(step, 0.0), line["mb"])
    summary.wall_s = time.perf_counter() - start
    return summary


def unaccounted(
    modality: str, utterance_ids: Collection[str], rows: list[dict[str, Any]]
) -> Iterator[str]:
    """Yield the utterances without exactly one row that has features or a known reason."""
    counts = Counter(row["utterance_id"] for row in rows)
    for utterance_id in {*utterance_ids, *counts}:
        if counts[utterance_id] != 1 or utterance_id not in utterance_ids:
            yield f"{modality}: {utterance_id}: {counts[utterance_id]} rows"
    for row in rows:
        reason, values = row["reason"], row["values"]
        if (reason is None and not values) or (reason is not None and reason not in KNOWN):
            yield f"{modality}: {row['utterance_id']}: reason {reason}, {len(values or ())} steps"


def show(summary: Summary, clips: int, mutations: int, seed: int, timeout_s: float) -> None:
    """Print the table."""
    table = Table("outcome", box=box.MARKDOWN)
    for modality in MODALITIES:
        table.add_column(modality, justify="right")
    names = sorted(set().union(*summary.outcomes.values()), key=lambda n: (n != "features", n))
    for name in names:
        table.add_row(name, *(f"{summary.outcomes[m][name]}" for m in MODALITIES))
    console = Console(width=100)
    console.print(
        f"{mutations} files, damaged from {clips} clips with seed {seed} "
        f"(digest {summary.digest[:16]}), {timeout_s:g} s each"
    )
    console.print(table)
    for step, seconds in summary.longest_s.items():
        peak_mb = summary.peak_mb[step]
        console.print(f"{step}: longest {seconds:.2f} s, peak memory {peak_mb:.0f} MB")
    console.print(f"unaccounted for: {len(summary.unaccounted)}; wall time {summary.wall_s:.0f} s")
    for line in (*summary.unaccounted, *summary.failed):
        console.print(line, markup=False, highlight=False)


def main() -> int:
    """Print the summary; return 1 if a clip is unaccounted for or exceeds a limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds-per-clip", type=float, default=20, help="time limit")
    parser.add_argument("--fps", type=float, default=2, help="frames a second for faces")
    parser.add_argument("--keep", type=Path, help="new folder in which to keep the files")
    parser.add_argument("--clips", type=Path, default=REAL, help="real clips, used with the sample")
    args = parser.parse_args()
    sources = source_clips(args.clips)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        try:
            summary = fuzz(
                folder,
                sources,
                mutations=args.mutations,
                seed=args.seed,
                timeout_s=args.seconds_per_clip,
                fps=args.fps,
            )
        except Exception:
            traceback.print_exc()
            print("the run was lost: no clip is accounted for", file=sys.stderr)
            return 1
    show(summary, len(set(sources)), args.mutations, args.seed, args.seconds_per_clip)
    limits = load_params(ingest.IngestParams, section="ingest", path=PARAMS).limits
    too_long = max(summary.longest_s.values()) > args.seconds_per_clip
    too_large = max(summary.peak_mb.values()) > limits.max_memory_mb
    return int(bool(summary.unaccounted) or too_long or too_large)


if __name__ == "__main__":
    sys.exit(main())
