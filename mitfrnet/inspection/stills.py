"""A few frames of a clip, with the detected face drawn on them."""

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mitfrnet.errors import MediaError
from mitfrnet.features.extractor import Clip
from mitfrnet.features.visual import FaceInFrame, VisualParams, faces_in
from mitfrnet.media.decode import Frame, MediaLimits, iter_frames

COUNT = 12
_SIDE = 320  # pixels of the longer side
# The detector follows a face from frame to frame, so it sees more frames than are drawn; fewer per
# second in a long clip.
_MAX_DETECTED = 600
_DOT, _GAZE = (60, 220, 255), (255, 210, 60)
_AXES = ((255, 90, 90), (90, 230, 90), (110, 150, 255))  # to the head's left, up, front


@dataclass(frozen=True)
class Still:
    """One frame.

    Attributes:
        slot: which of the `COUNT` equal parts of the clip it stands for.
        time_s: when it is shown, in seconds.
        jpeg: the picture, with the drawing.
        width, height: pixels.
        face: whether a face was found.
        described: its time, and the face, in words.
    """

    slot: int
    time_s: float
    jpeg: bytes
    width: int
    height: int
    face: bool
    described: str


def make_stills(
    clip: Clip, limits: MediaLimits, params: VisualParams, *, duration_s: float
) -> list[Still]:
    """Return up to `COUNT` frames, spread evenly over the clip; none if it has no picture.

    Args:
        clip: only the utterance's part of it is read.
        limits: what it may cost.
        params: settings of the face features, so that the same faces are found.
        duration_s: of the utterance.
    """
    frames = iter_frames(
        clip.path,
        fps=min(params.fps, _MAX_DETECTED / max(duration_s, 1e-6)),
        max_side=params.max_side,
        start_s=clip.start_s,
        end_s=clip.end_s,
        limits=limits,
    )
    chosen: dict[int, Still] = {}
    with suppress(MediaError):  # no picture, or none from here on
        for time, frame, face in faces_in(frames, params):
            slot = min(COUNT - 1, math.floor(time / max(duration_s, 1e-6) * COUNT))
            if slot not in chosen:
                chosen[slot] = _still(slot, time, frame, face)
    return [chosen[slot] for slot in sorted(chosen)]


def _still(slot: int, time: float, frame: Frame, face: FaceInFrame | None) -> Still:
    height, width = frame.shape[:2]
    scale = _SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
    if face is not None:
        _draw(image, face, scale)
    encoded, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 78])
    assert encoded
    return Still(slot, time, jpeg.tobytes(), *size, face is not None, _described(time, face))


def _described(time: float, face: FaceInFrame | None) -> str:
    if face is None:
        return f"{time:.2f} s: no face found"
    pitch, yaw, roll = np.degrees(face.angles).round() + 0  # + 0: no minus zero
    return f"{time:.2f} s: a face, pitch {pitch:.0f}°, yaw {yaw:.0f}°, roll {roll:.0f}°"


def _draw(image: Any, face: FaceInFrame, scale: float) -> None:
    """Draw landmarks, gaze and the head's axes; colours are BGR."""
    eyes = face.eye_distance * scale
    for point in face.landmarks * scale:
        cv2.circle(image, _pixel(point), 1, _DOT[::-1], -1, cv2.LINE_AA)
    nose = face.nose * scale
    for axis, colour in zip(face.axes, _AXES, strict=True):
        cv2.line(
            image, _pixel(nose), _pixel(nose + axis * eyes * 0.9), colour[::-1], 2, cv2.LINE_AA
        )
    for iris, gaze in zip(face.irises * scale, face.gaze, strict=True):
        # At 0.3 of an eye's width from the centre, the iris is in the corner of the eye.
        end = iris + gaze / 0.3 * eyes * 0.6
        cv2.arrowedLine(
            image, _pixel(iris), _pixel(end), _GAZE[::-1], 2, cv2.LINE_AA, tipLength=0.3
        )


def _pixel(point: Any) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))
