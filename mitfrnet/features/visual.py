"""Face features: head pose, gaze, brows, eyes, mouth and landmarks, from MediaPipe's face mesh.

MediaPipe finds 478 landmarks of one face per frame (Kartynnik et al., Real-time Facial Surface
Geometry from Monocular Video on Mobile GPUs, 2019; irises: Ablavatski et al., 2020). Raw image
coordinates, the group `landmarks_image`, say mostly where the head is. So all else but the head
pose is measured in the head's own frame: x to the image's right, y up, z towards the camera,
origin midway between the eyes, the head turned back to face the camera, and the distance
between the eyes (`iod`) as unit.
Left and right are the person's own: the right eye is on the left of the image.
"""

import hashlib
import http.client
import importlib.util
import itertools
import math
import os
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mitfrnet.errors import FeatureError
from mitfrnet.features.extractor import Clip, Features
from mitfrnet.media import Frame, MediaLimits, iter_frames
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

MODEL_URL = (
    "https://storage.googleapis.com/mediapipe-models/"
    "face_landmarker/face_landmarker/float16/1/face_landmarker.task"
)
MODEL_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
MODEL_VARIABLE = "MITFRNET_FACE_LANDMARKER"

_NUM_LANDMARKS = 478
_TRACKING_CONFIDENCE = 0.5  # MediaPipe's default
# Faces become rows now and then: many small arrays that are kept between large frames keep the
# memory of those frames from being used again.
_FACES_AT_ONCE = 8

# Where points that no expression moves lie in MediaPipe's average face, by landmark, in cm; x to
# the image's right, y up, z towards the camera. Rounded from canonical_face_model.obj (MediaPipe,
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
    backend: Literal["face_mesh", "face_landmarker"]
    groups: list[Group] = Field(min_length=1)
    min_detection_confidence: float = Field(ge=0, le=1)
    max_side: int | None = Field(gt=0)  # larger frames are shrunk to this before detection

    @model_validator(mode="after")
    def _fit_together(self) -> "VisualParams":
        if len(set(self.groups)) < len(self.groups):
            raise ValueError(f"groups are {self.groups}, each may stand there once")
        if {"landmarks", "landmarks_full"} <= set(self.groups):
            raise ValueError("groups hold both landmarks and landmarks_full, choose one")
        if "blendshapes" in self.groups and self.backend != "face_landmarker":
            raise ValueError(
                f"groups hold blendshapes, which backend {self.backend} cannot give, "
                "only face_landmarker"
            )
        return self


# For `extract.visual`, by name; docs/extractors.md says where they come from.
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

    Step k is the frame shown at k / fps seconds. Where no face is found, or no picture is
    shown yet, the row is NaN and `detected` is False; a clip without any face gives features
    whose steps are all undetected. Of several faces MediaPipe's first choice is taken.

    Raises:
        FeatureError: backend `face_landmarker`, and its model is neither here nor can be
            fetched, or is another one; or backend `face_mesh`, which MediaPipe 1.x lacks.
    """

    version = VERSION
    columns: ClassVar[dict[str, type[np.generic]]] = {}

    def __init__(self, params: VisualParams, limits: MediaLimits) -> None:
        self.params = params
        self.limits = limits
        self.feature_names, self.units = _columns(params.groups)
        self._model = _needed_model(params)
        self._detector: _Detector | None = None
        # The limits are no part: they say which clips are read, not what is read from them.
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
            FeatureError: MediaPipe lacks a library of the system.
            MediaError: the clip has no picture; the message is a reason of `mitfrnet.media`.
        """
        frames = iter_frames(
            clip.path,
            fps=self.params.fps,
            max_side=self.params.max_side,
            start_s=clip.start_s,
            end_s=clip.end_s,
            limits=self.limits,
        )
        first = next(frames)  # raises MediaError before a detector is started in vain
        detected: list[bool] = []
        rows: list[NDArray[np.float32]] = []  # of the steps with a face
        faces: list[_Face] = []  # whose rows are still to be made
        with _quiet_stderr():
            if self._detector is None:
                self._detector = _load_detector(self.params, self._model)
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


class _Face:
    """One face in one frame.

    Attributes:
        fractions: landmarks as MediaPipe gives them, (478, 3): x to the right over the frame's
            width, y down over its height, z away from the camera on the scale of x.
        points: the same in pixels.
        size: width and height of the frame.
        blendshapes: (52,) in [0, 1]; None from backend `face_mesh`.
    """

    def __init__(self, landmarks: Any, frame: Frame, blendshapes: list[float] | None) -> None:
        height, width, _ = frame.shape
        self.size = (width, height)
        self.fractions: Array = np.array([(point.x, point.y, point.z) for point in landmarks])
        self.points = self.fractions * (width, height, width)
        self.blendshapes = blendshapes


class _Detector(Protocol):
    """Finds the face in the frames of one clip after the other, without memory between clips."""

    def start_clip(self) -> None: ...

    def find(self, frame: Frame, time: float) -> _Face | None: ...

    def end_clip(self) -> None: ...


class _FaceMesh:
    """MediaPipe's older interface, which 1.x lacks; its models are in the wheel."""

    def __init__(self, params: VisualParams) -> None:
        from mediapipe.python.solutions.face_mesh import FaceMesh

        self.mesh = FaceMesh(
            static_image_mode=False,
            max_num_faces=1,
            refine_landmarks=True,
            min_detection_confidence=params.min_detection_confidence,
            min_tracking_confidence=_TRACKING_CONFIDENCE,
        )

    def start_clip(self) -> None:
        self.mesh.reset()  # forgets where the last clip's face was, as a new instance would

    def find(self, frame: Frame, time: float) -> _Face | None:
        faces = self.mesh.process(frame).multi_face_landmarks
        return _Face(faces[0].landmark, frame, None) if faces else None

    def end_clip(self) -> None:
        pass


class _FaceLandmarker:
    """MediaPipe's Tasks interface; a landmarker cannot be reset, so each clip has its own."""

    def __init__(self, params: VisualParams, model: Path) -> None:
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision

        self.mediapipe = mediapipe
        self.vision = vision
        self.options = vision.FaceLandmarkerOptions(
            # Bytes, not a path: MediaPipe on Windows cannot open every path.
            base_options=BaseOptions(model_asset_buffer=model.read_bytes()),
            running_mode=vision.RunningMode.VIDEO,
            num_faces=1,
            min_face_detection_confidence=params.min_detection_confidence,
            min_tracking_confidence=_TRACKING_CONFIDENCE,
            output_face_blendshapes="blendshapes" in params.groups,
        )

    def start_clip(self) -> None:
        with ExitStack() as clip:
            clip.enter_context(_without_reports())
            try:
                landmarker = self.vision.FaceLandmarker.create_from_options(self.options)
            except OSError as error:  # 1.x loads its library here
                raise FeatureError(
                    f"MediaPipe {installed_version('mediapipe')} lacks a system library ({error}); "
                    "on Debian and Ubuntu: apt-get install libegl1 libgles2"
                ) from error
            self.landmarker = clip.enter_context(landmarker)
            self.clip = clip.pop_all()

    def find(self, frame: Frame, time: float) -> _Face | None:
        image = self.mediapipe.Image(image_format=self.mediapipe.ImageFormat.SRGB, data=frame)
        result = self.landmarker.detect_for_video(image, round(time * 1000))
        if not result.face_landmarks:
            return None
        scores = None
        if self.options.output_face_blendshapes:
            scores = [category.score for category in result.face_blendshapes[0]]
        return _Face(result.face_landmarks[0], frame, scores)

    def end_clip(self) -> None:
        self.clip.close()


def has_face_mesh() -> bool:
    """Return whether the installed MediaPipe has backend `face_mesh`; no module is loaded."""
    found = importlib.util.find_spec("mediapipe")
    folders = (found and found.submodule_search_locations) or []
    return any(Path(folder, "python", "solutions").is_dir() for folder in folders)


def _needed_model(params: VisualParams) -> Path | None:
    """Return the path of the backend's model; None: it is part of the library.

    Raises:
        FeatureError: the backend or its model is not there.
    """
    if params.backend == "face_landmarker":
        return find_model()
    if not has_face_mesh():
        raise FeatureError(
            "extract.visual.backend is face_mesh, which MediaPipe "
            f"{installed_version('mediapipe')} lacks (expected: face_landmarker, or MediaPipe "
            "0.10.21, see constraints.txt)"
        )
    return None


def _load_detector(params: VisualParams, model: Path | None) -> _Detector:
    return _FaceMesh(params) if model is None else _FaceLandmarker(params, model)


# A proxy at which nobody answers, and none of the exceptions that a user may have set.
_NO_REPORTS = {"https_proxy": "http://127.0.0.1:9", "no_proxy": "localhost"}


@contextmanager
def _without_reports() -> Iterator[None]:
    """Keep MediaPipe 1.x from telling its makers what it is used for, and how much.

    It does so after each minute and at the end of each clip, has no setting for it, and waits
    ten seconds a clip where the network drops packets. Its library looks for a proxy in the
    environment. Only C code sees what `os.putenv` puts there: Python's connections keep theirs.
    """
    try:
        for name, value in _NO_REPORTS.items():
            os.putenv(name, value)
        yield
    finally:
        for name in _NO_REPORTS:
            if name in os.environ:
                os.putenv(name, os.environ[name])
            else:
                os.unsetenv(name)


_stderr_lock = threading.Lock()


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep MediaPipe's C++ remarks off the terminal.

    They come with every clip, go to the file descriptor, and no setting of MediaPipe stops
    them. Its errors are Python exceptions, so nothing that matters is lost. One thread at a
    time: a second one would take the silence for the terminal, and put it back for good.
    """
    with _stderr_lock:
        sys.stderr.flush()
        kept = os.dup(2)
        try:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def model_path() -> Path:
    """Return where MediaPipe's `face_landmarker.task` is expected.

    It is the file that the environment variable `MITFRNET_FACE_LANDMARKER` names, or the one
    in the user's cache folder (`$XDG_CACHE_HOME/mitfrnet`, else `~/.cache/mitfrnet`).
    """
    named = os.environ.get(MODEL_VARIABLE)
    if named:
        return Path(named)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mitfrnet"
    return cache / "face_landmarker.task"


def find_model() -> Path:
    """Return `model_path`, where the model is fetched once if need be.

    Raises:
        FeatureError: there is none and it cannot be fetched, or it is another model.
    """
    path = model_path()
    named = os.environ.get(MODEL_VARIABLE)
    if not named and not path.exists():
        _fetch_model(path)
    _check_model(path, f"{MODEL_VARIABLE}={named}" if named else str(path))
    return path


def _check_model(path: Path, where: str) -> None:
    """Raise FeatureError unless the file is the model we know."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise FeatureError(f"{where}: cannot be read ({error.strerror})") from error
    if digest != MODEL_SHA256:
        raise FeatureError(
            f"{where}: not the face landmarker this version knows "
            f"(SHA-256 {digest}, expected {MODEL_SHA256} from {MODEL_URL})"
        )


def _fetch_model(path: Path) -> None:
    """Download the model to `path`, which holds a whole file or none at any time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(MODEL_URL, timeout=60) as response:
            content = response.read()
        digest = hashlib.sha256(content).hexdigest()
        if digest != MODEL_SHA256:
            raise OSError(f"what came has SHA-256 {digest}, not {MODEL_SHA256}")
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part:
            part.write(content)
        os.replace(part.name, path)
    except (OSError, http.client.HTTPException) as error:
        other = ", or set extract.visual.backend to face_mesh, which needs no download"
        raise FeatureError(
            f"{path}: no face landmarker there, and it cannot be fetched ({error}); put "
            f"{MODEL_URL} there, or its path into {MODEL_VARIABLE}"
            f"{other if has_face_mesh() else ''}"
        ) from error


def _columns(groups: list[Group]) -> tuple[list[str], list[str]]:
    """Return names and units of the columns of `groups`, in their order.

    - `head_pose`: rotation and place of the head relative to the camera. Pitch is positive
      when the face turns up, yaw when it turns to the image's right, roll when the head tilts
      clockwise in the image; x right, y down, z away. See `_head_pose` for what is assumed.
    - `gaze`: each iris's centre relative to the middle of its eye's corners, over the eye's
      width; x to the image's right, y up.
    - `eye_mouth`: openness of each eye over its width, heights of the brows' ends above the
      middle of their eye, and the mouth: width, opening, height of each corner above the
      middle of the lips (up in a smile, down in a frown), thickness of the lips, distance from
      nose to upper lip and from lower lip to chin.
    - `landmarks`: x, y, z of 48 points of oval, brows, eyes, nose and lips.
    - `landmarks_full`: x, y, z of all 478.
    - `landmarks_image`: the same where they lie in the image, x to the right and y down, as
      fractions of its width and height; z away from the camera, on the scale of x. They tell
      place, size and turn of the head before its expression.
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


def _features(faces: list[_Face], groups: list[Group]) -> NDArray[np.float32]:
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

    The rotation is the one that brings the rigid points nearest to those of the average face
    (Kabsch 1976), so that a turned or tilted head does not look like an expression. It also
    takes the camera's axes to the head's, which are those of the average face.

    Args:
        points: landmarks in pixels as in `_Face`, (faces, 478, 3).
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

    Perspective-n-point on the rigid points. Two things are assumed, as no clip tells them: a
    pinhole camera whose focal length is the longer side of the image, in pixels, and a head of
    average size. Distances are therefore relative, not measured.

    Args:
        points: landmarks in pixels as in `_Face`, (478, 3).
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
        flags=cv2.SOLVEPNP_SQPNP,  # needs no first guess, so frames do not depend on each other
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
    """What of a face can be drawn on the frame it was found in, in pixels, y down.

    Attributes:
        landmarks: of the group `landmarks`, (48, 2).
        irises: centres of the right, then the left iris, (2, 2).
        gaze: from the middle of each eye's corners to its iris, over the eye's width, (2, 2).
        nose: its tip, (2,).
        axes: where the head's own axes point, to its left, up and to its front, (3, 2); an axis
            that lies in the image has length 1, one that points at the camera 0.
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
    """Yield each frame of one clip with its time and the face found in it, if any.

    A face is found as `VisualExtractor` finds it, if the frames are those it is given.

    Args:
        frames: of `mitfrnet.media.iter_frames`.
        params: which detector, and how sure it must be.

    Raises:
        FeatureError: the detector or its model is not there.
        MediaError: the clip has no picture.
    """
    frames = iter(frames)
    first = next(frames)
    model = _needed_model(params)
    with _quiet_stderr():
        detector = _load_detector(params, model)
        detector.start_clip()
    try:
        for time, frame in itertools.chain([first], frames):
            with _quiet_stderr():
                face = detector.find(frame, time)
            yield time, frame, _to_draw(face) if face else None
    finally:
        with _quiet_stderr():
            detector.end_clip()


def _to_draw(face: _Face) -> FaceInFrame:
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
