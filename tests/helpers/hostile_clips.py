"""Hostile media by name, each with the reasons that its picture and its sound may get.

`None` stands for features. If there are several, the version of FFmpeg decides.
"""

import struct
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.helpers.clips import RATE, tone
from tests.helpers.containers import (
    HUGE,
    TEN_HOURS,
    alias,
    avi,
    box,
    element,
    encoded,
    full_box,
    h264_headers,
    h264_slice,
    matroska,
    mov,
    patched,
    pcm,
    picture_entry,
    png,
    sound,
    track,
    trak,
    transport_stream,
    video,
    wav,
)
from tests.helpers.paths import ROOT

SAMPLE = ROOT / "raw" / "sample" / "Raw" / "speaker01_a" / "0001.mp4"

READ = {None}
SILENT = {"no_audio_stream"}
DARK = {"no_video_stream"}
NO_MEDIA = {"not_media", "unsupported_container"}
TOO_BIG = {"frame_too_large", "undecodable_video"}


def hls(*targets):
    lines = [f"#EXTINF:2,\n{target}" for target in targets]
    return "\n".join(["#EXTM3U", "#EXT-X-TARGETDURATION:2", *lines, "#EXT-X-ENDLIST", ""])


def redirections(file, url):
    """Return files, by name, that claim their media lie in another file or at an address."""
    key = f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF:2,\n{file}\n'
    dash = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
        '<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">'
        f"<BaseURL>{url}</BaseURL></Representation></AdaptationSet></Period></MPD>"
    )
    port = url.split(":")[2].split("/")[0]
    texts = {
        "hls_file.mp4": hls(file),
        "hls_url.mp4": hls(url),
        "hls_prefix.mp4": hls(f"file:{file}", f"concat:{file}|{url}", f"subfile,,start,0,,:{file}"),
        "hls_named.m3u8": hls(file, url),
        "hls_master.mp4": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{url}\n",
        "hls_key.mp4": key,
        "concat.mp4": f"ffconcat version 1.0\nfile '{file}'\nfile '{url}'\n",
        "concat_old.mp4": f"file '{file}'\nfile '{url}'\n",
        "concat_named.ffconcat": f"ffconcat version 1.0\nfile '{file}'\n",
        "dash.mp4": dash,
        "dash_named.mpd": dash,
        "sdp.mp4": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\na=control:{url}\n",
        "rtsp.mp4": f"rtsptext\n{url.replace('http', 'rtsp')}\n",
        "asx.mp4": f'<asx version="3.0"><entry><ref href="{url}"/></entry></asx>',
        "reference.asf": f"[Reference]\nRef1={url}\n",
        "pls.mp4": f"[playlist]\nFile1={url}\nNumberOfEntries=1\n",
        "smil.mp4": f'<smil><body><video src="{url}"/></body></smil>',
        "filter.mp4": f"movie={file}[out0]",
        "avisynth.avs": f'DirectShowSource("{file}")\n',
    }
    files = {name: text.encode() for name, text in texts.items()}
    entry = picture_entry(b"avc1", 64)
    for kind, reference in {
        "alias": alias(file),
        "url_file": full_box(b"url ", str(file).encode() + b"\0"),
        "url_url": full_box(b"url ", url.encode() + b"\0"),
    }.items():
        files[f"{kind}.mov"] = mov(
            lambda at, r=reference: [trak(1, entry, [(at, 4)], reference=r)], bytes(4)
        )
    target = box(b"rdrf", bytes(4), b"url ", struct.pack(">I", len(url)), url.encode())
    files["movie.mov"] = box(b"moov", box(b"rmra", box(b"rmda", target)))
    link = element("3EB923", bytes(16)) + element("3E83BB", str(file)) + element("3C83AB", url)
    files["linked.mkv"] = matroska([track(1, "V_MPEG4/ISO/AVC", video(64, 64))], [], extra=link)
    return files


def huge_headers():
    """Return files whose headers claim HUGE x HUGE pixels, or as many as they can."""
    sequence, picture = h264_headers(HUGE)
    config = b"\x01" + sequence[1:4] + b"\xff\xe1" + struct.pack(">H", len(sequence)) + sequence
    config += b"\x01" + struct.pack(">H", len(picture)) + picture
    part = h264_slice()
    sample = struct.pack(">I", len(part)) + part
    stream = b"".join(b"\0\0\0\1" + unit for unit in (sequence, picture, part))
    avc = box(b"avcC", config)
    still = png(HUGE)
    ffv1, private = encoded("ffv1")
    vp9, _ = encoded("libvpx-vp9", count=5)
    digits = vp9[0].hex()
    wide = bytes.fromhex(digits[:9] + "ffffffff" + digits[17:])  # 65,536 x 65,536
    fourcc = struct.pack("<IiiHH4sIiiII", 40, HUGE, HUGE, 1, 24, b"MPNG", 0, 0, 0, 0, 0)
    raw = element("B0", HUGE) + element("BA", HUGE) + element("2EB524", b"I420")
    files = {
        "h264.mp4": mov(lambda at: [trak(1, picture_entry(b"avc1", 64, avc), [(at, len(sample))])],
                        sample),
        "h264_entry.mp4": mov(
            lambda at: [trak(1, picture_entry(b"avc1", 65520, avc), [(at, len(sample))])], sample),
        "h264.mkv": matroska([track(1, "V_MPEG4/ISO/AVC", video(HUGE, HUGE), config)],
                             [(1, 0, sample)]),
        "h264.avi": avi(HUGE, HUGE, b"H264", [stream] * 5),
        "png.mov": mov(lambda at: [trak(1, picture_entry(b"png ", 16), [(at, len(still))])], still),
        "png.mkv": matroska([track(1, "V_MS/VFW/FOURCC", video(HUGE, HUGE), fourcc)],
                            [(1, 0, still)]),
        "vp9.webm": matroska([track(1, "V_VP9", video(HUGE, HUGE))], [(1, 0, wide), (1, 40, wide)]),
        "vp9_frame.webm": matroska([track(1, "V_VP9", video(64, 64))], [(1, 0, wide)]),
        "ffv1.mkv": matroska([track(1, "V_FFV1", video(HUGE, HUGE), private)],
                             [(1, 40 * i, frame) for i, frame in enumerate(ffv1)]),
        "ffv1_8192.mkv": matroska([track(1, "V_FFV1", video(8192, 8192), private)],
                                  [(1, 40 * i, frame) for i, frame in enumerate(ffv1)]),
        "raw.avi": avi(HUGE, HUGE, bytes(4), [bytes(64)] * 25),
        "raw.mkv": matroska([track(1, "V_UNCOMPRESSED", element("E0", raw))], [(1, 0, bytes(64))]),
    }  # fmt: skip
    return {f"huge_{name}": (content, TOO_BIG, SILENT) for name, content in files.items()}


def long_headers():
    """Return files of a second, or of the sample's length, that claim ten hours."""
    pictures = encoded("png", pix_fmt="rgb24")[0]
    ffv1, private = encoded("ffv1")
    media = b"".join(pictures)
    sizes = [len(p) for p in pictures]
    real = SAMPLE.read_bytes()
    for name, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):  # of version 0
        real = patched(real, name, offset, 0x7FFFFFFF)
    tracks = [track(1, "V_FFV1", video(64, 64), private), track(2, "A_PCM/INT/LIT", sound(RATE))]
    blocks = [x for i, f in enumerate(ffv1) for x in ((1, 40 * i, f), (2, 40 * i, pcm(0.04)))]
    ms = TEN_HOURS * 1000
    return {
        "long.mov": (
            mov(
                lambda at: [
                    trak(1, picture_entry(b"png ", 64), [(at + sum(sizes[:i]), n)
                         for i, n in enumerate(sizes)], claimed_ms=ms)
                ], media, movie_duration_ms=ms),
            READ, SILENT),
        "long_real.mp4": (real, READ, READ),
        "long.mkv": (matroska(tracks, blocks, duration_ms=ms), READ, READ),
        "long.avi": (avi(64, 64, b"MPNG", pictures, claimed_frames=25 * TEN_HOURS), READ, SILENT),
        "long.wav": (wav(pcm(1), claimed=2 * RATE * TEN_HOURS), DARK, READ),
        "long_most.wav": (wav(pcm(1), claimed=0xFFFFFFFF), DARK, READ),
        "long.mp3": (patched(encoded_sound("x.mp3"), b"Info", 8, 39 * TEN_HOURS), DARK, READ),
        "long.flac": (patched(encoded_sound("x.flac"), b"fLaC", 22, RATE * TEN_HOURS), DARK, READ),
    }  # fmt: skip


def encoded_sound(name, seconds=1.0):
    """Return a valid file of a tone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        codec = {"x.mp3": "libmp3lame", "x.flac": "flac"}[name]
        with av.open(str(path), "w") as out:
            stream = out.add_stream(codec, rate=RATE, layout="stereo")
            samples = np.repeat((tone(seconds) * 32767).astype(np.int16), 2)[None]
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        return path.read_bytes()


def odd_streams():
    """Return files with thousands of streams, or odd clocks, rates, channels, tables and sizes."""
    still = png(16)
    ffv1, private = encoded("ffv1")
    entry = picture_entry(b"png ", 16)
    tracks = [track(1, "V_FFV1", video(64, 64), private), track(2, "A_PCM/INT/LIT", sound(RATE))]
    packed = png(16, bytes(200_000_000))
    tables = [trak(1, entry, [(0, 1)], count=60_000_000)]
    note = element("67C8", element("45A3", "TITLE") + element("4487", "\x1b[2J" * 10_000_000))
    large = element("466E", "x") + element("4660", "font/ttf") + element("465C", bytes(60_000_000))

    def timed(ms):
        blocks = [x for i, f in enumerate(ffv1) for x in ((1, ms(i), f), (2, ms(i), pcm(0.04)))]
        return matroska(tracks, blocks)

    def heard(rate, channels=1, seconds=0.2, extra=b""):
        kind = sound(rate, channels)
        blocks = [(1, 200 * i, pcm(seconds)) for i in range(5)]
        return matroska([track(1, "A_PCM/INT/LIT", kind)], blocks, extra=extra)

    pixel, pixel_private = encoded("ffv1", side=1, pix_fmt="gray")
    quick = [(1, i // 16, b"\1\0") for i in range(5_000)]
    too_many = {"too_many_streams"}
    too_long = {"too_long"}
    unheard = {"undecodable_audio"}
    return {
        "many.mkv": (
            matroska([track(i, "V_FFV1", video(64, 64)) for i in range(1, 5001)], [(1, 0, b"x")]),
            too_many, too_many),
        "many.mov": (
            mov(lambda at: [trak(i, entry, [(at, len(still))]) for i in range(1, 5001)], still),
            too_many, too_many),
        "many.ts": (b"".join(transport_stream(60, 30)) * 3, too_many, too_many),
        "years.mkv": (timed(lambda i: 40 * i + 10**12 * (i > 12)), too_long, too_long),
        "end_of_time.mkv": (timed(lambda i: 40 * i if i < 12 else 2**62), too_long, too_long),
        "backwards.mkv": (timed(lambda i: 10**6 - 40 * i), {"segment_outside", None}, READ),
        "standing.mkv": (timed(lambda i: 0), {"segment_outside", None}, READ),
        "one_hertz.mkv": (heard(1.0), DARK, too_long),
        "one_hertz.wav": (wav(pcm(0.5), rate=1), DARK, too_long),
        "ten_megahertz.mkv": (heard(1e7, seconds=2.0), DARK, READ),
        "gigahertz.mkv": (heard(2e9), DARK, {"segment_outside", "undecodable_audio"}),
        "no_hertz.mkv": (heard(0.0), DARK, unheard),
        "nan_hertz.mkv": (heard(float("nan")), DARK, READ),
        "channels_64.mkv": (heard(RATE, 64, 5.0), DARK, unheard),
        "channels_255.wav": (wav(pcm(1) * 30, channels=255), DARK, unheard),
        "channels_0.wav": (wav(pcm(1), channels=0), DARK, unheard),
        "crumbs.mkv": (matroska([track(1, "A_PCM/INT/LIT", sound(RATE))], quick), DARK, READ),
        "pixel.mkv": (
            matroska([track(1, "V_FFV1", video(1, 1), pixel_private)],
                     [(1, 40 * i, frame) for i, frame in enumerate(pixel)]),
            {"no_face"}, SILENT),
        "tables.mov": (mov(lambda at: tables, still), {*TOO_BIG, *DARK, *too_many},
                       {*SILENT, *too_many}),
        "packed.mov": (mov(lambda at: [trak(1, entry, [(at, len(packed))])], packed),
                       {"no_face", *TOO_BIG}, SILENT),
        "note.mkv": (heard(RATE, extra=element("1254C367", element("7373", note))), DARK, READ),
        "font.mkv": (heard(RATE, extra=element("1941A469", element("61A7", large))), DARK, READ),
        "100%d.mp4": (SAMPLE.read_bytes(), READ, READ),
        "concat:x|y.mp4": (SAMPLE.read_bytes(), READ, READ),
        "http:x.mp4": (SAMPLE.read_bytes(), READ, READ),
        "subfile,,start,0,end,9,,:x.mp4": (SAMPLE.read_bytes(), READ, READ),
        "data:video;base64,AAAA.mp4": (SAMPLE.read_bytes(), READ, READ),
        "\u202egnp.\x9b31m.mp4": (b"no film", NO_MEDIA, NO_MEDIA),
        "good.mp4": (SAMPLE.read_bytes(), READ, READ),
    }  # fmt: skip
