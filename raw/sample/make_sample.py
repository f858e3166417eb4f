"""Make the sample corpus: drawn people speak short opinions in synthetic voices.

    python raw/sample/make_sample.py [--out FOLDER] [--jobs N]

Every clip has three latent parts, the sentiment of its words (`label_T`), of its voice (`label_A`)
and of its face (`label_V`), each in [-3, 3]. Its label is their weighted mean plus a little noise.
No part holds the whole label: in most clips one or two parts are faint, and in about one of seven
one part contradicts the other two. `words.py`, `voice.py` and `portrait.py` turn the parts into
text, sound and pictures; `people.py` says who speaks.

The same machine gives the same bytes again, with any number of jobs: each clip has generators of
its own, seeded by its place in the corpus, and the encoders run in one thread. Another processor
may round a few pixels differently.
"""

import argparse
import csv
import functools
import itertools
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from people import SPEAKERS
from portrait import FRAME_RATE_HZ, PICTURE_SIZE, Portrait, draw_frames
from voice import SAMPLE_RATE_HZ, measure_loudness, speak
from words import count_words, draw_sentence

SEED = 2062
MADE_WITH = {"espeak-ng": "1.51", "av": "18.1.0", "opencv": "4.11.0"}  # the committed clips

VIDEO_CRF = "27"
# Macroblock trees are off: with them libx264 reads memory it never wrote when the picture is a few
# macroblocks wide, and no two runs make the same bytes.
X264_PARAMS = "threads=1:mbtree=0"
AUDIO_BIT_RATE = 24_000

WEIGHTS = {"text": 0.45, "acoustic": 0.2, "visual": 0.35}
LABEL_SCALE = 1.25  # stretches the weighted mean over [-3, 3]
LABEL_NOISE = 0.1  # standard deviation, as between annotators
LABEL_STEP = 0.2
SMALLEST_LABEL = 0.4  # of the labels that are not exactly zero

SHORTEST_SECONDS, LONGEST_SECONDS = 1.5, 2.8
COLUMNS = (
    "video_id", "clip_id", "text", "label", "label_T", "label_A", "label_V", "annotation", "mode",
)  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """Everything that decides one clip. Parts and label are in [-3, 3]."""

    video_id: str
    clip_id: str
    seed: tuple[int, ...]
    speaker: int  # index into SPEAKERS
    mode: str
    seconds: float
    sentence: str  # what is spoken
    label: float
    label_t: float
    label_a: float
    label_v: float
    has_sound: bool = True
    has_transcript: bool = True
    slides_out: bool = False  # the face leaves the picture halfway

    @property
    def annotation(self) -> str:
        """Return the sign of the label in words."""
        if self.label == 0:
            return "Neutral"
        return "Positive" if self.label > 0 else "Negative"

    def row(self) -> list[str]:
        """Return the clip's line of label.csv."""
        labels = (
            f"{value:.1f}" for value in (self.label, self.label_t, self.label_a, self.label_v)
        )
        transcript = self.sentence if self.has_transcript else ""
        return [self.video_id, self.clip_id, transcript, *labels, self.annotation, self.mode]


EDGE_CASES: dict[tuple[str, str], dict[str, Any]] = {
    ("speaker02_a", "0004"): {"has_sound": False},
    ("speaker05_b", "0007"): {"slides_out": True},
    ("speaker06_c", "0005"): {"has_transcript": False},
}

# What the parts (text, acoustic, visual) of a clip do: c is clear, f faint, x contradicts.
# Each split deals from this deck, so each has the same share of every case.
DECK = (
    "ccc", "ccc", "ccc", "fcc", "fcc", "fcc", "cfc", "cfc", "cfc", "cfc",
    "cfc", "cfc", "ccf", "ccf", "ccf", "ffc", "cff", "xcc", "cxc", "ccx",
)  # fmt: skip


def plan_corpus() -> list[Clip]:
    """Return all clips in the order of label.csv.

    Half of each video is positive and half negative, up to the few exact zeros, so that neither
    videos nor splits tell the label. Lengths are drawn before anything else, and the sentence is
    chosen to fit.
    """
    rng = np.random.default_rng(SEED)
    decks = {mode: _endless(DECK, rng) for mode in ("train", "valid", "test")}
    clips: list[Clip] = []
    said: set[str] = set()
    videos = list(itertools.product(range(len(SPEAKERS)), "abc"))
    for speaker, letter in videos:
        mode = "train" if letter != "c" else ("valid", "test")[speaker % 2]
        video_id = f"speaker{speaker + 1:02d}_{letter}"
        signs = rng.permutation([1] * 5 + [-1] * 5)
        # In six of sixteen training videos and two of four others, one clip becomes neutral; the
        # side it is taken from alternates.
        if (letter, speaker % 4) in {("a", 0), ("a", 2), ("b", 1), ("c", 0), ("c", 1)}:
            taken = 1 if (speaker // 4) % 2 else -1
            signs[np.flatnonzero(signs == taken)[0]] = 0
        for number, sign in enumerate(signs, start=1):
            seconds = float(np.round(rng.uniform(SHORTEST_SECONDS, LONGEST_SECONDS) * 20) / 20)
            roles = next(decks[mode]) if sign else "fff"
            label, parts = draw_parts(int(sign), roles, rng)
            sentence = draw_sentence(parts[0], longest=count_words(seconds), rng=rng, said=said)
            said.add(sentence)
            clip = Clip(
                video_id=video_id,
                clip_id=f"{number:04d}",
                seed=(SEED, speaker, ord(letter), number),
                speaker=speaker,
                mode=mode,
                seconds=seconds,
                sentence=sentence,
                label=label,
                label_t=parts[0],
                label_a=parts[1],
                label_v=parts[2],
            )
            clips.append(replace(clip, **EDGE_CASES.get((video_id, clip.clip_id), {})))
    return clips


def _endless(deck: Sequence[str], rng: np.random.Generator) -> Iterator[str]:
    while True:
        yield from rng.permutation(deck)


def draw_parts(
    sign: int, roles: str, rng: np.random.Generator
) -> tuple[float, tuple[float, float, float]]:
    """Return a label of the wanted sign, and its text, acoustic and visual parts.

    Clear parts share one strength, more or less; faint parts lie around zero; a contradicting part
    has the other sign. Draws are repeated until their weighted mean has the sign that is wanted.
    """
    weights = np.array(list(WEIGHTS.values()))
    while True:
        strength = rng.uniform(1.0, 3.0)
        drawn = {
            "c": sign * np.clip(strength + rng.normal(0, 0.4, 3), 1.0, 3.0),
            "f": np.clip(rng.normal(0, 0.3, 3), -0.6, 0.6),
            "x": -sign * rng.uniform(1.0, 2.0, 3),
        }
        parts = _to_step([drawn[role][i] for i, role in enumerate(roles)])
        mean = LABEL_SCALE * float(parts @ weights) + rng.normal(0, LABEL_NOISE)
        label = float(_to_step(np.clip(mean, -3, 3)))
        if label * sign >= SMALLEST_LABEL or (sign == 0 and label == 0):
            return label, (float(parts[0]), float(parts[1]), float(parts[2]))


def _to_step(values: object) -> NDArray[np.float64]:
    """Return the values rounded to LABEL_STEP, without negative zeros."""
    return np.round(np.round(np.asarray(values) / LABEL_STEP) * LABEL_STEP, 1) + 0.0


def make_clip(clip: Clip, out: Path) -> Path:
    """Write one clip as `out`/Raw/<video_id>/<clip_id>.mp4 and return its path."""
    cv2.setNumThreads(1)
    room_rng = np.random.default_rng(clip.seed[:3])  # one background per video
    voice_rng = np.random.default_rng((*clip.seed, 1))
    face_rng = np.random.default_rng((*clip.seed, 2))
    speaker = SPEAKERS[clip.speaker]
    sound = speak(clip.sentence, speaker, label_a=clip.label_a, seconds=clip.seconds, rng=voice_rng)
    loudness = measure_loudness(sound, round(clip.seconds * FRAME_RATE_HZ), rate_hz=FRAME_RATE_HZ)
    frames = draw_frames(
        Portrait(speaker, room_rng),
        loudness,
        label_v=clip.label_v,
        rng=face_rng,
        slides_out=clip.slides_out,
    )
    path = out / "Raw" / clip.video_id / f"{clip.clip_id}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    encode(frames, sound if clip.has_sound else None, path)
    return path


def encode(
    frames: Iterator[NDArray[np.uint8]], sound: NDArray[np.float32] | None, path: Path
) -> None:
    """Write an MP4 file with H.264 pictures and, where there is sound, AAC."""
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(path, "w", options=options) as container:
        video = container.add_stream("libx264", rate=FRAME_RATE_HZ)
        video.width = video.height = PICTURE_SIZE
        video.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1
        video.codec_context.flags |= av.codec.context.Flags.bitexact
        video.options = {"crf": VIDEO_CRF, "preset": "slow", "x264-params": X264_PARAMS}
        audio = None
        if sound is not None:
            audio = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
            audio.bit_rate = AUDIO_BIT_RATE
            audio.codec_context.flags |= av.codec.context.Flags.bitexact
        for pixels in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            block = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            block.sample_rate, block.pts = SAMPLE_RATE_HZ, 0
            container.mux(audio.encode(block))
            container.mux(audio.encode(None))


def find_versions() -> dict[str, str]:
    """Return the versions of what decides the bytes of a clip, keyed as in MADE_WITH.

    Raises:
        FileNotFoundError: espeak-ng is not on the PATH.
    """
    if shutil.which("espeak-ng") is None:
        raise FileNotFoundError(
            "espeak-ng: not on the PATH (install it, e.g. `apt-get install espeak-ng`)"
        )
    line = subprocess.run(
        ["espeak-ng", "--version"], capture_output=True, check=True, text=True
    ).stdout
    return {
        "espeak-ng": line.split(":")[1].split()[0],
        "av": av.__version__,
        "opencv": cv2.__version__,
    }


def write_labels(clips: Sequence[Clip], path: Path) -> None:
    """Write label.csv."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(clip.row() for clip in clips)


def main(argv: Sequence[str] | None = None) -> None:
    """Make all clips and label.csv."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="corpus folder")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args = parser.parse_args(argv)
    try:
        find_versions()
    except FileNotFoundError as error:
        parser.exit(1, f"{error}\n")

    clips = plan_corpus()
    with Pool(args.jobs) as pool:
        for path in pool.imap_unordered(functools.partial(make_clip, out=args.out), clips):
            print(path)
    write_labels(clips, args.out / "label.csv")


if __name__ == "__main__":
    main()
