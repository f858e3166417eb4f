"""The inspection of a clip as one page that works offline."""

import base64
import math
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np

from mitfrnet.data.tensors import SplitTensors
from mitfrnet.files import replacing
from mitfrnet.inspection import tracks
from mitfrnet.inspection.predictions import worded
from mitfrnet.inspection.stills import COUNT
from mitfrnet.inspection.subject import Subject, Token
from mitfrnet.inspection.view import View
from mitfrnet.labels import ClassScale, parse_scale
from mitfrnet.modalities import MODALITIES
from mitfrnet.report.template import page_environment

# The modalities as the page calls them.
NAMES = {"text": "Words", "acoustic": "Sound", "visual": "Face"}

_ROWS, _ROW_S = 40, 0.2  # of the table of the tracks: the most rows, and the shortest in seconds
_CAPTION = 42  # characters in a line


def write_page(view: View, path: Path, *, report: str | None = None) -> None:
    """Write the page, with a link to the report that it belongs to, if any."""
    with replacing(path) as temporary:
        temporary.write_text(render_page(view, report=report), encoding="utf-8", newline="\n")


def render_page(view: View, *, report: str | None = None) -> str:
    """Return the page as HTML; values from data are escaped.

    Args:
        view: what the page shows.
        report: link to the report that the page belongs to, if any.
    """
    here = Path(__file__).parent
    environment = page_environment(here, "page.js")
    environment.globals |= {"data_url": data_url, "percent_of": percent_of}
    subject = view.subject
    sound = view.sound
    maps = tracks.heat_maps(subject)
    return environment.get_template("page.html.jinja").render(
        view=view,
        report=report,
        subject=subject,
        names=NAMES,
        modalities=MODALITIES,
        facts=facts(subject),
        summary=summary(subject),
        data=page_data(view),
        wave=wave_path(sound, subject.duration_s) if sound else None,
        maps=[(m, heat_png(m.shades)) for m in maps],
        curves={
            t: _curve_paths(c, subject.duration_s) for t, c in tracks.face_curves(subject).items()
        },
        unseen={m: _undetected(subject.tensors, m, subject.duration_s) for m in MODALITIES},
        hidden=[
            {m: _hidden(view, m, mask.observed[m]) for m in ("acoustic", "visual")}
            for mask in view.masks.masks
        ],
        captions=captions(subject.tokens, subject.duration_s),
        ticks=ticks(subject.duration_s),
        slots=COUNT,
        rows=_rows(view, sound),
        ways=ways(subject),
        state={m: modality_state(subject, m) for m in MODALITIES},
    )


def data_url(mime: str, data: bytes) -> str:
    """Return `data` as a URL that needs no file."""
    return f"data:{mime.split(';')[0]};base64,{base64.b64encode(data).decode()}"


def percent_of(seconds: float, duration_s: float) -> str:
    """Return where a moment lies on the time axis, for CSS."""
    return f"{100 * seconds / duration_s:.3f}%"


def summary(subject: Subject) -> str:
    """Return one sentence that describes the clip."""
    where = "A clip outside any corpus"
    if subject.corpus is not None:
        where = f"An utterance of corpus {subject.corpus}, {subject.part} split"
    labelled = ""
    scale = subject.tensors.metadata["scale"]
    if subject.label is not None and scale:
        labelled = f", labelled {worded(subject.label, parse_scale(scale))}"
    return f"{where}, {subject.duration_s:.2f} s{labelled}."


def facts(subject: Subject) -> dict[str, str]:
    """Return what the file holds."""
    probe = subject.probe
    facts = {"File": subject.file or "none"}
    if subject.clip.start_s is not None or subject.clip.end_s is not None:
        end = "end" if subject.clip.end_s is None else f"{subject.clip.end_s:.2f} s"
        facts["Part"] = f"{subject.clip.start_s or 0:.2f} s to {end}"
    if probe.width:
        facts["Video stream"] = (
            f"{probe.width} x {probe.height}, {probe.fps or 0:.2f} fps, {probe.video_codec}"
        )
    if probe.audio_codec:
        facts["Audio stream"] = (
            f"{(probe.audio_sample_rate_hz or 0) / 1000:g} kHz, {probe.audio_codec}"
        )
    if subject.tokens:
        facts["Word times"] = "known" if subject.timed else "not known, spread over the clip"
    return facts


def modality_state(subject: Subject, modality: str) -> str:
    """Return in words how much of a modality was detected, or why it is missing."""
    reason = subject.reasons[modality]
    detected = subject.tensors.modalities[modality].detected
    if reason is not None:
        return f"naturally missing: {reason.replace('_', ' ')}"
    if not detected.all():
        return f"detected in {detected.sum()} of {len(detected)} steps"
    return f"{len(detected)} steps"


def ways(subject: Subject) -> list[tuple[str, int]]:
    """Return named subsets of the modalities, as numbers for `modalities_in`."""
    there = {m: 2**i for i, m in enumerate(MODALITIES) if subject.reasons[m] is None}
    every = sum(there.values())
    choices = [("everything", every)]
    if len(there) > 2:
        choices += [(f"without {NAMES[m].lower()}", every - bit) for m, bit in there.items()]
    if len(there) > 1:
        choices += [(f"{NAMES[m].lower()} alone", bit) for m, bit in there.items()]
    return [*choices, ("nothing", 0)] if there else choices


def page_data(view: View) -> dict[str, Any]:
    """Return the data of the page's script."""
    subject = view.subject
    scale = subject.tensors.metadata["scale"]
    scale_data: dict[str, Any] | None = None
    if scale:
        parsed = parse_scale(scale)
        if isinstance(parsed, ClassScale):
            scale_data = {"classes": list(parsed.classes)}
        else:
            low, high, neutral = parsed.low, parsed.high, parsed.neutral_point
            scale_data = {"low": low, "high": high, "neutral": neutral}
    return {
        "duration": subject.duration_s,
        "modalities": MODALITIES,
        "names": NAMES,
        "tokens": [[round(t.start_s, 3), round(t.end_s, 3), t.special] for t in subject.tokens],
        "times": {
            m: [round(float(t), 3) for t in subject.tensors.modalities[m].time_s]
            for m in ("acoustic", "visual")
        },
        "masks": [
            {
                "name": mask.name,
                "rate": mask.rate,
                "kept": {m: bits(mask.observed[m]) for m in MODALITIES},
            }
            for mask in view.masks.masks
        ],
        "opening": view.masks.opening,
        "detected": {m: bits(subject.tensors.modalities[m].detected) for m in MODALITIES},
        "missing": {m: subject.reasons[m] is not None for m in MODALITIES},
        "models": [
            {"name": m.name, "values": [[round(v, 5) for v in row] for row in m.values]}
            for m in view.models
        ],
        "ways": ways(subject),
        "scale": scale_data,
        "label": subject.label,
        "stills": [round(still.time_s, 3) for still in view.stills],
        "captions": captions(subject.tokens, subject.duration_s),
    }


def bits(chosen: Any) -> str:
    """Return Booleans as a string of 1 and 0."""
    return "".join("1" if b else "0" for b in chosen)


def _undetected(tensors: SplitTensors, modality: str, duration_s: float) -> str:
    ragged = tensors.modalities[modality]
    if modality == "text":
        return ""
    return span_path(
        tracks.runs(~ragged.detected, tracks.edges(ragged.time_s, duration_s)), duration_s
    )


def _hidden(view: View, modality: str, observed: Any) -> str:
    ragged, duration_s = view.subject.tensors.modalities[modality], view.subject.duration_s
    bounds = tracks.edges(ragged.time_s, duration_s)
    return span_path(tracks.runs(ragged.detected & ~observed, bounds), duration_s)


def span_path(spans: Sequence[tuple[float, float]], duration_s: float) -> str:
    """Return spans of time as boxes of an SVG that is 1000 wide and 10 high."""
    scaled = [(1000 * a / duration_s, 1000 * (b - a) / duration_s) for a, b in spans]
    return "".join(f"M{x:.1f} 0h{width:.1f}v10h-{width:.1f}z" for x, width in scaled)


def wave_path(sound: tracks.Waveform, duration_s: float) -> str:
    """Return the outline of the sound, scaled to fill an SVG that is 1000 wide and 100 high."""
    peak = max(float(np.abs(sound.low).max()), float(np.abs(sound.high).max()), 1e-4)
    x = 1000 * sound.time_s / duration_s
    top = [f"{a:.1f} {50 - 48 * b / peak:.1f}" for a, b in zip(x, sound.high, strict=True)]
    bottom = [f"{a:.1f} {50 - 48 * b / peak + 0.5:.1f}" for a, b in zip(x, sound.low, strict=True)]
    return f"M{'L'.join(top)}L{'L'.join(bottom[::-1])}z"


def heat_png(shades: Any) -> bytes:
    """Return a heat map as PNG, transparent where there is no step."""
    colours = matplotlib.colormaps["viridis"](np.nan_to_num(shades))
    colours[..., 3] = ~np.isnan(shades)
    image = (255 * colours[..., [2, 1, 0, 3]]).round().astype(np.uint8)
    encoded, png = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert encoded
    return png.tobytes()


def _curve_paths(curves: list[tracks.Curve], duration_s: float) -> dict[str, Any]:
    """Return curves with a common range as lines in an SVG that is 1000 wide and 100 high."""
    finite = np.concatenate([c.values[np.isfinite(c.values)] for c in curves])
    reach = max(float(np.abs(finite).max(initial=0)), 1e-3)
    lines = []
    for curve in curves:
        path, pen = [], "M"
        for time, value in zip(curve.time_s, curve.values, strict=True):
            if np.isnan(value):
                pen = "M"
            else:
                path.append(f"{pen}{1000 * time / duration_s:.1f} {50 - 46 * value / reach:.1f}")
                pen = "L"
        lines.append({"name": curve.name, "path": "".join(path)})
    return {"lines": lines, "reach": f"{reach:.3g}"}


def captions(tokens: Sequence[Token], duration_s: float) -> list[list[Any]]:
    """Return the transcript as captions: [start, end, text] of each line."""
    spoken = [t for t in tokens if not t.special]
    text = ""
    for token in spoken:
        near = text and token.text[:1].isalnum()
        text += f" {token.text}" if near else token.text
    lines = textwrap.wrap(text, _CAPTION)
    total = sum(map(len, lines)) or 1
    timed, at = [], 0
    for line in lines:
        start, at = at, at + len(line)
        timed.append([start / total * duration_s, at / total * duration_s, line])
    return timed


def ticks(duration_s: float) -> list[float]:
    """Return about five round moments of the time axis, in seconds."""
    rough = max(duration_s / 5, 1e-3)
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough)
    return [float(round(t, 6)) for t in np.arange(0, duration_s * 0.97, step)]


def _rows(view: View, sound: tracks.Waveform | None) -> list[dict[str, str]]:
    """Return the tracks as a table, one row for each of several equally long parts of the clip."""
    subject = view.subject
    count = min(_ROWS, max(1, math.floor(subject.duration_s / _ROW_S)))
    cuts = np.linspace(0, subject.duration_s, count + 1)
    curves = [c for group in tracks.face_curves(subject).values() for c in group]
    rows = []
    for first, last in pairwise(cuts):
        row = {"Time, s": f"{first:.2f}"}
        row["Words"] = " ".join(
            t.text for t in subject.tokens if not t.special and first <= t.start_s < last
        )
        if sound is not None:
            here = (sound.time_s >= first) & (sound.time_s < last)
            power = np.mean(10 ** (sound.level_db[here] / 10)) if here.any() else 1e-10
            row["Level, dB"] = f"{10 * np.log10(power):.0f}"
        for curve in curves:
            here = (curve.time_s >= first) & (curve.time_s < last)
            values = curve.values[here][np.isfinite(curve.values[here])]
            name = {"right": "gaze right", "up": "gaze up"}.get(curve.name, curve.name)
            unit = "" if name.startswith("gaze") else ", °"
            text = "\N{EN DASH}"
            if len(values):
                digits = 2 if name.startswith("gaze") else 0
                text = f"{round(float(values.mean()), digits) + 0:.{digits}f}"  # + 0: no minus zero
            row[f"{name.capitalize()}{unit}"] = text
        rows.append(row)
    return rows
