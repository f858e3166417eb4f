import numpy as np
import pytest

from mitfrnet.metrics import SCALES, Scale, mwa, score

# Counts of negative, zero and positive labels in the test splits of CMU-MOSI and CH-SIMS.
MOSI = np.array([-1.0] * 379 + [0.0] * 30 + [1.0] * 277)
SIMS = np.array([-1.0] * 248 + [0.0] * 69 + [1.0] * 140)


def test_mosi_scores_of_five_clips_by_hand():
    """The definitions on one example.

    true       -2.0   0.0   1.0   3.0  -0.4
    predicted  -1.5   0.5  -0.5   2.4   0.0
    has0 (>= 0)  ok    ok     x    ok     x    3 of 5
    non0 (> 0)   ok     -     x    ok    ok    3 of 4: a 0 predicted is not positive here
    acc7      -2,-2   0,0  1,-0   3,2  -0,0    3 of 5, halves to even: -1.5 -> -2, 0.5 -> 0
    acc5      -2,-2   0,0  1,-0   2,2  -0,0    4 of 5
    mae       (.5 + .5 + 1.5 + .6 + .4) / 5 = .7
    """
    true = [-2.0, 0.0, 1.0, 3.0, -0.4]
    predicted = [-1.5, 0.5, -0.5, 2.4, 0.0]
    scores = score(predicted, true, "mosi")
    assert scores["acc2_has0"] == pytest.approx(3 / 5)
    assert scores["acc2_non0"] == pytest.approx(3 / 4)
    assert scores["acc7"] == pytest.approx(3 / 5)
    assert scores["acc5"] == pytest.approx(4 / 5)
    assert scores["mae"] == pytest.approx(0.7)
    assert scores["n"] == 5
    assert scores["constant_prediction"] is False


def test_weighted_f1_takes_true_before_predicted():
    """F1 by hand, true = + + + -, predicted = + + - -.

    Class +: precision 1, recall 2/3, F1 4/5. Class -: precision 1/2, recall 1, F1 2/3.
    Weighted by true counts (3, 1): .7667; by predicted counts (2, 2), the swapped way: .7333.
    """
    scores = score([1, 1, -1, -1], [1, 1, 1, -1], "mosi")
    assert scores["f1_non0"] == pytest.approx(0.75 * 4 / 5 + 0.25 * 2 / 3)
    assert scores["f1_non0_swapped"] == pytest.approx(0.5 * 4 / 5 + 0.5 * 2 / 3)


def test_a_constant_prediction_gives_the_published_degenerate_values():
    """Accuracy a and F1 of one class only: a * 2a / (1 + a), swapped 2a / (1 + a)."""
    positive = score(np.ones(686), MOSI, "mosi")
    assert positive["acc2_has0"] == pytest.approx(0.4475, abs=5e-5)
    assert positive["f1_has0_swapped"] == pytest.approx(0.6183, abs=5e-5)
    assert positive["f1_has0"] == pytest.approx(0.2767, abs=5e-5)
    assert positive["acc2_non0"] == pytest.approx(0.4223, abs=5e-5)
    negative = score(-np.ones(457), SIMS, "sims")
    assert negative["acc2"] == pytest.approx(0.6937, abs=5e-5)
    assert negative["f1"] == pytest.approx(0.5682, abs=5e-5)
    assert negative["f1_swapped"] == pytest.approx(0.8191, abs=5e-5)
    for scores in (positive, negative):
        assert scores["corr"] is None
        assert scores["constant_prediction"] is True


def test_sims_bins_are_closed_on_the_right_and_everything_is_clipped():
    """Upper edges belong to the class below: 0 is negative, .1 is neutral, .7 is weak.

    Predictions beyond the scale are clipped before anything else: 1.4 counts as 1, so mae is 0.
    """
    edges = [-0.7, -0.1, 0.0, 0.1, 0.7, 1.0]
    inside = [-0.8, -0.2, -0.05, 0.1, 0.6, 1.4]
    scores = score(inside, edges, "sims")
    assert scores["acc2"] == 1  # - - - + + +
    assert scores["acc3"] == 1  # - - 0 0 + +
    assert scores["acc5"] == 1  # -- - 0 0 + ++
    assert score([1.4], [1.0], "sims")["mae"] == 0


def test_labels_of_sims_are_compared_in_float32():
    label = np.float32(0.1).astype(np.float64)  # 0.10000000149
    assert label > 0.1
    assert score([label], [0.0], "sims")["acc3"] == 1


@pytest.mark.parametrize("scale", SCALES)
def test_corr_is_null_where_it_is_not_defined(scale):
    assert score([0.1], [0.2], scale)["corr"] is None
    assert score([0.1, 0.3], [0.2, 0.2], scale)["corr"] is None
    assert score([0.1, 0.3], [0.2, 0.4], scale)["corr"] == pytest.approx(1)


def test_no_label_other_than_zero_gives_null_not_a_crash():
    scores = score([0.5, -0.5], [0.0, 0.0], "mosi")
    assert scores["acc2_non0"] is None
    assert scores["f1_non0"] is None


@pytest.mark.parametrize(
    ("prediction", "target", "scale", "message"),
    [
        ([np.nan, 1.0], [1.0, 1.0], "mosi", "prediction: 1 values are not finite"),
        ([1.0], [1.0, 1.0], "mosi", r"prediction is \(1,\), target is \(2,\)"),
        ([], [], "mosi", "expected"),
        ([1.0], [1.0], "imdb", "scale: 'imdb' is unknown"),
    ],
)
def test_what_cannot_be_scored_is_refused(prediction, target, scale, message):
    with pytest.raises(ValueError, match=message):
        score(prediction, target, scale)


def test_a_scale_of_its_own_bounds():
    scale = Scale(low=-5, high=5, family="sims")
    assert score([7.0, -7.0], [5.0, -5.0], scale)["mae"] == 0


def test_mwa_as_printed_is_55_for_a_perfect_score_and_100_when_normalised():
    perfect = {i / 10: 100.0 for i in range(11)}
    assert mwa(perfect) == pytest.approx(55)
    assert mwa(perfect, normalised=True) == pytest.approx(100)


def test_mwa_of_the_paper_for_the_binary_accuracy_of_its_table_4():
    ours = [82.07, 80.09, 77.26, 72.97, 71.67, 68.71, 64.29, 63.75, 60.72, 54.28, 51.56]
    by_rate = {i / 10: value for i, value in enumerate(ours)}
    assert mwa(by_rate) == pytest.approx(40.68, abs=0.005)
    assert mwa(by_rate, normalised=True) == pytest.approx(73.97, abs=0.005)


def test_mwa_needs_the_eleven_rates_unless_normalised():
    by_rate = {0.0: 80.0, 0.5: 60.0, 1.0: 40.0}
    assert mwa(by_rate) is None
    assert mwa(by_rate, normalised=True) == pytest.approx((80 + 0.5 * 60) / 1.5)
