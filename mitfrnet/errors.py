"""Errors that a user can act on."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class MitfrnetError(Exception):
    """Base of all errors caused by input; the message is one line: where, what, what is right."""


class ParamsError(MitfrnetError):
    """A value in `params.yaml` is unknown, absent or out of range."""


class CorpusError(MitfrnetError):
    """A corpus table or its layout cannot be used."""


class MediaError(MitfrnetError):
    """A clip cannot be read; `str(error)` is the reason stored in the manifest."""


class StorageError(MitfrnetError):
    """Object storage cannot be reached or refuses, which is no fault of a clip."""


class FeatureError(MitfrnetError):
    """A feature, tensor, mask or model file does not hold what its reader needs."""


class TrainingError(MitfrnetError):
    """A model could not be trained."""


class OutputError(MitfrnetError):
    """A file cannot be written."""


class ClusterError(MitfrnetError):
    """The cluster of `run.scheduler` is not there, or a machine of it is of no use."""


DEBUG_VARIABLE = "MITFRNET_DEBUG"

# What the system may say of any file, and what a user can do about it.
_REMEDIES = {
    errno.ENOSPC: "make room there and run again; what is finished is kept",
    errno.EDQUOT: "make room there and run again; what is finished is kept",
    errno.EROFS: "it must be writable",
    errno.EACCES: "give this user the right to it",
    errno.EPERM: "give this user the right to it",
}


def system_words(number: int) -> str:
    """Return what the system says where its error has this `errno`, and what would be right."""
    remedy = f" ({_REMEDIES[number]})" if number in _REMEDIES else ""
    return os.strerror(number) + remedy


def printable(text: str) -> str:
    """Return text from data as one line without control characters, which a terminal may obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Make a `MitfrnetError` one line on stderr and exit status 1.

    The same goes for a full disk and for a file that this user may not use. Where the environment
    variable `MITFRNET_DEBUG` is set, errors keep their traceback.
    """
    try:
        yield
    except MitfrnetError as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in _REMEDIES or os.environ.get(DEBUG_VARIABLE):
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{system_words(error.errno)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
