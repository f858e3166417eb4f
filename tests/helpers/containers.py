"""Media files as an attacker or an accident would produce them, written byte by byte.

Containers that no writer would produce are built from boxes, elements and headers; the others are
patched copies of a good clip.
"""

import binascii
import struct
import zlib
from fractions import Fraction

import av
import numpy as np

from tests.helpers.clips import RATE, tone

HUGE = 100_000  # pixels a side
TEN_HOURS = 36_000  # seconds


def box(kind, *parts):
    """Return one box of MP4, or chunk of QuickTime."""
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def full_box(kind, *parts, version=0, flags=0):
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def element(name, content):
    """Return one element of Matroska; `name` is its identifier in hexadecimal."""
    if isinstance(content, int):
        content = content.to_bytes(8, "big", signed=content < 0)
    if isinstance(content, float):
        content = struct.pack(">d", content)
    if isinstance(content, str):
        content = content.encode()
    return bytes.fromhex(name) + struct.pack(">Q", 1 << 56 | len(content)) + content


def matroska(tracks, blocks, duration_ms=None, extra=b""):
    """Return a Matroska file.

    Args:
        tracks: their elements.
        blocks: (track, milliseconds, bytes) of each, in clusters of their own.
        duration_ms: duration in the header.
        extra: elements after the tracks.
    """
    info = element("2AD7B1", 1_000_000)
    if duration_ms is not None:
        info += element("4489", float(duration_ms))
    clusters = b"".join(
        element(
            "1F43B675",
            element("E7", time) + element("A3", bytes([0x80 | track, 0, 0, 0x80]) + data),
        )
        for track, time, data in blocks
    )
    head = element("1A45DFA3", element("4282", "matroska") + element("4287", 4))
    body = element("1549A966", info) + element("1654AE6B", b"".join(tracks)) + extra + clusters
    return head + element("18538067", body)


def track(number, codec, kind, private=b""):
    """Return a track of Matroska; `kind` is its `video` or `sound`."""
    uid = element("D7", number) + element("73C5", number)
    return element(
        "AE",
        uid + element("83", 1 if kind[:1] == b"\xe0" else 2) + element("86", codec) + kind
        + (element("63A2", private) if private else b""),
    )  # fmt: skip


def video(width, height):
    return element("E0", element("B0", width) + element("BA", height))


def sound(rate, channels=1, bits=16):
    return element(
        "E1", element("B5", float(rate)) + element("9F", channels) + element("6264", bits)
    )


def pcm(seconds, rate=RATE):
    return (tone(seconds, rate=rate) * 32767).astype("<i2").tobytes()


def wav(samples, *, rate=RATE, channels=1, claimed=None):
    """Return a WAV file of 16-bit samples; its header claims `claimed` bytes."""
    claimed = len(samples) if claimed is None else claimed
    step = 2 * channels
    form = struct.pack("<HHIIHH", 1, channels, rate, step * rate & 0xFFFFFFFF, step, 16)
    riff = struct.pack("<4sI4s", b"RIFF", min(claimed + 36, 0xFFFFFFFF), b"WAVE")
    return b"".join(
        [
            riff,
            struct.pack("<4sI", b"fmt ", 16),
            form,
            struct.pack("<4sI", b"data", claimed),
            samples,
        ]
    )


def png(claimed, text=b""):
    """Return a picture of 16 x 16 pixels that claims `claimed` a side, with a compressed text."""

    def chunk(kind, content):
        check = binascii.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", claimed, claimed, 8, 0, 0, 0, 0))]
    if text:
        parts.append(chunk(b"zTXt", b"a\0\0" + zlib.compress(text)))
    parts += [chunk(b"IDAT", zlib.compress(bytes(17 * 16))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


class Bits:
    """Writes the numbers of an H.264 header."""

    def __init__(self):
        self.bits = ""

    def u(self, count, value):
        self.bits += f"{value:0{count}b}"
        return self

    def ue(self, value):
        text = f"{value + 1:b}"
        self.bits += "0" * (len(text) - 1) + text
        return self

    def bytes(self):
        padded = self.bits + "1"
        padded += "0" * (-len(padded) % 8)
        return int(padded, 2).to_bytes(len(padded) // 8, "big")


def h264_headers(side):
    """Return the sequence and picture headers of a film of `side` x `side` pixels."""
    blocks = side // 16
    sequence = Bits().u(8, 66).u(8, 0xC0).u(8, 51).ue(0).ue(0).ue(2).ue(1).u(1, 0)
    sequence.ue(blocks - 1).ue(blocks - 1).u(1, 1).u(1, 1).u(1, 0).u(1, 0)
    picture = Bits().ue(0).ue(0).u(1, 0).u(1, 0).ue(0).ue(0).ue(0).u(1, 0).u(2, 0)
    picture.ue(0).ue(0).ue(0).u(1, 0).u(1, 0).u(1, 0)
    return b"\x67" + sequence.bytes(), b"\x68" + picture.bytes()


def h264_slice():
    """Return the start of a slice, all of whose blocks would be skipped."""
    return b"\x65" + Bits().ue(0).ue(7).ue(0).u(4, 0).ue(0).u(2, 0).ue(0).bytes() + bytes(64)


def mov(tracks, media, movie_duration_ms=1000, brand=True):
    """Return a QuickTime file: `mdat`, then `moov` with the tracks that `tracks(at)` returns.

    Args:
        tracks: gives the `trak` boxes for where the media data lie.
        media: the media data.
        movie_duration_ms: duration in the header.
        brand: whether it opens with `ftyp`.
    """
    start = box(b"ftyp", b"isom", bytes(4), b"isom") if brand else b""
    at = len(start) + 8
    header = full_box(
        b"mvhd", struct.pack(">IIIIIH", 0, 0, 1000, movie_duration_ms, 0x10000, 0x100),
        bytes(10), struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000), bytes(24),
        struct.pack(">I", 2),
    )  # fmt: skip
    return start + box(b"mdat", media) + box(b"moov", header, *tracks(at))


def trak(number, description, samples, *, ms=40, claimed_ms=1000, reference=None, count=None):
    """Return a video track of QuickTime.

    Args:
        number: of the track.
        description: its sample entry.
        samples: (place in the file, bytes) of each.
        ms: how long each sample lasts.
        claimed_ms: duration in its header.
        reference: the data reference; None: the file itself.
        count: number of samples of one byte that its tables claim; None: the true ones.
    """
    matrix = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    header = full_box(
        b"tkhd", struct.pack(">IIIII", 0, 0, number, 0, claimed_ms), bytes(16), matrix,
        struct.pack(">II", 64 << 16, 64 << 16), flags=3,
    )  # fmt: skip
    media_header = full_box(b"mdhd", struct.pack(">IIIIHH", 0, 0, 1000, claimed_ms, 0x55C4, 0))
    handler = full_box(b"hdlr", b"mhlrvide", bytes(12), b"\0")
    reference = reference or full_box(b"url ", flags=1)
    information = box(b"dinf", full_box(b"dref", struct.pack(">I", 1), reference))
    number_of = len(samples)
    sizes = struct.pack(f">II{number_of}I", 0, number_of, *(size for _, size in samples))
    if count is not None:
        sizes = struct.pack(">II", 1, count)
    table = box(
        b"stbl",
        full_box(b"stsd", struct.pack(">I", 1), description),
        full_box(b"stts", struct.pack(">III", 1, count or number_of, ms)),
        full_box(b"stsc", struct.pack(">IIII", 1, 1, count or 1, 1)),
        full_box(b"stsz", sizes),
        full_box(b"stco", struct.pack(f">I{number_of}I", number_of, *(at for at, _ in samples))),
    )
    media = box(b"mdia", media_header, handler, box(b"minf", information, table))
    return box(b"trak", header, media)


def alias(path):
    """Return a data reference of QuickTime to the file at `path`."""
    name = str(path).encode().replace(b"/", b":")
    content = bytes(10) + bytes([0]) + bytes(27) + bytes(12) + bytes([0]) + bytes(63) + bytes(16)
    content += bytes(20) + struct.pack(">HH", 2, len(name)) + name
    content += b"\0" * (len(name) % 2) + struct.pack(">HH", 0xFFFF, 0) + bytes(40)
    return full_box(b"alis", content)


def picture_entry(codec, side, extra=b""):
    """Return the sample entry of a picture; sizes there have 16 bits."""
    return box(
        codec, bytes(6), struct.pack(">H", 1), bytes(16), struct.pack(">HH", side, side),
        struct.pack(">II", 0x480000, 0x480000), bytes(4), struct.pack(">H", 1), bytes(32),
        struct.pack(">Hh", 24, -1), extra,
    )  # fmt: skip


def avi(width, height, codec, frames, *, claimed_frames=None, fps=25):
    """Return an AVI file of one video stream."""

    def chunk(kind, content):
        return struct.pack("<4sI", kind, len(content)) + content + b"\0" * (len(content) % 2)

    claimed = len(frames) if claimed_frames is None else claimed_frames
    main = struct.pack(
        "<14I", 10**6 // fps, 0, 0, 0x10, claimed, 0, 1, 0, width, height, 0, 0, 0, 0
    )
    head = struct.pack(
        "<4s4sIHHIIIIIIIIhhhh", b"vids", codec, 0, 0, 0, 0, 1, fps, 0, claimed, 0, 0, 0, 0, 0, 0, 0
    )
    form = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, codec, 0, 0, 0, 0, 0)
    stream = chunk(b"LIST", b"strl" + chunk(b"strh", head) + chunk(b"strf", form))
    headers = chunk(b"LIST", b"hdrl" + chunk(b"avih", main) + stream)
    movie = chunk(b"LIST", b"movi" + b"".join(chunk(b"00dc", f) for f in frames))
    return chunk(b"RIFF", b"AVI " + headers + movie)


def encoded(codec, side=64, count=25, pix_fmt="yuv420p", **options):
    """Return the packets of a grey video, 25 frames a second, and the decoder's extra data."""
    context = av.CodecContext.create(codec, "w")
    context.width = context.height = side
    context.pix_fmt, context.time_base, context.options = pix_fmt, Fraction(1, 25), options
    packets = []
    for i in range(count):
        image = np.full((side, side, 3), 9 * (i + 1), np.uint8)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts = i
        packets += context.encode(frame)
    packets += context.encode(None)
    return [bytes(packet) for packet in packets], context.extradata or b""


def transport_stream(programs, streams_each):
    """Yield the tables of an MPEG transport stream, without a packet of media."""

    def checksum(data):
        crc = 0xFFFFFFFF
        for byte in data:
            crc ^= byte << 24
            for _ in range(8):
                crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
        return struct.pack(">I", crc)

    def packets(pid, table, number, content):
        head = struct.pack(">HBBB", number, 0xC1, 0, 0)
        section = bytes([table]) + struct.pack(">H", 0xB000 | len(head + content) + 4)
        section += head + content
        payload = b"\0" + section + checksum(section)
        for i in range(0, len(payload), 184):
            start = 0x4000 if i == 0 else 0
            part = payload[i : i + 184].ljust(184, b"\xff")
            yield struct.pack(">BHB", 0x47, start | pid, 0x10 | i // 184 & 15) + part

    numbers = range(1, programs + 1)
    yield from packets(0, 0, 1, b"".join(struct.pack(">HH", n, 0xE000 | n + 31) for n in numbers))
    for n in numbers:
        pids = (512 + (n * streams_each + i) % 7500 for i in range(streams_each))
        streams = b"".join(struct.pack(">BHH", 0x1B, 0xE000 | pid, 0xF000) for pid in pids)
        yield from packets(n + 31, 2, n, struct.pack(">HH", 0xFFFF, 0xF000) + streams)


def patched(data, name, offset, value, width=4):
    """Return a file in which the field `offset` bytes after each `name` has another value."""
    data = bytearray(data)
    at = data.find(name)
    assert at >= 0
    while at >= 0:
        data[at + offset : at + offset + width] = value.to_bytes(width, "big")
        at = data.find(name, at + len(name))
    return bytes(data)
