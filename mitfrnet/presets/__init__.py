"""Presets: each YAML file here holds settings for `params.yaml`."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from mitfrnet.errors import ParamsError
from mitfrnet.files import replacing
from mitfrnet.params import PARAMS_FILE, load_params, read_section

_FOLDER = Path(__file__).parent


class Change(NamedTuple):
    """A value that a preset changed: its dotted key, the old value (None if absent), the new."""

    key: str
    before: Any
    after: Any


def names() -> list[str]:
    """Return the names of all presets."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def read_preset(name: str) -> str:
    """Return the text of a preset, with its comments.

    Raises:
        ParamsError: there is no such preset.
    """
    if name not in names():
        raise ParamsError(f"unknown preset {name!r} (expected: {', '.join(names())})")
    return (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def write_preset(name: str, path: Path = PARAMS_FILE) -> list[Change]:
    """Set the values of a preset in a parameter file, and keep the file's comments.

    The file stays as it is if the result would be invalid.

    Returns:
        All changed values, those that follow through an alias or a merge key included.

    Raises:
        ParamsError: the preset is unknown, or the file is invalid, before or after.
    """
    preset = read_preset(name)
    read_section("grid", path)  # the file exists and is YAML
    before = path.read_bytes().decode()  # not read as text, which would lose Windows line ends
    after = apply_preset(before, preset, where=str(path))
    old, new = (dict(_leaves(yaml.safe_load(text))) for text in (before, after))
    changes = [
        Change(key, old.get(key), value)
        for key, value in new.items()
        if repr(old.get(key)) != repr(value)
    ]
    if changes:
        with replacing(path.resolve()) as temporary:  # a link stays a link
            temporary.write_bytes(after.encode())
            try:
                _check(temporary, yaml.safe_load(preset).get("model", {}))
            except ParamsError as error:
                message = str(error).replace(str(temporary), str(path))
                raise ParamsError(f"preset {name} does not fit: {message}") from error
    return changes


def apply_preset(text: str, preset: str, *, where: str) -> str:
    """Return the parameter file `text` with the values of `preset` and its own comments.

    Comments on the items of a replaced list go with the items. New keys come first in their
    section, with the comments of the preset.

    Args:
        text: of the parameter file.
        preset: text of the preset.
        where: opens the message of an error.

    Raises:
        ParamsError: the text cannot be parsed, or a section is not a mapping.
    """
    editor = YAML()
    editor.width = 10_000  # long lines stay whole
    editor.preserve_quotes = True  # "no" would become no, which other readers take for false
    editor.indent(mapping=2, sequence=4, offset=2)
    editor.representer.add_representer(  # ruamel.yaml would write nothing
        type(None),
        lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null"),
    )
    try:
        params = editor.load(text.replace("\r\n", "\n"))
    except YAMLError as error:
        raise ParamsError(f"{where}: not valid YAML ({' '.join(str(error).split())})") from error
    _update(params, editor.load(preset), f"{where}: ")
    out = io.StringIO()
    editor.dump(params, out)
    return out.getvalue().replace("\n", "\r\n" if "\r\n" in text else "\n")


def _update(target: Any, preset: CommentedMap, where: str) -> None:
    """Set the values of `preset` in the mapping `target`; `where` stands before its keys."""
    if not isinstance(target, CommentedMap):
        raise ParamsError(f"{where.rstrip(':. ')}: expected keys and values (found: {target!r})")
    new_keys = [key for key in preset if key not in target]
    for position, key in enumerate(new_keys):  # not last, where a comment on the next section is
        target.insert(position, key, preset[key])
        if key in preset.ca.items:
            target.ca.items[key] = preset.ca.items[key]
    for key, value in preset.items():
        if isinstance(value, CommentedMap):
            _update(target[key], value, f"{where}{key}.")
        elif str(target[key]) != str(value):
            target[key] = _items(value, target[key]) if isinstance(value, list) else value


def _items(values: list[Any], old: Any) -> CommentedSeq:
    """Return a list in block form, followed by the blank lines and comments that follow `old`."""
    new = CommentedSeq(values)
    tail = old.ca.items.get(len(old) - 1) if isinstance(old, CommentedSeq) else None
    if tail and tail[0]:
        tail[0].value = "\n" + tail[0].value.partition("\n")[2]
        new.ca.items[len(new) - 1] = tail
    return new


def _leaves(values: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value that is not a mapping, with its dotted key."""
    if not isinstance(values, dict):
        yield key, values
        return
    for name, value in values.items():
        yield from _leaves(value, f"{key}.{name}" if key else str(name))


def _check(path: Path, models: Iterable[str]) -> None:
    """Raise ParamsError unless the pipeline accepts the sections that a preset can change.

    Args:
        path: of the parameter file.
        models: to check beside those of the grid.
    """
    # Imported here because they load torch.
    from mitfrnet.grid import GridParams
    from mitfrnet.training.load import load_model_params
    from mitfrnet.training.settings import TrainParams

    grid = load_params(GridParams, section="grid", path=path)
    load_params(TrainParams, section="train", path=path)
    for name in dict.fromkeys([*grid.models, *models]):
        load_model_params(name, path=path)
