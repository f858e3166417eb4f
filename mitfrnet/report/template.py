"""Pages of one file: a template, and the style and the one script that stand in it."""

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup


def page_environment(folder: Path, script: str) -> Environment:
    """Return what renders the templates of a folder; it escapes whatever comes from data.

    Templates can use `script`, the content of the page's one script, and `script_digest`, with
    which the page's policy admits this script and no other. They can include the style sheets of
    their own folder and of this one.
    """
    environment = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    code = (folder / script).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    environment.globals |= {"script": Markup(code), "script_digest": digest}
    return environment
