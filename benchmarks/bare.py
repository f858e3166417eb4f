"""Loops with which `benchmarks.extract` compares the project, each run in its own process.

    python -m benchmarks.bare floor|dump|ffmpeg WORK.json [--core N]

`WORK.json` holds the clips and the settings. The measurements are printed as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import librosa
import numpy as np
from mediapipe.python.solutions.face_mesh import FaceMesh

Settings = dict[str, Any]


def face_mesh(settings: Settings) -> FaceMesh:
    return FaceMesh(
        refine_landmarks=True,
        min_detection_confidence=settings["visual"]["min_detection_confidence"],
    )


def frames_at(container: Any, fps: float) -> Iterator[av.VideoFrame]:
    """Yield the frame shown at each time k / fps; the clip must have no defect."""
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    start = container.start_time / av.time_base
    k, shown = 0, None
    for frame in container.decode(stream):
        while shown is not None and k / fps < frame.time - start - 1e-3:
            yield shown
            k += 1
        if shown is None:
            k = max(0, int((frame.time - start) * fps))
        shown = frame
    if shown is not None:
        end = shown.time + float(shown.duration * shown.time_base or Fraction(1, 25))
        while k / fps < end - start - 1e-3:
            yield shown
            k += 1


def sound_of(container: Any, rate: int) -> np.ndarray:
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate)
    frames = list(container.decode(container.streams.audio[0]))
    pieces = [piece for frame in [*frames, None] for piece in resampler.resample(frame)]
    return np.concatenate([piece.to_ndarray()[0] for piece in pieces])


def librosa_features(waveform: np.ndarray, acoustic: Settings) -> int:
    rate, hop, n_fft = (acoustic[key] for key in ("sample_rate_hz", "hop_length", "n_fft"))
    librosa.feature.zero_crossing_rate(waveform, frame_length=n_fft, hop_length=hop)
    mfcc = librosa.feature.mfcc(
        y=waveform,
        sr=rate,
        n_mfcc=acoustic["n_mfcc"],
        n_fft=n_fft,
        n_mels=acoustic["n_mels"],
        htk=acoustic["htk"],
        hop_length=hop,
    )
    librosa.feature.chroma_cqt(
        y=waveform, sr=rate, n_chroma=acoustic["n_chroma"], tuning=0.0, hop_length=hop
    )
    return mfcc.shape[1]


def floor(clips: list[str], settings: Settings) -> tuple[int, int, float]:
    """Decode, find the face and analyse the sound, without keeping the results.

    Returns:
        Frames, steps of sound, and the seconds that sound took.
    """
    frames, steps, sound_seconds = 0, 0, 0.0
    with face_mesh(settings) as mesh:
        for path in clips:
            mesh.reset()
            with av.open(path) as container:
                for frame in frames_at(container, settings["visual"]["fps"]):
                    mesh.process(frame.to_ndarray(format="rgb24"))
                    frames += 1
            begin = time.perf_counter()
            with av.open(path) as container:
                if container.streams.audio:
                    waveform = sound_of(container, settings["acoustic"]["sample_rate_hz"])
                    steps += librosa_features(waveform, settings["acoustic"])
            sound_seconds += time.perf_counter() - begin
    return frames, steps, sound_seconds


def dump(clips: list[str], settings: Settings) -> tuple[int, int, float]:
    """Do the same by way of files that PyAV writes; see `through_files`."""

    def write(path: str, folder: Path) -> None:
        with av.open(path) as container:
            for i, frame in enumerate(frames_at(container, settings["visual"]["fps"])):
                cv2.imwrite(str(folder / f"{i:06d}.bmp"), frame.to_ndarray(format="bgr24"))
        with av.open(path) as container:
            if not container.streams.audio:
                return
            rate = settings["acoustic"]["sample_rate_hz"]
            waveform = sound_of(container, rate)
        with wave.open(str(folder / "sound.wav"), "wb") as sound:
            sound.setparams((1, 2, rate, 0, "NONE", ""))
            sound.writeframes((waveform.clip(-1, 1) * 32767).astype(np.int16).tobytes())

    return through_files(clips, settings, write)


def ffmpeg(clips: list[str], settings: Settings) -> tuple[int, int, float]:
    """Do the same by way of files that the command ffmpeg writes, as MMSA-FET runs it."""

    def write(path: str, folder: Path) -> None:
        command = ["ffmpeg", "-v", "quiet", "-nostdin", "-i", path]
        rate = str(settings["visual"]["fps"])
        subprocess.run([*command, "-r", rate, str(folder / "%06d.bmp")], check=True)
        with av.open(path) as container:
            has_sound = bool(container.streams.audio)
        if has_sound:
            subprocess.run([*command, str(folder / "sound.wav")], check=True)

    return through_files(clips, settings, write)


def through_files(
    clips: list[str], settings: Settings, write: Callable[[str, Path], None]
) -> tuple[int, int, float]:
    """Follow MMSA-FET: each frame a BMP, the sound a WAV, a FaceMesh for each clip."""
    frames, steps, sound_seconds = 0, 0, 0.0
    for path in clips:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write(path, folder)
            with face_mesh(settings) as mesh:
                for image in sorted(folder.glob("*.bmp")):
                    faces = mesh.process(cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB))
                    frames += 1
                    for face in faces.multi_face_landmarks or []:
                        np.array([(p.x, p.y, p.z) for p in face.landmark])
            begin = time.perf_counter()
            if (folder / "sound.wav").exists():
                rate = settings["acoustic"]["sample_rate_hz"]
                waveform, _ = librosa.load(folder / "sound.wav", sr=rate)
                steps += librosa_features(waveform, settings["acoustic"])
            sound_seconds += time.perf_counter() - begin
    return frames, steps, sound_seconds


LOOPS = {"floor": floor, "dump": dump, "ffmpeg": ffmpeg}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loop", choices=list(LOOPS))
    parser.add_argument("work", type=Path)
    parser.add_argument("--core", type=int)
    args = parser.parse_args()
    if args.core is not None:
        os.sched_setaffinity(0, {args.core})
    work = json.loads(args.work.read_text())
    begin = time.perf_counter()
    frames, steps, sound_seconds = LOOPS[args.loop](work["clips"], work["settings"])
    measured = {
        "seconds": time.perf_counter() - begin,
        "sound_seconds": sound_seconds,
        "frames": frames,
        "steps": steps,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
