"""Cause faults during extraction, and show what each one costs: python -m benchmarks.faults.

Needs Linux. A full disk and a read-only folder also need permission to mount in a namespace of the
user (`unshare --user --map-root-user --mount`); otherwise their rows say so. The exit status is 1
if a fault cost anything.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from benchmarks.fault_trial import (
    CLIPS,
    Clean,
    Trial,
    UnavailableError,
    copy_of,
    end_all,
    lost_in,
    make_clean,
    mounted,
    reasons_in,
    temporaries_in,
    wait_for,
    wait_for_moment,
)
from mitfrnet.features.shards import read_features


@dataclass(frozen=True)
class Cost:
    """What a fault cost, summed over all tries.

    Attributes:
        fault: its name.
        tried: number of tries.
        lost: clips without features after the extraction ran again.
        equal: whether all bytes then equalled those of a run without faults.
        unfinished: clips that were in no shard, or without features, after the fault.
        redone: clips that were extracted when it ran again.
        seen: further observations.
    """

    fault: str
    tried: int
    lost: int
    equal: bool
    unfinished: int
    redone: int
    seen: str = ""

    @property
    def is_nothing(self) -> bool:
        """Whether no clip was lost, and no finished clip was extracted again."""
        return self.lost == 0 and self.equal and self.redone == self.unfinished


def _run_again(trial: Trial, fault: str, *, dvc: bool = False, seen: str = "") -> Cost:
    """Run the extraction again, and return what the fault cost."""
    unfinished = trial.unfinished(tidy=False)
    redone = trial.finish(dvc=dvc)
    return Cost(fault, 1, lost_in(trial.out), trial.is_equal(), unfinished, redone, seen)


def _sum(costs: list[Cost], seen: str) -> Cost:
    return Cost(
        costs[0].fault,
        sum(cost.tried for cost in costs),
        sum(cost.lost for cost in costs),
        all(cost.equal for cost in costs),
        sum(cost.unfinished for cost in costs),
        sum(cost.redone for cost in costs),
        seen,
    )


def _when(costs: list[Cost]) -> str:
    """Return how many tries struck before, while and after shards were written."""
    before = sum(cost.unfinished == CLIPS for cost in costs)
    after = sum(cost.unfinished == 0 for cost in costs)
    return f"{before} before the first shard, {len(costs) - before - after} amid, {after} after"


def stage_killed(clean: Clean, folder: Path, *, times: int = 20, seed: int = 1) -> Cost:
    """SIGKILL the stage at random moments; its workers must then end by themselves."""
    trial, costs, torn = copy_of(clean, folder), [], 0
    rng = random.Random(seed)
    for i in range(times):
        trial.clear()
        stage = trial.start()
        wait_for_moment(trial, stage, clean.seconds, rng, i)
        stage.kill()
        trial.ends(stage)
        torn += len(temporaries_in(trial.out))
        costs.append(_run_again(trial, "stage killed (SIGKILL)"))
    return _sum(costs, f"{_when(costs)}; {torn} while a shard was being written")


def dvc_killed(clean: Clean, folder: Path, *, times: int = 3, seed: int = 2) -> Cost:
    """SIGKILL a `dvc repro`; its stage must end by itself, and another `dvc repro` finish."""
    trial, costs = copy_of(clean, folder), []
    rng = random.Random(seed)
    for i in range(times):
        trial.clear()
        dvc = trial.start(dvc=True)
        wait_for(trial.stage, "DVC did not start its stage")
        wait_for_moment(trial, dvc, clean.seconds, rng, i)
        dvc.kill()
        trial.ends(dvc)
        costs.append(_run_again(trial, "`dvc repro` killed (SIGKILL)", dvc=True))
    return _sum(costs, _when(costs))


def worker_killed(clean: Clean, folder: Path, *, times: int = 5, seed: int = 3) -> Cost:
    """SIGKILL a worker at a random moment; the same run must finish without a loss."""
    trial, costs = copy_of(clean, folder), []
    rng = random.Random(seed)
    for _ in range(times):
        trial.clear()
        stage = trial.start()
        wait_for(trial.workers, "no worker was started")
        time.sleep(rng.uniform(0, 0.4 * clean.seconds))  # workers still run then
        rng.choice(trial.workers()).kill()
        output = trial.ends_well(stage)
        assert "warning" not in output, output
        costs.append(_run_again(trial, "one worker killed (SIGKILL)"))
    return _sum(costs, "the same run tried the clip again")


def decoder_fails(clean: Clean, folder: Path, *, fault: str, dvc: bool = False) -> Cost:
    """Let the decoder fail on one clip: `abort`, `segfault`, or `hang` with Python's lock held."""
    trial, clip = copy_of(clean, folder), clean.ids[7]
    reason = "worker_crashed"
    if fault == "hang":
        reason = "timed_out"
        _set_timeout(trial, 40)  # longer than a worker's first clip takes on busy cores
    output = trial.ends_well(trial.start(dvc=dvc, **trial.inject({clip: fault})))
    assert f"tried again next time: {clip}: {reason}" in output, output
    assert {u: reason for u, reason in reasons_in(trial.out).items() if reason} == {clip: reason}
    redone = trial.finish("-f", dvc=dvc)  # DVC would skip a stage that ended well
    names = {"abort": "aborts", "segfault": "crashes (SIGSEGV)", "hang": "hangs with the GIL held"}
    name = f"decoder {names[fault]}{_by(dvc)}"
    seen = f"that clip alone: {reason}"
    return Cost(name, 1, lost_in(trial.out), trial.is_equal(), 1, redone, seen)


def stage_killed_while_a_decoder_hangs(clean: Clean, folder: Path) -> Cost:
    """SIGKILL the stage while a worker holds Python's lock, so none of its threads runs."""
    trial = copy_of(clean, folder)
    environment = trial.inject({clean.ids[7]: "hang"})
    stage = trial.start(**environment)
    wait_for(Path(environment["HANGS"]).exists, "no decoder hangs")
    time.sleep(1)
    stage.kill()
    trial.ends(stage)
    return _run_again(trial, "stage killed, a decoder hanging with the GIL held")


def interrupted(
    clean: Clean,
    folder: Path,
    *,
    number: signal.Signals,
    dvc: bool = False,
    times: int = 5,
    seed: int = 4,
) -> Cost:
    """Send a signal to the whole process group, as a terminal (SIGINT) or a cluster does."""
    trial, costs = copy_of(clean, folder), []
    rng = random.Random(seed)
    for i in range(times):
        trial.clear()
        process = trial.start(dvc=dvc)
        if dvc:
            wait_for(trial.stage, "DVC did not start its stage")
        time.sleep(0.2)  # until Python itself has started
        wait_for_moment(trial, process, clean.seconds, rng, i)
        os.killpg(process.pid, number)
        status, output = trial.ends(process)
        assert "Traceback" not in output, output
        assert status != 0 or "clips extracted" in output, output
        # If DVC dies, its stage ends as by SIGKILL; otherwise no half-written file may stay.
        unfinished = trial.unfinished(tidy=not (dvc and number == signal.SIGTERM))
        if not dvc and 0 < unfinished < CLIPS:
            assert status == 128 + number, "it was killed before it could tidy up"
        costs.append(_run_again(trial, f"{number.name}{_by(dvc)}", dvc=dvc))
    return _sum(costs, _when(costs))


def disk_full(clean: Clean, folder: Path, *, dvc: bool = False) -> Cost:
    """Fill the disk of `data` so that about half of the shards fit; then make room."""
    trial = copy_of(clean, folder)
    shutil.move(trial.folder / "data", trial.folder / "kept")
    (trial.folder / "data").mkdir()
    with mounted(trial, "mount -t tmpfs -o size=8m tmpfs data && cp -r kept/. data"):
        ballast = trial.out.parents[2] / "ballast"
        _fill(ballast, leaving=sum(map(len, clean.shards.values())) // 2)
        status, output = trial.ends(trial.start(dvc=dvc))
        line = next((x for x in output.splitlines() if x.startswith("error: ")), output)
        assert status != 0
        assert line.startswith("error: data/sample/features/acoustic/"), line
        assert ".parquet: cannot be written: No space left on device" in line, line
        assert "Traceback" not in output, output
        assert 0 < trial.unfinished() < CLIPS
        ballast.unlink()
        return _run_again(trial, f"disk full{_by(dvc)}", dvc=dvc, seen=line)


def two_stages(clean: Clean, folder: Path) -> Cost:
    """Start the stage a second time while the first one is stopped."""
    trial = copy_of(clean, folder)
    first = trial.start()
    wait_for(lambda: reasons_in(trial.out), "no shard was written")
    os.kill(first.pid, signal.SIGSTOP)
    before = trial.unfinished(tidy=False)
    second = trial.start()
    assert second.wait(timeout=120) == 1
    line = second.output.read_text().splitlines()[-1]
    assert line.startswith("error: data/sample/features/acoustic: another process"), line
    assert trial.unfinished(tidy=False) == before > 0
    os.kill(first.pid, signal.SIGCONT)
    trial.ends_well(first)
    return _run_again(trial, "the stage twice at once", seen=f"the second: {line}")


def raw_read_only(clean: Clean, folder: Path) -> Cost:
    """Run the whole pipeline on a raw folder that is mounted read-only."""
    trial = copy_of(clean, folder)
    raw = trial.folder / "raw"

    def listing() -> list[tuple[str, int, int]]:
        files = sorted(raw.rglob("*"))
        return [(str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in files]

    before = listing()
    with mounted(trial, "mount --bind raw raw && mount -o remount,bind,ro raw"):
        touch = subprocess.run(
            [*trial.prefix, "touch", str(raw / "file")], capture_output=True, text=True
        )
        assert "Read-only file system" in touch.stderr
        output = trial.ends_well(trial.start_dvc())
        assert "Running stage 'report'" in output, output
        assert f"acoustic: {CLIPS} of {CLIPS} clips extracted" in output, output
    assert listing() == before
    return _run_again(trial, "raw folder read-only", dvc=True, seen="all stages ran")


def clip_replaced(clean: Clean, folder: Path) -> Cost:
    """Replace a clip by another and put it back, with a `dvc repro` after each change."""
    trial = copy_of(clean, folder)
    trial.finish(dvc=True)
    changed, other = clean.ids[7], clean.ids[30]
    files = {u: next((trial.folder / "raw/sample/Raw").glob(f"{u}.*")) for u in (changed, other)}
    original = files[changed].read_bytes()
    redone = []
    for content in (files[other].read_bytes(), original):
        files[changed].write_bytes(content)
        redone.append(trial.finish(dvc=True))
        values = {r["utterance_id"]: r["values"] for r in read_features(trial.out).to_pylist()}
        assert (values[changed] == values[other]) == (content != original)
    assert redone == [1, 1]
    return Cost("a clip replaced, and put back", 2, lost_in(trial.out), trial.is_equal(), 2, 2)


def _by(dvc: bool) -> str:
    return ", under `dvc repro`" if dvc else ""


def _set_timeout(trial: Trial, seconds: float) -> None:
    path = trial.folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["run"]["timeout_seconds"] = seconds
    path.write_text(yaml.safe_dump(params))


def _fill(path: Path, *, leaving: int) -> None:
    """Write a file that leaves so many bytes of its disk free."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
        file.truncate(file.tell() - leaving)


SCENARIOS: dict[str, Callable[..., Cost]] = {
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
    "raw_read_only": raw_read_only,
    "clip_replaced": clip_replaced,
}


def main() -> None:
    """Print a row for each fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        clean = make_clean(folder / "clean" / "project")
        print(
            f"{CLIPS} clips in {len(clean.shards)} shards, two workers; "
            f"a run without faults takes {clean.seconds:.1f} s\n"
        )
        print("| fault | times tried | clips lost | bytes equal | unfinished | redone | seen |")
        print("|---|---|---|---|---|---|---|", flush=True)
        failed = False
        for scenario in args.only:
            (folder / scenario).mkdir()
            before = time.monotonic()
            try:
                cost = SCENARIOS[scenario](clean, folder / scenario)
            except UnavailableError as error:
                print(f"| {scenario} | 0 | | | | | {error} |", flush=True)
                continue
            except AssertionError as error:
                failed = True
                end_all()
                message = " ".join(str(error).split())
                print(f"| {scenario} | FAILED | | | | | {message} |", flush=True)
                continue
            failed |= not cost.is_nothing
            print(
                f"| {cost.fault} | {cost.tried} | {cost.lost} | {'yes' if cost.equal else 'NO'} "
                f"| {cost.unfinished} | {cost.redone} | {cost.seen} |",
                flush=True,
            )
            print(f"{scenario}: {time.monotonic() - before:.0f} s", file=sys.stderr)
    sys.exit(failed)


if __name__ == "__main__":
    main()
