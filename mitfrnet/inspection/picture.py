"""The inspection of a clip as one picture: the tracks of the page, without its controls."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mitfrnet.files import replacing
from mitfrnet.inspection import tracks
from mitfrnet.inspection.page import NAMES, modality_state, summary
from mitfrnet.inspection.predictions import ALL_GIVEN, worded
from mitfrnet.inspection.stills import COUNT
from mitfrnet.inspection.view import View
from mitfrnet.labels import ClassScale, parse_scale
from mitfrnet.modalities import MODALITIES
from mitfrnet.report.charts.drawing import PRINT, SERIES, style

_KEPT, _MASKED, _GONE = PRINT["series-1"], "#d8c9b8", "#9aa1ad"
_NARROW = 0.06  # of the clip: a shorter word is written at an angle


def write_picture(view: View, path: Path) -> None:
    """Write the picture as PNG; the same clip gives the same bytes."""
    with style(PRINT):
        figure = draw(view)
        FigureCanvasAgg(figure)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})


def draw(view: View) -> Figure:
    """Return a figure of the tracks, then the steps that each mask keeps, then predictions."""
    subject = view.subject
    maps, curves = tracks.heat_maps(subject), tracks.face_curves(subject)
    heights = [1.0] * bool(view.stills) + [0.45, 0.8, *[1.1] * len(maps), *[0.9] * len(curves)]
    heights += [0.16 * len(view.masks.masks)] * len(MODALITIES)
    predicted = bool(view.models)
    figure = Figure(figsize=(12, sum(heights) + 2.2 + 2.6 * predicted), layout="constrained")
    figure.suptitle(f"{subject.name}\n{summary(subject)}", x=0.01, ha="left", fontsize=11)
    ratios = [sum(heights), 2.6] if predicted else [1.0]
    top, *rest = figure.subfigures(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0]
    axes = iter(top.subplots(len(heights), 1, sharex=True, gridspec_kw={"height_ratios": heights}))
    if view.stills:
        _stills(next(axes), view)
    _words(next(axes), view)
    _wave(next(axes), view)
    for heat in maps:
        here = _named(next(axes), heat.title)
        extent = (0, subject.duration_s, 0, 1)
        here.imshow(
            heat.shades,
            aspect="auto",
            extent=extent,
            cmap="viridis",
            vmin=0,
            vmax=1,
            interpolation="nearest",
        )
    for title, lines in curves.items():
        here = _named(next(axes), title.replace(", ", "\n"))
        for curve, role in zip(lines, SERIES, strict=False):
            here.plot(curve.time_s, curve.values, color=PRINT[role], label=curve.name, lw=1.2)
        here.legend(loc="upper left", bbox_to_anchor=(1, 1.1), fontsize=8)
        here.tick_params(labelleft=True)
    for modality in MODALITIES:
        here = next(axes)  # the last has the time axis
        _pattern(here, view, modality)
    here.set_xlim(0, subject.duration_s)
    here.tick_params(labelbottom=True)
    here.set_xlabel("seconds")
    for part in rest:
        _predictions(part, view)
    return figure


def _named(axes: Axes, name: str) -> Axes:
    """Label a track, without ticks and frame."""
    axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    axes.grid(False)
    axes.tick_params(labelleft=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    return axes


def _stills(axes: Axes, view: View) -> None:
    _named(axes, "Frames")
    slot = view.subject.duration_s / COUNT
    for still in view.stills:
        image: Any = cv2.imdecode(np.frombuffer(still.jpeg, np.uint8), cv2.IMREAD_COLOR)
        side = min(image.shape[:2])
        edge = (image.shape[1] - side) // 2
        extent = (still.slot * slot, (still.slot + 1) * slot, 0, 1)
        axes.imshow(image[:side, edge : edge + side, ::-1], aspect="auto", extent=extent)


def _words(axes: Axes, view: View) -> None:
    _named(axes, NAMES["text"])
    subject = view.subject
    axes.set_ylim(0, 1)
    if not subject.tokens:
        _missing(axes, view, "text")
    for token in subject.tokens:
        if token.special:
            continue
        axes.axvspan(token.start_s, token.end_s, color=PRINT["wash"])
        axes.axvline(token.start_s, color=_KEPT, lw=1)
        narrow = token.end_s - token.start_s < _NARROW * subject.duration_s
        axes.annotate(
            token.text,
            (token.start_s, 0.12 if narrow else 0.3),
            (2, 0),
            textcoords="offset points",
            fontsize=7 if narrow else 9,
            rotation=30 if narrow else 0,
        )


def _wave(axes: Axes, view: View) -> None:
    _named(axes, NAMES["acoustic"])
    sound = view.sound
    if sound is None:
        axes.set_ylim(0, 1)
        _missing(axes, view, "acoustic")
    else:
        axes.fill_between(sound.time_s, sound.low, sound.high, color=PRINT["muted"], lw=0.5)


def _missing(axes: Axes, view: View, modality: str) -> None:
    text = modality_state(view.subject, modality)
    axes.text(0.01, 0.3, text, transform=axes.transAxes, fontsize=9, color=PRINT["muted"])


def _pattern(axes: Axes, view: View, modality: str) -> None:
    """Draw the steps of a modality that each mask keeps, one line per mask, the first on top."""
    subject = view.subject
    _named(axes, f"{NAMES[modality]}\nunder each mask")
    axes.set_ylim(len(view.masks.masks), 0)
    ragged = subject.tensors.modalities[modality]
    if subject.reasons[modality]:
        _missing(axes, view, modality)
        return
    for i, mask in enumerate(view.masks.masks):
        observed = mask.observed[modality]
        if modality == "text":
            for token, kept in zip(subject.tokens, observed, strict=True):
                box = [(token.start_s, token.end_s - token.start_s)]
                axes.broken_barh(box, (i + 0.1, 0.8), color=_KEPT if kept else _MASKED)
            continue
        bounds = tracks.edges(ragged.time_s, subject.duration_s)
        for chosen, colour in (
            (observed, _KEPT),
            (ragged.detected & ~observed, _MASKED),
            (~ragged.detected, _GONE),
        ):
            boxes = [(a, b - a) for a, b in tracks.runs(chosen, bounds)]
            axes.broken_barh(boxes, (i + 0.1, 0.8), color=colour, lw=0)
    names = [
        mask.name.removeprefix("rate ").removesuffix(", as stored") for mask in view.masks.masks
    ]
    for i in (0, len(names) - 1):
        axes.text(
            1.005, i + 0.5, names[i], transform=axes.get_yaxis_transform(), va="center", fontsize=7
        )


def _predictions(part: Any, view: View) -> None:
    scale = parse_scale(view.subject.tensors.metadata["scale"])
    axes = part.subplots()
    rated = [(i, mask.rate) for i, mask in enumerate(view.masks.masks) if mask.rate is not None]
    if isinstance(scale, ClassScale):
        axes.axis("off")
        for k, model in enumerate(view.models):
            text = f"{model.name}: {worded(model.values[0][ALL_GIVEN], scale)}"
            axes.text(0.01, 0.9 - 0.14 * k, text, transform=axes.transAxes, fontsize=9)
        return
    for model, role in zip(view.models, SERIES, strict=False):
        for without, modality in [(0, "all given"), *((2**i, m) for i, m in enumerate(MODALITIES))]:
            if without and (len(view.models) > 1 or view.subject.reasons[modality]):
                continue  # too many lines, or the same one
            label = f"without {NAMES[modality].lower()}" if without else model.name
            axes.plot(
                [rate for _, rate in rated],
                [model.values[i][ALL_GIVEN - without] for i, _ in rated],
                marker="o",
                ms=3,
                label=label,
                color=PRINT[SERIES[without.bit_length()] if len(view.models) == 1 else role],
            )
    if view.subject.label is not None:
        axes.axhline(view.subject.label, color=PRINT["muted"], ls=":", label="label")
    axes.set(xlabel="missing rate", ylabel="prediction", ylim=(scale.low, scale.high))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
