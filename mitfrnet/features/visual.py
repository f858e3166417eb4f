"""Face features: head pose, gaze, brows, eyes, mouth and landmarks, from MediaPipe's face mesh.

MediaPipe finds 478 landmarks of one face per frame (Kartynnik et al., Real-time Facial Surface
Geometry from Monocular Video on Mobile GPUs, 2019; irises: Ablavatski et al., 2020). Raw image
coordinates, the group `landmarks_image`, mostly tell where the head is. So the other groups,
except the head pose, are measured in the head's own frame: x to the image's right, y up, z towards
the camera, origin midway between the eyes, the head turned to face the camera, and the distance
between the eyes (`iod`) as unit. Left and right are the person's own: the right eye is on the left
of the image.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mitfrnet.features.extractor import Clip, Features
from mitfrnet.features.face_detection import (
    MODEL_SHA256,
    Backend,
    Detector,
    Face,
    load_detector,
    needed_model,
    quiet_stderr,
)
from mitfrnet.media.decode import Frame, MediaLimits, iter_frames
from mitfrnet.params import StageParams

VERSION = "1"

Group = Literal[
    "head_pose",
    "gaze",
    "eye_mouth",
    "landmarks",
    "landmarks_full",
    "landmarks_image",
    "blendshapes",
]  # described at `_columns`
Array = NDArray[np.float64]

_NUM_LANDMARKS = 478
# Faces are turned into rows after so many. Many small arrays between large frames would keep the
# memory of those frames from being reused.
_FACES_AT_ONCE = 8

# Landmarks that no expression moves, and their place in MediaPipe's average face, in cm; x to the
# image's right, y up, z towards the camera. Rounded from canonical_face_model.obj (MediaPipe,
# Apache-2.0).
_RIGID = {
    10: (0.0, 8.26, 4.48),  # forehead
    168: (0.0, 3.27, 5.24),  # bridge of the nose, three points
    6: (0.0, 2.47, 5.79),
    197: (0.0, 1.73, 6.32),
    4: (0.0, -0.46, 7.59),  # tip of the nose
    33: (-4.45, 2.66, 3.17),  # outer and inner corners of the eyes
    133: (-1.86, 2.59, 3.76),
    362: (1.86, 2.59, 3.76),
    263: (4.45, 2.66, 3.17),
    54: (-6.28, 6.62, 1.43),  # sides of the forehead, temples, before the ears
    284: (6.28, 6.62, 1.43),
    127: (-7.74, 2.37, -2.01),
    356: (7.74, 2.37, -2.01),
    234: (-7.66, 0.67, -2.44),
    454: (7.66, 0.67, -2.44),
}
_RIGID_POINTS = np.array(list(_RIGID.values()))  # (15, 3)
_RIGID_INDICES = np.array(list(_RIGID))

# Outer corner, inner corner, upper lid, lower lid, iris.
_EYES = {"right": (33, 133, 159, 145, 468), "left": (263, 362, 386, 374, 473)}
# Inner and outer end of each brow, corner of the mouth.
_BROWS = {"right": (107, 70), "left": (336, 300)}
_MOUTH_CORNERS = {"right": 61, "left": 291}
_UPPER_LIP, _LOWER_LIP = (0, 13), (14, 17)  # outer to inner edge, inner to outer
_NOSE_BASE, _CHIN = 2, 152

# The group `landmarks`: oval, brows, eyes, nose, outer and inner lips.
_SUBSET = (
    *(10, 284, 454, 397, 152, 172, 234, 54),
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(168, 6, 1, 2, 98, 327),
    *(61, 40, 0, 270, 291, 321, 17, 91),
    *(78, 13, 308, 14),
)

_BLENDSHAPES = """
    neutral browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff
    cheekSquintLeft cheekSquintRight eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight
    eyeLookInLeft eyeLookInRight eyeLookOutLeft eyeLookOutRight eyeLookUpLeft eyeLookUpRight
    eyeSquintLeft eyeSquintRight eyeWideLeft eyeWideRight jawForward jawLeft jawOpen jawRight
    mouthClose mouthDimpleLeft mouthDimpleRight mouthFrownLeft mouthFrownRight mouthFunnel
    mouthLeft mouthLowerDownLeft mouthLowerDownRight mouthPressLeft mouthPressRight mouthPucker
    mouthRight mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmileLeft
    mouthSmileRight mouthStretchLeft mouthStretchRight mouthUpperUpLeft mouthUpperUpRight
    noseSneerLeft noseSneerRight
""".split()  # noqa: SIM905 - as a list it takes 52 lines


class VisualParams(StageParams):
    """Section `extract.visual`."""

    fps: float = Field(gt=0, le=240)  # steps per second
    backend: Backend
    groups: list[Group] = Field(min_length=1)
    min_detection_confidence: float = Field(ge=0, le=1)
    max_side: int | None = Field(gt=0)  # larger frames are shrunk to this before detection

    @model_validator(mode="after")
    def _fit_together(self) -> "VisualParams":
        if len(set(self.groups)) < len(self.groups):
            raise ValueError(f"groups are {self.groups}, must not repeat")
        if {"landmarks", "landmarks_full"} <= set(self.groups):
            raise ValueError("groups hold both landmarks and landmarks_full, choose one")
        if "blendshapes" in self.groups and self.backend != "face_landmarker":
            raise ValueError(
                f"groups hold blendshapes, which need backend face_landmarker, not {self.backend}"
            )
        return self


# Named settings for `extract.visual`; docs/extractors.md gives their sources.
RECIPES = {
    "mmsa_fet": VisualParams(
        fps=25,
        backend="face_mesh",
        groups=["landmarks_image"],
        min_detection_confidence=0.35,
        max_side=None,
    ),
}


class VisualExtractor:
    """Turns the picture of a clip into (steps, columns of the chosen groups) features.

    Step k is the frame shown at k / fps seconds. If no face is found, or no picture is shown yet,
    the row is NaN and `detected` is False. A clip without any face has only undetected steps. If
    there are several faces, MediaPipe's first choice is used.

    Raises:
        FeatureError: the model of `face_landmarker` is wrong, or absent and cannot be downloaded;
            or `face_mesh` is asked for, which MediaPipe 1.x lacks.
    """

    version = VERSION
    columns: ClassVar[dict[str, type[np.generic]]] = {}

    def __init__(self, params: VisualParams, limits: MediaLimits) -> None:
        self.params = params
        self.limits = limits
        self.feature_names, self.units = _columns(params.groups)
        self._model = needed_model(params.backend)
        self._detector: Detector | None = None
        # Without the limits: they decide which clips are read, not what is read from them.
        self.identity: dict[str, Any] = {
            "settings": params.model_dump(mode="json"),
            "libraries": {
                "av": installed_version("av"),
                "mediapipe": installed_version("mediapipe"),
                "opencv": cv2.__version__,
            },
            # The model of `face_mesh` is part of the library.
            "model": MODEL_SHA256 if self._model else None,
        }

    def extract(self, clip: Clip) -> Features:
        """Return the face features; step k starts at k / fps seconds.

        Raises:
            FeatureError: MediaPipe lacks a system library.
            MediaError: the clip has no picture; the message is a reason of `mitfrnet.media.decode`.
        """
        frames = iter_frames(
            clip.path,
            fps=self.params.fps,
            max_side=self.params.max_side,
            start_s=clip.start_s,
            end_s=clip.end_s,
            limits=self.limits,
        )
        first = next(frames)  # may raise MediaError, so before a detector is started
        detected: list[bool] = []
        rows: list[NDArray[np.float32]] = []  # steps with a face
        faces: list[Face] = []  # not in `rows` yet
        with quiet_stderr():
            if self._detector is None:
                self._detector = _load(self.params, self._model)
            self._detector.start_clip()
            try:
                for time, frame in itertools.chain([first], frames):
                    step = round(time * self.params.fps)
                    detected.extend([False] * (step - len(detected)))  # no picture yet
                    face = self._detector.find(frame, time)
                    detected.append(face is not None)
                    if face is not None:
                        faces.append(face)
                    if len(faces) == _FACES_AT_ONCE:
                        rows.append(_features(faces, self.params.groups))
                        faces.clear()
            finally:
                self._detector.end_clip()
        if faces:
            rows.append(_features(faces, self.params.groups))

        values = np.full((len(detected), len(self.feature_names)), np.nan, np.float32)
        if rows:
            values[detected] = np.concatenate(rows)
        return Features(
            values=values,
            detected=np.array(detected),
            start_s=(np.arange(len(detected)) / self.params.fps).astype(np.float32),
            reason=None if any(detected) else "no_face",
        )


def _load(params: VisualParams, model: Path | None) -> Detector:
    return load_detector(
        model,
        min_confidence=params.min_detection_confidence,
        blendshapes="blendshapes" in params.groups,
    )


def _columns(groups: list[Group]) -> tuple[list[str], list[str]]:
    """Return names and units of the columns of `groups`, in their order.

    - `head_pose`: rotation and place of the head relative to the camera. Pitch is positive
      when the face turns up, yaw when it turns to the image's right, roll when the head tilts
      clockwise in the image; x right, y down, z away. `_head_pose` lists the assumptions.
    - `gaze`: centre of each iris relative to the middle of its eye's corners, over the eye's
      width; x to the image's right, y up.
    - `eye_mouth`: openness of each eye over its width; heights of the brows' ends above the
      middle of their eye; and of the mouth: width, opening, height of each corner above the
      middle of the lips (up in a smile, down in a frown), thickness of the lips, distance from
      nose to upper lip and from lower lip to chin.
    - `landmarks`: x, y, z of 48 points of oval, brows, eyes, nose and lips.
    - `landmarks_full`: x, y, z of all 478.
    - `landmarks_image`: all 478 in the image: x to the right and y down, as fractions of its
      width and height; z away from the camera, on the scale of x. They depend more on the place,
      size and turn of the head than on its expression.
    - `blendshapes`: MediaPipe's 52 scores after Apple's ARKit; only by `face_landmarker`.
    """
    sides = tuple(_EYES)

    def landmark_names(indices: Any) -> list[str]:
        return [f"landmark_{i:03d}_{axis}" for i in indices for axis in "xyz"]

    names: dict[Group, list[str]] = {
        "head_pose": ["head_pitch", "head_yaw", "head_roll", "head_x", "head_y", "head_z"],
        "gaze": [f"gaze_{side}_{axis}" for side in sides for axis in "xy"],
        "eye_mouth": [
            *(f"eye_openness_{side}" for side in sides),
            *(f"brow_{end}_{side}" for side in sides for end in ("inner", "outer")),
            *("mouth_width", "mouth_opening"),
            *(f"mouth_corner_{side}" for side in sides),
            *("upper_lip", "lower_lip", "nose_to_lip", "lip_to_chin"),
        ],
        "landmarks": landmark_names(_SUBSET),
        "landmarks_full": landmark_names(range(_NUM_LANDMARKS)),
        "landmarks_image": [
            f"landmark_{i:03d}_image_{axis}" for i in range(_NUM_LANDMARKS) for axis in "xyz"
        ],
        "blendshapes": [f"blendshape_{name}" for name in _BLENDSHAPES],
    }
    units: dict[Group, list[str]] = {
        "head_pose": ["rad"] * 3 + ["cm"] * 3,
        "gaze": ["eye width"] * 4,
        "eye_mouth": ["eye width"] * 2 + ["iod"] * 12,
        "landmarks": ["iod"] * len(names["landmarks"]),
        "landmarks_full": ["iod"] * len(names["landmarks_full"]),
        "landmarks_image": ["image width", "image height", "image width"] * _NUM_LANDMARKS,
        "blendshapes": ["1"] * len(_BLENDSHAPES),
    }
    return [n for g in groups for n in names[g]], [u for g in groups for u in units[g]]


def _features(faces: list[Face], groups: list[Group]) -> NDArray[np.float32]:
    """Return the columns of `groups` for each face, (faces, columns)."""
    head = _to_head_frame(np.stack([face.points for face in faces]))  # (faces, 478, 3)
    blocks: list[Array] = []
    for group in groups:
        if group == "head_pose":
            blocks.append(np.stack([_head_pose(face.points, face.size) for face in faces]))
        elif group == "gaze":
            blocks.append(_gaze(head))
        elif group == "eye_mouth":
            blocks.append(_eye_mouth(head))
        elif group == "landmarks":
            blocks.append(head[:, _SUBSET].reshape(len(faces), -1))
        elif group == "landmarks_full":
            blocks.append(head.reshape(len(faces), -1))
        elif group == "landmarks_image":
            blocks.append(np.stack([face.fractions.ravel() for face in faces]))
        else:
            blocks.append(np.array([face.blendshapes for face in faces]))
    return np.concatenate(blocks, axis=1).astype(np.float32)


def _to_head_frame(points: Array) -> Array:
    """Return landmarks in the head's frame, in distances between the eyes, (faces, 478, 3).

    The rotation brings the rigid points as near as possible to those of the average face (Kabsch
    1976), so a turned or tilted head does not look like an expression. It also maps the camera's
    axes to the head's, which are those of the average face.

    Args:
        points: landmarks in pixels as in `Face`, (faces, 478, 3).
    """
    rigid = points[:, _RIGID_INDICES]
    rigid = rigid - rigid.mean(axis=1, keepdims=True)
    model = _RIGID_POINTS - _RIGID_POINTS.mean(axis=0)
    u, _, vt = np.linalg.svd(rigid.transpose(0, 2, 1) @ model)  # (faces, 3, 3)
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]  # a rotation, not a mirror
    turned = points @ (u @ vt)
    right, left = (turned[:, _EYES[side][:2]].mean(axis=1) for side in ("right", "left"))
    distance = np.linalg.norm(left - right, axis=-1)[:, None, None]
    return (turned - ((left + right) / 2)[:, None]) / distance


def _head_pose(points: Array, size: tuple[int, int]) -> Array:
    """Return pitch, yaw, roll in rad and x, y, z in cm of one head, (6,).

    Perspective-n-point on the rigid points. It assumes two things that no clip tells: a pinhole
    camera whose focal length is the longer side of the image, in pixels, and a head of average
    size. So distances are relative, not measured.

    Args:
        points: landmarks in pixels as in `Face`, (478, 3).
        size: width and height of the image in pixels.
    """
    width, height = size
    focal = max(size)
    camera = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], float)
    _, rotation, place = cv2.solvePnP(
        _RIGID_POINTS * (1.0, -1.0, -1.0),  # to OpenCV's axes: y down, z away
        points[_RIGID_INDICES, :2],
        camera,
        np.zeros(4),  # no lens distortion
        flags=cv2.SOLVEPNP_SQPNP,  # needs no initial guess from another frame
    )
    matrix, _ = cv2.Rodrigues(rotation)
    # matrix = Rz(roll) Ry(-yaw) Rx(-pitch)
    pitch = -math.atan2(matrix[2, 1], matrix[2, 2])
    yaw = math.asin(min(1.0, max(-1.0, matrix[2, 0])))
    roll = math.atan2(matrix[1, 0], matrix[0, 0])
    return np.array([pitch, yaw, roll, *place.ravel()])


def _gaze(head: Array) -> Array:
    """Return x, y of the right, then the left iris, over its eye's width, (faces, 4)."""
    columns = []
    for outer, inner, _, _, iris in _EYES.values():
        width = np.linalg.norm(head[:, outer] - head[:, inner], axis=-1)[:, None]
        middle = (head[:, outer] + head[:, inner]) / 2
        columns.append((head[:, iris] - middle)[:, :2] / width)
    return np.concatenate(columns, axis=1)


def _eye_mouth(head: Array) -> Array:
    """Return the columns of group `eye_mouth`, (faces, 14)."""

    def distance(a: int, b: int) -> Array:
        return np.linalg.norm(head[:, a] - head[:, b], axis=-1)

    y = head[:, :, 1]
    columns = []
    for outer, inner, upper, lower, _ in _EYES.values():
        columns.append((y[:, upper] - y[:, lower]) / distance(outer, inner))
    for side, ends in _BROWS.items():
        eye = y[:, _EYES[side][:2]].mean(axis=1)
        columns.extend(y[:, end] - eye for end in ends)
    columns.append(distance(*_MOUTH_CORNERS.values()))
    columns.append(y[:, _UPPER_LIP[1]] - y[:, _LOWER_LIP[0]])
    lips = (y[:, _UPPER_LIP[1]] + y[:, _LOWER_LIP[0]]) / 2
    columns.extend(y[:, corner] - lips for corner in _MOUTH_CORNERS.values())
    columns.append(distance(*_UPPER_LIP))
    columns.append(distance(*_LOWER_LIP))
    columns.append(distance(_NOSE_BASE, _UPPER_LIP[0]))
    columns.append(distance(_LOWER_LIP[1], _CHIN))
    return np.stack(columns, axis=1)


@dataclass(frozen=True)
class FaceInFrame:
    """The parts of a face that can be drawn on its frame, in pixels, y down.

    Attributes:
        landmarks: of the group `landmarks`, (48, 2).
        irises: centres of the right, then the left iris, (2, 2).
        gaze: from the middle of each eye's corners to its iris, over the eye's width, (2, 2).
        nose: its tip, (2,).
        axes: directions of the head's axes to its left, up and front, (3, 2); an axis in the
            plane of the image has length 1, one that points at the camera 0.
        angles: pitch, yaw and roll as in the group `head_pose`, in rad, (3,).
        eye_distance: between the middles of the eyes.
    """

    landmarks: Array
    irises: Array
    gaze: Array
    nose: Array
    axes: Array
    angles: Array
    eye_distance: float


def faces_in(
    frames: Iterable[tuple[float, Frame]], params: VisualParams
) -> Iterator[tuple[float, Frame, FaceInFrame | None]]:
    """Yield each frame of one clip with its time in seconds and its face, if any.

    The faces equal those of `VisualExtractor` on the same frames.

    Args:
        frames: of `mitfrnet.media.decode.iter_frames`.
        params: of the detector.

    Raises:
        FeatureError: the detector or its model is absent.
        MediaError: the clip has no picture.
    """
    frames = iter(frames)
    first = next(frames)
    model = needed_model(params.backend)
    with quiet_stderr():
        detector = _load(params, model)
        detector.start_clip()
    try:
        for time, frame in itertools.chain([first], frames):
            with quiet_stderr():
                face = detector.find(frame, time)
            yield time, frame, _to_draw(face) if face else None
    finally:
        with quiet_stderr():
            detector.end_clip()


def _to_draw(face: Face) -> FaceInFrame:
    points = face.points[:, :2]
    corners = np.array([points[[outer, inner]] for outer, inner, *_ in _EYES.values()])
    middles = corners.mean(axis=1)
    irises = np.array([points[iris] for *_, iris in _EYES.values()])
    widths = np.linalg.norm(corners[:, 0] - corners[:, 1], axis=1)
    pitch, yaw, roll = angles = _head_pose(face.points, face.size)[:3]
    turn = cv2.Rodrigues(np.array([0.0, 0.0, roll]))[0]
    turn = turn @ cv2.Rodrigues(np.array([0.0, -yaw, 0.0]))[0]
    turn = turn @ cv2.Rodrigues(np.array([-pitch, 0.0, 0.0]))[0]
    return FaceInFrame(
        landmarks=points[list(_SUBSET)],
        irises=irises,
        gaze=(irises - middles) / np.maximum(widths, 1e-6)[:, None],
        nose=points[4],
        axes=(turn * (1.0, -1.0, -1.0))[:2].T,
        angles=angles,
        eye_distance=float(np.linalg.norm(middles[0] - middles[1])),
    )
