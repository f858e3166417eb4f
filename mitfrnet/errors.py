"""Errors that a user can act on."""

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


DEBUG_VARIABLE = "MITFRNET_DEBUG"


def printable(text: str) -> str:
    """Return text from data as one line without control characters, which a terminal may obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Make a `MitfrnetError` one line on stderr and exit status 1.

    Where the environment variable `MITFRNET_DEBUG` is set, it keeps its traceback.
    """
    try:
        yield
    except MitfrnetError as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
