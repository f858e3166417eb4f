"""Pages that are a single file, with their style and one script inside."""

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup


def page_environment(folder: Path, script: str) -> Environment:
    """Return an environment that renders the templates of a folder and escapes all data.

    A template can use `script`, the code of its one script, and `script_digest`, by which its
    security policy allows that script alone. It can include the style sheets of its own folder
    and of this one.

    Args:
        folder: the folder of the templates.
        script: file name of the script.
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
