"""What `mitfrnet doctor` finds, and how it is printed."""

import getpass
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

OK, REMARK, ERROR = "ok", "remark", "error"
FREE_GIB = 0.5  # default of --free

_SECRET_VARIABLE = re.compile("TOKEN|SECRET|PASSW|CREDENTIAL|_KEY", re.IGNORECASE)
_CREDENTIALS_IN_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_KNOWN_TOKENS = re.compile(r"\b(?:hf|gh[a-z]|github_pat|glpat|sk)[_-]\w{16,}")


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str  # what was checked
    level: str  # `ok`; `remark`: worth knowing; `error`: `dvc repro` would stop
    found: str
    advice: str = ""  # what to do about it

    def __str__(self) -> str:
        advice = f"\n{'':8}-> {self.advice}" if self.advice else ""
        return f"{self.level:8}{self.name}: {self.found}{advice}"


def to_json(findings: Sequence[Finding]) -> str:
    """Return all findings as JSON, without home folder, user name, tokens and passwords."""
    errors = sum(finding.level == ERROR for finding in findings)
    rows = [{k: without_secrets(v) for k, v in asdict(finding).items()} for finding in findings]
    return json.dumps({"errors": errors, "findings": rows}, indent=2, ensure_ascii=False)


def without_secrets(text: str) -> str:
    """Return a text without home folder, user name, tokens and passwords."""
    hidden = {v: "***" for k, v in os.environ.items() if _SECRET_VARIABLE.search(k) and len(v) > 7}
    home = os.path.expanduser("~")
    for folder in (os.path.realpath(home), home):
        if len(Path(folder).parts) > 1:  # neither "/", nor a "~" that stands for nothing
            hidden[folder] = "~"
    for value in sorted(hidden, key=len, reverse=True):
        text = text.replace(value, hidden[value])
    text = _KNOWN_TOKENS.sub("***", _CREDENTIALS_IN_URL.sub("***", text))
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        return text
    return re.sub(rf"(?<!\w){re.escape(user)}(?!\w)", "<user>", text)
