"""Expected errors become one line; a bug keeps its traceback."""

import errno
import os
from pathlib import Path

import pytest

from mitfrnet.errors import DEBUG_VARIABLE, ParamsError, reporting_errors


def reported(error, capsys):
    with pytest.raises(SystemExit) as ended, reporting_errors():
        raise error
    return ended.value.code, capsys.readouterr().err


def test_an_error_is_one_line(capsys):
    assert reported(ParamsError("x: wrong"), capsys) == (1, "error: x: wrong\n")


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (errno.ENOSPC, "No space left on device (make room there and run again; finished work"),
        (errno.EACCES, "Permission denied (give this user permission)"),
        (errno.EROFS, "Read-only file system (it must be writable)"),
    ],
)
def test_a_system_error_about_a_file_is_one_line(capsys, number, line):
    status, output = reported(OSError(number, os.strerror(number), "data/x"), capsys)
    assert status == 1
    assert output.startswith(f"error: data/x: {line}")
    assert output.count("\n") == 1


def test_other_errors_keep_their_traceback(monkeypatch):
    with pytest.raises(FileNotFoundError), reporting_errors():
        Path("absent").read_text()
    monkeypatch.setenv(DEBUG_VARIABLE, "1")
    with pytest.raises(OSError, match="full"), reporting_errors():
        raise OSError(errno.ENOSPC, "full")


def test_ctrl_c_has_its_usual_status(capsys):
    assert reported(KeyboardInterrupt(), capsys) == (130, "")
