"""Our scores against those of MMSA 2.2.1, on random and on adversarial vectors.

MMSA passes the arguments of F1 in the right order. It rounds to 4 decimals, gives NaN for the
correlation of a constant and crashes if all labels are 0; ours gives null in both cases.
"""

import numpy as np
import pytest
import torch

from mitfrnet.metrics import score

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # their correlation of a constant
]

MMSA = pytest.importorskip("MMSA", reason="needs MMSA 2.2.1 (make parity)")

KEYS = {
    "mosi": {
        "Has0_acc_2": "acc2_has0",
        "Has0_F1_score": "f1_has0",
        "Non0_acc_2": "acc2_non0",
        "Non0_F1_score": "f1_non0",
        "Mult_acc_5": "acc5",
        "Mult_acc_7": "acc7",
        "MAE": "mae",
        "Corr": "corr",
    },
    "sims": {
        "Mult_acc_2": "acc2",
        "Mult_acc_3": "acc3",
        "Mult_acc_5": "acc5",
        "F1_score": "f1",
        "MAE": "mae",
        "Corr": "corr",
    },
}
HALVES = np.arange(-7, 8) / 2
TENTHS = np.arange(-12, 13) / 10


def theirs(predicted, true, scale):
    from MMSA.utils.metricsTop import MetricsTop

    predicted, true = (torch.from_numpy(np.float32(x)) for x in (predicted, true))
    return MetricsTop("regression").getMetics(scale)(predicted, true)


def random_vectors():
    rng = np.random.default_rng(0)
    for n in (2, 3, 17, 686):
        for spread in (0.3, 1, 3):
            true = rng.uniform(-3, 3, n)
            yield f"uniform-{n}-{spread}", rng.normal(true, spread), true
        yield f"halves-{n}", rng.choice(HALVES, n), rng.choice(HALVES, n)
        yield f"tenths-{n}", rng.choice(TENTHS, n), rng.choice(TENTHS, n)


def adversarial_vectors():
    grid = np.stack(np.meshgrid(HALVES, HALVES)).reshape(2, -1)
    yield "all-halves", *grid
    grid = np.stack(np.meshgrid(TENTHS, TENTHS)).reshape(2, -1)
    yield "all-tenths", *grid
    edges = np.float32([-0.7, -0.1, 0, 0.1, 0.7, -1, 1])
    around = np.concatenate([edges, *(np.nextafter(edges, np.float32(s)) for s in (-2, 2))])
    grid = np.stack(np.meshgrid(around, around)).reshape(2, -1)
    yield "one-bit-beside-an-edge", *grid
    true = np.tile(np.arange(-3, 4), 3)
    for constant in (-1.0, -0.0, 0.0, 0.5, 1.0, 9.0):
        yield f"constant-{constant}", np.full(21, constant), true
    yield "constant-truth", np.linspace(-1, 1, 21), np.ones(21)
    yield "far-off", 1e4 * np.sign(true) * (1 + np.arange(21)), true
    yield "reversed", -true.astype(float), true
    yield "one-clip", np.array([0.5]), np.array([-1.0])
    yield "one-zero-predicted", np.array([0.0]), np.array([1.0])


VECTORS = [*random_vectors(), *adversarial_vectors()]


@pytest.mark.parametrize("scale", KEYS)
@pytest.mark.parametrize("vectors", VECTORS, ids=[name for name, *_ in VECTORS])
def test_scores_equal_theirs_up_to_their_rounding(vectors, scale):
    _, predicted, true = vectors
    ours, expected = score(predicted, true, scale), theirs(predicted, true, scale)
    for their_key, key in KEYS[scale].items():
        if np.isnan(expected[their_key]):
            assert ours[key] is None, key
        else:
            assert ours[key] == pytest.approx(expected[their_key], abs=5.1e-5, rel=1e-6), key


def test_they_crash_without_a_label_other_than_zero_and_we_give_null():
    with pytest.raises(IndexError):
        theirs([0.5, -0.5], [0.0, 0.0], "mosi")
    assert score([0.5, -0.5], [0.0, 0.0], "mosi")["acc2_non0"] is None
