"""A small DVC project on which `benchmarks.faults` tries out faults, and the result of a clean run.

Stages run as DVC or a person starts them, each in its own process group. A mark in the environment
finds all processes that belong to a trial.
"""

import csv
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import yaml

from mitfrnet.features.face_detection import has_face_mesh

ROOT = Path(__file__).parents[1]
CODE = ("dvc.yaml", ".dvc/config", ".dvcignore", ".gitignore", "pipeline", "mitfrnet")
CLIPS = 48  # in 8 shards; each fifth clip of the sample
CELL = "extract@sample-acoustic"
OUT = Path("data", "sample", "features", "acoustic")
STAGE = "pipeline.extract"
MARK = "FAULT_TRIAL"
SESSION = secrets.token_hex(8)  # the marks of all trials of this process start with it

# Makes the decoder fail on some clips. Python imports it at its start if it is on the path.
INJECTED = """
import ctypes, json, os
from mitfrnet.features.acoustic import AcousticExtractor

FAULTS = json.loads(os.environ["FAULTS"])
extract_well = AcousticExtractor.extract

def extract(self, clip):
    fault = FAULTS.get(clip.utterance_id)
    if fault == "abort":
        os.abort()
    if fault == "segfault":
        ctypes.string_at(0)
    if fault == "hang":
        open(os.environ["HANGS"], "w").close()
        ctypes.PyDLL(None).sleep(3600)  # PyDLL holds Python's lock meanwhile
    return extract_well(self, clip)

AcousticExtractor.extract = extract
"""


class UnavailableError(Exception):
    """This machine does not allow a fault; the message says what it lacks."""


def wait_for(condition: Callable[[], Any], message: str, seconds: float = 60) -> Any:
    """Return the first true value of `condition`, whose processes and files may come and go."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if value := condition():
                return value
        except (psutil.Error, FileNotFoundError):
            pass
        time.sleep(0.005)
    raise AssertionError(message)


@dataclass(frozen=True)
class Clean:
    """The project after a run without faults.

    Attributes:
        folder: of the project.
        ids: utterance ids of its clips.
        shards: the files that the extraction wrote, by name.
        seconds: time that the extraction took.
    """

    folder: Path
    ids: list[str]
    shards: dict[str, bytes]
    seconds: float


def make_clean(folder: Path) -> Clean:
    """Make the project, ingest its clips under DVC, and extract their sound."""
    for name in CODE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["train"]["max_epochs"] = 1
    params["run"]["workers"] = 2
    params["extract"]["visual"]["fps"] = 1  # faults strike the extraction of sound
    if not has_face_mesh():
        params["extract"]["visual"]["backend"] = "face_landmarker"
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    ids = _copy_clips(ROOT / "raw" / "sample", folder / "raw" / "sample")
    author = ["-c", "user.name=trial", "-c", "user.email=trial@localhost"]
    for words in (["init", "-q"], ["add", "-A"], [*author, "commit", "-q", "-m", "project"]):
        subprocess.run(["git", *words], cwd=folder, check=True)

    trial = Trial(folder, shards={})
    trial.ends_well(trial.start_dvc("ingest@sample"))
    trial.ends_well(trial.start())
    shards = shards_in(folder / OUT)
    shutil.rmtree(folder / OUT)
    before = time.monotonic()  # the second run finds code that the first had to compile
    trial.ends_well(trial.start())
    clean = Clean(folder, ids, shards, time.monotonic() - before)
    assert shards_in(folder / OUT) == shards
    assert len(shards) == 8
    assert lost_in(folder / OUT) == 0
    return clean


def _copy_clips(source: Path, raw: Path) -> list[str]:
    """Copy each fifth clip of the sample and its line of the table; return their ids."""
    with (source / "label.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    rows = rows[::5]
    assert len(rows) == CLIPS
    for video_id, clip_id, *_ in rows:
        (raw / "Raw" / video_id).mkdir(parents=True, exist_ok=True)
        (clip,) = (source / "Raw" / video_id).glob(f"{clip_id}.*")
        shutil.copy(clip, raw / "Raw" / video_id)
    with (raw / "label.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return ["/".join(row[:2]) for row in rows]


def shards_in(out: Path) -> dict[str, bytes]:
    """Return the content of every shard, by name."""
    return {p.name: p.read_bytes() for p in out.glob("*.parquet")}


def temporaries_in(out: Path) -> list[str]:
    """Return the names of unfinished files."""
    return [name for name in os.listdir(out) if name.endswith(".tmp")] if out.exists() else []


def reasons_in(out: Path) -> dict[str, str | None]:
    """Return the reason of every clip in a shard; None for a clip with features."""
    reasons: dict[str, str | None] = {}
    for path in out.glob("*.parquet"):
        table = pq.read_table(path, columns=["utterance_id", "reason"])
        reasons.update(zip(*(table[c].to_pylist() for c in table.column_names), strict=True))
    return reasons


def lost_in(out: Path) -> int:
    """Return how many clips have no features."""
    return CLIPS - sum(reason is None for reason in reasons_in(out).values())


@dataclass
class Trial:
    """A copy of the project, on which faults are tried.

    Attributes:
        folder: of the copy.
        shards: those of the clean run.
        root: prefix of paths that looks behind a mount.
        prefix: words before a command that run it behind that mount.
    """

    folder: Path
    shards: dict[str, bytes]
    root: Path = Path("/")
    prefix: tuple[str, ...] = ()
    mark: str = field(default_factory=lambda: f"{SESSION}-{secrets.token_hex(8)}")

    @property
    def out(self) -> Path:
        return self.root / (self.folder / OUT).relative_to("/")

    def clear(self) -> None:
        """Remove the results of the extraction, and the cache by which DVC could restore them."""
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.rmtree(self.folder / ".dvc" / "cache", ignore_errors=True)

    def start(self, *, dvc: bool = False, **environment: str) -> subprocess.Popen[str]:
        """Start the extraction, by DVC or by its command."""
        if dvc:
            return self.start_dvc(CELL, **environment)
        stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
        command = stages["extract"]["cmd"].replace("${item.corpus}", "sample")
        words = command.replace("${item.modality}", "acoustic").split()
        return self._run(*words[1:], **environment)

    def start_dvc(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Start `dvc repro`."""
        return self._run("-m", "dvc", "repro", *words, **environment)

    def _run(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start Python in the project."""
        env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder),
            "DVC_NO_ANALYTICS": "1",
            MARK: self.mark,
            **environment,
        }
        words = [sys.executable, *arguments]
        if self.prefix:  # behind the mount, the folder is another one
            words = [*self.prefix, "sh", "-c", 'cd "$0" && exec "$@"', str(self.folder), *words]
        # A file: workers that outlive their stage would keep a pipe open.
        output = self.folder.parent / f"{secrets.token_hex(4)}.log"
        with output.open("w") as file:
            process = subprocess.Popen(
                words,
                cwd=self.folder,
                env=env,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                # Shells start background jobs, and this may be one, without Ctrl-C.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        process.output = output
        return process

    def ends(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Wait for the process and all its descendants; return its status and output."""
        try:
            status = process.wait(timeout=500)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{process.args} does not end") from None
        wait_for(lambda: not self.processes(), f"{process.args} left processes behind")
        return status, process.output.read_text()

    def ends_well(self, process: subprocess.Popen[str]) -> str:
        """Wait as `ends` does, check that the status is 0, and return the output."""
        status, output = self.ends(process)
        assert status == 0, output
        return output

    def finish(self, *words: str, dvc: bool = False) -> int:
        """Run the extraction again, to its end; return how many clips it extracted.

        Args:
            words: further arguments of `dvc repro`.
            dvc: run it by DVC.
        """
        output = self.ends_well(self.start_dvc(*words, CELL) if dvc else self.start())
        match = re.search(rf"acoustic: (\d+) of {CLIPS} clips extracted", output)
        assert match or "didn't change, skipping" in output, output
        return int(match[1]) if match else 0

    def unfinished(self, *, tidy: bool = True) -> int:
        """Return how many clips are in no shard.

        Checks that every shard equals that of the clean run, and with `tidy` that there are no
        unfinished files.
        """
        if not self.out.exists():
            return CLIPS
        for name, content in shards_in(self.out).items():
            assert content == self.shards[name], name
        others = [p.name for p in self.out.iterdir() if p.suffix != ".parquet"]
        assert not (tidy and others), others
        assert all(name.endswith(".tmp") for name in others), others
        return CLIPS - len(reasons_in(self.out))

    def is_equal(self) -> bool:
        """Return whether the results equal those of the clean run, with no other file."""
        return {p.name: p.read_bytes() for p in self.out.iterdir()} == self.shards

    def processes(self) -> list[psutil.Process]:
        """Return all living processes of this trial."""
        return _marked(self.mark)

    def stage(self) -> psutil.Process | None:
        """Return the process of the extraction, if it runs."""
        return next(
            (
                process
                for process, words in self._commands()
                if STAGE in words and Path(words[0]).name.startswith("python")
            ),
            None,
        )

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes."""
        return [p for p, words in self._commands() if any("spawn_main" in w for w in words)]

    def _commands(self) -> Iterator[tuple[psutil.Process, list[str]]]:
        for process in self.processes():
            with suppress(psutil.Error):  # it has ended
                yield process, process.cmdline()

    def inject(self, faults: dict[str, str]) -> dict[str, str]:
        """Return an environment in which the decoder fails on some clips.

        Args:
            faults: `abort`, `segfault` or `hang`, by utterance id.
        """
        folder = self.folder.parent / "injected"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(INJECTED)
        return {
            "PYTHONPATH": f"{folder}{os.pathsep}{self.folder}",
            "FAULTS": json.dumps(faults),
            "HANGS": str(folder / "hangs"),
        }


def _marked(prefix: str) -> list[psutil.Process]:
    processes = []
    for process in psutil.process_iter():
        try:
            marked = process.environ().get(MARK, "").startswith(prefix)
            if marked and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
        except psutil.Error:
            pass
    return processes


def end_all() -> None:
    """Kill the processes that failed trials left behind."""
    for process in _marked(SESSION):
        process.kill()


def copy_of(clean: Clean, folder: Path) -> Trial:
    """Return a copy of the project, without the results of the extraction."""
    shutil.copytree(clean.folder, folder / "project", symlinks=True)
    trial = Trial(folder / "project", clean.shards)
    trial.clear()
    return trial


def wait_for_moment(
    trial: Trial, process: subprocess.Popen[str], seconds: float, rng: random.Random, number: int
) -> None:
    """Wait for a random moment of a run, or for its end.

    A run spends most of its time on imports. So two of three moments count from when some shards
    are written: one is a little later, one is while the next shard is being written.

    Args:
        trial: its out folder shows the shards.
        process: runs the extraction.
        seconds: that a run takes.
        rng: draws the moment.
        number: the kinds of moments take turns.
    """
    kind = ("after shards", "after the start", "while writing")[number % 3]
    if kind != "after the start":
        shards = rng.randint(1, 7)
        wait_for(
            lambda: process.poll() is not None or len(shards_in(trial.out)) >= shards,
            "the shards were not written",
            seconds=400,
        )
    if kind == "while writing":
        while process.poll() is None and not temporaries_in(trial.out):
            pass
    else:
        time.sleep(rng.uniform(0, seconds / (20 if kind == "after shards" else 1)))


@contextmanager
def mounted(trial: Trial, command: str) -> Iterator[None]:
    """Run the trial behind a mount that no other process sees, until the block ends.

    Args:
        trial: the shell command starts in its folder.
        command: mounts something, as root of a user namespace.

    Raises:
        UnavailableError: the system does not allow it.
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
            reason = holder.stderr.read().strip()
            raise UnavailableError(f"needs permission to mount: {reason}")
        trial.prefix = ("nsenter", f"--target={holder.pid}", "--user", "--mount")
        trial.prefix += ("--preserve-credentials",)
        trial.root = Path("/proc", str(holder.pid), "root")
        yield
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.communicate()
        trial.prefix, trial.root = (), Path("/")
