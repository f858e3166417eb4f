import subprocess
import sys
import warnings

import numpy as np
import pytest

from mitfrnet.errors import MediaError, ParamsError
from mitfrnet.features.acoustic import (
    RECIPES,
    AcousticExtractor,
    AcousticParams,
    acoustic_of_pieces,
    extract_acoustic,
)
from mitfrnet.features.extractor import Clip
from mitfrnet.media.decode import MediaLimits
from mitfrnet.params import parse_params
from tests.helpers import clips
from tests.helpers.paths import ROOT, SHARED
from tests.helpers.running import run_python

RATE, HOP = 16000, 512
VALUES = {
    "sample_rate_hz": RATE,
    "hop_length": HOP,
    "n_fft": 2048,
    "n_mels": 128,
    "n_mfcc": 20,
    "htk": True,
    "n_chroma": 12,
}
PARAMS = AcousticParams(**VALUES)
LIMITS = MediaLimits(max_duration_s=60, max_pixels=4_000_000, max_bytes=10**8, max_streams=8)
CLIPS = SHARED / "clips" / "Raw"


def tone(hz, seconds=2.0):
    return clips.tone(seconds, hz).astype(np.float32)


@pytest.fixture
def extractor():
    return AcousticExtractor(PARAMS, LIMITS)


def test_zero_crossing_rate_of_a_tone():
    """1000 Hz crosses zero 2000 times in 16000 samples: 0.125; a window of 2048 has one less."""
    values = extract_acoustic(tone(1000), PARAMS)
    np.testing.assert_allclose(values[4:-4, 0], 2 * 1000 / 16000, atol=1 / 2048)


@pytest.mark.parametrize(("hz", "pitch"), [(440.0, "A"), (261.63, "C"), (311.13, "D#")])
def test_chroma_of_a_tone(extractor, hz, pitch):
    values = extract_acoustic(tone(hz), PARAMS)
    chroma = values[10:-10, extractor.feature_names.index("chroma_cqt_C") :]
    loudest = extractor.feature_names.index(f"chroma_cqt_{pitch}") - 21
    assert (chroma.argmax(axis=1) == loudest).all()
    np.testing.assert_allclose(chroma.max(axis=1), 1, atol=1e-6)


def test_pitch_is_taken_as_it_is(extractor):
    """A at 440 Hz lies midway between its neighbours; 40 cents above, it leans to A#."""
    below, above = (extractor.feature_names.index(f"chroma_cqt_{p}") for p in ("G#", "A#"))
    exact = extract_acoustic(tone(440.0), PARAMS)[10:-10].mean(axis=0)
    assert exact[above] == pytest.approx(exact[below], rel=0.2)
    sharp = extract_acoustic(tone(440.0 * 2 ** (0.4 / 12)), PARAMS)[10:-10].mean(axis=0)
    assert sharp[above] > 3 * sharp[below]


def test_louder_sound_raises_the_first_mfcc_alone():
    """Ten times the amplitude is +20 dB in each of 128 bands: sqrt(128) * 20 on mfcc_00."""
    noise = np.random.default_rng(0).uniform(-0.05, 0.05, RATE).astype(np.float32)
    soft, loud = extract_acoustic(noise, PARAMS), extract_acoustic(10 * noise, PARAMS)
    np.testing.assert_allclose(loud[:, 1] - soft[:, 1], 20 * np.sqrt(128), rtol=1e-3)
    np.testing.assert_allclose(loud[:, 2:21], soft[:, 2:21], atol=0.05)


def test_columns(extractor):
    assert len(extractor.feature_names) == len(extractor.units) == 33
    assert extractor.feature_names[:2] == ["zero_crossing_rate", "mfcc_00"]
    assert extractor.feature_names[20:22] == ["mfcc_19", "chroma_cqt_C"]
    assert extractor.feature_names[-1] == "chroma_cqt_B"
    assert len(set(extractor.feature_names)) == 33


@pytest.mark.parametrize("samples", [1, 2, 80, 511, 512, 2047, 2048, 20000, 60000])
@pytest.mark.parametrize("kind", ["noise", "silence", "full scale"])
def test_any_length_is_finite_without_warnings(samples, kind):
    """1 + samples // 512 steps of each feature."""
    waveform = {
        "noise": np.random.default_rng(samples).uniform(-1, 1, samples),
        "silence": np.zeros(samples),
        "full scale": np.ones(samples),
    }[kind].astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = extract_acoustic(waveform, PARAMS)
    assert values.shape == (1 + samples // HOP, 33)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()


def test_silence_is_a_value():
    """No crossing, no chroma, and -100 dB in all 128 bands: -100 * sqrt(128) on mfcc_00."""
    values = extract_acoustic(np.zeros(RATE, np.float32), PARAMS)
    assert not values[:, 0].any()
    assert not values[:, 21:].any()
    np.testing.assert_allclose(values[:, 1], -100 * np.sqrt(128), rtol=1e-5)
    np.testing.assert_allclose(values[:, 2:21], 0, atol=1e-3)


def test_empty_waveform():
    with pytest.raises(MediaError):
        extract_acoustic(np.zeros(0, np.float32), PARAMS)


def test_short_sound_is_padded():
    """The padding of a short sound changes nothing: our own zeros give the same steps."""
    short = tone(300, seconds=0.4)
    longer = np.concatenate([short, np.zeros(3 * RATE, np.float32)])
    steps = 1 + len(short) // HOP
    ours, theirs = extract_acoustic(short, PARAMS), extract_acoustic(longer, PARAMS)[:steps]
    np.testing.assert_allclose(ours[:, 1:21], theirs[:, 1:21], atol=1e-3)
    np.testing.assert_allclose(ours[:, 21:], theirs[:, 21:], atol=0.02)


def test_extract(tmp_path, extractor):
    """1.5 s at 31.25 steps a second: 47 steps, step 3 at 0.096 s."""
    path = clips.write_clip(tmp_path / "x.wav", sound=tone(1000, seconds=1.5))
    features = extractor.extract(Clip("v/1", path))
    assert features.values.shape == (47, 33)
    assert features.detected.all()
    assert features.start_s.dtype == np.float32
    np.testing.assert_allclose(features.start_s[3], 0.096)
    part = extractor.extract(Clip("v/1", path, start_s=0.5, end_s=1.0))
    assert part.values.shape == (16, 33)
    assert part.start_s[0] == 0
    np.testing.assert_allclose(part.values[5, 0], 0.125, atol=1 / 2048)


def test_features_equal_librosa_bit_for_bit():
    """One sound is shorter than the longest filter, one is longer."""
    import librosa

    for seconds in (1.3, 5.0):
        samples = np.random.default_rng(0).uniform(-0.3, 0.3, round(seconds * RATE))
        waveform = samples.astype(np.float32)
        values = extract_acoustic(waveform, PARAMS)
        longer = np.pad(waveform, (0, max(0, round(3.2 * RATE) - len(waveform))))
        frames = {"hop_length": HOP, "n_fft": 2048}
        theirs = [
            librosa.feature.zero_crossing_rate(waveform, frame_length=2048, hop_length=HOP),
            librosa.feature.mfcc(y=waveform, sr=RATE, n_mfcc=20, n_mels=128, htk=True, **frames),
            librosa.feature.chroma_cqt(y=longer, sr=RATE, hop_length=HOP, tuning=0.0),
        ]
        steps = len(values)
        np.testing.assert_array_equal(values, np.vstack([t[:, :steps] for t in theirs]).T)


@pytest.mark.slow
def test_a_long_sound_in_pieces_has_the_features_of_the_whole(monkeypatch):
    """Pieces end between steps, and the loudest moment is in the last of several blocks."""
    time = np.arange(100 * RATE) / RATE
    level = 0.05 + 0.2 * (time > 95)
    noise = np.random.default_rng(0).normal(0, 0.01, len(time))
    waveform = (level * np.sin(2 * np.pi * 220 * time) + noise).astype(np.float32)
    in_blocks = acoustic_of_pieces(np.array_split(waveform, 997), PARAMS)
    monkeypatch.setattr("mitfrnet.features.acoustic._BLOCK_S", 1000)
    whole = extract_acoustic(waveform, PARAMS)
    assert in_blocks.shape == whole.shape == (1 + len(waveform) // HOP, 33)
    np.testing.assert_array_equal(in_blocks[:, :21], whole[:, :21])
    np.testing.assert_allclose(in_blocks[:, 21:], whole[:, 21:], atol=1e-5)


def test_earlier_clips_do_not_matter(tmp_path, extractor):
    a = Clip("v/a", clips.write_clip(tmp_path / "a.wav", sound=tone(440, 1.0)))
    b = Clip("v/b", clips.write_clip(tmp_path / "b.wav", sound=tone(900, 0.3)))
    first = extractor.extract(a).values.tobytes()
    extractor.extract(b)
    assert extractor.extract(a).values.tobytes() == first


def test_clip_without_sound(tmp_path, extractor):
    with pytest.raises(MediaError, match=r"^no_file$"):
        extractor.extract(Clip("v/1", tmp_path / "absent.mp4"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_mfcc": 200}, "n_mfcc is 200, must be at most n_mels, 128"),
        ({"n_chroma": 7}, "n_chroma is 7, must divide 36"),
        ({"sample_rate_hz": 8000}, "greater than or equal to 11025"),
        ({"hop_lenth": 128}, "unknown key (expected: hop_length)"),
    ],
)
def test_wrong_parameters(change, message):
    with pytest.raises(ParamsError) as error:
        parse_params(AcousticParams, {**VALUES, **change}, where="extract.acoustic")
    assert message in str(error.value)


def test_other_counts():
    params = AcousticParams(**{**VALUES, "n_chroma": 36, "n_mfcc": 13, "hop_length": 160})
    extractor = AcousticExtractor(params, LIMITS)
    assert extract_acoustic(tone(440, 0.5), params).shape == (51, 50)
    assert len(extractor.feature_names) == len(extractor.units) == 50


def test_the_sample_rate_sets_how_long_a_step_is():
    """Half a second of 512 samples a step: 16 steps at 16 kHz, 22 at 22050 Hz, and the one at 0."""
    for rate, steps in ((16000, 16), (22050, 22)):
        params = AcousticParams(**{**VALUES, "sample_rate_hz": rate})
        waveform = tone(440, 0.5 * rate / RATE)
        assert len(extract_acoustic(waveform, params)) == steps


def test_recipe_ch_sims_equals_its_source():
    """It relies on librosa's defaults; we only add the tuning. 4 s need no padding."""
    import librosa

    params = RECIPES["ch_sims"]
    assert params.sample_rate_hz == 22050
    noise = np.random.default_rng(0).normal(0, 0.05, 4 * 22050)
    waveform = (noise + 0.3 * np.sin(np.arange(4 * 22050) / 20)).astype(np.float32)
    theirs = np.concatenate(
        [
            librosa.feature.zero_crossing_rate(waveform, hop_length=512),
            librosa.feature.mfcc(y=waveform, sr=22050, hop_length=512, htk=True),
            librosa.feature.chroma_cqt(y=waveform, sr=22050, hop_length=512, tuning=0.0),
        ]
    ).T
    np.testing.assert_allclose(extract_acoustic(waveform, params), theirs, rtol=1e-5, atol=1e-5)


def test_recipe_paper_differs_only_in_its_rate():
    changed = RECIPES["ch_sims"].model_copy(update={"sample_rate_hz": 16000})
    assert RECIPES["paper"] == changed == PARAMS


def test_importing_does_not_load_librosa():
    code = "import sys, mitfrnet.features.acoustic; sys.exit('librosa' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.skipif(not CLIPS.exists(), reason="no ../shared/clips beside the repo")
@pytest.mark.slow
def test_real_clips(extractor):
    (silent,) = CLIPS.glob("edge/digital_silence.*")
    values = extractor.extract(Clip("edge/digital_silence", silent)).values
    assert values.shape == (1 + 115171 // HOP, 33)
    assert np.isfinite(values).all()
    assert not values[:, 0].any()
    with pytest.raises(MediaError, match=r"^no_audio_stream$"):
        extractor.extract(Clip("edge/no_audio_stream", next(CLIPS.glob("edge/no_audio*"))))
    for path in CLIPS.glob("grid_s*/*"):
        values = extractor.extract(Clip("grid", path)).values
        assert values.shape == (94, 33)
        assert np.isfinite(values).all()
        assert values.std(axis=0).min() > 0


@pytest.mark.slow
def test_librosa_is_compiled_before_workers_start(tmp_path):
    """Two processes that compile at once leave files that crash every later one."""
    code = (
        "from tests.features.test_acoustic import LIMITS, PARAMS\n"
        "from mitfrnet.features.acoustic import AcousticExtractor\n"
        "AcousticExtractor(PARAMS, LIMITS)\n"
    )
    process = run_python("-c", code, cwd=ROOT, NUMBA_CACHE_DIR=str(tmp_path))
    assert process.returncode == 0, process.stderr
    assert list(tmp_path.rglob("*_zc_wrapper*.nbc"))
