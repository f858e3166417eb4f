"""The model's file, and the side effects of MediaPipe that we prevent."""

import hashlib
import http.server
import os
import socket
import subprocess
import threading
from importlib.metadata import version

import numpy as np
import pytest

from mitfrnet.errors import FeatureError
from mitfrnet.features import face_detection, visual
from mitfrnet.features.extractor import Clip
from mitfrnet.features.face_detection import find_model, has_face_mesh
from mitfrnet.features.visual import VisualParams
from tests.helpers.clips import write_clip
from tests.helpers.faces import (
    MODEL,
    VALUES,
    make_extractor,
    needs_face_mesh,
    needs_mediapipe_1,
    needs_model,
)


def test_model_that_is_another_one(tmp_path, monkeypatch):
    other = tmp_path / "face.task"
    other.write_bytes(b"not a model")
    monkeypatch.setenv(face_detection.MODEL_VARIABLE, str(other))
    with pytest.raises(FeatureError, match=hashlib.sha256(b"not a model").hexdigest()):
        make_extractor(backend="face_landmarker")
    monkeypatch.setenv(face_detection.MODEL_VARIABLE, str(tmp_path / "absent.task"))
    with pytest.raises(FeatureError, match="cannot be read"):
        make_extractor(backend="face_landmarker")


def test_offline_without_a_model(tmp_path, monkeypatch):
    """Nothing listens at port 9."""
    monkeypatch.delenv(face_detection.MODEL_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(face_detection, "MODEL_URL", "http://127.0.0.1:9/face_landmarker.task")
    with pytest.raises(FeatureError) as error:
        make_extractor(backend="face_landmarker")
    message = str(error.value)
    assert "\n" not in message
    for remedy in (face_detection.MODEL_URL, face_detection.MODEL_VARIABLE):
        assert remedy in message
    assert ("face_mesh" in message) == has_face_mesh()


@needs_face_mesh
def test_face_mesh_needs_no_model(tmp_path, monkeypatch):
    monkeypatch.delenv(face_detection.MODEL_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(face_detection, "MODEL_URL", "http://127.0.0.1:9/face_landmarker.task")
    assert make_extractor(backend="face_mesh").identity["model"] is None


def test_mediapipe_without_face_mesh_is_an_error_at_once(monkeypatch):
    monkeypatch.setattr(face_detection, "has_face_mesh", lambda: False)
    with pytest.raises(FeatureError, match=r"^extract\.visual\.backend is face_mesh") as error:
        make_extractor(backend="face_mesh")
    message = str(error.value)
    assert "\n" not in message
    assert version("mediapipe") in message
    assert "face_landmarker" in message
    params = VisualParams(**{**VALUES, "backend": "face_mesh"})
    with pytest.raises(FeatureError, match=r"^extract\.visual\.backend is face_mesh"):
        next(visual.faces_in(iter([(0.0, None)]), params))


def test_has_face_mesh_if_it_can_be_imported():
    try:
        import mediapipe.python.solutions.face_mesh  # noqa: F401
    except ImportError:
        assert not has_face_mesh()
    else:
        assert has_face_mesh()


@needs_model
def test_model_is_fetched_once(tmp_path, monkeypatch):
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(MODEL.parent))

        def log_message(self, *args):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv(face_detection.MODEL_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    url = f"http://127.0.0.1:{server.server_port}/{MODEL.name}"
    monkeypatch.setattr(face_detection, "MODEL_URL", url)
    try:
        path = find_model()
        assert find_model() == path == tmp_path / "mitfrnet" / "face_landmarker.task"
    finally:
        server.shutdown()
        server.server_close()
    assert len(asked) == 1
    assert list(path.parent.iterdir()) == [path]


@needs_model
def test_identity_holds_the_model_but_not_its_path(tmp_path, monkeypatch):
    first = make_extractor(monkeypatch, backend="face_landmarker").identity
    copy = tmp_path / "copy.task"
    copy.write_bytes(MODEL.read_bytes())
    monkeypatch.setenv(face_detection.MODEL_VARIABLE, str(copy))
    assert make_extractor(backend="face_landmarker").identity == first
    assert first["model"] == face_detection.MODEL_SHA256
    assert make_extractor(fps=5).identity != make_extractor(fps=10).identity


def test_stderr_comes_back(tmp_path, capfd):
    make_extractor().extract(Clip("v/1", write_clip(tmp_path / "x.mkv", [0.0])))
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


@needs_model
def test_the_environment_is_as_it_was(tmp_path, monkeypatch):
    """C code and later processes see it; one variable is set, one is not."""
    monkeypatch.setenv("https_proxy", "http://proxy.test")
    monkeypatch.delenv("no_proxy", raising=False)
    clip = Clip("v/1", write_clip(tmp_path / "x.mkv", [0.0]))
    make_extractor(monkeypatch, backend="face_landmarker").extract(clip)
    lines = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line for line in lines if "_proxy" in line and line.islower()] == [
        "https_proxy=http://proxy.test"
    ]


@needs_model
@needs_mediapipe_1
def test_mediapipe_sends_no_reports(tmp_path, monkeypatch):
    """It would send one at the end of each clip, through the user's proxy, which listens here."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(1)
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        clip = Clip("v/1", write_clip(tmp_path / "x.mkv", np.arange(10) / 10))
        make_extractor(monkeypatch, backend="face_landmarker").extract(clip)
        with pytest.raises(TimeoutError):
            proxy.accept()


@needs_model
def test_a_system_library_that_is_absent_is_named(tmp_path, monkeypatch):
    """MediaPipe 1.x fails so on a system without OpenGL ES."""
    from mediapipe.tasks.python.vision import FaceLandmarker

    def absent(options):
        raise OSError("libGLESv2.so.2: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(FaceLandmarker, "create_from_options", absent)
    clip = Clip("v/1", write_clip(tmp_path / "x.mkv", [0.0]))
    with pytest.raises(FeatureError, match=r"libGLESv2.*apt-get install libegl1 libgles2$"):
        make_extractor(monkeypatch, backend="face_landmarker").extract(clip)
