"""A clip encoded small enough for a page: VP9 and Opus, or the sound alone."""

import io
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from av.codec.codec import UnknownCodecError
from av.error import FFmpegError

from mitfrnet.errors import MediaError
from mitfrnet.features.extractor import Clip
from mitfrnet.media.decode import Frame, MediaLimits, Waveform, iter_frames, read_waveform

# As base64 in a page they take a third more.
MAX_BYTES = 2_500_000
# A longer picture would be too coarse at this size.
_MAX_PICTURE_S = 120.0
_MAX_SIDE = 320
_MAX_FPS = 25.0
_PICTURE_BITS = 400_000  # a second
_SOUND_BITS = 32_000
_OPUS_HZ = 24_000


@dataclass(frozen=True)
class Playback:
    """What a browser plays.

    Attributes:
        kind: `video` or `audio`.
        mime: its type and codecs.
        data: the file.
    """

    kind: str
    mime: str
    data: bytes


def make_playback(
    clip: Clip, limits: MediaLimits, *, fps: float | None, duration_s: float
) -> Playback | None:
    """Return the clip in a format that browsers play, at most `MAX_BYTES`; None: it does not fit.

    Time 0 is the same as in the features. A picture longer than `_MAX_PICTURE_S` is left out.

    Args:
        clip: only the utterance's part of it is read.
        limits: what it may cost.
        fps: frame rate of its picture; None: it has none.
        duration_s: of the utterance.
    """
    sound = _sound(clip, limits, _OPUS_HZ)
    if fps and duration_s <= _MAX_PICTURE_S:
        bits = min(_PICTURE_BITS, 0.8 * MAX_BYTES * 8 / max(duration_s, 1) - _SOUND_BITS)
        rate = Fraction(min(fps, _MAX_FPS)).limit_denominator(1000)
        try:
            data = _webm(_frames(clip, limits, float(rate)), rate, round(bits), sound)
        except (MediaError, UnknownCodecError, FFmpegError):  # no picture, or no such encoder
            data = b""
        if 0 < len(data) <= MAX_BYTES:
            return Playback("video", 'video/webm; codecs="vp9, opus"', data)
    for hz in (16_000, 8_000):  # WAV needs no encoder
        if sound is not None and 2 * hz * len(sound) / _OPUS_HZ < MAX_BYTES - 100:
            return Playback("audio", "audio/wav", _wav(_sound(clip, limits, hz), hz))
    return None


def _sound(clip: Clip, limits: MediaLimits, hz: int) -> Waveform | None:
    try:
        return read_waveform(
            clip.path, sample_rate_hz=hz, start_s=clip.start_s, end_s=clip.end_s, limits=limits
        )
    except MediaError:
        return None


def _frames(clip: Clip, limits: MediaLimits, fps: float) -> Iterator[tuple[float, Frame]]:
    """Yield frames of one size with an even width and height, as the encoder needs them."""
    size: tuple[int, int] | None = None
    for time, frame in iter_frames(
        clip.path,
        fps=fps,
        max_side=_MAX_SIDE,
        start_s=clip.start_s,
        end_s=clip.end_s,
        limits=limits,
    ):
        size = size or (max(2, frame.shape[1] // 2 * 2), max(2, frame.shape[0] // 2 * 2))
        if frame.shape[1::-1] != size:
            frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        yield time, frame


def _webm(
    frames: Iterator[tuple[float, Frame]], rate: Fraction, bits: int, sound: Waveform | None
) -> bytes:
    first_time, first = next(frames)
    buffer = io.BytesIO()
    # Without the flag the file gets a random id.
    with av.open(buffer, "w", format="webm", options={"fflags": "+bitexact"}) as out:
        video: Any = out.add_stream(
            "libvpx-vp9",
            rate=rate,
            options={"deadline": "realtime", "cpu-used": "8", "g": str(round(rate))},
        )
        video.width, video.height, video.pix_fmt = first.shape[1], first.shape[0], "yuv420p"
        video.bit_rate, video.codec_context.thread_count = bits, 1
        audio: Any = None
        if sound is not None:
            audio = out.add_stream("libopus", rate=_OPUS_HZ, layout="mono")
            audio.bit_rate = _SOUND_BITS
        encoded = 0  # samples of the sound
        for time, frame in ((first_time, first), *frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = round(time * rate), 1 / rate
            out.mux(video.encode(picture))
            if sound is not None:  # up to this time, so that both are interleaved in the file
                encoded = _encode_sound(out, audio, sound, encoded, round((time + 1) * _OPUS_HZ))
        out.mux(video.encode(None))
        if sound is not None:
            _encode_sound(out, audio, sound, encoded, len(sound))
            out.mux(audio.encode(None))
    return buffer.getvalue()


def _encode_sound(out: Any, audio: Any, sound: Waveform, start: int, end: int) -> int:
    """Encode the samples from `start` to `end`; return where encoding stopped."""
    piece = sound[start:end]
    if len(piece):
        frame = av.AudioFrame.from_ndarray(_int16(piece)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = _OPUS_HZ, start, Fraction(1, _OPUS_HZ)
        out.mux(audio.encode(frame))
    return max(start, min(end, len(sound)))


def _wav(sound: Waveform | None, hz: int) -> bytes:
    assert sound is not None
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(hz)
        out.writeframes(_int16(sound).astype("<i2").tobytes())
    return buffer.getvalue()


def _int16(sound: Waveform) -> Any:
    return np.clip(np.round(sound * 32767), -32768, 32767).astype(np.int16)
