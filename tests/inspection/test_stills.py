import cv2
import numpy as np
import pytest

from mitfrnet.features.extractor import Clip
from mitfrnet.features.visual import faces_in
from mitfrnet.inspection.stills import COUNT, make_stills
from mitfrnet.media.decode import iter_frames
from mitfrnet.predict.extraction import LIMITS
from tests.helpers.clips import write_clip
from tests.helpers.faces import shipped_params
from tests.helpers.paths import ROOT

CLIP = ROOT / "raw/sample/Raw/speaker01_a/0005.mp4"  # 2.6 s of a drawn face


@pytest.fixture(scope="module")
def params():
    return shipped_params()


@pytest.mark.slow
def test_every_part_of_a_clip_has_its_frame(params):
    stills = make_stills(Clip("a", CLIP), LIMITS, params, duration_s=2.6)
    assert [still.slot for still in stills] == list(range(COUNT))
    for still in stills:
        assert still.face
        assert still.time_s == pytest.approx(still.slot * 2.6 / COUNT, abs=0.1)
        image = cv2.imdecode(np.frombuffer(still.jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (still.height, still.width, 3)
        assert max(image.shape) == 320


@pytest.mark.slow
def test_what_is_drawn_lies_on_the_face(params):
    """The drawn head looks at the camera: nose between the irises, up is up, front is nowhere."""
    frames = iter_frames(CLIP, fps=params.fps, limits=LIMITS)
    _, frame, face = next(faces_in(frames, params))
    right, left = face.irises
    assert right[0] < face.nose[0] < left[0]
    assert face.nose[1] > right[1]
    assert (face.landmarks > 0).all()
    assert (face.landmarks < frame.shape[1::-1]).all()
    to_left, up, front = face.axes
    assert to_left[0] > 0.95
    assert up[1] < -0.95
    assert np.hypot(*front) < 0.3
    assert face.eye_distance == pytest.approx(left[0] - right[0], rel=0.2)
    assert (np.abs(face.gaze) < 0.5).all()


@pytest.mark.slow
def test_a_frame_without_a_face_says_so(tmp_path, params):
    clip = Clip("a", write_clip(tmp_path / "a.mkv", np.arange(6) / 10))
    stills = make_stills(clip, LIMITS, params, duration_s=0.6)
    assert [s.described for s in stills][:2] == ["0.00 s: no face found", "0.10 s: no face found"]
    assert not any(still.face for still in stills)


def test_a_clip_without_a_picture_has_none(tmp_path, params):
    assert make_stills(Clip("a", tmp_path / "none.mp4"), LIMITS, params, duration_s=1.0) == []
