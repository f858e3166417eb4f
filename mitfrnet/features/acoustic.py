"""Sound features of MMSA and CH-SIMS: zero-crossing rate, MFCC and chroma-CQT, 33 columns.

The features are those of Yu et al., CH-SIMS (ACL 2020), as computed by MMSA's published
preprocessing: librosa, hop 512, columns in this order, MFCC with HTK's mel scale. CH-SIMS uses
22050 Hz, others use other rates: see `RECIPES`.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version as installed_version
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mitfrnet.errors import MediaError
from mitfrnet.features.constant_q import BINS_PER_OCTAVE, ConstantQ
from mitfrnet.features.extractor import Clip, Features
from mitfrnet.media.decode import MediaLimits, Waveform, iter_waveform
from mitfrnet.params import StageParams

VERSION = "2"

_PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
# The longest filter of the constant-Q transform (C1, 36 bins an octave) lasts 1.6 s; librosa
# rounds it up to a power of two of samples, so to less than twice that.
_CQT_SPAN_S = 3.2
_RANGE_DB = 80.0  # values further below a clip's peak are raised to this
# Sound is analysed in blocks of this length, plus a margin on both sides. The margin covers half
# the longest filter and the blur of halving the sample rate.
_BLOCK_S = 30.0
_MARGIN_S = 4.0


class AcousticParams(StageParams):
    """Section `extract.acoustic`."""

    sample_rate_hz: int = Field(ge=11025)  # chroma-CQT reaches up to 4.1 kHz
    hop_length: int = Field(gt=0)  # samples between two steps
    n_fft: int = Field(gt=0)  # window in samples, for MFCC and zero-crossing rate
    n_mels: int = Field(gt=0)
    n_mfcc: int = Field(gt=0)
    htk: bool  # mel scale: HTK's formula, else Slaney's
    n_chroma: int = Field(gt=0)

    @model_validator(mode="after")
    def _fit_together(self) -> "AcousticParams":
        if self.n_mfcc > self.n_mels:
            raise ValueError(f"n_mfcc is {self.n_mfcc}, must be at most n_mels, {self.n_mels}")
        if 36 % self.n_chroma:
            raise ValueError(f"n_chroma is {self.n_chroma}, must divide 36, the bins per octave")
        return self


# Named settings for `extract.acoustic`; docs/extractors.md gives their sources.
RECIPES = {
    "ch_sims": AcousticParams(
        sample_rate_hz=22050,
        hop_length=512,
        n_fft=2048,
        n_mels=128,
        n_mfcc=20,
        htk=True,
        n_chroma=12,
    ),
    "paper": AcousticParams(
        sample_rate_hz=16000,
        hop_length=512,
        n_fft=2048,
        n_mels=128,
        n_mfcc=20,
        htk=True,
        n_chroma=12,
    ),
}


class AcousticExtractor:
    """Turns the sound of a clip into (steps, 1 + n_mfcc + n_chroma) features.

    Every step counts as detected, even digital silence: silence has values (zero-crossing rate
    and chroma 0, MFCC of -100 dB).
    """

    version = VERSION
    columns: ClassVar[dict[str, type[np.generic]]] = {}

    def __init__(self, params: AcousticParams, limits: MediaLimits) -> None:
        self.params = params
        self.limits = limits
        chroma: tuple[str, ...] = _PITCH_CLASSES
        if params.n_chroma != len(chroma):
            chroma = tuple(f"{i:02d}" for i in range(params.n_chroma))
        self.feature_names = [
            "zero_crossing_rate",
            *(f"mfcc_{i:02d}" for i in range(params.n_mfcc)),
            *(f"chroma_cqt_{name}" for name in chroma),
        ]
        self.units = ["1", *["dB"] * params.n_mfcc, *["1"] * params.n_chroma]
        # Without the limits: they decide which clips are read, not what is read from them.
        self.identity: dict[str, Any] = {
            "settings": params.model_dump(mode="json"),
            "libraries": {name: installed_version(name) for name in ("av", "librosa")},
        }
        # librosa compiles functions at their first call, and numba keeps them in files. A stage
        # builds its extractor before its workers, which would otherwise compile at the same time
        # and leave files that crash every later process.
        acoustic_of_pieces([np.zeros(params.n_fft, np.float32)], params)

    def extract(self, clip: Clip) -> Features:
        """Return the sound features; step i starts at i · hop_length / sample_rate_hz seconds.

        Raises:
            MediaError: the clip has no sound; the message is a reason of `mitfrnet.media.decode`.
        """
        pieces = iter_waveform(
            clip.path,
            sample_rate_hz=self.params.sample_rate_hz,
            start_s=clip.start_s,
            end_s=clip.end_s,
            limits=self.limits,
        )
        values = acoustic_of_pieces(pieces, self.params)
        seconds_per_step = self.params.hop_length / self.params.sample_rate_hz
        return Features(
            values=values,
            detected=np.ones(len(values), bool),
            start_s=(np.arange(len(values)) * seconds_per_step).astype(np.float32),
        )


def extract_acoustic(waveform: Waveform, params: AcousticParams) -> NDArray[np.float32]:
    """Return zero-crossing rate, MFCC and chroma-CQT, (steps, 1 + n_mfcc + n_chroma).

    There are 1 + samples // hop_length steps; the window of step i is centred at sample
    i · hop_length. A sound shorter than a window is padded with zeros at its end; only the steps
    of the sound itself are returned.

    Args:
        waveform: mono, in [-1, 1], (samples,) at `params.sample_rate_hz`.
        params: window, hop and counts.

    Returns:
        Zero-crossing rate: share of neighbouring samples whose signs differ, in [0, 1].
        MFCC: cosine transform of the mel power in dB, at least the clip's peak minus 80 dB.
        Chroma: energy per pitch class, C first, divided by the largest in the step.

    Raises:
        MediaError: the waveform is empty.
    """
    return acoustic_of_pieces([waveform], params)


def acoustic_of_pieces(pieces: Iterable[Waveform], params: AcousticParams) -> NDArray[np.float32]:
    """Return `extract_acoustic` of the joined pieces, with under a minute of sound in memory.

    Longer sound is analysed in blocks that overlap by more than any window. The results equal
    those of the whole sound up to rounding.

    Args:
        pieces: the waveform in pieces of any length.
        params: window, hop and counts.

    Raises:
        MediaError: the waveform is empty.
    """
    import librosa  # slow to import, and not needed for `AcousticParams`

    filters = _filters(params)
    crossings, decibels, chroma = [], [], []
    for block in _blocks(pieces, params):
        window = _padded(block.waveform, params.n_fft)
        crossings.append(
            librosa.feature.zero_crossing_rate(
                window, frame_length=params.n_fft, hop_length=params.hop_length
            )[:, block.steps]
        )
        spectrum = librosa.stft(window, n_fft=params.n_fft, hop_length=params.hop_length)
        power = np.einsum("ft,mf->mt", np.abs(spectrum) ** 2, filters.mel, optimize=True)
        decibels.append(librosa.power_to_db(power[:, block.steps], top_db=None))
        magnitudes = filters.constant_q.magnitudes(
            _padded(block.waveform, int(_CQT_SPAN_S * params.sample_rate_hz))
        )
        chroma.append(
            librosa.feature.chroma_cqt(
                C=magnitudes, bins_per_octave=BINS_PER_OCTAVE, n_chroma=params.n_chroma
            )[:, block.steps]
        )
    if not decibels:
        raise MediaError("segment_outside")
    floor = max(block.max() for block in decibels) - _RANGE_DB  # of the whole clip
    mfcc = [
        librosa.feature.mfcc(S=np.maximum(block, floor), n_mfcc=params.n_mfcc) for block in decibels
    ]
    columns = [np.concatenate(blocks, axis=1) for blocks in (crossings, mfcc, chroma)]
    return np.ascontiguousarray(np.vstack(columns).T, dtype=np.float32)


@dataclass(frozen=True)
class _Filters:
    """The filters of the MFCC and of the chroma, which are the same for all clips."""

    mel: NDArray[np.float32]
    constant_q: ConstantQ


@lru_cache(maxsize=2)
def _filters(params: AcousticParams) -> _Filters:
    import librosa

    mel = librosa.filters.mel(
        sr=params.sample_rate_hz, n_fft=params.n_fft, n_mels=params.n_mels, htk=params.htk
    )
    return _Filters(mel, ConstantQ(params.sample_rate_hz, params.hop_length))


@dataclass(frozen=True)
class _Block:
    """A block of sound with its margins."""

    waveform: Waveform
    steps: slice  # without the margins


def _blocks(pieces: Iterable[Waveform], params: AcousticParams) -> Iterator[_Block]:
    """Yield the sound in blocks; the last one ends with the sound."""
    hop = params.hop_length
    own = math.ceil(_BLOCK_S * params.sample_rate_hz / hop)  # steps of a block
    margin = math.ceil(max(_MARGIN_S * params.sample_rate_hz, params.n_fft) / hop)  # steps
    before = 0  # steps of the margin before the block
    buffer: list[Waveform] = []
    samples = 0
    for piece in pieces:
        buffer.append(piece)
        samples += len(piece)
        while samples > (needed := (before + own + margin) * hop):
            waveform = np.concatenate(buffer)
            yield _Block(waveform[:needed], slice(before, before + own))
            buffer = [waveform[(before + own - margin) * hop :]]
            samples, before = len(buffer[0]), margin
    if samples:
        yield _Block(np.concatenate(buffer), slice(before, 1 + samples // hop))


def _padded(waveform: Waveform, samples: int) -> Waveform:
    """Return the waveform, padded with zeros at its end to at least `samples`."""
    return np.pad(waveform, (0, max(0, samples - len(waveform))))
