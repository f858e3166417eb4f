"""Models on the Hugging Face hub: downloads, and one-line errors for what can go wrong."""

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HTTPError

from mitfrnet.errors import FeatureError
from mitfrnet.trained.folder import ENCODER, FILES, REQUIRED

# The hub's client raises errors of its own and of its HTTP library, ValueError for an answer that
# makes no sense, and RuntimeError for a failed part of an upload.
HUB_ERRORS = (OSError, HTTPError, ValueError, RuntimeError)

# The files that are downloaded from a repository: no code and no pickle.
_DOWNLOADED = [*FILES, *(f"{ENCODER}/*.{ending}" for ending in ("json", "safetensors", "txt"))]

_CHECK = "check the name, the network and `hf auth login`"


def model_folder(
    name: Path | str, *, revision: str | None = None, token: str | None = None
) -> Path:
    """Return the folder of a model, after downloading it from the Hugging Face hub if need be.

    Args:
        name: a folder, or `<owner>/<repository>` on the hub.
        revision: a branch, tag or commit there.
        token: for a private repository.

    Raises:
        FeatureError: there is no such folder, and the hub has no such model or cannot be reached.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(name)):
        raise FeatureError(
            f"{name}: no such folder (expected one with {', '.join(REQUIRED)}, or "
            "<owner>/<repository> on the Hugging Face hub)"
        )
    try:
        downloaded = Path(
            snapshot_download(str(name), revision=revision, token=token, allow_patterns=_DOWNLOADED)
        )
    except HUB_ERRORS as error:
        raise FeatureError(
            f"{name}: no such folder, and the download from the Hugging Face hub failed "
            f"({_reason(error)}); {_CHECK}"
        ) from error
    for file in REQUIRED:
        if not (downloaded / file).is_file():
            raise FeatureError(
                f"{name}: no {file} in this repository of the Hugging Face hub (expected a model "
                f"that was pushed by mitfrnet, with {', '.join(REQUIRED)})"
            )
    return downloaded


def upload_error(name: str, error: BaseException) -> FeatureError:
    """Return the one-line error for an upload that failed."""
    return FeatureError(
        f"{name}: the upload to the Hugging Face hub failed ({_reason(error)}); {_CHECK}"
    )


def _reason(error: BaseException) -> str:
    """Return in one line what the hub answered, or else what first went wrong."""
    while True:
        response = getattr(error, "response", None)
        if response is not None:
            return f"{response.url.host} answers {response.status_code} {response.reason_phrase}"
        if error.__cause__ is None:
            return " ".join(str(error).split()) or repr(error)
        error = error.__cause__
