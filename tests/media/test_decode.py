"""Clips are written here with PyAV: frame i is plain grey 10 (i + 1), the sound a sine tone."""

import csv
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mitfrnet.errors import MediaError
from mitfrnet.media import decode
from mitfrnet.media.decode import REASONS, MediaLimits, iter_frames, probe, read_waveform
from tests.helpers.clips import RATE, tone, write_clip
from tests.helpers.containers import matroska, sound, track
from tests.helpers.paths import SHARED

LIMITS = MediaLimits(max_duration_s=60, max_pixels=4_000_000, max_bytes=10**8, max_streams=8)
CLIPS = SHARED / "clips"
needs_clips = pytest.mark.skipif(not CLIPS.exists(), reason="no ../shared/clips beside the repo")


@pytest.fixture
def clip(tmp_path):
    """20 frames at 10 per second and 2 s of a 1 kHz tone."""
    return write_clip(tmp_path / "clip.mkv", np.arange(20) / 10, tone(2))


def greys(path, **options):
    """Return {time: index of the frame shown}."""
    frames = iter_frames(path, limits=LIMITS, **options)
    return {round(time, 6): round(image.mean() / 10) - 1 for time, image in frames}


@pytest.mark.parametrize("suffix", ["mkv", "mov", "avi"])
def test_probe_measures(tmp_path, suffix):
    probed = probe(write_clip(tmp_path / f"x.{suffix}", np.arange(20) / 10, tone(1.5)), LIMITS)
    assert probed.duration_s == pytest.approx(2.0, abs=0.11)  # AVI has no length for the last frame
    assert probed.fps == pytest.approx(10, rel=0.06)
    assert (probed.frames, probed.width, probed.height) == (20, 64, 48)
    assert (probed.video_codec, probed.audio_codec) == ("mpeg4", "pcm_s16le")
    assert probed.audio_duration_s == pytest.approx(1.5, abs=0.02)
    assert probed.audio_sample_rate_hz == RATE
    assert probed.video_reason is None
    assert probed.audio_reason is None


def test_file_that_breaks_off_is_as_long_as_what_is_there(tmp_path, clip):
    half = tmp_path / "half.mkv"
    data = clip.read_bytes()
    half.write_bytes(data[: len(data) // 2])
    with av.open(str(half)) as container:
        assert container.duration / av.time_base == pytest.approx(2.0, abs=0.1)  # the header lies
    probed = probe(half, LIMITS)
    assert 0.5 < probed.duration_s < 1.7
    assert probed.video_reason is None
    assert 0.5 < len(read_waveform(half, sample_rate_hz=RATE, limits=LIMITS)) / RATE < 1.7
    assert 4 < len(greys(half, fps=10)) < 18


def make_bad_files(folder):
    (folder / "text.mp4").write_text("hello, this is no film\n" * 100)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(10_000))
    (folder / "folder.mp4").mkdir()
    (folder / "picture.mp4").write_text("P2 2 2 255\n0 255 255 0\n")
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile 'text.mp4'\n")


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("absent.mp4", {"no_file"}),
        ("nul\0.mp4", {"no_file"}),
        ("folder.mp4", {"no_file"}),
        ("empty.mp4", {"empty_file"}),
        ("text.mp4", {"not_media"}),
        ("noise.mp4", {"not_media"}),
        ("list.mp4", {"unsupported_container"}),
        ("picture.mp4", {"not_media", "unsupported_container"}),  # as FFmpeg's version has it
    ],
)
def test_bad_files_have_reasons(tmp_path, capfd, name, reasons):
    make_bad_files(tmp_path)
    probed = probe(tmp_path / name, LIMITS)
    assert probed.video_reason == probed.audio_reason
    assert probed.video_reason in reasons & set(REASONS)
    assert probed.duration_s == 0
    with pytest.raises(MediaError, match=f"^{probed.audio_reason}$"):
        read_waveform(tmp_path / name, sample_rate_hz=RATE, limits=LIMITS)
    with pytest.raises(MediaError, match=f"^{probed.video_reason}$"):
        next(iter_frames(tmp_path / name, fps=10, limits=LIMITS))
    assert capfd.readouterr() == ("", "")


def test_name_like_a_protocol_is_a_file_name(tmp_path, clip, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert probe(Path(f"concat:{clip.name}"), LIMITS).video_reason == "no_file"
    Path("file:x.mkv").write_bytes(clip.read_bytes())
    assert probe(Path("file:x.mkv"), LIMITS).video_reason is None


@pytest.mark.parametrize(
    ("limit", "video_reason", "audio_reason"),
    [
        ({"max_bytes": 100}, "too_large", "too_large"),
        ({"max_pixels": 64 * 48 - 1}, "frame_too_large", None),
        ({"max_duration_s": 1.0}, "too_long", "too_long"),
        ({"max_streams": 1}, "too_many_streams", "too_many_streams"),
    ],
)
def test_limits(clip, limit, video_reason, audio_reason):
    limits = LIMITS.model_copy(update=limit)
    probed = probe(clip, limits)
    assert (probed.video_reason, probed.audio_reason) == (video_reason, audio_reason)
    with pytest.raises(MediaError, match=f"^{video_reason}$"):
        list(iter_frames(clip, fps=10, limits=limits))
    if audio_reason:
        with pytest.raises(MediaError, match=f"^{audio_reason}$"):
            read_waveform(clip, sample_rate_hz=RATE, limits=limits)


@pytest.mark.parametrize("codec", ["h264", "mpeg4"])
@pytest.mark.parametrize("suffix", ["mkv", "mov", "avi"])
def test_size_is_checked_whatever_the_container(tmp_path, codec, suffix):
    path = write_clip(tmp_path / f"x.{suffix}", np.arange(3) / 10, codec=codec)
    limits = LIMITS.model_copy(update={"max_pixels": 3000})
    assert probe(path, limits).video_reason == "frame_too_large"


def test_duration_limit_is_about_the_utterance(clip):
    limits = LIMITS.model_copy(update={"max_duration_s": 1.0})
    part = {"start_s": 0.5, "end_s": 1.4}
    probed = probe(clip, limits, **part)
    assert (probed.video_reason, probed.audio_reason) == (None, None)
    assert len(read_waveform(clip, sample_rate_hz=RATE, limits=limits, **part)) == 0.9 * RATE
    assert len(list(iter_frames(clip, fps=10, limits=limits, **part))) == 9


def test_missing_streams(tmp_path):
    silent = write_clip(tmp_path / "silent.mkv", np.arange(5) / 10)
    assert probe(silent, LIMITS).audio_reason == "no_audio_stream"
    assert probe(silent, LIMITS).audio_codec is None
    with pytest.raises(MediaError, match=r"^no_audio_stream$"):
        read_waveform(silent, sample_rate_hz=RATE, limits=LIMITS)
    blind = write_clip(tmp_path / "blind.wav", sound=tone(1))
    assert probe(blind, LIMITS).video_reason == "no_video_stream"
    assert probe(blind, LIMITS).duration_s == pytest.approx(1.0)
    with pytest.raises(MediaError, match=r"^no_video_stream$"):
        next(iter_frames(blind, fps=10, limits=LIMITS))


def test_cover_art_is_no_video(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as out:
        audio = out.add_stream("aac", rate=RATE, layout="mono")
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame(16, 16, "yuvj420p")
        picture.pts = 0
        out.mux(cover.encode(picture))
        sound = tone(1).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
        frame.sample_rate = RATE
        out.mux(audio.encode(frame))
        out.mux(audio.encode(None))
    assert probe(path, LIMITS).video_reason == "cover_art_only"
    assert probe(path, LIMITS).audio_reason is None


def test_streams_of_garbage_are_undecodable(tmp_path):
    """The packets of an intact container are overwritten: only its tables remain."""
    path = write_clip(tmp_path / "x.mov", np.arange(20) / 10, codec="h264")
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    (size,) = struct.unpack(">I", data[start - 8 : start - 4])
    data[start : start + size - 8] = b"\xff" * (size - 8)
    path.write_bytes(data)
    assert probe(path, LIMITS).video_reason == "undecodable_video"
    with pytest.raises(MediaError, match=r"^undecodable_video$"):
        list(iter_frames(path, fps=10, limits=LIMITS))


def test_damage_halfway_keeps_the_rest(tmp_path):
    """Bytes of frames 10 to 12 are overwritten; keyframes are 0, 5, 10, 15."""
    path = write_clip(tmp_path / "x.avi", np.arange(20) / 10)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for packet in packets[10:13]:
        data[packet.pos + 8 : packet.pos + 8 + packet.size] = b"\xff" * packet.size
    path.write_bytes(data)
    shown = greys(path, fps=10)
    assert [shown[i / 10] for i in range(10)] == list(range(10))
    assert [shown[i / 10] for i in range(15, 20)] == list(range(15, 20))


def test_waveform_is_the_tone(clip):
    waveform = read_waveform(clip, sample_rate_hz=RATE, limits=LIMITS)
    assert waveform.dtype == np.float32
    np.testing.assert_allclose(waveform, tone(2), atol=1e-4)


def test_waveform_is_resampled_without_delay(clip):
    waveform = read_waveform(clip, sample_rate_hz=8000, limits=LIMITS)
    assert len(waveform) == 16000
    np.testing.assert_allclose(waveform[200:-200], tone(2, rate=8000)[200:-200], atol=0.01)


def test_channels_are_averaged(tmp_path):
    """Left is 0.5, right 0.1: the mean is 0.3."""
    sound = np.stack([np.full(RATE, 0.5), np.full(RATE, 0.1)])
    path = write_clip(tmp_path / "x.wav", sound=sound)
    np.testing.assert_allclose(
        read_waveform(path, sample_rate_hz=RATE, limits=LIMITS), 0.3, atol=1e-4
    )


def test_waveform_stays_finite_and_in_range(tmp_path):
    samples = np.array([0.0, np.nan, np.inf, -np.inf, 7.0, -7.0, 0.25], "<f4").tobytes()
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(samples), b"WAVE", b"fmt ", 16,
                       3, 1, RATE, 4 * RATE, 4, 32, b"data", len(samples))  # fmt: skip
    path = tmp_path / "x.wav"
    path.write_bytes(head + samples)
    waveform = read_waveform(path, sample_rate_hz=RATE, limits=LIMITS)
    assert waveform.tolist() == [0, 0, 1, -1, 1, -1, 0.25]


@pytest.mark.parametrize("suffix", ["mkv", "mov"])
def test_sound_keeps_its_distance_from_the_picture(tmp_path, suffix):
    path = write_clip(
        tmp_path / f"x.{suffix}", np.arange(20) / 10, np.full(RATE, 0.5), sound_from=0.5
    )
    waveform = read_waveform(path, sample_rate_hz=RATE, limits=LIMITS)
    assert len(waveform) == pytest.approx(1.5 * RATE, abs=20)
    assert np.flatnonzero(waveform > 0.4)[0] == pytest.approx(0.5 * RATE, abs=20)
    assert not waveform[: RATE // 2 - 20].any()
    part = read_waveform(path, sample_rate_hz=RATE, start_s=0.4, end_s=0.7, limits=LIMITS)
    assert len(part) == 0.3 * RATE
    assert np.flatnonzero(part > 0.4)[0] == pytest.approx(0.1 * RATE, abs=20)


def test_gap_in_the_sound_is_silent(tmp_path):
    """0.5 s of sound, nothing for a second, 0.5 s of sound."""
    path = tmp_path / "x.mkv"
    with av.open(str(path), "w") as out:
        audio = out.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for at in [*range(0, 8000, 1000), *range(24000, 32000, 1000)]:
            loud = np.full((1, 1000), 16384, np.int16)
            frame = av.AudioFrame.from_ndarray(loud, format="s16", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), at
            out.mux(audio.encode(frame))
    waveform = read_waveform(path, sample_rate_hz=RATE, limits=LIMITS)
    assert len(waveform) == 32000
    np.testing.assert_allclose(waveform[:8000], 0.5, atol=1e-4)
    assert not waveform[8000:24000].any()
    np.testing.assert_allclose(waveform[24000:], 0.5, atol=1e-4)


def test_segment_is_a_slice(clip):
    whole = read_waveform(clip, sample_rate_hz=RATE, limits=LIMITS)
    part = read_waveform(clip, sample_rate_hz=RATE, start_s=1.3, end_s=1.7, limits=LIMITS)
    np.testing.assert_allclose(part, whole[20800:27200], atol=1e-4)
    assert greys(clip, fps=10, start_s=1.3, end_s=1.7) == {0.0: 13, 0.1: 14, 0.2: 15, 0.3: 16}
    assert greys(clip, fps=5, start_s=1.75) == {0.0: 17, 0.2: 19}


def test_clock_of_the_container_need_not_start_at_zero(tmp_path):
    """FFmpeg starts the clock of MPEG-TS later."""
    path = write_clip(tmp_path / "x.ts", np.arange(20) / 10, codec="h264")
    with av.open(str(path)) as container:
        assert container.start_time > 0
    assert probe(path, LIMITS).duration_s == pytest.approx(2.0, abs=0.11)
    shown = greys(path, fps=10)
    assert shown == {i / 10: i for i in range(len(shown))}
    part = greys(path, fps=10, start_s=1.3, end_s=1.7)
    assert part == {0.0: 13, 0.1: 14, 0.2: 15, 0.3: 16}


def test_grid_of_the_clips_own_rate_takes_every_frame(tmp_path):
    """Matroska stores 1/30 s as 0.033 and 2/30 s as 0.067, later than it was."""
    path = write_clip(tmp_path / "x.mkv", np.arange(20) / 30)
    assert list(greys(path, fps=30).values())[:20] == list(range(20))


def test_segment_outside(clip):
    assert probe(clip, LIMITS, start_s=5.0).audio_reason == "segment_outside"
    with pytest.raises(MediaError, match=r"^segment_outside$"):
        read_waveform(clip, sample_rate_hz=RATE, start_s=5.0, limits=LIMITS)
    with pytest.raises(MediaError, match=r"^segment_outside$"):
        list(iter_frames(clip, fps=10, start_s=5.0, limits=LIMITS))


def test_seeking_does_not_decode_from_the_start(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "long.mkv", np.arange(400) / 10, tone(40))
    decoded = []
    inner = decode._decode

    def counting(container, stream):
        for frame in inner(container, stream):
            decoded.append(frame)
            yield frame

    monkeypatch.setattr(decode, "_decode", counting)
    list(iter_frames(path, fps=10, start_s=30.0, end_s=31.0, limits=LIMITS))
    assert len(decoded) < 30


def test_grid_slower_and_faster_than_the_clip(clip):
    assert greys(clip, fps=4) == {
        0.0: 0, 0.25: 2, 0.5: 5, 0.75: 7, 1.0: 10, 1.25: 12, 1.5: 15, 1.75: 17
    }  # fmt: skip
    fast = greys(clip, fps=20)
    assert len(fast) == 40
    assert all(frame == int(time * 10 + 1e-6) for time, frame in fast.items())


def test_grid_over_uneven_frames(tmp_path):
    """Frames 0 to 3 start at 0, 0.05, 0.42 and 0.9 s; the times are 0, 0.2, ..., 0.8."""
    path = write_clip(tmp_path / "x.mkv", [0, 0.05, 0.42, 0.9])
    shown = greys(path, fps=5)
    assert {t: shown[t] for t in (0.0, 0.2, 0.4, 0.6, 0.8)} == {
        0.0: 0, 0.2: 1, 0.4: 1, 0.6: 2, 0.8: 2
    }  # fmt: skip


def test_picture_that_starts_late(tmp_path):
    """Sound from 0, picture from 0.53 s: the first frame is shown at 0.5 s, nothing at 0.4."""
    path = write_clip(tmp_path / "x.mkv", 0.53 + np.arange(10) / 10, tone(2))
    shown = greys(path, fps=10)
    assert min(shown) == 0.5
    assert shown[0.5] == 0
    assert shown[0.7] == 1
    assert probe(path, LIMITS).duration_s == pytest.approx(2.0, abs=0.02)


def test_frames_are_shrunk_not_enlarged(clip):
    _, image = next(iter_frames(clip, fps=1, max_side=32, limits=LIMITS))
    assert (image.shape, image.dtype) == ((24, 32, 3), np.uint8)
    _, image = next(iter_frames(clip, fps=1, max_side=1000, limits=LIMITS))
    assert image.shape == (48, 64, 3)


def test_rotation_is_applied(tmp_path):
    """A phone's video, shown a quarter turn clockwise: its left side becomes the top."""
    path = tmp_path / "x.mov"
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        image = np.zeros((48, 64, 3), np.uint8)
        image[:, :32, 0] = 255  # the left half is red
        for i in range(3):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 10)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # the matrix in a track header of version 0
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 48 * one, 0, 1 << 30)
    path.write_bytes(data)

    probed = probe(path, LIMITS)
    assert (probed.width, probed.height) == (48, 64)
    _, shown = next(iter_frames(path, fps=10, limits=LIMITS))
    assert shown.shape == (64, 48, 3)
    assert shown[:20, :, 0].min() > 200
    assert shown[-20:, :, 0].max() < 50


def real_clips():
    if not CLIPS.exists():
        return []
    rows = csv.DictReader((CLIPS / "measured.csv").open())
    return [pytest.param(row, id=f"{row['video_id']}/{row['clip_id']}") for row in rows]


@needs_clips
@pytest.mark.slow
@pytest.mark.parametrize("row", real_clips())
def test_real_clip(row):
    (path,) = (CLIPS / "Raw" / row["video_id"]).glob(f"{row['clip_id']}.*")
    probed = probe(path, LIMITS)
    assert probed.duration_s == pytest.approx(float(row["duration_s"]), abs=0.1)
    assert probed.fps == pytest.approx(float(row["fps"]), abs=0.01)
    assert probed.frames == int(row["n_frames"])
    assert (probed.width, probed.height) == (int(row["width"]), int(row["height"]))
    assert probed.video_codec == row["video_codec"]
    assert probed.audio_codec == (row["audio_codec"] or None)
    assert probed.video_reason is None
    assert len(greys(path, fps=10)) == pytest.approx(10 * float(row["duration_s"]), abs=2)
    if not row["audio_codec"]:
        assert probed.audio_reason == "no_audio_stream"
        return
    assert probed.audio_reason is None
    assert probed.audio_duration_s == pytest.approx(float(row["audio_s"]), abs=0.1)
    waveform = read_waveform(path, sample_rate_hz=RATE, limits=LIMITS)
    sound = waveform[-round(probed.audio_duration_s * RATE) :]
    assert np.sqrt(np.mean(sound**2)) == pytest.approx(float(row["audio_rms"]), abs=1e-3)


@needs_clips
@pytest.mark.slow
@pytest.mark.parametrize("row", real_clips())
def test_real_segment_is_a_slice(row):
    (path,) = (CLIPS / "Raw" / row["video_id"]).glob(f"{row['clip_id']}.*")
    part = list(iter_frames(path, fps=10, start_s=1.5, end_s=2.5, limits=LIMITS))
    whole = [image for _, image in iter_frames(path, fps=10, limits=LIMITS)][15:25]
    assert [time for time, _ in part] == [i / 10 for i in range(10)]
    assert all(np.array_equal(a, b) for (_, a), b in zip(part, whole, strict=True))
    if row["audio_codec"]:
        # At the stored rate: another one may put the resampler half a sample off.
        options = {
            "sample_rate_hz": probe(path, LIMITS).audio_sample_rate_hz,
            "limits": LIMITS,
        }
        first = round(1.5 * options["sample_rate_hz"])
        part = read_waveform(path, start_s=1.5, end_s=2.5, **options)
        whole = read_waveform(path, **options)[first : first + options["sample_rate_hz"]]
        np.testing.assert_allclose(part, whole, atol=5e-3)  # AAC fills in noise


def test_sound_of_more_channels_than_pyav_can_lay_out_is_left_out(tmp_path):
    """Damaged AAC may decode to such frames, and reading them ends the process."""
    path = tmp_path / "channels.mkv"
    with av.open(str(path), "w") as out:
        audio = out.add_stream("pcm_s16le", rate=RATE, layout="hexadecagonal")
        frame = av.AudioFrame.from_ndarray(
            np.ones((1, 16 * 1000), np.int16), format="s16", layout="hexadecagonal"
        )
        frame.sample_rate = RATE
        out.mux(audio.encode(frame))
        out.mux(audio.encode(None))
    assert probe(path, LIMITS).audio_reason == "undecodable_audio"
    with pytest.raises(MediaError, match=r"^undecodable_audio$"):
        read_waveform(path, sample_rate_hz=RATE, limits=LIMITS)


def test_a_late_part_of_sound_that_cannot_be_sought_in_is_no_longer_than_itself(tmp_path):
    """The last second of an MP3 of 10 s is read, though clips may last 2 s."""
    limits = LIMITS.model_copy(update={"max_duration_s": 2.0})
    path = tmp_path / "x.mp3"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libmp3lame", rate=16000, layout="mono")
        samples = (tone(10.0) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = 16000
        for part in (frame, None):
            out.mux(stream.encode(part))
    waveform = read_waveform(path, sample_rate_hz=16000, start_s=9.0, end_s=10.0, limits=limits)
    assert len(waveform) == pytest.approx(16000, abs=1000)
    assert np.abs(waveform[1000:-2000]).max() > 0.3


def test_a_frame_of_an_hour_is_not_resampled(tmp_path, monkeypatch):
    """3600 samples at 1 Hz: at 16 kHz they would take 230 MB, and as FLAC up to 4 GB."""
    path = tmp_path / "x.mkv"
    path.write_bytes(matroska([track(1, "A_PCM/INT/LIT", sound(1.0))], [(1, 0, bytes(7200))]))
    monkeypatch.setattr(decode, "_resampled", None)
    with pytest.raises(MediaError, match=r"^too_long$"):
        read_waveform(path, sample_rate_hz=16000, end_s=1.0, limits=LIMITS)
