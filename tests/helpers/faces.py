"""The face backends of the installed MediaPipe, and extractors that use them.

`make latest` runs the tests with MediaPipe 1.x, which has no `face_mesh`. So they need the model
of `face_landmarker`, which is not in the wheel.
"""

import os
from pathlib import Path

import pytest

from mitfrnet.features.face_detection import MODEL_VARIABLE, has_face_mesh
from mitfrnet.features.visual import VisualExtractor, VisualParams
from mitfrnet.media.decode import MediaLimits
from mitfrnet.params import load_params
from tests.helpers.paths import ROOT

MODEL = Path(
    os.environ.get(MODEL_VARIABLE, ROOT.parent / "shared" / "models" / "face_landmarker.task")
)
BACKEND = "face_mesh" if has_face_mesh() else "face_landmarker"

needs_model = pytest.mark.skipif(not MODEL.exists(), reason=f"no {MODEL.name} at {MODEL}")
needs_face_mesh = pytest.mark.skipif(
    not has_face_mesh(), reason="face_mesh is not in MediaPipe 1.x"
)
needs_mediapipe_1 = pytest.mark.skipif(has_face_mesh(), reason="needs MediaPipe 1.x (make latest)")


VALUES = {
    "fps": 10,
    "backend": BACKEND,
    "groups": ["head_pose", "gaze", "eye_mouth", "landmarks"],
    "min_detection_confidence": 0.5,
    "max_side": 640,
}
LIMITS = MediaLimits(max_duration_s=60, max_pixels=4_000_000, max_bytes=10**8, max_streams=8)


def make_extractor(monkeypatch=None, **changes):
    """Return an extractor with `VALUES`, changed in places; with `monkeypatch`, it uses `MODEL`."""
    if monkeypatch is not None:
        monkeypatch.setenv(MODEL_VARIABLE, str(MODEL))
    return VisualExtractor(VisualParams(**{**VALUES, **changes}), LIMITS)


def shipped_params():
    """Return `extract.visual` of params.yaml, with a backend that is installed."""
    params = load_params(VisualParams, section="extract.visual", path=ROOT / "params.yaml")
    return params.model_copy(update={"backend": BACKEND})
