"""Pages of one file: a template, and the style and the one script that stand in it."""

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup


def page_environment(folder: Path) -> Environment:
    """Return what renders `page.html.jinja` of a folder; whatever comes from data is escaped.

    Templates find `colours.css`, which all pages share, `script`, the content of `page.js`, and
    `script_digest`, by which the page's policy lets this script run and no other.
    """
    environment = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    script = (folder / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {"script": Markup(script), "script_digest": digest}
    return environment
