"""Processes that may crash, or hang."""

from __future__ import annotations

import os
import signal
import subprocess

from mitfrnet.doctor.findings import one_line

_OFFLINE = {"HF_HUB_OFFLINE": "1"}  # nothing is downloaded, whatever is looked for


def run_process(command: list[str], *, timeout_s: float) -> tuple[str, str]:
    """Return what a process wrote to stdout before it ended, and how it ended, in a few words."""
    try:
        process = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            env={**os.environ, **_OFFLINE},
        )
        output, stderr, code = process.stdout, process.stderr, process.returncode
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"").decode(errors="replace"), f"no end after {timeout_s:g} s"
    said = one_line((stderr.decode(errors="replace").strip().splitlines() or [""])[-1])
    try:
        ending = signal.Signals(-code).name
    except ValueError:
        ending = f"status {code}"
    return output.decode(errors="replace"), f"{ending}{f' ({said})' if said else ''}"
