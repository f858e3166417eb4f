"""Reads untrusted clips: length and usability, waveform, frames.

PyAV does all decoding; its wheel includes FFmpeg. Only regular local files are opened, only with
FFmpeg's `file` protocol, and only by the demuxers in `CONTAINERS`: otherwise a playlist or script
named `.mp4` could make FFmpeg read other files. Sizes are checked before anything is decoded.
Some attacks come before any check: a table of a few bytes can stand for millions of frames, and a
compressed text for gigabytes. So processes that probe clips, or extract sound or face, have a
memory limit as well. Processes with a speech recogniser or text encoder have none.

Time 0 of a clip is the start of its earliest stream, as in players. A picture or sound that
starts later keeps its distance.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, Literal, get_args

import av
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mitfrnet.errors import MediaError
from mitfrnet.params import StageParams

Reason = Literal[
    "no_file",  # absent, or not a regular file
    "unreadable_file",  # the system refuses to open it
    "empty_file",  # zero bytes
    "not_media",  # no container that FFmpeg knows, or a broken one
    "unsupported_container",  # playlists, scripts, images, and all else not in CONTAINERS
    "too_large",  # more bytes than max_bytes
    "too_long",  # more seconds than max_duration_s
    "too_many_streams",  # more than max_streams, or tables for more than max_memory_mb
    "frame_too_large",  # more pixels than max_pixels
    "no_audio_stream",
    "no_video_stream",
    "cover_art_only",  # the only video stream is a still picture attached to the sound
    "undecodable_audio",  # an audio stream from which no sample can be decoded
    "undecodable_video",  # a video stream from which no frame can be decoded
    "segment_outside",  # nothing of this stream between start_s and end_s
]
REASONS: tuple[Reason, ...] = get_args(Reason)

# FFmpeg demuxers of formats that contain their data; none reads a second file.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,flv,asf,ogg,wav,mp3,aac,flac"

# FFmpeg may decode a frame to learn its size while opening a file; this allows 100 MB.
_MAX_PIXELS_WHILE_OPENING = 8192 * 8192
# Matroska rounds time stamps to milliseconds: 1/30 s may be stored as 0.034.
_CLOCK_SLACK_S = 1e-3
# After a larger gap than this, sound is placed by its time stamps again.
_AUDIO_GAP_S = 0.05
# Decoders of compressed sound need a few frames before their output is right.
_AUDIO_RUN_UP_S = 0.5
# With more channels, to which damaged sound can decode, PyAV reads past the end of its memory.
_MAX_CHANNELS = 8
# Their time stamps are wrong after a seek, and they decode quickly from the start.
_NOT_SEEKABLE = ("mp3", "aac")

Kind = Literal["video", "audio"]
Waveform = NDArray[np.float32]
Frame = NDArray[np.uint8]


class MediaLimits(StageParams):
    """What a clip may cost; section `ingest.limits`.

    A clip beyond a limit is not decoded; its modality is missing, with the reason.
    """

    max_duration_s: float = Field(gt=0)  # of the utterance, not of its whole video
    max_pixels: int = Field(gt=0)  # width * height of one frame
    max_bytes: int = Field(gt=0)  # of the file
    max_streams: int = Field(gt=0)  # in the file, of any kind
    max_memory_mb: int = Field(default=4096, gt=0)  # of a worker process that reads the file


@dataclass(frozen=True, slots=True)  # there may be a million
class Probe:
    """The streams of a file, measured from its packets, as its header may lie.

    Attributes:
        duration_s: from time 0 to the end of picture or sound, whichever is later; 0 without
            either.
        fps: average frames per second; None without a video stream.
        frames: number of frames shown.
        width, height: pixels, after rotation; None without a video stream.
        video_codec: FFmpeg's name, e.g. `h264`; None without a video stream.
        audio_codec: FFmpeg's name, e.g. `aac`; None without an audio stream.
        audio_duration_s: length of the sound alone.
        audio_sample_rate_hz: as stored; None without an audio stream.
        container: FFmpeg's name of the demuxer; None if the file could not be opened.
        video_reason: None if the picture is usable, else why not.
        audio_reason: None if the sound is usable, else why not.
    """

    duration_s: float
    fps: float | None
    frames: int
    width: int | None
    height: int | None
    video_codec: str | None
    audio_codec: str | None
    audio_duration_s: float
    audio_sample_rate_hz: int | None
    container: str | None
    video_reason: Reason | None
    audio_reason: Reason | None

    @property
    def usable(self) -> bool:
        """Return whether picture or sound is usable."""
        return self.video_reason is None or self.audio_reason is None


def probe(
    path: Path, limits: MediaLimits, *, start_s: float | None = None, end_s: float | None = None
) -> Probe:
    """Return the streams of the file at `path`; bad media give reasons, never an error.

    All packets are read, but only the first frame of each stream is decoded: a stream is usable
    if that succeeds. The length of a truncated file is that of the part that is there.

    Args:
        path: the media file.
        limits: what it may cost.
        start_s: start of the utterance in the file, in seconds; `too_long` and `segment_outside`
            refer to the utterance.
        end_s: end of the utterance in the file, in seconds; None: the file's end.
    """
    return probe_segments(path, limits, [(start_s, end_s)])[0]


def probe_segments(
    path: Path, limits: MediaLimits, segments: Sequence[tuple[float | None, float | None]]
) -> list[Probe]:
    """Return `probe` for each (start_s, end_s), reading the file once."""
    try:
        with _open(path, limits) as container:
            return _measure(container, limits, segments)
    except MediaError as error:
        return [unusable(str(error))] * len(segments)


def limit_memory(limits: MediaLimits) -> None:
    """Limit this worker process to `limits.max_memory_mb` for good; on Linux only.

    A main process is not limited, as it has other work. Beyond the limit Python and FFmpeg raise
    a MemoryError, which costs one clip; other libraries abort. Mapped files, such as libraries,
    do not count.
    """
    if sys.platform == "linux" and parent_process() is not None:
        import resource

        _, highest = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = limits.max_memory_mb << 20
        if highest != resource.RLIM_INFINITY:
            wanted = min(wanted, highest)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, highest))


def unusable(reason: Any) -> Probe:
    """Return the probe of a file that is unusable for one reason."""
    return Probe(0.0, None, 0, None, None, None, None, 0.0, None, None, reason, reason)


def unprobed() -> Probe:
    """Return the probe of a clip that was not opened: nothing is known, nothing is missing."""
    return unusable(None)


def read_waveform(
    path: Path,
    *,
    sample_rate_hz: int,
    start_s: float | None = None,
    end_s: float | None = None,
    limits: MediaLimits,
) -> Waveform:
    """Return the sound as float32 in [-1, 1], (samples,): the joined pieces of `iter_waveform`.

    Raises:
        MediaError: no sound can be read there; the message is a `Reason`.
    """
    pieces = iter_waveform(
        path, sample_rate_hz=sample_rate_hz, start_s=start_s, end_s=end_s, limits=limits
    )
    return np.concatenate(list(pieces))


def iter_waveform(
    path: Path,
    *,
    sample_rate_hz: int,
    start_s: float | None = None,
    end_s: float | None = None,
    limits: MediaLimits,
) -> Iterator[Waveform]:
    """Yield the sound as float32 in [-1, 1], in consecutive pieces of (samples,).

    Channels are averaged, as by `librosa.to_mono`. Sample 0 is at the clip's time 0 or at
    `start_s`, within half a sample; gaps in the sound are zeros. The last piece ends with the
    sound. NaN becomes 0. If damaged time stamps make sounds overlap, the earlier one stays.

    Args:
        path: the media file.
        sample_rate_hz: rate to which the sound is resampled.
        start_s: seconds into the file; only the part from here is decoded.
        end_s: seconds into the file.
        limits: what the clip may cost.

    Raises:
        MediaError: no sound can be read there; the message is a `Reason`.
    """
    longest = math.ceil(limits.max_duration_s * sample_rate_hz)
    end = longest + 1 if end_s is None else round((end_s - (start_s or 0.0)) * sample_rate_hz)
    length = 0
    for at, samples in _sound(path, sample_rate_hz, start_s or 0.0, end_s, limits):
        piece = samples[max(0, length - at) : max(0, end - at)]
        if not len(piece):
            continue
        silence = max(0, at - length)
        length += silence + len(piece)
        if length > longest:
            raise _refusal("too_long")
        if silence:
            yield np.zeros(silence, np.float32)
        yield np.clip(np.nan_to_num(piece, nan=0.0, posinf=1.0, neginf=-1.0), -1.0, 1.0)
    if not length:
        raise _refusal("segment_outside")


def _sound(
    path: Path, sample_rate_hz: int, start_s: float, end_s: float | None, limits: MediaLimits
) -> Iterator[tuple[int, Waveform]]:
    """Yield (first sample's position, mono samples); positions before `start_s` are negative."""
    end = math.inf if end_s is None else end_s - start_s
    longest = math.ceil(limits.max_duration_s * sample_rate_hz)

    at = 0  # position of the next samples
    resampler: av.AudioResampler | None = None
    form: tuple[str, str, int] | None = None  # of the frames that the resampler takes
    expected = 0.0  # start of the next frame, in seconds
    decoded = 0

    def placed(pieces: list[Waveform]) -> Iterator[tuple[int, Waveform]]:
        nonlocal at
        for piece in pieces:
            yield at, piece
            at += len(piece)

    for seconds, frame in _frames_from(path, limits, "audio", start_s - _AUDIO_RUN_UP_S):
        begin = expected if seconds is None else seconds
        if begin - start_s >= end:
            break
        duration_s = frame.samples / frame.sample_rate
        if duration_s > limits.max_duration_s:  # one frame at 1 Hz could fill the memory
            raise _refusal("too_long")
        if begin + duration_s < start_s - _AUDIO_RUN_UP_S:  # the file does not allow seeking
            expected = begin + duration_s
            continue
        # The second condition is for time stamps that stand still or jump back.
        if begin - start_s > limits.max_duration_s or decoded > 2 * longest:
            raise _refusal("too_long")
        frame_form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if resampler is None or frame_form != form or abs(begin - expected) > _AUDIO_GAP_S:
            if resampler is not None:
                yield from placed(_resampled(resampler, None))
            resampler, form = av.AudioResampler(format="fltp", rate=sample_rate_hz), frame_form
            at = round((begin - start_s) * sample_rate_hz)
        expected = begin + duration_s
        pieces = _resampled(resampler, frame)
        decoded += sum(map(len, pieces))
        yield from placed(pieces)
    if resampler is not None:
        yield from placed(_resampled(resampler, None))


def iter_frames(
    path: Path,
    *,
    fps: float,
    max_side: int | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    limits: MediaLimits,
) -> Iterator[tuple[float, Frame]]:
    """Yield the frame shown at each time k / `fps`, as (seconds, RGB of (height, width, 3)).

    The frame shown at a time is the last one that starts no later, whatever the clip's own rate
    is and however it varies. So a frame may be yielded several times (as the same array) or
    never. The first frame also counts for the one time before it, as many clips start their
    picture some milliseconds late; earlier times are skipped. The last time lies before the end
    of the picture. Frames are streamed: one is in memory at a time.

    A packet that cannot be decoded is skipped, and the frame before it stays on show. Pixels are
    taken as square.

    Args:
        path: the media file.
        fps: times per second.
        max_side: frames are shrunk until no side has more pixels; None: never.
        start_s: seconds into the file; yielded times count from here.
        end_s: seconds into the file.
        limits: what the clip may cost.

    Raises:
        MediaError: no frame can be read there; the message is a `Reason`.
    """
    start = start_s or 0.0
    end = math.inf if end_s is None else end_s - start
    k: int | None = None  # the next time is k / fps
    any_frame = False
    for shown_from, shown_until, frame in _shown(path, limits, start):
        if k is None:
            k = max(0, math.floor((shown_from - start) * fps - 1) + 1)
        image = None
        while k / fps < min(shown_until - start, end) - _CLOCK_SLACK_S:
            if k / fps > limits.max_duration_s:
                raise _refusal("too_long")
            image = _to_rgb(frame, max_side) if image is None else image
            yield k / fps, image
            any_frame = True
            k += 1
        if shown_until - start >= end:
            break
    if not any_frame:
        raise _refusal("segment_outside")


def _refusal(reason: Reason) -> MediaError:
    """Return the error for `reason`, which the type checker knows to be a `Reason`."""
    return MediaError(reason)


@contextmanager
def _open(path: Path, limits: MediaLimits) -> Iterator[av.container.InputContainer]:
    """Open a local media file.

    Raises:
        MediaError: it cannot be opened, or exceeds a limit.
    """
    try:
        if not path.is_file():
            raise _refusal("no_file")
        size = path.stat().st_size
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _refusal("no_file") from error
    if size == 0:
        raise _refusal("empty_file")
    if size > limits.max_bytes:
        raise _refusal("too_large")
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": CONTAINERS,
        "max_streams": str(limits.max_streams + 1),
        "max_pixels": str(max(limits.max_pixels, _MAX_PIXELS_WHILE_OPENING)),
    }
    try:
        # FFmpeg would read a relative `concat:x` or `http:x` as a protocol.
        container = av.open(str(path.absolute()), options=options, metadata_errors="replace")
    except PermissionError as error:
        raise _refusal("unreadable_file") from error
    except MemoryError as error:  # some demuxers say so when max_streams is reached
        raise _refusal("too_many_streams") from error
    except av.ArgumentError as error:  # the demuxer is not on the list
        raise _refusal("unsupported_container") from error
    except (av.FFmpegError, ValueError) as error:
        raise _refusal("not_media") from error
    with container:
        if len(container.streams) > limits.max_streams:  # other demuxers drop further streams
            raise _refusal("too_many_streams")
        yield container


def _stream_of(container: av.container.InputContainer, kind: Kind, limits: MediaLimits) -> Any:
    """Return the default (else the first) stream of `kind`, set up to decode in one thread."""
    streams = [stream for stream in container.streams if stream.type == kind]
    still = av.stream.Disposition.attached_pic
    moving = [stream for stream in streams if not stream.disposition & still]
    if not moving:
        if streams:
            raise _refusal("cover_art_only")
        raise _refusal("no_audio_stream" if kind == "audio" else "no_video_stream")
    stream: Any = max(moving, key=lambda s: bool(s.disposition & av.stream.Disposition.default))
    if stream.codec_context is None:  # this FFmpeg does not know the codec
        raise _undecodable(kind)
    if kind == "video" and stream.width * stream.height > limits.max_pixels:
        raise _refusal("frame_too_large")
    stream.codec_context.thread_count = 1  # worker processes use all cores already
    # The decoder checks this again if the frame size changes within a stream.
    stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}
    return stream


def _undecodable(kind: Kind) -> MediaError:
    return _refusal("undecodable_audio" if kind == "audio" else "undecodable_video")


def _origin(container: av.container.InputContainer) -> float:
    """Return the clip's time 0 on the container's clock, in seconds."""
    start: int | None = container.start_time  # None if unknown, whatever PyAV's types say
    return (start or 0) / av.time_base


def _packets(container: av.container.InputContainer, *streams: Any) -> Iterator[Any]:
    """Yield the packets of `streams`, up to the end of a truncated file."""
    try:
        yield from container.demux(*streams)
    except MemoryError:  # also an FFmpeg error, but not damage
        raise
    except av.FFmpegError:
        return


def _decode(container: av.container.InputContainer, stream: Any) -> Iterator[Any]:
    """Yield the frames of `stream`, skipping packets that do not decode."""
    for packet in _packets(container, stream):
        yield from _decoded(packet)


def _decoded(packet: Any) -> list[Any]:
    """Return the readable frames that a packet completes; none if it is damaged."""
    try:
        frames = packet.decode()
    except MemoryError:
        raise
    except av.FFmpegError:
        return []
    return [frame for frame in frames if isinstance(frame, av.VideoFrame) or _is_readable(frame)]


def _is_readable(sound: av.AudioFrame) -> bool:
    return sound.layout.nb_channels <= _MAX_CHANNELS and sound.sample_rate > 0


def _frames_from(
    path: Path, limits: MediaLimits, kind: Kind, start_s: float
) -> Iterator[tuple[float | None, Any]]:
    """Yield (seconds from time 0, frame), beginning no later than `start_s` if possible.

    Raises:
        MediaError: the file has no such stream, or no frame of it can be decoded.
    """
    # Some containers land after the target: then seek further back, and finally not at all.
    for back in (0.0, 2.0, 20.0, math.inf):
        with _open(path, limits) as container:
            stream = _stream_of(container, kind, limits)
            origin = _origin(container)
            target = start_s - back
            seeks = target > 0 and container.format.name not in _NOT_SEEKABLE
            if seeks:
                try:
                    container.seek(int((target + origin) / stream.time_base), stream=stream)
                except av.FFmpegError:
                    continue
            reached = False
            for frame in _decode(container, stream):
                time = None if frame.time is None else frame.time - origin
                if seeks and not reached and (time is None or time > start_s):
                    break
                reached = True
                yield time, frame
            if reached:
                return
    raise _undecodable(kind)


def _shown(
    path: Path, limits: MediaLimits, start_s: float
) -> Iterator[tuple[float, float, av.VideoFrame]]:
    """Yield (shown from, shown until, frame) from `start_s` on, in seconds from time 0."""
    frame: Any = None
    shown_from = shown_until = 0.0
    for seconds, following in _frames_from(path, limits, "video", start_s):
        begin = shown_until if seconds is None else seconds
        if frame is not None:
            if begin <= shown_from:
                continue  # damaged time stamps
            yield shown_from, begin, frame
        frame, shown_from = following, begin
        # Only the last frame needs its own length; if it has none, 1/25 s.
        shown_until = begin + (float(frame.duration * frame.time_base) or 0.04)
    if frame is not None:
        yield shown_from, shown_until, frame


def _resampled(resampler: av.AudioResampler, frame: av.AudioFrame | None) -> list[Waveform]:
    """Return the mono samples that `frame` completes; `None` flushes the resampler."""
    try:
        pieces = resampler.resample(frame)
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError) as error:
        raise _refusal("undecodable_audio") from error
    # A resampler with nothing to do returns the frame itself, or None.
    return [piece.to_ndarray().mean(axis=0) for piece in pieces if piece is not None]


def _to_rgb(frame: av.VideoFrame, max_side: int | None) -> Frame:
    """Return a frame as upright RGB, (height, width, 3), with no side above `max_side`."""
    scale = min(1.0, max_side / max(frame.width, frame.height)) if max_side else 1.0
    try:
        rgb = frame.reformat(
            width=max(1, round(frame.width * scale)),
            height=max(1, round(frame.height * scale)),
            format="rgb24",
            threads=1,
        ).to_ndarray()
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError) as error:
        raise _refusal("undecodable_video") from error
    return np.ascontiguousarray(np.rot90(rgb, _quarter_turns(frame)))


def _quarter_turns(frame: av.VideoFrame) -> int:
    """Return how many counterclockwise quarter turns make a frame upright."""
    return round(frame.rotation / 90) % 4


class _Span:
    """Start and end of a stream, by its packets."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.first = self.shown_first = math.inf
        self.last = self.shown_last = -math.inf
        self.packets = self.shown = 0
        self.frame: Any = None  # the first that can be decoded

    def add(self, packet: Any) -> None:
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is not None:
            begin = float(stamp * packet.time_base)
            end = begin + float((packet.duration or 0) * packet.time_base)
            self.packets += 1
            self.first, self.last = min(self.first, begin), max(self.last, end)
            if not packet.is_discard:  # cut off by an edit list
                self.shown += 1
                self.shown_first = min(self.shown_first, begin)
                self.shown_last = max(self.shown_last, end)
        if self.frame is None:
            self.frame = next(iter(_decoded(packet)), None)

    def rate(self) -> float | None:
        """Return packets per second, including those that an edit list cuts off."""
        if self.last > self.first:
            return self.packets / (self.last - self.first)
        return float(self.stream.average_rate) if self.stream.average_rate else None


def _measure(
    container: av.container.InputContainer,
    limits: MediaLimits,
    segments: Sequence[tuple[float | None, float | None]],
) -> list[Probe]:
    """Return the probe of each segment of an open file."""
    spans: dict[Kind, _Span] = {}
    refused: dict[Kind, Reason | None] = {}
    for kind in get_args(Kind):
        try:
            spans[kind] = _Span(_stream_of(container, kind, limits))
        except MediaError as error:
            reason: Any = str(error)
            refused[kind] = reason
    by_index = {span.stream.index: span for span in spans.values()}
    if spans:
        for packet in _packets(container, *(span.stream for span in spans.values())):
            by_index[packet.stream.index].add(packet)

    origin = _origin(container)
    duration_s = max((span.shown_last - origin for span in spans.values()), default=0.0)
    video, audio = spans.get("video"), spans.get("audio")
    size = (None, None)
    if video is not None:
        size = (video.stream.width, video.stream.height)
        if video.frame is not None and _quarter_turns(video.frame) % 2:
            size = size[::-1]
    sounds = audio is not None and audio.shown > 0
    whole = Probe(
        duration_s=duration_s if math.isfinite(duration_s) else 0.0,
        fps=video.rate() if video else None,
        frames=video.shown if video else 0,
        width=size[0],
        height=size[1],
        video_codec=video.stream.codec_context.name if video else None,
        audio_codec=audio.stream.codec_context.name if audio else None,
        audio_duration_s=audio.shown_last - max(audio.shown_first, origin)
        if audio and sounds
        else 0.0,
        audio_sample_rate_hz=audio.stream.codec_context.sample_rate if audio else None,
        container=container.format.name,
        video_reason=None,
        audio_reason=None,
    )
    probes = []
    for segment in segments:
        reasons = refused | {
            kind: _unusable_part(kind, span, origin, segment, limits)
            for kind, span in spans.items()
        }
        probes.append(replace(whole, video_reason=reasons["video"], audio_reason=reasons["audio"]))
    return probes


def _unusable_part(
    kind: Kind,
    span: _Span,
    origin: float,
    segment: tuple[float | None, float | None],
    limits: MediaLimits,
) -> Reason | None:
    """Return why a stream is unusable for a segment; None if it is usable."""
    start_s = segment[0] or 0.0
    end_s = math.inf if segment[1] is None else segment[1]
    end = span.shown_last - origin
    if span.frame is None:
        return "undecodable_audio" if kind == "audio" else "undecodable_video"
    if not span.shown:
        return None  # no time stamps: only decoding can tell
    if start_s >= end or end_s <= span.shown_first - origin:
        return "segment_outside"
    return "too_long" if min(end, end_s) - start_s > limits.max_duration_s else None
