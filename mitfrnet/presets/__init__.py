"""Settings that can be put into `params.yaml` whole: each file here is a preset of its name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mitfrnet.errors import ParamsError
from mitfrnet.files import replacing
from mitfrnet.params import PARAMS_FILE, load_params, read_section

_FOLDER = Path(__file__).parent


class Change(NamedTuple):
    """A value that became another: its dotted key, what stood there (None: nothing), what does."""

    key: str
    before: Any
    after: Any


def names() -> list[str]:
    """Return the presets there are."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def read_preset(name: str) -> str:
    """Return a preset with its comments.

    Raises:
        ParamsError: there is none of this name.
    """
    if name not in names():
        raise ParamsError(f"unknown preset {name!r} (expected: {', '.join(names())})")
    return (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def write_preset(name: str, path: Path = PARAMS_FILE) -> list[Change]:
    """Set the values of a preset in a parameter file, which stays as it is if they do not fit it.

    Returns:
        What changed, also where an alias or a merge takes a value from elsewhere.

    Raises:
        ParamsError: the preset is unknown, or the file is not as it should be, before or after.
    """
    preset = read_preset(name)
    read_section("grid", path)  # the file is there, and YAML
    before = path.read_bytes().decode()  # as text, Windows line ends would be lost
    after = apply_preset(before, preset, where=str(path))
    if after == before:
        return []
    values = yaml.safe_load(preset)
    with replacing(path.resolve()) as temporary:  # a link stays one
        temporary.write_bytes(after.encode())
        try:
            _check(temporary, values)
        except ParamsError as error:
            message = str(error).replace(str(temporary), str(path))
            raise ParamsError(f"preset {name} does not fit: {message}") from error
    old, new = (dict(_leaves(yaml.safe_load(text))) for text in (before, after))
    return [
        Change(key, old.get(key), value)
        for key, value in new.items()
        if repr(old.get(key)) != repr(value)
    ]


def apply_preset(text: str, preset: str, *, where: str) -> str:
    """Return the parameter file `text` with the values of `preset`, every other byte as it was.

    Values are replaced where they stand: a round trip through ruamel.yaml moves the comment
    beside an anchor, and loses the blank line after a list that is replaced. A key that is not
    there comes in with the comments of the preset, at the end of its section. The comments on
    the items of a list go with the list.

    Args:
        text: of the parameter file.
        preset: of the preset.
        where: opens the line of an error.

    Raises:
        ParamsError: a section is not a mapping, or an alias of another one; or a value stands
            where it cannot be replaced.
    """
    wanted = yaml.compose(preset)
    assert isinstance(wanted, yaml.MappingNode)
    edits = _edits(text, yaml.compose(text), preset, wanted, f"{where}: ")
    newline = "\r\n" if "\r\n" in text else "\n"
    parts, reached = [], 0
    for edit in sorted(edits, key=lambda edit: edit.start):  # stable: several may start together
        parts += [text[reached : edit.start], edit.text.replace("\n", newline)]
        reached = edit.end
    return "".join([*parts, text[reached:]])


class _Edit(NamedTuple):
    start: int
    end: int
    text: str


def _edits(
    text: str, target: yaml.Node | None, preset: str, wanted: yaml.MappingNode, where: str
) -> Iterator[_Edit]:
    """Yield what to replace in `text`, so that the mapping `target` has the values of `wanted`.

    Args:
        text: of the parameter file.
        target: a part of it.
        preset: its text.
        wanted: the same part of the preset.
        where: what stands before a key in the line of an error.
    """
    if not isinstance(target, yaml.MappingNode):
        raise ParamsError(f"{where.rstrip(':. ')}: is no mapping (expected keys and values)")
    present = {key.value: (key, value) for key, value in target.value}
    for key, value in wanted.value:
        name = f"{where}{key.value}"
        if key.value not in present:
            continue
        own_key, own = present[key.value]
        if own.start_mark.index < own_key.end_mark.index:
            raise ParamsError(f"{name}: is an alias (set what it stands for, or write it out)")
        if isinstance(value, yaml.MappingNode):
            yield from _edits(text, own, preset, value, f"{name}.")
        elif repr(_value(own)) != repr(_value(value)):
            if target.flow_style and isinstance(value, yaml.SequenceNode):
                raise ParamsError(f"{name}: a list within braces (expected a line per key)")
            yield from _replacement(text, own_key, own, preset, value, name)
    for key, value in wanted.value:  # after what changes at the end of the last entry
        if key.value not in present:
            yield _insertion(text, target, preset, wanted, (key, value), f"{where}{key.value}")


def _value(node: yaml.Node) -> Any:
    return yaml.SafeLoader("").construct_document(node)


def _replacement(
    text: str, key: yaml.Node, own: yaml.Node, preset: str, value: yaml.Node, name: str
) -> Iterator[_Edit]:
    """Yield the edits that put the scalar or list `value` in the place of `own`."""
    if isinstance(own, yaml.MappingNode):
        raise ParamsError(f"{name}: is a mapping (expected {_value(value)!r})")
    if text.startswith(("&", "!"), own.start_mark.index):
        raise ParamsError(f"{name}: has an anchor or a tag (expected the value alone)")
    if isinstance(value, yaml.ScalarNode) and isinstance(own, yaml.ScalarNode):
        blank = " " * (not _span(text, own))  # an empty value begins at the colon
        yield _Edit(own.start_mark.index, own.end_mark.index, blank + _span(preset, value))
        return
    if isinstance(value, yaml.ScalarNode):
        raise ParamsError(f"{name}: is a list (expected {_value(value)!r})")
    margin = " " * (key.start_mark.column + 2)
    items = "".join(f"\n{margin}- {_span(preset, item)}" for item in value.value)
    if isinstance(own, yaml.SequenceNode) and not own.flow_style:
        key_and_comments = text[: own.start_mark.index].rstrip(" ")
        start = len(key_and_comments.removesuffix("\n").removesuffix("\r"))
        yield _Edit(start, _line_end(text, own.value[-1].end_mark.index), items)
        return
    colon = text.index(":", key.end_mark.index) + 1
    yield _Edit(colon, own.end_mark.index, "")
    end = _line_end(text, own.end_mark.index)
    yield _Edit(end, end, items)


def _insertion(
    text: str,
    target: yaml.MappingNode,
    preset: str,
    wanted: yaml.MappingNode,
    entry: tuple[yaml.Node, yaml.Node],
    name: str,
) -> _Edit:
    """Return the edit that puts `entry` of `wanted` at the end of the mapping `target`."""
    if target.flow_style or not target.value:
        raise ParamsError(f"{name}: key is absent, and required")
    key, value = entry
    start, margin = key.start_mark.index, key.start_mark.column
    end = value.end_mark.index if wanted.flow_style else _entry_end(preset, *entry)
    first, *others = preset[start:end].split("\n")
    new_margin = " " * target.value[0][0].start_mark.column
    lines = [first, *(line[margin:] for line in others)]
    apart = "\n" if preset[: start - margin].endswith("\n\n") else ""
    moved = "".join(f"\n{new_margin}{line}" if line else "\n" for line in lines)
    place = _entry_end(text, *target.value[-1])
    return _Edit(place, place, apart + moved)


def _entry_end(text: str, key: yaml.Node, value: yaml.Node) -> int:
    """Return where the last line of an entry ends; a block's own mark is beyond blank lines."""
    if value.start_mark.index < key.end_mark.index:  # an alias: its mark is that of the anchor
        return _line_end(text, key.end_mark.index)
    if isinstance(value, yaml.CollectionNode) and not value.flow_style:
        last = value.value[-1]
        if isinstance(last, tuple):
            return _entry_end(text, *last)
        return _line_end(text, last.end_mark.index)
    return _line_end(text, value.end_mark.index)


def _line_end(text: str, index: int) -> int:
    end = text.find("\n", index)
    return len(text) if end < 0 else end - (text[end - 1] == "\r")


def _span(text: str, node: yaml.Node) -> str:
    return text[node.start_mark.index : node.end_mark.index]


def _leaves(values: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value that is no mapping, with its dotted key."""
    if not isinstance(values, dict):
        yield key, values
        return
    for name, value in values.items():
        yield from _leaves(value, f"{key}.{name}" if key else str(name))


def _check(path: Path, preset: dict[str, Any]) -> None:
    """Raise a ParamsError unless the file holds the values of `preset` and the pipeline takes it.

    Args:
        path: of the parameter file.
        preset: its values.
    """
    # Here, since they bring torch.
    from mitfrnet.grid import GridParams
    from mitfrnet.training.settings import TrainParams, load_model_params

    for section, values in preset.items():
        found = dict(_leaves(read_section(section, path)))
        for key, value in _leaves(values):
            if repr(found.get(key)) != repr(value):
                raise ParamsError(f"{path}: {section}.{key}: cannot be set to {value!r} here")
    grid = load_params(GridParams, section="grid", path=path)
    load_params(TrainParams, section="train", path=path)
    for name in dict.fromkeys([*grid.models, *preset.get("model", {})]):
        load_model_params(name, path=path)
