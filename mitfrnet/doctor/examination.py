"""Run the checks; what imports a package runs in a child process, since the import may crash."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mitfrnet.doctor import environment
from mitfrnet.doctor.findings import ERROR, REMARK, Finding
from mitfrnet.errors import ParamsError

# Functions of `project.py`. The first two do not import torch, and run beside the others.
CHECKS = ("stages", "extraction", "parameters", "corpora", "gpu")
_DONE = "done"  # printed after each check


def examine(free_gib: float) -> Iterator[Finding]:
    """Yield all findings; each disk must have `free_gib` of free space."""
    if not Path("pyproject.toml").is_file():
        yield Finding("folder", ERROR, "no pyproject.toml here", environment.HERE)
        return
    packages = [name for name, version in environment.versions().items() if version]
    with ThreadPoolExecutor() as threads:
        children = threads.map(run, [[*packages, *CHECKS[2:]], CHECKS[:2]])
        yield from environment.python()
        yield from environment.packages()
        yield from environment.commands()
        yield from environment.disk(free_gib)
        for findings in children:
            yield from findings


def run(names: Sequence[str], timeout_s: float = 240) -> list[Finding]:
    """Return findings of a child process; if a check ends it, another one runs the rest.

    Args:
        names: of checks, or of packages to import.
        timeout_s: of a child process; the checks after one that takes so long are not run.
    """
    waiting = list(names)
    findings = []
    while waiting:
        command = [sys.executable, "-m", __name__, *waiting]
        env = {**os.environ, "HF_HUB_OFFLINE": "1"}  # nothing is downloaded
        try:
            child = subprocess.run(command, capture_output=True, timeout=timeout_s, env=env)
            output, code = child.stdout, child.returncode
            ending = str(signal.strsignal(-code)) if code < 0 else f"exit status {code}"
            ending = ": ".join([ending, *child.stderr.decode(errors="replace").splitlines()[-1:]])
        except subprocess.TimeoutExpired as error:
            output, ending = error.stdout or b"", "timeout"
        lines = output.decode().splitlines()
        findings += [Finding(**json.loads(line)) for line in lines if line != _DONE]
        waiting = waiting[lines.count(_DONE) :]
        if waiting:
            name, *waiting = waiting
            findings.append(Finding(name, ERROR, f"crashed: {ending}", _advice(name, ending)))
        if waiting and ending == "timeout":
            return [*findings, Finding("timeout", REMARK, f"not checked: {', '.join(waiting)}")]
    return findings


def main(names: Sequence[str]) -> None:
    """Run checks and print a finding per line; what libraries print goes to stderr."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for name in names:
        findings: list[Finding] = []
        try:
            findings.extend(_check(name))
        except ParamsError:
            pass  # the check `parameters` reports it
        except BaseException as error:  # a library may even raise SystemExit
            causes = ": ".join(str(e) for e in (error, error.__cause__) if e)
            message = textwrap.shorten(f"{type(error).__name__}: {causes}", 1000)
            findings.append(Finding(name, ERROR, message, _advice(name, message)))
        for finding in findings:
            print(json.dumps(vars(finding)), file=output)
        print(_DONE, file=output, flush=True)


def _check(name: str) -> Iterator[Finding]:
    if name in CHECKS:
        yield from getattr(importlib.import_module("mitfrnet.doctor.project"), name)()
    else:
        importlib.import_module(environment.MODULES.get(name, name.replace("-", "_")))


def _advice(name: str, error: str) -> str:
    """Return what to do if a check or import fails with `error`."""
    if "No module named" in error:
        return environment.INSTALL
    if library := re.search(r"lib[\w+.-]+?\.so[.\d]*(?=: cannot open shared object)", error):
        if re.match("lib(GL|glib|gthread)", library[0]):
            return "on Debian and Ubuntu: apt-get install libgl1 libglib2.0-0"
        return f"install the system package that holds {library[0]}"
    if name == "stages":
        return environment.HERE
    what = "-e ." if name in CHECKS else name
    return f"if no other line explains it: pip install --force-reinstall -c constraints.txt {what}"


if __name__ == "__main__":
    main(sys.argv[1:])
