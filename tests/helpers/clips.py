"""Clips and corpora that tests write themselves, with PyAV."""

import csv
from fractions import Fraction

import av
import numpy as np

RATE = 16000


def tone(seconds, hz=1000.0, rate=RATE, level=0.5):
    return level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def write_clip(path, times=(), sound=None, sound_from=0.0, codec="mpeg4", size=(64, 48)):
    """Write frames at `times` (s) and `sound`, (samples,) or (2, samples), from `sound_from`."""
    with av.open(str(path), "w") as out:
        if len(times):
            video = out.add_stream(codec, rate=Fraction(10), options={"qscale": "1", "g": "5"})
            video.width, video.height, video.pix_fmt = *size, "yuv420p"
            video.codec_context.time_base = Fraction(1, 1000)
        if sound is not None:
            sound = np.atleast_2d(sound)
            layout = "mono" if len(sound) == 1 else "stereo"
            audio = out.add_stream("pcm_s16le", rate=RATE, layout=layout)
        for i, time in enumerate(times):
            grey = np.full((size[1], size[0], 3), 10 * (i + 1) % 256, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            out.mux(video.encode(frame))
        if len(times):
            out.mux(video.encode(None))
        if sound is not None:
            samples = np.clip(sound * 32768, -32768, 32767).astype(np.int16)
            for at in range(0, samples.shape[1], 1000):
                piece = np.ascontiguousarray(samples[:, at : at + 1000].T.reshape(1, -1))
                frame = av.AudioFrame.from_ndarray(piece, format="s16", layout=layout)
                frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
                frame.pts = round(sound_from * RATE) + at
                out.mux(audio.encode(frame))
            out.mux(audio.encode(None))
    return path


def write_corpus(folder, rows, columns=("video_id", "clip_id", "text", "label", "mode")):
    """Write `label.csv` in the default layout, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "label.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([columns, *rows])
    return folder


def write_small_corpus(folder, modes=("train", "train", "valid", "test")):
    """Write one clip of 0.6 s per mode, each a video of its own; return the folder."""
    rows = [(f"v{i}", "01", f"words number {i}", i % 4 - 1, mode) for i, mode in enumerate(modes)]
    for video_id, clip_id, *_ in rows:
        path = folder / "Raw" / video_id / f"{clip_id}.mkv"
        path.parent.mkdir(parents=True)
        write_clip(path, np.arange(6) / 10, tone(0.6))
    return write_corpus(folder, rows)
