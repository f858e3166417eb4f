"""Errors that a user can act on."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class MitfrnetError(Exception):
    """Base of all errors caused by input; one line: where, what, and what would be right."""


class ParamsError(MitfrnetError):
    """Values in `params.yaml` are unknown, absent or out of range.

    Attributes:
        problems: one line each.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class CorpusError(MitfrnetError):
    """A corpus table or its layout cannot be used."""


class MediaError(MitfrnetError):
    """A clip cannot be read; `str(error)` is the reason stored in the manifest."""


class StorageError(MitfrnetError):
    """Object storage is unreachable or refuses access; not the fault of a clip."""


class FeatureError(MitfrnetError):
    """A feature, tensor, mask or model file is absent, damaged or does not fit."""


class TrainingError(MitfrnetError):
    """A model could not be trained."""


class OutputError(MitfrnetError):
    """A file cannot be written."""


class ClusterError(MitfrnetError):
    """The cluster of `run.scheduler` is absent, or one of its machines cannot be used."""


DEBUG_VARIABLE = "MITFRNET_DEBUG"

# Errors of the system that a user can act on, and how.
_REMEDIES = {
    errno.ENOSPC: "make room there and run again; finished work is kept",
    errno.EDQUOT: "make room there and run again; finished work is kept",
    errno.EROFS: "it must be writable",
    errno.EACCES: "give this user permission",
    errno.EPERM: "give this user permission",
}


def system_words(number: int) -> str:
    """Return the system's message for an `errno`, and what to do."""
    remedy = f" ({_REMEDIES[number]})" if number in _REMEDIES else ""
    return os.strerror(number) + remedy


def printable(text: str) -> str:
    """Return text from data as one line, with control characters escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Turn a `MitfrnetError` into one line on stderr and exit status 1.

    Likewise a full disk, and a file that this user may not use. With the environment variable
    `MITFRNET_DEBUG`, errors keep their traceback.
    """
    try:
        yield
    except MitfrnetError as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        for problem in error.problems if isinstance(error, ParamsError) else [str(error)]:
            print(f"error: {printable(problem)}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in _REMEDIES or os.environ.get(DEBUG_VARIABLE):
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{system_words(error.errno)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
