"""Every check in a process of its own: whatever breaks there is a finding, and breaks no more."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from mitfrnet.doctor import environment, project
from mitfrnet.doctor.findings import ERROR, REMARK, Finding, one_line
from mitfrnet.doctor.processes import run_process

TIMEOUT_S = 240.0  # of one check: libraries load slowly from a network disk, or on busy cores

CHECKS: dict[str, Callable[..., Iterator[Finding]]] = {  # in the order in which they are shown
    "Python": environment.python,
    "packages": environment.packages,
    "decoders": environment.decoders,
    "libGL": environment.libgl,
    "face detector": environment.face_detector,
    "GPU": environment.gpu,
    "machine": environment.machine,
    "commands": project.commands,
    "parameters": project.parameters,
    "models": project.models,
    "git": project.git,
    "DVC": project.dvc,
    "disk": project.disk,
    "write access": project.write_access,
}

_END = "end"


def examine(*, free_gib: float) -> Iterator[Finding]:
    """Yield what all checks find in this Python and the current folder, in order.

    Args:
        free_gib: a disk with less free space than this is an error.
    """
    arguments = {name: (str(free_gib),) for name in ("disk", "DVC")}
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as threads:
        waiting = [threads.submit(isolated, name, *arguments.get(name, ())) for name in CHECKS]
        for findings in waiting:
            yield from findings.result()


def isolated(check: str, *arguments: str, timeout_s: float = TIMEOUT_S) -> list[Finding]:
    """Return what one check finds, run in a process of its own.

    Args:
        check: its name in `CHECKS`.
        arguments: of it.
        timeout_s: a check that takes longer is given up.
    """
    command = [sys.executable, "-m", "mitfrnet.doctor.examination", check, *arguments]
    output, ending = run_process(command, timeout_s=timeout_s)
    *lines, last = output.splitlines() or [""]
    if last == _END:
        return [Finding(**json.loads(line)) for line in lines]
    whole = output.splitlines()[: output.count("\n")]
    return [
        *(Finding(**json.loads(line)) for line in whole),
        Finding(check, ERROR, f"the check broke off: {ending}", "see what the other checks say"),
    ]


def main(check: str, *arguments: str) -> None:
    """Run one check and print its findings, one JSON a line; what else is printed goes to stderr.

    Args:
        check: its name in `CHECKS`.
        arguments: of it.
    """
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def write(finding: Finding) -> None:
        print(json.dumps(asdict(finding)), file=output, flush=True)

    try:
        for finding in CHECKS[check](*arguments):
            write(finding)
    except ImportError as error:
        # A package that is not as it should be is an error of the packages already.
        ours = (error.name or "mitfrnet").partition(".")[0] == "mitfrnet"
        write(Finding(check, ERROR if ours else REMARK, f"not looked at: {one_line(str(error))}"))
    except BaseException as error:  # a library may even raise SystemExit
        write(Finding(check, ERROR, one_line(f"{type(error).__name__}: {error}")))
    print(_END, file=output, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
