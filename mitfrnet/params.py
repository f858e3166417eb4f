"""Typed sections of `params.yaml`; each section's type lives beside the code it configures."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mitfrnet.errors import ParamsError

PARAMS_FILE = Path("params.yaml")

# A misspelt section would go unnoticed, since no stage would read it.
SECTIONS = frozenset(
    {
        *("grid", "run", "corpora"),
        *("ingest", "extract", "tensors", "mask", "train", "model", "evaluate", "report"),
    }
)


class StageParams(BaseModel):
    """Base of every section; it is frozen and refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Params = TypeVar("Params", bound=StageParams)


def check_name(name: str, where: str) -> str:
    """Return `name` if it may be part of a path.

    Raises:
        ParamsError: it has characters other than a-z, 0-9, `_` and `-`.
    """
    if not re.fullmatch("[a-z0-9_-]+", name):
        raise ParamsError(f"{where}: {name!r} (expected a name of a-z, 0-9, _, -)")
    return name


def closest(name: str, names: Iterable[str]) -> str:
    """Return the end of an error's line: the name that was probably meant, or all names."""
    names = list(names)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else f"expected one of {', '.join(names)}"


def read_file(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """Return all sections of the parameter file, unchecked.

    Raises:
        ParamsError: the file is absent, is not YAML, or has an unknown section.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise ParamsError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise ParamsError(f"{path}: {values!r} (expected sections: {', '.join(sorted(SECTIONS))})")
    if unknown := sorted(set(map(str, values)) - SECTIONS):
        raise ParamsError(
            *(f"{path}: {n}: unknown section ({closest(n, sorted(SECTIONS))})" for n in unknown)
        )
    return values


def read_section(section: str, path: Path = PARAMS_FILE) -> Any:
    """Return the raw value at the dotted `section`.

    Raises:
        ParamsError: as for `read_file`, or there is no such section.
    """
    value: Any = read_file(path)
    reached = []
    for key in section.split("."):
        reached.append(key)
        if not isinstance(value, dict) or key not in value:
            keys = ", ".join(map(str, value)) if isinstance(value, dict) else "nothing"
            raise ParamsError(f"{path}: {'.'.join(reached)}: no such section (found: {keys})")
        value = value[key]
    return value


def load_params(kind: type[Params], *, section: str, path: Path = PARAMS_FILE) -> Params:
    """Return `section` of the parameter file as a checked `kind`.

    Raises:
        ParamsError: a key is unknown or absent, or `kind` does not allow a value.
    """
    return parse_params(kind, read_section(section, path), where=f"{path}: {section}")


def parse_params(kind: type[Params], values: Any, *, where: str) -> Params:
    """Return `values` as a checked `kind`; an error message begins with `where`.

    Raises:
        ParamsError: as for `load_params`.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ParamsError(*(_explain(kind, e, where) for e in error.errors())) from error


def _explain(kind: type[BaseModel], error: Any, where: str) -> str:
    """Return one pydantic error as `where.key: problem (what would be right)`."""
    location = ".".join([where, *(str(part) for part in error["loc"])])
    if error["type"] == "extra_forbidden":
        keys = _keys_beside(kind, error["loc"])
        close = difflib.get_close_matches(str(error["loc"][-1]), keys, n=1)
        return f"{location}: unknown key (expected: {', '.join(close or keys)})"
    if error["type"] == "missing":
        return f"{location}: key is absent, and required"
    message = error["msg"].removeprefix("Value error, ")
    return f"{location}: {message} (found: {error['input']!r})"


def _keys_beside(kind: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """Return the keys that are allowed at the level of the last part of `loc`."""
    for part in loc[:-1]:
        field = kind.model_fields.get(str(part))
        # The type of an optional section is a union with None.
        types = get_args(field.annotation) or (field.annotation,) if field else ()
        nested = [t for t in types if isinstance(t, type) and issubclass(t, BaseModel)]
        if not nested:
            break
        kind = nested[0]
    return list(kind.model_fields)
