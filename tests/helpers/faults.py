"""What may befall the extraction, each really done, and what it cost.

`test_faults.py` holds what must hold of every row; `python -m benchmarks.faults` prints them all.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from mitfrnet.features.shards import read_features
from tests.helpers.fault_trial import (
    CELL,
    CLIPS,
    Clean,
    Trial,
    copy_of,
    lost_in,
    moments,
    mounting,
    rows_in,
    temporaries_in,
)
from tests.helpers.waiting import wait_for


@dataclass(frozen=True)
class Row:
    """What a fault cost, all tries together.

    Attributes:
        fault: what was done.
        tried: how often.
        lost: clips that had no features once the extraction had been run again.
        equal: whether all bytes were those of a run without faults then.
        unfinished: clips that were in no shard, or without features, after the fault.
        redone: clips that were worked on when the extraction was run again.
        seen: what else there was to see.
    """

    fault: str
    tried: int
    lost: int
    equal: bool
    unfinished: int
    redone: int
    seen: str = ""

    @property
    def costs_nothing(self) -> bool:
        """Whether nothing is lost, and of what was done again nothing had been finished."""
        return self.lost == 0 and self.equal and self.redone == self.unfinished


def _run_again(trial: Trial, fault: str, *, dvc: bool = False, seen: str = "") -> Row:
    """Run the extraction again, and return what the fault before cost."""
    unfinished = trial.unfinished(tidy=False)
    redone = trial.finish(dvc=dvc)
    return Row(fault, 1, lost_in(trial.out), trial.equal(), unfinished, redone, seen)


def _together(rows: list[Row], seen: str) -> Row:
    first = rows[0]
    return Row(
        first.fault,
        sum(row.tried for row in rows),
        sum(row.lost for row in rows),
        all(row.equal for row in rows),
        sum(row.unfinished for row in rows),
        sum(row.redone for row in rows),
        seen,
    )


def _when(rows: list[Row]) -> str:
    """Return how many of the tries struck before, amid and after the writing of shards."""
    before = sum(row.unfinished == CLIPS for row in rows)
    after = sum(row.unfinished == 0 for row in rows)
    return f"{before} before the first shard, {len(rows) - before - after} amid, {after} after"


def stage_killed(clean: Clean, folder: Path, *, times: int = 20, seed: int = 1) -> Row:
    """SIGKILL the stage at random moments of its run; its workers must leave by themselves."""
    trial, rows, torn = copy_of(clean, folder), [], 0
    for moment in moments(clean, times, seed):
        trial.clear()
        stage = trial.start()
        moment.come(trial, stage)
        stage.kill()
        trial.ends(stage)
        torn += len(temporaries_in(trial.out))
        rows.append(_run_again(trial, "stage killed (SIGKILL)"))
    return _together(rows, f"{_when(rows)}; {torn} while a shard was being written")


def dvc_killed(clean: Clean, folder: Path, *, times: int = 3, seed: int = 2) -> Row:
    """SIGKILL a `dvc repro`; its stage must end by itself, and another `dvc repro` go on."""
    trial, rows = copy_of(clean, folder), []
    for moment in moments(clean, times, seed):
        trial.clear()
        dvc = trial.start_dvc(CELL)
        wait_for(trial.stage, "DVC did not start its stage")
        moment.come(trial, dvc)
        dvc.kill()
        trial.ends(dvc)
        rows.append(_run_again(trial, "`dvc repro` killed (SIGKILL)", dvc=True))
    return _together(rows, _when(rows))


def worker_killed(clean: Clean, folder: Path, *, times: int = 5, seed: int = 3) -> Row:
    """SIGKILL one worker at a random moment; the same run must not even miss it."""
    trial, rows = copy_of(clean, folder), []
    draw = random.Random(seed)
    for _ in range(times):
        trial.clear()
        stage = trial.start()
        wait_for(trial.workers, "no worker was started")
        time.sleep(draw.uniform(0, 0.4 * clean.seconds))  # workers still run
        draw.choice(trial.workers()).kill()
        said = trial.ends_well(stage)
        assert "warning" not in said, said
        rows.append(_run_again(trial, "one worker killed (SIGKILL)"))
    return _together(rows, "the same run tried the clip again")


def decoder_fails(clean: Clean, folder: Path, *, fault: str, dvc: bool = False) -> Row:
    """Let the decoder fail on one clip: `abort`, `segfault`, or `hang` holding Python's lock."""
    trial = copy_of(clean, folder)
    reason = "worker_crashed"
    if fault == "hang":
        reason = "timed_out"
        _set_timeout(trial, 40)  # longer than the first clip of a worker takes on busy cores
    said = trial.ends_well(trial.begin(dvc=dvc, **trial.inject(v07=fault)))
    assert f"tried again next time: v07/01: {reason}" in said, said
    reasons = {clip: found for clip, found in rows_in(trial.out).items() if found}
    assert reasons == {"v07/01": reason}
    redone = trial.finish("-f", dvc=dvc)  # of a stage that ended well, DVC has to be told so
    equal = trial.equal()
    names = {"abort": "aborts", "segfault": "crashes (SIGSEGV)", "hang": "hangs with the GIL held"}
    return Row(
        f"decoder {names[fault]}{_by(dvc)}", 1, lost_in(trial.out), equal, 1, redone,
        f"that clip alone: {reason}",
    )  # fmt: skip


def stage_killed_while_a_decoder_hangs(clean: Clean, folder: Path) -> Row:
    """SIGKILL the stage when a worker hangs holding Python's lock, and none of its threads runs."""
    trial = copy_of(clean, folder)
    faults = trial.inject(v07="hang")
    stage = trial.start(**faults)
    wait_for(Path(faults["HANGS"]).exists, "no decoder hangs")
    time.sleep(1)
    stage.kill()
    trial.ends(stage)
    return _run_again(trial, "stage killed, a decoder hanging with the GIL held")


def interrupted(
    clean: Clean, folder: Path, *, number: signal.Signals, dvc: bool = False,
    times: int = 5, seed: int = 4,
) -> Row:  # fmt: skip
    """Send a signal to the whole process group, as a terminal (SIGINT) or a cluster does."""
    trial, rows = copy_of(clean, folder), []
    for moment in moments(clean, times, seed):
        trial.clear()
        process = trial.begin(dvc=dvc)
        if dvc:
            wait_for(trial.stage, "DVC did not start its stage")
        time.sleep(0.2)  # until Python itself has begun
        moment.come(trial, process)
        os.killpg(process.pid, number)
        status, said = trial.ends(process)
        assert "Traceback" not in said, said
        assert status != 0 or "clips extracted" in said, said
        # Where DVC dies, its stage ends as by SIGKILL; else nothing half-written may stay.
        unfinished = trial.unfinished(tidy=not (dvc and number == signal.SIGTERM))
        if not dvc and 0 < unfinished < CLIPS:
            assert status == 128 + number, "it was ended, in place of tidying up and ending"
        rows.append(_run_again(trial, f"{number.name}{_by(dvc)}", dvc=dvc))
    return _together(rows, _when(rows))


def disk_full(clean: Clean, folder: Path, *, dvc: bool = False) -> Row:
    """Fill the disk that `data` lies on until about half of the shards fit; then make room."""
    trial = copy_of(clean, folder)
    shutil.move(trial.folder / "data", trial.folder / "kept")
    (trial.folder / "data").mkdir()
    with mounting(trial, "mount -t tmpfs -o size=8m tmpfs data && cp -r kept/. data"):
        data = trial.out.parents[2]
        ballast = data / "ballast"
        _fill(ballast, leaving=sum(map(len, clean.shards.values())) // 2)
        status, said = trial.ends(trial.begin(dvc=dvc))
        line = next((x for x in said.splitlines() if x.startswith("error: ")), said)
        assert status != 0
        assert line.startswith("error: data/sample/features/acoustic/"), line
        assert line.endswith(
            ".parquet: cannot be written: No space left on device (make room there and run again; "
            "what is finished is kept)"
        ), line
        assert "Traceback" not in said, said
        assert 0 < trial.unfinished() < CLIPS
        ballast.unlink()
        return _run_again(trial, f"disk full{_by(dvc)}", dvc=dvc, seen=line)


def two_stages(clean: Clean, folder: Path) -> Row:
    """Start the stage a second time; the first is stopped meanwhile, so that it is sure to last."""
    trial = copy_of(clean, folder)
    first = trial.start()
    wait_for(lambda: rows_in(trial.out), "no shard was written")
    os.kill(first.pid, signal.SIGSTOP)
    before = trial.unfinished(tidy=False)
    second = trial.start()
    assert second.wait(timeout=120) == 1
    line = second.said.read_text().splitlines()[-1]
    assert line.startswith("error: data/sample/features/acoustic: another process"), line
    assert trial.unfinished(tidy=False) == before > 0
    os.kill(first.pid, signal.SIGCONT)
    trial.ends_well(first)
    return _run_again(trial, "the stage twice at once", seen=f"the second: {line}")


def two_repros(clean: Clean, folder: Path) -> Row:
    """Start `dvc repro` a second time while the first one's stage is stopped."""
    trial = copy_of(clean, folder)
    first = trial.start_dvc(CELL)
    wait_for(lambda: rows_in(trial.out), "no shard was written", seconds=120)
    stage = trial.stage()
    stage.suspend()
    second = trial.start_dvc(CELL)
    assert second.wait(timeout=120) != 0
    said = second.said.read_text()
    assert "is busy, it is being blocked by" in said, said
    stage.resume()
    trial.ends_well(first)
    return _run_again(trial, "`dvc repro` twice at once", dvc=True, seen="DVC refuses the second")


def raw_read_only(clean: Clean, folder: Path) -> Row:
    """Run the whole pipeline on a raw folder that is mounted read-only."""
    trial = copy_of(clean, folder)
    raw = trial.folder / "raw"

    def listing() -> list[tuple[str, int, int]]:
        files = sorted(raw.rglob("*"))
        return [(str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in files]

    before = listing()
    with mounting(trial, "mount --bind raw raw && mount -o remount,bind,ro raw"):
        touch = subprocess.run(
            [*trial.inside, "touch", str(raw / "mine")], capture_output=True, text=True
        )
        assert "Read-only file system" in touch.stderr
        said = trial.ends_well(trial.start_dvc())
        assert "Running stage 'report'" in said, said
        assert f"acoustic: {CLIPS} of {CLIPS} clips extracted" in said, said
    assert listing() == before
    return _run_again(trial, "raw folder read-only", dvc=True, seen="all stages ran")


def clip_replaced(clean: Clean, folder: Path) -> Row:
    """Put another clip's bytes in the place of one, and back, with a `dvc repro` after each."""
    trial = copy_of(clean, folder)
    trial.finish(dvc=True)
    clip, other = (trial.folder / f"raw/sample/Raw/{v}/01.mkv" for v in ("v07", "v30"))
    own = clip.read_bytes()
    redone = []
    for content in (other.read_bytes(), own):
        clip.write_bytes(content)
        redone.append(trial.finish(dvc=True))
        rows = {row["utterance_id"]: row["values"] for row in read_features(trial.out).to_pylist()}
        assert (rows["v07/01"] == rows["v30/01"]) == (content != own)
    assert redone == [1, 1]
    return Row("a clip replaced, and put back", 2, lost_in(trial.out), trial.equal(), 2, 2)


def _by(dvc: bool) -> str:
    return ", under `dvc repro`" if dvc else ""


def _set_timeout(trial: Trial, seconds: float) -> None:
    path = trial.folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["run"]["timeout_seconds"] = seconds
    path.write_text(yaml.safe_dump(params))


def _fill(path: Path, *, leaving: int) -> None:
    """Write a file that leaves so many bytes on its disk."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
        file.truncate(file.tell() - leaving)


SCENARIOS: dict[str, Callable[..., Row]] = {
    "stage_killed": stage_killed,
    "dvc_killed": dvc_killed,
    "worker_killed": worker_killed,
    "decoder_aborts": partial(decoder_fails, fault="abort"),
    "decoder_aborts_under_dvc": partial(decoder_fails, fault="abort", dvc=True),
    "decoder_segfaults": partial(decoder_fails, fault="segfault"),
    "decoder_hangs": partial(decoder_fails, fault="hang"),
    "stage_killed_while_a_decoder_hangs": stage_killed_while_a_decoder_hangs,
    "ctrl_c": partial(interrupted, number=signal.SIGINT),
    "ctrl_c_under_dvc": partial(interrupted, number=signal.SIGINT, dvc=True, times=3),
    "sigterm": partial(interrupted, number=signal.SIGTERM),
    "sigterm_under_dvc": partial(interrupted, number=signal.SIGTERM, dvc=True, times=3),
    "disk_full": disk_full,
    "disk_full_under_dvc": partial(disk_full, dvc=True),
    "two_stages": two_stages,
    "two_repros": two_repros,
    "raw_read_only": raw_read_only,
    "clip_replaced": clip_replaced,
}
