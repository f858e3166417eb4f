"""Face detection in the frames of a clip, by either of MediaPipe's two interfaces.

`face_mesh` exists only in MediaPipe 0.10, whose wheel contains its models. `face_landmarker` also
exists in 1.x, and needs a model file that is downloaded once.
"""

import hashlib
import http.client
import importlib.util
import os
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mitfrnet.errors import FeatureError
from mitfrnet.media.decode import Frame

Backend = Literal["face_mesh", "face_landmarker"]

MODEL_URL = (
    "https://storage.googleapis.com/mediapipe-models/"
    "face_landmarker/face_landmarker/float16/1/face_landmarker.task"
)
MODEL_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
MODEL_VARIABLE = "MITFRNET_FACE_LANDMARKER"

_TRACKING_CONFIDENCE = 0.5  # MediaPipe's default


class Face:
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
        self.fractions: NDArray[np.float64] = np.array([(p.x, p.y, p.z) for p in landmarks])
        self.points = self.fractions * (width, height, width)
        self.blendshapes = blendshapes


class Detector(Protocol):
    """Finds the face in each frame of a clip; keeps no state between clips."""

    def start_clip(self) -> None:
        """Forget the previous clip."""

    def find(self, frame: Frame, time: float) -> Face | None:
        """Return the face in the next frame, RGB (height, width, 3), shown at `time` in seconds."""

    def end_clip(self) -> None:
        """Free the resources of the clip."""


class _FaceMesh:
    """MediaPipe's older interface, which 1.x lacks; its models are in the wheel."""

    def __init__(self, min_confidence: float) -> None:
        from mediapipe.python.solutions.face_mesh import FaceMesh

        self.mesh = FaceMesh(
            static_image_mode=False,
            max_num_faces=1,
            refine_landmarks=True,
            min_detection_confidence=min_confidence,
            min_tracking_confidence=_TRACKING_CONFIDENCE,
        )

    def start_clip(self) -> None:
        self.mesh.reset()  # equals a new instance

    def find(self, frame: Frame, time: float) -> Face | None:
        faces = self.mesh.process(frame).multi_face_landmarks
        return Face(faces[0].landmark, frame, None) if faces else None

    def end_clip(self) -> None:
        pass


class _FaceLandmarker:
    """MediaPipe's Tasks interface; a landmarker cannot be reset, so each clip gets a new one."""

    def __init__(self, model: Path, min_confidence: float, blendshapes: bool) -> None:
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision

        self.mediapipe = mediapipe
        self.vision = vision
        self.options = vision.FaceLandmarkerOptions(
            # Bytes, since MediaPipe on Windows cannot open every path.
            base_options=BaseOptions(model_asset_buffer=model.read_bytes()),
            running_mode=vision.RunningMode.VIDEO,
            num_faces=1,
            min_face_detection_confidence=min_confidence,
            min_tracking_confidence=_TRACKING_CONFIDENCE,
            output_face_blendshapes=blendshapes,
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

    def find(self, frame: Frame, time: float) -> Face | None:
        image = self.mediapipe.Image(image_format=self.mediapipe.ImageFormat.SRGB, data=frame)
        result = self.landmarker.detect_for_video(image, round(time * 1000))
        if not result.face_landmarks:
            return None
        scores = None
        if self.options.output_face_blendshapes:
            scores = [category.score for category in result.face_blendshapes[0]]
        return Face(result.face_landmarks[0], frame, scores)

    def end_clip(self) -> None:
        self.clip.close()


def has_face_mesh() -> bool:
    """Return whether the installed MediaPipe has backend `face_mesh`, without importing it."""
    spec = importlib.util.find_spec("mediapipe")
    folders = (spec and spec.submodule_search_locations) or []
    return any(Path(folder, "python", "solutions").is_dir() for folder in folders)


def needed_model(backend: Backend) -> Path | None:
    """Return the path of a backend's model; None: it is part of the library.

    Raises:
        FeatureError: the backend or its model is absent.
    """
    if backend == "face_landmarker":
        return find_model()
    if not has_face_mesh():
        raise FeatureError(
            "extract.visual.backend is face_mesh, which MediaPipe "
            f"{installed_version('mediapipe')} lacks (expected: face_landmarker, or MediaPipe "
            "0.10.21, see constraints.txt)"
        )
    return None


def load_detector(model: Path | None, *, min_confidence: float, blendshapes: bool) -> Detector:
    """Return a detector.

    Args:
        model: of `face_landmarker`; None: use `face_mesh`.
        min_confidence: at which a face counts as detected, in [0, 1].
        blendshapes: whether `face_landmarker` computes them; `face_mesh` cannot.
    """
    if model is None:
        return _FaceMesh(min_confidence)
    return _FaceLandmarker(model, min_confidence, blendshapes)


# A proxy that does not answer, without the exceptions that a user may have set.
_NO_REPORTS = {"https_proxy": "http://127.0.0.1:9", "no_proxy": "localhost"}


@contextmanager
def _without_reports() -> Iterator[None]:
    """Keep MediaPipe 1.x from sending usage reports to its makers.

    It sends them every minute and at the end of each clip, and no setting stops it. If the
    network drops packets, it waits ten seconds per clip. Its library reads the proxy from the
    environment. Only C code sees changes by `os.putenv`, so Python's connections are unaffected.
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
def quiet_stderr() -> Iterator[None]:
    """Hide the messages that MediaPipe's C++ code writes to stderr.

    It writes them for every clip, and no setting stops it. Its errors are Python exceptions, so
    nothing is lost. Only one thread may enter at a time: a second one would save the redirected
    stderr, and restore that in the end.
    """
    with _stderr_lock:
        sys.stderr.flush()
        stderr = os.dup(2)
        try:
            with open(os.devnull, "wb") as null:
                os.dup2(null.fileno(), 2)
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


def model_path() -> Path:
    """Return where MediaPipe's `face_landmarker.task` is expected.

    The environment variable `MITFRNET_FACE_LANDMARKER` may give the path. Otherwise it is in the
    user's cache folder (`$XDG_CACHE_HOME/mitfrnet`, else `~/.cache/mitfrnet`).
    """
    named = os.environ.get(MODEL_VARIABLE)
    if named:
        return Path(named)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mitfrnet"
    return cache / "face_landmarker.task"


def find_model() -> Path:
    """Return `model_path`, after downloading the model if it is absent.

    Raises:
        FeatureError: the model is absent and cannot be downloaded, or it is another model.
    """
    path = model_path()
    named = os.environ.get(MODEL_VARIABLE)
    if not named and not path.exists():
        _fetch_model(path)
    _check_model(path, f"{MODEL_VARIABLE}={named}" if named else str(path))
    return path


def _check_model(path: Path, where: str) -> None:
    """Raise FeatureError unless the file is the model of `MODEL_SHA256`."""
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
    """Download the model to `path`, which never holds a part of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(MODEL_URL, timeout=60) as response:
            content = response.read()
        digest = hashlib.sha256(content).hexdigest()
        if digest != MODEL_SHA256:
            raise OSError(f"the download has SHA-256 {digest}, not {MODEL_SHA256}")
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part:
            part.write(content)
        os.replace(part.name, path)
    except (OSError, http.client.HTTPException) as error:
        other = ", or set extract.visual.backend to face_mesh, which needs no download"
        raise FeatureError(
            f"{path}: the face landmarker is absent and cannot be downloaded ({error}); put "
            f"{MODEL_URL} there, or its path into {MODEL_VARIABLE}"
            f"{other if has_face_mesh() else ''}"
        ) from error
