"""Features over the time of a clip: heat maps, curves and spans, for any way of drawing."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitfrnet.errors import MediaError
from mitfrnet.inspection.subject import Subject
from mitfrnet.media.decode import read_waveform

Array = NDArray[np.float64]

_COLUMNS = 800  # in a heat map
_BINS = 500  # in a waveform
_WAVEFORM_HZ = 8000
_SPREAD = 2.5  # standard deviations on each side of the mean that a heat map's colours cover
_MAX_ROWS = 64  # of features whose names are not known


@dataclass(frozen=True)
class HeatMap:
    """Features over time.

    Attributes:
        title: the name of the features.
        modality: their modality.
        names: of its rows, from top to bottom.
        shades: in [0, 1], (rows, columns over the whole clip); NaN where there is no step.
    """

    title: str
    modality: str
    names: Sequence[str]
    shades: Array


@dataclass(frozen=True)
class Curve:
    """One number over time.

    Attributes:
        name: of the number.
        time_s: of the points in seconds, (points,).
        values: (points,); NaN where nothing was detected.
    """

    name: str
    time_s: Array
    values: Array


@dataclass(frozen=True)
class Waveform:
    """The sound: its lowest and highest sample in each of equally long bins.

    Attributes:
        time_s: starts of the bins in seconds, (bins,).
        low, high: in [-1, 1], (bins,).
        level_db: power over full scale, (bins,).
    """

    time_s: Array
    low: Array
    high: Array
    level_db: Array


def edges(time_s: NDArray[Any], duration_s: float) -> Array:
    """Return the bounds of steps, midway between neighbours, (steps + 1,) in seconds.

    Args:
        time_s: centres of the steps in seconds, ascending, (steps,).
        duration_s: of the clip; bounds are clipped to it.
    """
    centres = np.asarray(time_s, dtype=float)
    if len(centres) == 0:
        return np.zeros(1)
    if len(centres) == 1:
        return np.array([0.0, duration_s])
    between = (centres[1:] + centres[:-1]) / 2
    first = 2 * centres[0] - between[0]
    last = 2 * centres[-1] - between[-1]
    return np.clip([first, *between, last], 0.0, duration_s)


def runs(chosen: NDArray[np.bool_], bounds: Array) -> list[tuple[float, float]]:
    """Return start and end of each run of chosen steps, in seconds.

    Args:
        chosen: (steps,).
        bounds: from `edges`, (steps + 1,).
    """
    changes = np.flatnonzero(np.diff(np.concatenate([[0], chosen.astype(int), [0]])))
    return [(float(bounds[a]), float(bounds[b])) for a, b in changes.reshape(-1, 2)]


def waveform(subject: Subject) -> Waveform | None:
    """Return the sound; None where there is none."""
    clip = subject.clip
    try:
        sound = read_waveform(
            clip.path,
            sample_rate_hz=_WAVEFORM_HZ,
            start_s=clip.start_s,
            end_s=clip.end_s,
            limits=subject.limits,
        )
    except MediaError:
        return None
    time_s = np.arange(_BINS) * subject.duration_s / _BINS
    cuts = np.minimum(np.round(np.append(time_s, subject.duration_s) * _WAVEFORM_HZ), len(sound))
    pieces = [sound[int(a) : int(b)] for a, b in pairwise(cuts)]
    low, high, power = np.array(
        [(p.min(), p.max(), np.mean(p.astype(float) ** 2)) if len(p) else (0, 0, 0) for p in pieces]
    ).T
    return Waveform(time_s, low, high, 10 * np.log10(np.maximum(power, 1e-10)))


def heat_maps(subject: Subject) -> list[HeatMap]:
    """Return heat maps of MFCC and chroma; without such features, of the first `_MAX_ROWS`."""
    maps = []
    for modality, named in {
        "acoustic": [("MFCC", "mfcc_"), ("Chroma", "chroma_")],
        "visual": [],
    }.items():
        names = subject.tensors.metadata["features"][modality]["feature_names"]
        if not len(subject.tensors.modalities[modality].detected):
            continue
        groups = [
            (title, [i for i, name in enumerate(names) if name.startswith(prefix)])
            for title, prefix in named
        ]
        groups = [(title, rows) for title, rows in groups if rows]
        if not groups and not (modality == "visual" and _known_face(names)):
            shown = list(range(min(len(names), _MAX_ROWS)))
            of = f" (the first {len(shown)} of {len(names)})" if len(names) > len(shown) else ""
            groups = [(f"{modality.capitalize()} features{of}", shown)]
        maps += [_heat_map(subject, modality, title, rows, names) for title, rows in groups]
    return maps


def _known_face(names: Sequence[str]) -> bool:
    return "head_pitch" in names


def _heat_map(
    subject: Subject, modality: str, title: str, rows: list[int], names: Sequence[str]
) -> HeatMap:
    ragged = subject.tensors.modalities[modality]
    values = ragged.values[:, rows].astype(float)
    values[~ragged.detected] = np.nan
    if title == "Chroma":
        shades = values
    else:  # rows differ by orders of magnitude
        mean, deviation = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
        shades = (values - mean) / np.where(deviation > 0, deviation, 1) / (2 * _SPREAD) + 0.5
    bounds = edges(ragged.time_s, subject.duration_s)
    times = (np.arange(_COLUMNS) + 0.5) * subject.duration_s / _COLUMNS
    step = np.searchsorted(bounds, times, side="right") - 1
    inside = (step >= 0) & (step < len(values))
    image = np.full((len(rows), _COLUMNS), np.nan)
    image[:, inside] = np.clip(shades[step[inside]].T, 0, 1)
    # Low coefficients and C are at the bottom, as on any chart.
    return HeatMap(title, modality, [names[i] for i in rows][::-1], image[::-1])


def face_curves(subject: Subject) -> dict[str, list[Curve]]:
    """Return head pose in degrees and gaze in eye widths, if they are among the features."""
    names = subject.tensors.metadata["features"]["visual"]["feature_names"]
    ragged = subject.tensors.modalities["visual"]
    if not len(ragged.detected):
        return {}
    values = np.where(ragged.detected[:, None], ragged.values.astype(float), np.nan)
    column = {name: values[:, i] for i, name in enumerate(names)}
    time_s = ragged.time_s.astype(float)
    curves = {}
    if _known_face(names):
        curves["Head pose, degrees"] = [
            Curve(name, time_s, np.degrees(column[f"head_{name}"]))
            for name in ("pitch", "yaw", "roll")
        ]
    if "gaze_right_x" in names:
        curves["Gaze, eye widths"] = [
            Curve(name, time_s, (column[f"gaze_right_{axis}"] + column[f"gaze_left_{axis}"]) / 2)
            for name, axis in (("right", "x"), ("up", "y"))
        ]
    return curves
