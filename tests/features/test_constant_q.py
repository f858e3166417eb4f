import librosa
import numpy as np
import pytest

from mitfrnet.features.constant_q import ConstantQ


@pytest.mark.parametrize(
    ("rate", "hop"),
    [
        (16000, 512),
        (22050, 512),
        (16000, 625),  # odd: no octave is computed at a lower rate
        (44100, 1024),  # even the first octave uses half the rate
        (96000, 4096),  # or a quarter
    ],
)
def test_magnitudes_equal_librosa_bit_for_bit(rate, hop):
    waveform = np.random.default_rng(hop).normal(0, 0.1, 4 * rate).astype(np.float32)
    theirs = librosa.cqt(
        waveform, sr=rate, hop_length=hop, n_bins=252, bins_per_octave=36, tuning=0.0
    )
    ours = ConstantQ(rate, hop).magnitudes(waveform)
    assert ours.shape == (252, 1 + len(waveform) // hop)
    np.testing.assert_array_equal(ours, np.abs(theirs))


def test_earlier_sounds_do_not_matter():
    transform = ConstantQ(16000, 512)
    first, other = np.random.default_rng(0).normal(0, 0.1, (2, 64000)).astype(np.float32)
    before = transform.magnitudes(first)
    transform.magnitudes(other)
    np.testing.assert_array_equal(transform.magnitudes(first), before)
