"""A file is replaced as a whole, or stays as it was."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from mitfrnet.errors import OutputError
from mitfrnet.files import replacing, write_json

FULL = Path("/dev/full")  # every write to it fails for lack of space

needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")


def replaced(path, *writes):
    with replacing(path) as temporary:
        for write in writes:
            write(temporary)


def test_a_block_that_ends_well_replaces_the_file(tmp_path):
    path = tmp_path / "new folder" / "x"
    for text in ("old", "new"):
        replaced(path, lambda p, text=text: p.write_text(text))
        assert path.read_text() == text
    assert [p.name for p in path.parent.iterdir()] == ["x"]


def test_json_has_sorted_keys_and_no_nan(tmp_path):
    write_json({"b": 1, "a": [0.5]}, tmp_path / "x")
    text = (tmp_path / "x").read_text()
    assert json.loads(text) == {"a": [0.5], "b": 1}
    assert text.index('"a"') < text.index('"b"')
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json({"a": float("nan")}, tmp_path / "x")
    assert (tmp_path / "x").read_text() == text


def test_a_block_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        replaced(path, lambda p: p.write_text("half"), lambda _: 1 / 0)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert path.read_text() == "old"


@needs_full
@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("new"),
        lambda path: pq.write_table(pa.table({"a": [1, 2]}), path),
    ],
    ids=["text", "parquet"],
)
def test_a_full_disk_is_named_with_the_file(tmp_path, write):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(OutputError) as error:
        replaced(path, lambda p: p.symlink_to(FULL), write)
    assert str(error.value) == (
        f"{path}: cannot be written: No space left on device (make room there and run again; "
        "finished work is kept)"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert path.read_text() == "old"


def test_a_system_error_within_safetensors_is_explained(tmp_path):
    """It raises an error of its own with the system's message in it; here, of an absent folder."""
    path = tmp_path / "x"
    with pytest.raises(OutputError, match=rf"^{path}: cannot be written: No such file"):
        replaced(path, lambda p: save_file({"a": np.zeros(1)}, p / "absent"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"/file/x: cannot be written: "):
        replaced(tmp_path / "file" / "x", lambda p: p.write_text(""))


def test_an_error_without_a_system_number_is_not_changed(tmp_path):
    def fail(path):
        raise OSError("odd")

    with pytest.raises(OSError, match=r"^odd$"):
        replaced(tmp_path / "x", fail)
