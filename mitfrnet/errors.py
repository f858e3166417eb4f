"""Errors that a user can act on, and how a command reports them."""

import sys
from collections.abc import Callable


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


def run_command(main: Callable[[], None]) -> None:
    """Run `main`; a `MitfrnetError` becomes one line on stderr and exit status 1."""
    try:
        main()
    except MitfrnetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
