"""Checks of Python, versions, commands and disks, with the standard library alone."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from mitfrnet.doctor.findings import ERROR, OK, REMARK, Finding

INSTALL = "run `make install`, or in your own environment: pip install -c constraints.txt -e ."
HERE = "mend params.yaml or dvc.yaml; or go to the project's folder, a git clone with DVC"

MODULES = {  # of packages that are imported under another name
    "opencv-python": "cv2",
    "pyyaml": "yaml",
    "ruamel.yaml.clib": "_ruamel_yaml",
    "scikit-learn": "sklearn",
}


def versions() -> dict[str, str]:
    """Return the installed version of each package that the project declares; empty if absent."""
    block = _pyproject(r"^dependencies = \[\n(.*?)^\]")[1]
    by_name = dict.fromkeys(re.findall(r'^\s*"([\w.-]+)', block, re.MULTILINE), "")
    for name in by_name:
        with suppress(metadata.PackageNotFoundError):
            by_name[name] = metadata.version(name)
    return by_name


def _pyproject(pattern: str) -> re.Match[str]:
    text = Path("pyproject.toml").read_text(encoding="utf-8")  # newer than installed metadata
    match = re.search(pattern, text, re.MULTILINE | re.DOTALL)
    assert match is not None
    return match


def python() -> Iterator[Finding]:
    """Check the version of Python."""
    system = f"{platform.system()} {platform.machine()} {' '.join(platform.libc_ver())}"
    low, high = _pyproject(r'^requires-python = ">=3\.(\d+),<3\.(\d+)"').groups()
    advice = "" if int(low) <= sys.version_info[1] < int(high) else f"with such a Python, {INSTALL}"
    message = f"{platform.python_version()} of {sys.prefix}, {system}"
    message += f" (expected at least 3.{low}, below 3.{high})" if advice else ""
    yield Finding("Python", ERROR if advice else OK, message, advice)


def packages() -> Iterator[Finding]:
    """Check that each declared package is installed, in a version the project is tested with."""
    by_name = versions()
    if absent := [name for name, version in by_name.items() if not version]:
        yield Finding("packages", ERROR, f"not installed: {', '.join(absent)}", INSTALL)
    texts = [path.read_text("utf-8") for path in sorted(Path().glob("constraints*.txt"))]
    pins = re.findall(r"^([\w.-]+)==([^\s;#]+)", "\n".join(texts), re.MULTILINE)
    for name, version in by_name.items():
        tested = list(dict.fromkeys(pin for pinned, pin in pins if pinned == name))
        if version and tested and version.split("+")[0] not in tested:
            message = f"{version} (tested: {', '.join(tested)})"
            yield Finding(name, REMARK, message, f"if something fails, {INSTALL}")
    message = ", ".join(f"{name} {version}" for name, version in by_name.items() if version)
    yield Finding("packages", OK, message or "none")


def commands() -> Iterator[Finding]:
    """Check that stages find `dvc` and call this Python, and that git has a commit."""
    prefix = _output("python", "-c", "import sys; print(sys.prefix)")
    if os.path.realpath(prefix) == os.path.realpath(sys.prefix) and shutil.which("dvc"):
        yield Finding("commands", OK, f"stages call {shutil.which('python')}")
    else:
        message = f"`python` is {shutil.which('python')}, `dvc` is {shutil.which('dvc')}"
        advice = "activate the environment: source .venv/bin/activate"
        yield Finding("commands", ERROR, f"{message} (expected those of {sys.prefix})", advice)
    commit = _output("git", "rev-parse", "--verify", "HEAD")
    yield Finding("git", OK if commit else REMARK, f"commit {commit[:10] or 'none'}")


def _output(*command: str) -> str:
    with suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return ""


def disk(free_gib: float) -> Iterator[Finding]:
    """Check that the project's folders and DVC's cache can be written to and have space."""
    free_by_disk = {}  # a folder may be a link to another disk
    for folder in (Path(), *Path().glob("*/"), *Path().glob(".dvc/*/")):
        if os.access(folder, os.W_OK):
            free_by_disk[folder.stat().st_dev] = shutil.disk_usage(folder).free / 2**30
        else:
            yield Finding("disk", ERROR, f"{folder}: not writable", "change its owner or rights")
    free = min(free_by_disk.values(), default=0.0)
    advice = (
        "" if free >= free_gib else "make space; `dvc gc -w` empties DVC's cache of old results"
    )
    message = f"{free:,.1f} GiB free (expected {free_gib:g})"
    yield Finding("disk", ERROR if advice else OK, message, advice)
