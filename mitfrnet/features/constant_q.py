"""librosa's constant-Q transform, with filters that are made once instead of for every clip.

For a clip of three seconds `librosa.cqt` spends nine tenths of its time on filters that are the
same for all clips (benchmarks/NOTES.md). The method is from Schörkhuber and Klapuri, Constant-Q
transform toolbox for music processing (2010): apply the filters of the top octave to the spectrum
of the sound, then halve the sample rate for the octave below. The magnitudes equal those of
`librosa.cqt` bit for bit.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS_PER_OCTAVE = 36
_OCTAVES = 7
_LOWEST_NOTE = "C1"
# Share of a filter's magnitude that is dropped to make it sparse: librosa's default.
_SPARSITY = 0.01


@dataclass(frozen=True)
class _Octave:
    """The filters of one octave.

    Attributes:
        filters: sparse, applied to the spectrum, (BINS_PER_OCTAVE, 1 + n_fft // 2).
        n_fft: window in samples.
        hop_length: samples between two steps.
        halves: whether the octave below uses half the sample rate.
    """

    filters: Any
    n_fft: int
    hop_length: int
    halves: bool


class ConstantQ:
    """Turns sound into the magnitudes of 252 bins, seven octaves from C1.

    Args:
        sample_rate_hz: of the sound.
        hop_length: samples between two steps.
    """

    def __init__(self, sample_rate_hz: int, hop_length: int) -> None:
        import librosa  # slow to import

        bins = BINS_PER_OCTAVE * _OCTAVES
        frequencies = librosa.interval_frequencies(
            bins,
            fmin=librosa.note_to_hz(_LOWEST_NOTE),
            intervals="equal",
            bins_per_octave=BINS_PER_OCTAVE,
        )
        # Relative to each filter's frequency. Rounded as by librosa: the length of a filter may
        # depend on the last bit.
        ratio = 2.0 ** (2 / (1 / np.gradient(np.log2(frequencies))))
        bandwidth = (ratio - 1) / (ratio + 1)

        _, highest = librosa.filters.wavelet_lengths(
            freqs=frequencies, sr=sample_rate_hz, alpha=bandwidth
        )
        self._first_halvings = _first_halvings(sample_rate_hz, hop_length, highest)
        rate = full_rate = sample_rate_hz / 2**self._first_halvings
        hop_length //= 2**self._first_halvings
        lengths, _ = librosa.filters.wavelet_lengths(
            freqs=frequencies, sr=full_rate, alpha=bandwidth
        )
        self._scale = np.sqrt(lengths)[:, None]

        self._octaves: list[_Octave] = []
        for top in range(bins, 0, -BINS_PER_OCTAVE):
            here = slice(top - BINS_PER_OCTAVE, top)
            filters, lengths = librosa.filters.wavelet(
                freqs=frequencies[here], sr=rate, alpha=bandwidth[here]
            )
            n_fft = filters.shape[1]
            filters *= lengths[:, None] / n_fft
            spectra = librosa.get_fftlib().fft(filters, axis=1)[:, : 1 + n_fft // 2]
            sparse = librosa.util.sparsify_rows(spectra, quantile=_SPARSITY, dtype=np.complex64)
            sparse[:] *= np.sqrt(full_rate / rate)  # halving the rate weakens the sound
            halves = hop_length % 2 == 0
            self._octaves.append(_Octave(sparse, n_fft, hop_length, halves))
            if halves:
                rate, hop_length = rate / 2, hop_length // 2

    def magnitudes(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the magnitude of each bin, lowest first, (252, 1 + samples // hop_length).

        Args:
            waveform: mono, (samples,).
        """
        import librosa

        if self._first_halvings:
            waveform = librosa.resample(
                waveform, orig_sr=2**self._first_halvings, target_sr=1, scale=True
            )
        octaves = []
        for octave in self._octaves:
            spectrum = librosa.stft(
                waveform, n_fft=octave.n_fft, hop_length=octave.hop_length, window="ones"
            )
            octaves.append(octave.filters.dot(spectrum))
            if octave.halves:
                waveform = librosa.resample(waveform, orig_sr=2, target_sr=1, scale=True)
        steps = min(octave.shape[1] for octave in octaves)
        bins = np.concatenate([octave[:, :steps] for octave in reversed(octaves)])
        bins = np.asfortranarray(bins)  # as in librosa, so that products round equally
        bins /= self._scale
        return np.abs(bins)


def _first_halvings(sample_rate_hz: int, hop_length: int, highest_hz: float) -> int:
    """Return how often librosa halves the rate before the top octave.

    Args:
        sample_rate_hz: of the sound.
        hop_length: samples between two steps; each octave but the first may halve it too.
        highest_hz: highest frequency that the filters pass.
    """
    by_rate = math.ceil(math.log2(sample_rate_hz / 2 / highest_hz)) - 2
    by_hop = (hop_length & -hop_length).bit_length() - _OCTAVES  # counts its factors of two
    return max(0, min(by_rate, by_hop))
