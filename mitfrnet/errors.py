"""Errors that a user can act on."""

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


class FeatureError(MitfrnetError):
    """A feature, tensor, mask or model file does not hold what its reader needs."""


class TrainingError(MitfrnetError):
    """A model could not be trained."""


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Make a `MitfrnetError` one line on stderr and exit status 1."""
    try:
        yield
    except MitfrnetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
