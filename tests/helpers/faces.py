"""Which face backends the installed MediaPipe has, and the settings that ship, fit for it.

`make latest` runs tests with MediaPipe 1.x, which has no `face_mesh`. They need the model of
`face_landmarker`, which is not in the wheel.
"""

import os
from pathlib import Path

import pytest

from mitfrnet.features.face_detection import MODEL_VARIABLE, has_face_mesh
from mitfrnet.features.visual import VisualParams
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
needs_mediapipe_1 = pytest.mark.skipif(has_face_mesh(), reason="of MediaPipe 1.x (make latest)")


def shipped_params():
    """Return `extract.visual` of params.yaml, with the backend that is here."""
    params = load_params(VisualParams, section="extract.visual", path=ROOT / "params.yaml")
    return params.model_copy(update={"backend": BACKEND})
