"""A small DVC project of which copies are put through faults, and what is known of its clean run.

Stages run as DVC or a person runs them, each in a process group of its own, and with a mark in the
environment by which all their processes are found.
"""

import json
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq

from tests.helpers.clips import tone, write_clip, write_corpus
from tests.helpers.running import command_of, commit, copy_code, write_params
from tests.helpers.waiting import wait_for

CLIPS = 48  # in 8 shards
MARK = "FAULT_TRIAL"
SESSION = secrets.token_hex(8)  # begins the mark of all trials of this process
ITEM = {"corpus": "sample", "modality": "acoustic"}
CELL = "extract@sample-acoustic"
OUT = Path("data", "sample", "features", "acoustic")
EXTRACTION = command_of("extract", **ITEM)[0]

# Stands for decoders that fail: imported by Python at its start, if it is on the path.
INJECTED = """
import ctypes, json, os
from mitfrnet.features.acoustic import AcousticExtractor

FAULTS = json.loads(os.environ["FAULTS"])
right = AcousticExtractor.extract

def extract(self, clip):
    fault = FAULTS.get(clip.utterance_id)
    if fault == "abort":
        os.abort()
    if fault == "segfault":
        ctypes.string_at(0)
    if fault == "hang":
        open(os.environ["HANGS"], "w").close()
        ctypes.PyDLL(None).sleep(3600)  # PyDLL: Python's lock is held all the while
    return right(self, clip)

AcousticExtractor.extract = extract
"""


class UnavailableError(Exception):
    """This machine does not allow what a fault needs; the message says what that is."""


@dataclass(frozen=True)
class Clean:
    """The project after a run without any fault: its shards, and how long extraction took."""

    folder: Path
    shards: dict[str, bytes]
    seconds: float


def write_tones(raw: Path) -> None:
    """Write clips of which no two sound alike."""
    splits = ("train", "train", "valid", "test")
    rows = [
        (f"v{i:02d}", "01", f"words number {i}", i % 4 - 1, splits[i % 4]) for i in range(CLIPS)
    ]
    for i, (video_id, clip_id, *_) in enumerate(rows):
        path = raw / "Raw" / video_id / f"{clip_id}.mkv"
        path.parent.mkdir(parents=True)
        seconds = 1 + 0.05 * i
        write_clip(path, np.arange(3) / 10, tone(seconds, hz=200 + 40 * i))
    write_corpus(raw, rows)


def make_clean(folder: Path) -> Clean:
    """Make the project, ingest its clips under DVC, and extract their sound."""
    copy_code(folder)
    write_tones(folder / "raw" / "sample")
    write_params(folder, train__max_epochs=1, run__workers=2)
    commit(folder)
    trial = Trial(folder, shards={})
    trial.ends_well(trial.start_dvc("ingest@sample"))
    trial.ends_well(trial.start())
    shards = shards_in(folder / OUT)
    shutil.rmtree(folder / OUT)
    before = time.monotonic()  # of a second run, which finds compiled what the first had to compile
    trial.ends_well(trial.start())
    clean = Clean(folder, shards, time.monotonic() - before)
    assert shards_in(folder / OUT) == shards
    assert len(shards) == 8
    assert not lost_in(folder / OUT)
    return clean


def shards_in(out: Path) -> dict[str, bytes]:
    """Return every shard by name."""
    return {p.name: p.read_bytes() for p in out.glob("*.parquet")}


def temporaries_in(out: Path) -> list[str]:
    """Return the names of files that have not become shards."""
    return [name for name in os.listdir(out) if name.endswith(".tmp")] if out.exists() else []


def rows_in(out: Path) -> dict[str, str | None]:
    """Return the reason of every clip that stands in a shard, None where it has features."""
    rows: dict[str, str | None] = {}
    for path in out.glob("*.parquet"):
        table = pq.read_table(path, columns=["utterance_id", "reason"])
        rows.update(zip(*(table[c].to_pylist() for c in table.column_names), strict=True))
    return rows


def lost_in(out: Path) -> int:
    """Return how many clips are nowhere, or without features."""
    return CLIPS - sum(reason is None for reason in rows_in(out).values())


@dataclass
class Trial:
    """A copy of the project that something is done to.

    Attributes:
        folder: of the copy.
        shards: those of the clean run.
        seen: how to look at the copy from here, where it lies behind a mount.
        inside: the words before a command that runs it behind that mount.
    """

    folder: Path
    shards: dict[str, bytes]
    seen: Path = field(default=Path("/"))
    inside: tuple[str, ...] = ()
    mark: str = field(default_factory=lambda: f"{SESSION}-{secrets.token_hex(8)}")

    @property
    def out(self) -> Path:
        return self.seen / (self.folder / OUT).relative_to("/")

    def clear(self) -> None:
        """Remove what extraction wrote; DVC knows nothing of it, as its cache is gone too."""
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.rmtree(self.folder / ".dvc" / "cache", ignore_errors=True)

    def start(self, **environment: str) -> subprocess.Popen[str]:
        """Start the extraction by its command."""
        return self._run(sys.executable, "-m", *command_of("extract", **ITEM), **environment)

    def start_dvc(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Start `dvc repro`."""
        return self._run(sys.executable, "-m", "dvc", "repro", *words, **environment)

    def begin(self, *, dvc: bool, **environment: str) -> subprocess.Popen[str]:
        """Start the extraction, by DVC or by its command."""
        return self.start_dvc(CELL, **environment) if dvc else self.start(**environment)

    def _run(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = {
            **os.environ, "PATH": path, "PYTHONPATH": str(self.folder), "DVC_NO_ANALYTICS": "1",
            MARK: self.mark, **environment,
        }  # fmt: skip
        if self.inside:  # from where the folder is another one
            words = (*self.inside, "sh", "-c", 'cd "$0" && exec "$@"', str(self.folder), *words)
        # A file, since workers that outlive their stage would hold a pipe open.
        said = self.folder.parent / f"{secrets.token_hex(4)}.said"
        with said.open("w") as file:
            process = subprocess.Popen(
                words, cwd=self.folder, env=env, stdout=file, stderr=subprocess.STDOUT,
                text=True, start_new_session=True, preexec_fn=heed_ctrl_c,
            )  # fmt: skip
        process.said = said  # type: ignore[attr-defined]
        return process

    def ends(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Wait for the process and for all it started; return its status and what it said."""
        try:
            status = process.wait(timeout=500)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{process.args} does not end") from None
        wait_for(lambda: not self.processes(), f"{process.args} left processes behind")
        return status, process.said.read_text()  # type: ignore[attr-defined]

    def ends_well(self, process: subprocess.Popen[str]) -> str:
        status, said = self.ends(process)
        assert status == 0, said
        return said

    def finish(self, *words: str, dvc: bool = False) -> int:
        """Run the extraction again, to its end, and return how many clips it worked on.

        Args:
            words: for `dvc repro`.
            dvc: whether it is run by that.
        """
        said = self.ends_well(self.start_dvc(*words, CELL) if dvc else self.start())
        found = re.search(rf"acoustic: (\d+) of {CLIPS} clips extracted", said)
        assert found or "didn't change, skipping" in said, said
        return int(found[1]) if found else 0

    def unfinished(self, *, tidy: bool = True) -> int:
        """Return how many clips are in no shard, after having looked at what there is.

        Every shard is that of the clean run, to the byte; `tidy`: and there is no other file.
        """
        if not self.out.exists():
            return CLIPS
        for name, content in shards_in(self.out).items():
            assert content == self.shards[name], name
        others = [p.name for p in self.out.iterdir() if p.suffix != ".parquet"]
        assert not (tidy and others), others
        assert all(name.endswith(".tmp") for name in others), others
        return CLIPS - len(rows_in(self.out))

    def equal(self) -> bool:
        """Return whether all is as the clean run left it."""
        return {p.name: p.read_bytes() for p in self.out.iterdir()} == self.shards

    def processes(self) -> list[psutil.Process]:
        """Return all living processes that were started in this trial."""
        return _marked(self.mark)

    def stage(self) -> psutil.Process | None:
        """Return the process of the extraction, if it has begun."""
        for process in self.processes():
            try:
                words = process.cmdline()
            except psutil.Error:
                continue
            if EXTRACTION in words and Path(words[0]).name.startswith("python"):
                return process
        return None

    def workers(self) -> list[psutil.Process]:
        found = []
        for process in self.processes():
            try:
                if "spawn_main" in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                pass
        return found

    def inject(self, **faults: str) -> dict[str, str]:
        """Return the environment in which the decoder fails on some clips.

        Args:
            faults: `abort`, `segfault` or `hang`, by the clip's video.
        """
        place = self.folder.parent / "injected"
        place.mkdir(exist_ok=True)
        (place / "sitecustomize.py").write_text(INJECTED)
        named = {f"{video_id}/01": fault for video_id, fault in faults.items()}
        return {
            "PYTHONPATH": f"{place}{os.pathsep}{self.folder}",
            "FAULTS": json.dumps(named),
            "HANGS": str(place / "hangs"),
        }


def _marked(beginning: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            marked = process.environ().get(MARK, "").startswith(beginning)
            if marked and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            pass
    return found


def end_all() -> None:
    """Kill what trials that failed have left behind."""
    for process in _marked(SESSION):
        process.kill()


def heed_ctrl_c() -> None:
    """Undo what a shell does to jobs in its background, as this process may be one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def copy_of(clean: Clean, folder: Path) -> Trial:
    """Return a copy of the project, without what extraction wrote."""
    shutil.copytree(clean.folder, folder / "project", symlinks=True)
    trial = Trial(folder / "project", clean.shards)
    trial.clear()
    return trial


@dataclass(frozen=True)
class Moment:
    """When a fault strikes: so long after the start, or after some shards have been written.

    Attributes:
        shards: how many; None: counted from the start of the process.
        delay: in s.
        writing: as soon as a shard is being written then, and without delay.
    """

    shards: int | None
    delay: float
    writing: bool = False

    def come(self, trial: "Trial", process: subprocess.Popen[str]) -> None:
        """Wait for it, or until the process has ended."""
        if self.shards is not None:
            wait_for(
                lambda: process.poll() is not None or len(shards_in(trial.out)) >= self.shards,
                "the shards were not written", seconds=400,
            )  # fmt: skip
        if self.writing:
            while process.poll() is None and not temporaries_in(trial.out):
                pass
        time.sleep(self.delay)


def moments(clean: Clean, times: int, seed: int) -> list[Moment]:
    """Return random moments of three kinds by turns.

    Most of a run goes into imports, for how long depends on what else the machine does: a clock
    alone would seldom strike amid the work.
    """
    draw = random.Random(seed)
    found = []
    for i in range(times):
        shards = draw.randint(1, 7)
        found.append(
            [
                Moment(shards, draw.uniform(0, clean.seconds / 20)),
                Moment(None, draw.uniform(0, clean.seconds)),
                Moment(shards, 0, writing=True),
            ][i % 3]
        )
    return found


@contextmanager
def mounting(trial: Trial, command: str) -> Iterator[Trial]:
    """Let the trial run behind a mount that nobody else sees, and that ends with the block.

    Args:
        trial: whose folder the shell command starts in.
        command: mounts something; as root or, where the system lets users do so, as anyone.

    Raises:
        UnavailableError: it does not.
    """
    script = f"cd {trial.folder} && {command} && echo ready && exec sleep 3600"
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    try:
        holder = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
    except FileNotFoundError:
        raise UnavailableError("needs `unshare` of util-linux, on Linux") from None
    try:
        if holder.stdout.readline() != "ready\n":
            raise UnavailableError(f"needs leave to mount: {holder.stderr.read().strip()}")
        trial.inside = ("nsenter", f"--target={holder.pid}", "--user", "--mount",
                        "--preserve-credentials")  # fmt: skip
        trial.seen = Path("/proc", str(holder.pid), "root")
        yield trial
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.communicate()
        trial.inside, trial.seen = (), Path("/")
