import io
import math
import wave

import av
import numpy as np
import pytest

from mitfrnet.features.extractor import Clip
from mitfrnet.inspection import playback
from mitfrnet.inspection.playback import make_playback
from mitfrnet.predict.extraction import LIMITS
from tests.helpers.clips import tone, write_clip


def made(path, **known):
    return make_playback(Clip("a", path), LIMITS, **known)


def test_picture_and_sound_keep_their_times(tmp_path):
    """Frame i of 12 is grey 10 (i + 1) at i / 10 s; the sound begins at 0.5 s."""
    clip = write_clip(tmp_path / "a.mkv", np.arange(12) / 10, tone(0.7), sound_from=0.5)
    found = made(clip, fps=10.0, duration_s=1.2)
    assert (found.kind, found.mime) == ("video", 'video/webm; codecs="vp9, opus"')
    with av.open(io.BytesIO(found.data)) as file:
        greys = {round(f.time, 2): f.to_ndarray(format="gray").mean() for f in file.decode(video=0)}
    assert list(greys) == pytest.approx([i / 10 for i in range(12)])
    assert all(math.isclose(g, 10 * (10 * t + 1), abs_tol=6) for t, g in greys.items())
    with av.open(io.BytesIO(found.data)) as file:
        frames = [(f.time, f.to_ndarray().ravel(), f.sample_rate) for f in file.decode(audio=0)]
    loud = [(t, np.flatnonzero(np.abs(s) > 0.1)[0] / r) for t, s, r in frames if s.max() > 0.1]
    assert sum(loud[0]) == pytest.approx(0.5, abs=0.03)


def test_a_segment_alone_is_taken(tmp_path):
    path = write_clip(tmp_path / "a.mkv", np.arange(20) / 10, tone(2))
    found = make_playback(Clip("a", path, 0.5, 1.0), LIMITS, fps=10.0, duration_s=0.5)
    with av.open(io.BytesIO(found.data)) as file:
        assert len(list(file.decode(video=0))) == 5


def test_sound_without_a_picture_is_wav(tmp_path):
    found = made(write_clip(tmp_path / "a.mkv", sound=tone(0.5)), fps=None, duration_s=0.5)
    assert (found.kind, found.mime) == ("audio", "audio/wav")
    with wave.open(io.BytesIO(found.data)) as file:
        assert (file.getframerate(), file.getnframes()) == (16_000, 8_000)


def test_a_picture_without_sound_plays(tmp_path):
    found = made(write_clip(tmp_path / "a.mkv", np.arange(5) / 10), fps=10.0, duration_s=0.5)
    with av.open(io.BytesIO(found.data)) as file:
        assert [s.type for s in file.streams] == ["video"]


def test_what_is_too_large_becomes_coarser_and_at_last_nothing(tmp_path, monkeypatch):
    """Of 1 s of sound: 32 kB at 16 kHz, 16 kB at 8 kHz."""
    clip = write_clip(tmp_path / "a.mkv", np.arange(10) / 10, tone(1))
    monkeypatch.setattr(playback, "_MAX_PICTURE_S", 0.5)
    sizes = {}
    for limit in (40_000, 20_000, 1_000):
        monkeypatch.setattr(playback, "MAX_BYTES", limit)
        found = made(clip, fps=10.0, duration_s=1.0)
        sizes[limit] = found and len(found.data)
    assert sizes == {40_000: 32_044, 20_000: 16_044, 1_000: None}


def test_a_clip_of_which_nothing_can_be_read(tmp_path):
    (tmp_path / "a.mp4").write_bytes(bytes(100))
    assert made(tmp_path / "a.mp4", fps=None, duration_s=1.0) is None
