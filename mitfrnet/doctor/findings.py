"""What `mitfrnet doctor` found, as a terminal shows it and as a bug report may carry it.

Of this package every file is read by whatever Python there is, with nothing installed: no file
imports anything but the standard library when it loads, nor uses what Python 3.8 lacks.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

OK, REMARK, ERROR = "ok", "remark", "error"
FREE_GIB = 0.5  # space on each disk, unless said otherwise

_COLOURS = {OK: "32", REMARK: "33", ERROR: "1;31"}
_LEVEL_WIDTH, _NAME_WIDTH = 8, 14
_WIDEST = 120
_LONGEST = 1000  # characters of one finding: libraries put whole pages into an error

_SECRET_VARIABLE = re.compile("TOKEN|SECRET|PASSW|CREDENTIAL|_KEY", re.IGNORECASE)
_CREDENTIALS_IN_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_KNOWN_TOKENS = re.compile(r"\b(?:hf|gh[a-z]|github_pat|glpat|sk)[_-]\w{16,}")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        level: `ok`; `remark`: worth knowing; `error`: `dvc repro` would stop.
        found: what is there.
        advice: what to do; empty where there is nothing to do.
    """

    name: str
    level: str
    found: str
    advice: str = ""


def one_line(text: str) -> str:
    """Return a text as one line, the middle left out where it is long."""
    line = " ".join(text.split())
    if len(line) <= _LONGEST:
        return line
    return f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"


def render(finding: Finding, *, width: int, colour: bool) -> str:
    """Return the lines that show a finding.

    Args:
        finding: what to show.
        width: of the terminal, in characters.
        colour: whether the level stands out by its colour.
    """
    indent = " " * (_LEVEL_WIDTH + _NAME_WIDTH)
    # A name that leaves no gap stands on a line of its own.
    name = finding.name if len(finding.name) < _NAME_WIDTH else f"{finding.name}\n{indent}"
    level = finding.level.ljust(_LEVEL_WIDTH)
    if colour:
        level = f"\033[{_COLOURS[finding.level]}m{level}\033[0m"
    wrapped = [
        textwrap.wrap(
            text,
            max(20, min(width, _WIDEST) - len(indent)),
            subsequent_indent=further,
            break_long_words=False,  # a path is copied whole
            break_on_hyphens=False,
        )
        for text, further in ((finding.found, ""), (f"-> {finding.advice}", "   "))
        if text != "-> "
    ]
    lines = [line for text in wrapped for line in text] or [""]
    return level + name.ljust(_NAME_WIDTH) + f"\n{indent}".join(lines)


def conclusion(findings: Sequence[Finding]) -> str:
    """Return the last line: how many findings are not `ok`, and what follows."""
    levels = [finding.level for finding in findings]
    counts = ", ".join(
        f"{levels.count(level) or 'no'} {level}{'s' * (levels.count(level) != 1)}"
        for level in (ERROR, REMARK)
    )
    would = "would stop" if ERROR in levels else "can run"
    return f"{counts}: `dvc repro` {would}"


def to_json(findings: Sequence[Finding]) -> str:
    """Return all findings as JSON, without what a bug report should not tell the world."""
    listed = [
        {key: without_secrets(value) for key, value in asdict(finding).items()}
        for finding in findings
    ]
    errors = sum(finding.level == ERROR for finding in findings)
    return json.dumps({"errors": errors, "findings": listed}, indent=2, ensure_ascii=False)


def without_secrets(text: str) -> str:
    """Return a text without home folder, user name, tokens and passwords."""
    hidden = {v: "***" for k, v in os.environ.items() if _SECRET_VARIABLE.search(k) and len(v) > 7}
    home = os.path.expanduser("~")
    for folder in (os.path.realpath(home), home):
        if len(Path(folder).parts) > 1:  # not "/", nor "~" where there is none
            hidden[folder] = "~"
    for value in sorted(hidden, key=len, reverse=True):
        text = text.replace(value, hidden[value])
    text = _KNOWN_TOKENS.sub("***", _CREDENTIALS_IN_URL.sub("***", text))
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        return text
    return re.sub(rf"(?<!\w){re.escape(user)}(?!\w)", "<user>", text)
