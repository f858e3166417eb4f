"""Reads the labels of CMU-MOSI and CMU-MOSEI from the HDF5 files of CMU.

`<group>/data/<video>/features` holds a row of scores per segment, `intervals` its start and end
in seconds. The extra `cmu` installs h5py.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mitfrnet.corpus.clips import Problems, identifier
from mitfrnet.corpus.tables import check_file
from mitfrnet.errors import CorpusError

_MAX_BYTES = 256 * 2**20
_MAX_SEGMENTS = 100_000  # per video; a few KiB can claim billions

Labels = tuple[str, NDArray[np.float64], NDArray[np.float64]]


def read_labels(path: Path, group: str, columns: int, problems: Problems) -> Iterator[Labels]:
    """Yield the id of each video, its scores (segments, columns) and intervals (segments, 2).

    Args:
        path: the file.
        group: the group that holds the labels.
        columns: number of scores per segment.
        problems: collects what is wrong with single videos, which are skipped.

    Raises:
        CorpusError: the file is not an HDF5 file of this structure.
    """
    check_file(path, "the labels", _MAX_BYTES)
    try:
        with h5py.File(path, "r") as file:
            data = _member(_member(file, group, h5py.Group, path), "data", h5py.Group, path)
            for video_id in sorted(data):
                labels = None
                with problems.collecting():
                    labels = _labels_of(data, video_id, columns, path)
                if labels is not None:
                    yield labels
    except (OSError, KeyError, RuntimeError, ValueError) as error:  # as h5py reports damage
        reason = " ".join(str(error).split())
        raise CorpusError(f"{path}: not a valid HDF5 file ({reason:.200})") from error


def _labels_of(data: h5py.Group, video_id: str, columns: int, path: Path) -> Labels:
    where = f"{path}: {video_id}"
    video = _member(data, identifier(video_id, "a video", where), h5py.Group, where)
    scores = _array(video, "features", columns, where)
    intervals = _array(video, "intervals", 2, where)
    if len(scores) != len(intervals):
        raise CorpusError(
            f"{where}: {len(scores)} rows of features, {len(intervals)} of intervals "
            "(expected the same number)"
        )
    return video_id, scores, intervals


def _member(group: h5py.Group, name: str, kind: type, where: Any) -> Any:
    """Return a member of a group; links are refused, as they may lead to any file.

    Raises:
        CorpusError: there is no such member of this kind in the file itself.
    """
    link = group.get(name, getlink=True)
    member = group[name] if isinstance(link, h5py.HardLink) else None
    if not isinstance(member, kind):
        names = ", ".join(sorted(group)[:5]) or "none"
        raise CorpusError(
            f"{where}: no {kind.__name__.lower()} {name!r} in the file itself (found: {names})"
        )
    return member


def _array(video: h5py.Group, name: str, columns: int, where: str) -> NDArray[np.float64]:
    """Return a table of numbers, (segments, columns).

    Raises:
        CorpusError: it has another shape or type, or its numbers lie in another file.
    """
    data = _member(video, name, h5py.Dataset, where)
    fits = data.ndim == 2 and data.shape[1] == columns and data.shape[0] <= _MAX_SEGMENTS
    if not fits or data.dtype.kind not in "fiu" or data.external or data.is_virtual:
        raise CorpusError(
            f"{where}: {name} is {data.dtype} of shape {data.shape} "
            f"(expected numbers, segments x {columns}, in the file itself)"
        )
    return np.asarray(data[()], np.float64)
