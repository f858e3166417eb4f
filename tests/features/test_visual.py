import csv
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest

from mitfrnet.errors import MediaError, ParamsError
from mitfrnet.features import visual
from mitfrnet.features.extractor import Clip
from mitfrnet.features.face_detection import Face
from mitfrnet.features.visual import RECIPES, VisualExtractor, VisualParams
from mitfrnet.media.decode import iter_frames
from mitfrnet.params import parse_params
from tests.helpers.clips import write_clip
from tests.helpers.faces import LIMITS, VALUES, make_extractor, needs_face_mesh, needs_model
from tests.helpers.paths import SHARED

CLIPS = SHARED / "clips"
needs_clips = pytest.mark.skipif(not CLIPS.exists(), reason="no ../shared/clips beside the repo")


def turn(pitch, yaw, roll):
    """Return a rotation in camera axes (x right, y down, z away), with the documented signs."""
    a, b, c = -pitch, -yaw, roll
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return z @ y @ x


def average_face(seed=0):
    """Return landmarks in camera axes, (478, 3): the rigid ones of the model, the others random."""
    points = np.random.default_rng(seed).uniform(-8, 8, (478, 3))
    points[visual._RIGID_INDICES] = visual._RIGID_POINTS
    return points * (1, -1, -1)


def front_face(**heights):
    """Return a face in the head's frame, (1, 478, 3), zero except for known points."""
    face = np.zeros((1, 478, 3))
    for name, point in {**NEUTRAL, **heights}.items():
        face[0, int(name[1:]), : len(point)] = point
    return face


# Eyes 1 apart, 0.4 wide and 0.1 open; brows 0.3 above; a mouth 0.8 wide, slightly open.
NEUTRAL = {
    "p33": (-0.7, 0), "p133": (-0.3, 0), "p159": (-0.5, 0.06), "p145": (-0.5, -0.04),
    "p263": (0.7, 0), "p362": (0.3, 0), "p386": (0.5, 0.06), "p374": (0.5, -0.04),
    "p107": (-0.2, 0.3), "p70": (-0.8, 0.25), "p336": (0.2, 0.3), "p300": (0.8, 0.25),
    "p61": (-0.4, -1.1), "p291": (0.4, -1.1), "p13": (0, -1.08), "p14": (0, -1.12),
    "p0": (0, -0.98), "p17": (0, -1.27), "p2": (0, -0.7), "p152": (0, -1.8),
    "p468": (-0.5, 0), "p473": (0.5, 0),
}  # fmt: skip


def eye_mouth(face):
    names, _ = visual._columns(["eye_mouth"])
    return dict(zip(names, visual._eye_mouth(face)[0], strict=True))


def test_head_frame_does_not_depend_on_the_head_pose():
    """A face that is turned, moved and twice as large is the same face."""
    face = average_face()
    moved = 2 * face @ turn(0.2, -0.4, 0.3).T + (300, 200, 5)
    expected, actual = visual._to_head_frame(np.stack([face, moved]))
    np.testing.assert_allclose(actual, expected, atol=1e-9)


def test_head_frame_axes_and_unit():
    """The eyes are 1 apart, midway is 0; the forehead is above, the nose in front."""
    (head,) = visual._to_head_frame(average_face()[None])
    right, left = head[[33, 133]].mean(axis=0), head[[263, 362]].mean(axis=0)
    np.testing.assert_allclose(right, (-0.5, 0, 0), atol=1e-3)
    np.testing.assert_allclose(left, (0.5, 0, 0), atol=1e-3)
    assert head[10, 1] > 0.5
    assert head[4, 2] > 0.5


def test_head_frame_never_mirrors():
    """A face with inverted depth would fit the average face best as a mirror image."""
    face = average_face() * (1, 1, -1)
    (head,) = visual._to_head_frame(face[None])
    before, after = (np.linalg.det(points[[61, 291, 17]] - points[0]) for points in (face, head))
    assert before * after > 0


@pytest.mark.parametrize("angles", [(0, 0, 0), (0.3, 0, 0), (0, 0.4, 0), (0, 0, -0.5),
                                    (-0.2, -0.5, 0.3)])  # fmt: skip
@pytest.mark.parametrize("size", [(640, 480), (360, 640)])
def test_head_pose_is_recovered(angles, size):
    """The average face is turned, moved 60 cm away and projected with focal length 640."""
    place = np.array([5.0, -3.0, 60.0])
    points = average_face() @ turn(*angles).T + place
    pixels = np.array(size) / 2 + 640 * points[:, :2] / points[:, 2:]
    pose = visual._head_pose(np.column_stack([pixels, points[:, 2]]), size)
    np.testing.assert_allclose(pose, [*angles, *place], atol=1e-3)


def test_signs_of_the_head_pose():
    """Face up, to the image's right, tilted clockwise: the nose moves up, right, the crown right.

    The nose points to the camera, (0, 0, -1); the crown is up, (0, -1, 0).
    """
    nose, crown = np.array([0, 0, -1]), np.array([0, -1, 0])
    assert (turn(0.3, 0, 0) @ nose)[1] < -0.2
    assert (turn(0, 0.3, 0) @ nose)[0] > 0.2
    assert (turn(0, 0, 0.3) @ crown)[0] > 0.2


def test_eye_mouth_of_a_neutral_face():
    columns = eye_mouth(front_face())
    expected = {
        "eye_openness_right": 0.25, "eye_openness_left": 0.25,  # 0.1 / 0.4
        "brow_inner_right": 0.3, "brow_outer_right": 0.25,
        "brow_inner_left": 0.3, "brow_outer_left": 0.25,
        "mouth_width": 0.8, "mouth_opening": 0.04,
        "mouth_corner_right": 0.0, "mouth_corner_left": 0.0,
        "upper_lip": 0.1, "lower_lip": 0.15, "nose_to_lip": 0.28, "lip_to_chin": 0.53,
    }  # fmt: skip
    assert columns == pytest.approx(expected)


@pytest.mark.parametrize(("name", "height"), [("smile", 0.12), ("frown", -0.08)])
def test_smile_and_frown(name, height):
    """Corners of the mouth above or below the middle of the lips, at -1.1."""
    columns = eye_mouth(front_face(p61=(-0.4, -1.1 + height), p291=(0.4, -1.1 + height)))
    assert columns["mouth_corner_right"] == pytest.approx(height)
    assert columns["mouth_corner_left"] == pytest.approx(height)


def test_left_is_the_persons_left():
    """The person's left is on the image's right: a wink and a raised brow there."""
    columns = eye_mouth(front_face(p386=(0.5, 0), p374=(0.5, 0), p336=(0.2, 0.5)))
    assert (columns["eye_openness_left"], columns["eye_openness_right"]) == (0, pytest.approx(0.25))
    assert columns["brow_inner_left"] - columns["brow_inner_right"] == pytest.approx(0.2)


def test_gaze():
    """The right iris is 0.1 to the image's right, the left one 0.04 up; eyes are 0.4 wide."""
    gaze = visual._gaze(front_face(p468=(-0.4, 0), p473=(0.5, 0.04)))
    np.testing.assert_allclose(gaze, [[0.25, 0, 0, 0.1]], atol=1e-9)


def test_columns():
    sizes = {
        "head_pose": 6, "gaze": 4, "eye_mouth": 14, "landmarks": 3 * 48,
        "landmarks_full": 3 * 478, "landmarks_image": 3 * 478, "blendshapes": 52,
    }  # fmt: skip
    assert set(sizes) == set(get_args(visual.Group))
    for group, size in sizes.items():
        names, units = visual._columns([group])
        assert len(names) == len(units) == len(set(names)) == size
    del sizes["landmarks"]  # a part of landmarks_full
    names, _ = visual._columns(list(sizes))
    assert len(set(names)) == len(names) == sum(sizes.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"backend": "face_mesh", "groups": ["blendshapes"]},
            "face_landmarker, not face_mesh",
        ),
        ({"groups": ["gaze", "gaze"]}, "must not repeat"),
        ({"groups": ["landmarks", "landmarks_full"]}, "choose one"),
        ({"groups": []}, "at least 1"),
        ({"groups": ["mouth"]}, "should be 'head_pose'"),
        ({"fps": 0}, "greater than 0"),
        ({"frame_rate": 5}, "unknown key"),
    ],
)
def test_wrong_parameters(change, message):
    with pytest.raises(ParamsError) as error:
        parse_params(VisualParams, {**VALUES, **change}, where="extract.visual")
    assert message in str(error.value)


def test_clip_without_a_face(tmp_path, capfd):
    """The picture lasts from 0.5 to 1.5 s; five steps before it have no picture."""
    path = write_clip(tmp_path / "x.mkv", 0.5 + np.arange(10) / 10, np.zeros(16000))
    features = make_extractor().extract(Clip("v/1", path))
    assert features.values.shape == (15, 168)
    assert np.isnan(features.values).all()
    assert features.values.dtype == np.float32
    assert not features.detected.any()
    np.testing.assert_allclose(features.start_s, np.arange(15) / 10, rtol=1e-6)
    assert capfd.readouterr().err == ""


def test_clip_without_a_picture(tmp_path):
    with pytest.raises(MediaError, match=r"^no_file$"):
        make_extractor().extract(Clip("v/1", tmp_path / "absent.mp4"))


def real_clips():
    if not CLIPS.exists():
        return []
    rows = csv.DictReader((CLIPS / "measured.csv").open())
    return [pytest.param(row, id=f"{row['video_id']}/{row['clip_id']}") for row in rows]


def real_clip(name):
    (path,) = (CLIPS / "Raw").glob(f"{name}.*")
    return Clip(name, path)


@pytest.fixture(scope="module")
def extractor():
    return make_extractor()


@needs_clips
@pytest.mark.slow
@pytest.mark.parametrize("row", real_clips())
def test_faces_of_real_clips(extractor, capfd, row):
    features = extractor.extract(real_clip(f"{row['video_id']}/{row['clip_id']}"))
    assert features.detected.mean() == pytest.approx(float(row["face_fraction"]), abs=0.1)
    assert np.isfinite(features.values[features.detected]).all()
    assert np.isnan(features.values[~features.detected]).all()
    assert len(features.values) == pytest.approx(10 * float(row["duration_s"]), abs=2)
    assert capfd.readouterr().err == ""


def test_landmarks_in_the_image_are_those_of_mediapipe():
    """Landmark i is at (i, 2i, -3i) thousandths, for any size of the frame."""
    landmarks = [SimpleNamespace(x=i / 1000, y=i / 500, z=-3 * i / 1000) for i in range(478)]
    faces = [Face(landmarks, np.zeros((h, w, 3)), None) for h, w in [(48, 64), (720, 404)]]
    names, units = visual._columns(["landmarks_image"])
    values = visual._features(faces, ["landmarks_image"])
    assert values.shape == (2, 1434) == (2, len(names))
    np.testing.assert_array_equal(values[0], values[1])
    column = dict(zip(names, values[0], strict=True))
    assert column["landmark_477_image_x"] == np.float32(0.477)
    assert column["landmark_477_image_y"] == np.float32(0.954)
    assert column["landmark_477_image_z"] == np.float32(-1.431)
    assert units[:4] == ["image width", "image height", "image width", "image width"]


@needs_clips
@needs_face_mesh
@pytest.mark.slow
def test_recipe_mmsa_fet_equals_its_source_and_keeps_frames_without_a_face():
    """Calls MediaPipe as MMSA-FET does, on a clip whose face leaves the picture."""
    from mediapipe.python.solutions.face_mesh import FaceMesh

    clip = real_clip("edge/face_then_none")
    theirs = []
    settings = {"min_detection_confidence": 0.35, "min_tracking_confidence": 0.5}
    with FaceMesh(
        static_image_mode=False, max_num_faces=1, refine_landmarks=True, **settings
    ) as mesh:
        for _, frame in iter_frames(clip.path, fps=25, limits=LIMITS):
            if faces := mesh.process(frame).multi_face_landmarks:
                theirs.append([c for p in faces[0].landmark for c in (p.x, p.y, p.z)])
    features = VisualExtractor(RECIPES["mmsa_fet"], LIMITS).extract(clip)
    assert len(features.detected) > len(theirs) > 50
    np.testing.assert_array_equal(features.values[features.detected], np.float32(theirs))


@needs_clips
@needs_model
@pytest.mark.slow
@pytest.mark.parametrize(
    "backend", [pytest.param("face_mesh", marks=needs_face_mesh), "face_landmarker"]
)
def test_earlier_clips_do_not_matter(monkeypatch, backend):
    """One extractor per clip, or one for both in either order, gives the same bytes."""
    clips = [real_clip("grid_s1/bbaf2n"), real_clip("edge/face_then_none")]
    alone = [
        make_extractor(monkeypatch, backend=backend).extract(c).values.tobytes() for c in clips
    ]
    shared = make_extractor(monkeypatch, backend=backend)
    assert [shared.extract(c).values.tobytes() for c in clips] == alone
    assert [shared.extract(c).values.tobytes() for c in clips[::-1]] == alone[::-1]


def agreement(a, b):
    return np.corrcoef(a, b)[0, 1]


@needs_clips
@needs_model
@pytest.mark.slow
def test_landmarker_agrees_with_its_own_scores(monkeypatch):
    """For a smiling man, our geometry correlates with MediaPipe's blendshapes."""
    clip = real_clip("edge/no_audio_stream")
    groups = [*VALUES["groups"], "blendshapes"]
    extractor = make_extractor(monkeypatch, backend="face_landmarker", groups=groups)
    features = extractor.extract(clip)
    assert features.detected.all()
    column = dict(zip(extractor.feature_names, features.values.T, strict=True))

    assert agreement(column["mouth_corner_left"], column["blendshape_mouthSmileLeft"]) > 0.9
    assert agreement(column["mouth_opening"], column["blendshape_jawOpen"]) > 0.9
    assert agreement(column["eye_openness_left"], column["blendshape_eyeBlinkLeft"]) < -0.9
    up = column["blendshape_eyeLookUpLeft"] - column["blendshape_eyeLookDownLeft"]
    assert agreement(column["gaze_left_y"], up) > 0.9


@needs_clips
@needs_face_mesh
@needs_model
@pytest.mark.slow
def test_face_mesh_agrees_with_the_landmarker(monkeypatch):
    """On the same man."""
    clip = real_clip("edge/no_audio_stream")
    columns = []
    for backend in ("face_mesh", "face_landmarker"):
        extractor = make_extractor(monkeypatch, backend=backend)
        values = extractor.extract(clip).values
        columns.append(dict(zip(extractor.feature_names, values.T, strict=True)))
    mesh, landmarker = columns
    assert agreement(landmarker["mouth_corner_left"], mesh["mouth_corner_left"]) > 0.9
    np.testing.assert_allclose(mesh["head_yaw"], landmarker["head_yaw"], atol=0.1)


@needs_model
@pytest.mark.slow
def test_blendshapes_have_mediapipes_names():
    from mediapipe.tasks.python.vision.face_landmarker import Blendshapes

    snake = [
        "".join(f"_{c.lower()}" if c.isupper() else c for c in name).upper()
        for name in visual._BLENDSHAPES
    ]
    assert snake == [blendshape.name for blendshape in Blendshapes]
