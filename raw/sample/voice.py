"""How the sample corpus sounds: eSpeak NG, coloured by the sentiment of the voice."""

import subprocess

import numpy as np
from numpy.typing import NDArray
from people import Speaker
from scipy.signal import lfilter, resample_poly

SAMPLE_RATE_HZ = 16_000

Array = NDArray[np.float32]


def speak(
    sentence: str,
    speaker: Speaker,
    *,
    label_a: float,
    seconds: float,
    rng: np.random.Generator,
) -> Array:
    """Return a spoken sentence at SAMPLE_RATE_HZ, (samples,), in [-1, 1].

    With `label_A` rise the pitch (by a fifth or so), the pitch range, the loudness (6 dB either
    way), the share of high frequencies, and the loudness towards the end of the sentence. The
    speed does not: it is the speaker's own, raised where the sentence would not fit the clip.
    """
    arousal = label_a / 3
    total = round(seconds * SAMPLE_RATE_HZ)
    room = total - round(0.2 * SAMPLE_RATE_HZ)

    speed = speaker.words_per_minute
    speech = _run_espeak(sentence, speaker, speed, arousal)
    while len(speech) > room:
        speed = int(speed * max(len(speech) / room, 1.02)) + 1
        speech = _run_espeak(sentence, speaker, speed, arousal)

    # A first-order shelf: vocal effort lifts the high end, a tired voice lacks it.
    low = lfilter([0.25], [1, -0.75], speech)
    speech = low + (speech - low) * 10 ** (9 * arousal / 20)
    ramp = np.linspace(-1, 1, len(speech))
    speech = speech * 10 ** (4 * arousal * ramp / 20)
    level_db = -23 + 6 * arousal + rng.normal(0, 0.5)
    speech = speech * (10 ** (level_db / 20) / np.sqrt(np.mean(speech**2)))

    start = int(rng.integers(round(0.08 * SAMPLE_RATE_HZ), total - len(speech) - 1600 + 1))
    sound = rng.normal(0, 10 ** (-62 / 20), total)  # a quiet room
    sound[start : start + len(speech)] += speech
    return np.clip(sound, -0.98, 0.98).astype(np.float32)


def _run_espeak(sentence: str, speaker: Speaker, speed: int, arousal: float) -> NDArray[np.float64]:
    """Return eSpeak NG's speech at SAMPLE_RATE_HZ without the silence around it."""
    text = sentence[:-1] + ("!" if arousal > 0.3 else ".")
    percent = round(100 * 2**arousal)
    markup = f'<speak><prosody range="{percent}%">{text}</prosody></speak>'
    pitch = str(round(np.clip(speaker.pitch + 28 * arousal, 0, 99)))
    command = ["espeak-ng", "-m", "--stdin", "--stdout", "-v", speaker.voice, "-p", pitch]
    done = subprocess.run(
        [*command, "-s", str(speed)], input=markup.encode(), capture_output=True, check=True
    )
    samples = np.frombuffer(done.stdout[44:], "<i2") / 32768  # streamed: the header has no length
    samples = resample_poly(samples, 320, 441)  # 22050 Hz to 16000 Hz
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    return samples[loud[0] : loud[-1] + 1]


def measure_loudness(sound: Array, frames: int, *, rate_hz: int) -> Array:
    """Return how loud the sound is at each of `rate_hz` frames a second, (frames,), in [0, 1]."""
    hop = SAMPLE_RATE_HZ // rate_hz
    padded = np.pad(sound, (0, max(0, frames * hop - len(sound))))[: frames * hop]
    level = np.sqrt(np.mean(padded.reshape(frames, hop) ** 2, axis=1))
    level = level / max(
        float(np.quantile(level, 0.95)), 1e-6
    )  # relative: shouting opens the jaw no further
    return np.clip(level, 0, 1).astype(np.float32) ** 0.8
