import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from mitfrnet.labels import SCALES, Scale, parse_scale
from mitfrnet.metrics import metric_names, mwa, over_rates, score, why_null
from tests.helpers.scales import EMOTIONS, STARS

# Counts of negative, zero and positive labels in the test splits of CMU-MOSI and CH-SIMS.
MOSI = np.array([-1.0] * 379 + [0.0] * 30 + [1.0] * 277)
SIMS = np.array([-1.0] * 248 + [0.0] * 69 + [1.0] * 140)

# Table 4, Acc-2(-), at missing rates 0.0 to 1.0.
TABLE_4 = {
    "TFN": [77.55, 74.49, 69.68, 65.60, 62.88, 55.44, 55.15, 52.14, 51.65, 51.41, 47.45],
    "MulT": [80.52, 76.63, 72.59, 70.50, 66.96, 62.24, 59.33, 56.17, 53.40, 53.76, 45.92],
    "MISA": [81.63, 78.72, 76.05, 72.93, 71.47, 64.25, 64.17, 56.61, 44.75, 44.75, 44.75],
    "TFR-Net": [81.15, 79.59, 76.92, 71.43, 71.62, 66.81, 64.19, 59.82, 60.20, 52.72, 51.10],
    "MIT-FRNet": [82.07, 80.09, 77.26, 72.97, 71.67, 68.71, 64.29, 63.75, 60.72, 54.28, 51.56],
}


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
    assert positive["f1_non0_swapped"] == pytest.approx(0.5938, abs=5e-5)
    assert positive["f1_non0"] == pytest.approx(0.2507, abs=5e-5)
    negative = score(-np.ones(457), SIMS, "sims")
    assert negative["acc2"] == pytest.approx(0.6937, abs=5e-5)
    assert negative["acc3"] == pytest.approx(0.5427, abs=5e-5)
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
        ([np.nan, 1.0], [1.0, 1.0], "mosi", "prediction: 1 values are NaN or infinite"),
        ([1.0], [1.0, 1.0], "mosi", r"prediction is \(1,\), target is \(2,\)"),
        ([], [], "mosi", "expected"),
        ([1.0], [1.0], "imdb", "scale: 'imdb' is unknown"),
    ],
)
def test_invalid_values_are_refused(prediction, target, scale, message):
    with pytest.raises(ValueError, match=message):
        score(prediction, target, scale)


def test_a_family_on_other_bounds_clips_to_them():
    scale = Scale(low=-5, high=5, family="sims")
    assert score([7.0, -7.0], [5.0, -5.0], scale)["mae"] == 0


def test_mwa_as_printed_is_55_for_a_perfect_score_and_100_when_normalised():
    perfect = {i / 10: 100.0 for i in range(11)}
    assert mwa(perfect) == pytest.approx(55)
    assert mwa(perfect, normalised=True) == pytest.approx(100)


@pytest.mark.parametrize(
    ("model", "paper", "normalised"),
    [
        ("MIT-FRNet", 40.68, 73.97),
        ("TFR-Net", 40.16, 73.02),
        ("MISA", 39.55, 71.90),
        ("MulT", 38.48, 69.97),
        ("TFN", 36.49, 66.34),
    ],
)
def test_mwa_of_the_paper_for_the_binary_accuracy_of_its_table_4(model, paper, normalised):
    """Worked out from the rows that the paper prints."""
    by_rate = {i / 10: value for i, value in enumerate(TABLE_4[model])}
    means = over_rates(by_rate)
    assert means["mwa_paper"] == pytest.approx(paper, abs=0.0051)
    assert means["mwa_normalised"] == pytest.approx(normalised, abs=0.0051)
    assert means["skipped"] == []


def test_mwa_needs_the_eleven_rates_unless_normalised():
    by_rate = {0.0: 80.0, 0.5: 60.0, 1.0: 40.0}
    assert mwa(by_rate) is None
    assert mwa(by_rate, normalised=True) == pytest.approx((80 + 0.5 * 60) / 1.5)


def test_means_over_rates_by_hand():
    """Scores 80, 70 and 40 at rates 0, .5 and .6, none at .9.

    mwa_normalised: (80 * 1 + 70 * .5 + 40 * .4) / 1.9 = 131 / 1.9.
    auilc_normalised: (.5 * (80 + 70) / 2 + .1 * (70 + 40) / 2) / .6 = (37.5 + 5.5) / .6.
    mean: 190 / 3. The printed form lacks rates.
    """
    means = over_rates({0.6: 40.0, 0.9: None, 0.0: 80.0, 0.5: 70.0})
    assert means == {
        "mwa_paper": None,
        "mwa_normalised": pytest.approx(131 / 1.9),
        "auilc_normalised": pytest.approx(43 / 0.6),
        "mean": pytest.approx(190 / 3),
        "skipped": [0.9],
    }


def test_the_area_of_a_constant_score_is_that_score_over_any_range():
    for rates in ([0.0, 1.0], [0.0, 0.1, 0.5], [0.3, 0.4]):
        assert over_rates(dict.fromkeys(rates, 0.7))["auilc_normalised"] == pytest.approx(0.7)


def test_means_over_one_rate_or_none_are_null_where_not_defined():
    one = over_rates({1.0: 0.5})
    assert (one["mwa_normalised"], one["auilc_normalised"], one["mean"]) == (None, None, 0.5)
    assert over_rates({0.5: None, 0.1: float("nan")}) == {
        "mwa_paper": None,
        "mwa_normalised": None,
        "auilc_normalised": None,
        "mean": None,
        "skipped": [0.1, 0.5],
    }
    with pytest.raises(ValueError, match=r"1\.5 is not a missing rate"):
        over_rates({1.5: 0.2})


def test_a_scale_with_its_own_cuts_by_hand():
    """Stars from 1 to 5 around 3, a label of 3 left out of the two classes.

    true            1     2.5    3     3.5    5
    predicted       0.2   2.4    4     3      5.9
    clipped         1     2.4    4     3      5
    > 3             ok    ok     -     x      ok     3 of 4: a 3 predicted is not positive
    [2.5, 3.5)      -,-   0,-    0,+   +,0    +,+    2 of 5: 2.5 and 3.5 belong above
    round           1,1   2,2    3,4   4,3    5,5    3 of 5: 2.5 -> 2 and 3.5 -> 4, to even
    mae             (0 + .1 + 1 + .5 + 0) / 5 = .32, on clipped values
    """
    scores = score([0.2, 2.4, 4, 3, 5.9], [1, 2.5, 3, 3.5, 5], STARS)
    assert scores["acc2_non_neutral"] == pytest.approx(3 / 4)
    assert scores["acc3"] == pytest.approx(2 / 5)
    assert scores["acc5"] == pytest.approx(3 / 5)
    assert scores["mae"] == pytest.approx(0.32)
    assert "acc2" not in scores


@pytest.mark.parametrize(("side", "expected"), [("positive", 1 / 3), ("negative", 2 / 3)])
def test_the_neutral_point_counts_on_the_side_that_the_scale_says(side, expected):
    """True 3, 2, 4 and predicted 2, 4, 4: with 3 positive + - + and - + +, else - - + and - + +."""
    scale = Scale(low=1, high=5, neutral=3, neutral_is=side, clip=False, cuts={})
    assert score([2, 4, 4], [3, 2, 4], scale)["acc2"] == pytest.approx(expected)


def test_the_families_equal_scales_with_the_same_cuts():
    rng = np.random.default_rng(0)
    true = rng.choice(np.arange(-10, 11) / 10, 200)
    predicted = rng.choice(np.arange(-15, 16) / 10, 200)
    edges = {3: [-0.1, 0.1], 5: [-0.7, -0.1, 0.1, 0.7]}
    cuts = {k: {"edges": e, "closed": "right"} for k, e in edges.items()}
    own = Scale(low=-1, high=1, neutral=0, neutral_is="negative", clip=True, cuts=cuts)
    assert score(predicted, true, own) == score(predicted, true, "sims")
    cuts = {5: "round", 7: "round"}
    mosi = score(3 * predicted, 3 * true, "mosi")
    for side, ours, theirs in [("positive", "", "_has0"), ("excluded", "_non_neutral", "_non0")]:
        own = Scale(low=-3, high=3, neutral=0, neutral_is=side, clip=False, cuts=cuts)
        scores = score(3 * predicted, 3 * true, own)
        for name in ("acc2{}", "f1{}", "f1{}_swapped"):
            assert scores[name.format(ours)] == mosi[name.format(theirs)]
        for name in ("acc5", "acc7", "mae", "corr"):
            assert scores[name] == mosi[name]


def test_class_labels_by_hand():
    """True a a a j s, predicted a a j j a.

    Right 3 of 5. F1: a 2*2/(3+3) = 2/3; j 2*1/(1+2) = 2/3; s 0. Macro 4/9; weighted by true
    counts (3*2/3 + 2/3) / 5 = 8/15. Recall 2/3, 1, 0: mean 5/9.
    """
    assert score([0, 0, 1, 1, 0], [0, 0, 0, 1, 2], EMOTIONS) == {
        "accuracy": pytest.approx(3 / 5),
        "f1_macro": pytest.approx(4 / 9),
        "f1_weighted": pytest.approx(8 / 15),
        "recall_macro": pytest.approx(5 / 9),
        "n": 5,
        "constant_prediction": False,
    }


def test_a_class_only_predicted_lowers_macro_f1_and_an_absent_one_does_not():
    """True a a, predicted a j: F1 of a 2/3, of j 0, s does not occur; recall of a 1/2."""
    scores = score([0, 1], [0, 0], EMOTIONS)
    assert scores["f1_macro"] == pytest.approx(1 / 3)
    assert scores["f1_weighted"] == pytest.approx(2 / 3)
    assert scores["recall_macro"] == pytest.approx(1 / 2)


@pytest.mark.parametrize("seed", range(5))
def test_counts_give_what_scikit_learn_gives(seed):
    rng = np.random.default_rng(seed)
    n = [1, 2, 5, 50, 500][seed]
    predicted, true = rng.integers(0, 3, (2, n))
    scores = score(predicted, true, EMOTIONS)
    assert scores["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    assert scores["f1_macro"] == pytest.approx(f1_score(true, predicted, average="macro"))
    assert scores["f1_weighted"] == pytest.approx(f1_score(true, predicted, average="weighted"))
    recalls = [(predicted[true == c] == c).mean() for c in np.unique(true)]
    assert scores["recall_macro"] == pytest.approx(np.mean(recalls))
    predicted, true = rng.uniform(-3, 3, (2, n))
    scores = score(predicted, true, "mosi")
    a, b = true > 0, predicted > 0
    assert scores["f1_non0"] == pytest.approx(f1_score(a, b, average="weighted"))
    assert scores["f1_non0_swapped"] == pytest.approx(f1_score(b, a, average="weighted"))


def test_always_the_same_class_is_constant():
    assert score([1, 1, 1], [0, 1, 2], EMOTIONS)["constant_prediction"] is True
    assert score([1, 1, 0], [0, 1, 2], EMOTIONS)["constant_prediction"] is False


@pytest.mark.parametrize("scale", ["mosi", "sims", STARS])
def test_constant_is_a_range_of_at_most_a_millionth_of_the_labels(scale):
    parsed = parse_scale(scale)
    limit = 1e-6 * (parsed.high - parsed.low)
    true = np.linspace(parsed.low, parsed.high, 100)
    for share, constant in [(0.9, True), (1.2, False)]:
        predicted = np.zeros(100)
        predicted[7] = share * limit
        if parsed is STARS:
            predicted += 1  # float32 has a step of 1.2e-7 there
        scores = score(predicted, true, scale)
        assert scores["constant_prediction"] is constant
        assert (scores["corr"] is None) is constant


def test_predictions_that_clipping_makes_equal_are_constant():
    assert score([1.2, 1.5], [0.1, 0.4], "sims")["constant_prediction"] is True
    assert score([1.2, 1.5], [0.1, 0.4], "mosi")["constant_prediction"] is False


def test_a_null_says_why():
    for prediction, target, reason in [
        ([0.1], [0.2], "a correlation needs at least two clips"),
        ([0.1, 0.1], [0.2, 0.3], "constant prediction"),
        ([0.1, 0.2], [0.3, 0.3], "all labels are the same"),
        ([0.1, 0.2], [0.3, 0.4], None),
    ]:
        assert why_null("corr", score(prediction, target, "sims")) == reason
    scores = score([0.5, -0.5], [0.0, 0.0], "mosi")
    assert why_null("f1_non0", scores) == "all labels are neutral"


def test_corr_does_not_suffer_from_a_large_offset():
    rng = np.random.default_rng(0)
    true = rng.uniform(-3, 3, 50)
    predicted = np.float32(1000 + 0.01 * true)
    expected = np.corrcoef(predicted.astype(float), np.float32(true).astype(float))[0, 1]
    assert score(predicted, true, "mosi")["corr"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("scale", [*SCALES.values(), STARS, EMOTIONS])
def test_the_names_of_the_metrics_are_the_keys_of_the_scores(scale):
    flags = {"n", "constant_prediction"}
    assert {*metric_names(scale), *flags} == score([1, 2], [1, 2], scale).keys()


@pytest.mark.parametrize("index", [3, -1, 0.5])
def test_an_index_without_a_class_is_refused(index):
    with pytest.raises(ValueError, match=rf"prediction: {index} is not a class .* from 0 to 2"):
        score([0, index], [0, 1], EMOTIONS)


def test_importing_the_metrics_is_light():
    """Every stage imports a scale; scikit-learn and SciPy take a second."""
    code = "import sys, mitfrnet.metrics; print({'sklearn', 'scipy', 'torch'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "set()"
