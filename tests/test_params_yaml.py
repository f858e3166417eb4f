"""Every value of the shipped params.yaml can be set by `dvc exp run -S`, and by nothing else."""

import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides  # what `-S` does to the file

from tests.helpers.paths import ROOT

TEXT = (ROOT / "params.yaml").read_text()


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value that is no map, with its dotted path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}".lstrip("."))
    else:
        yield path, value


LEAVES = dict(leaves(yaml.safe_load(TEXT)))


def another(value: Any) -> Any:
    """Return another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 + 0.125
    if isinstance(value, list):
        return [*value, *value[:1]] if value else ["x"]
    return 3 if value is None else f"{value}x"


def comments(text: str) -> list[str]:
    return re.findall(r"#.*", text)


def test_nothing_is_shared_between_sections():
    """DVC writes overrides through anchors, aliases and merge keys, and loses values."""
    assert not re.search(r"(:|-) [&*]\w|<<:", TEXT)


@pytest.mark.parametrize("path", LEAVES)
def test_setting_a_value_changes_that_value_alone(tmp_path, path):
    file = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", file)
    new = another(LEAVES[path])
    apply_overrides(
        file, [f"{path}={yaml.safe_dump(new, default_flow_style=True).split(chr(10))[0]}"]
    )
    after = file.read_text()
    assert dict(leaves(yaml.safe_load(after))) == LEAVES | {path: new}
    if not isinstance(new, list):  # a list is written anew, without its comments
        assert comments(after) == comments(TEXT)
