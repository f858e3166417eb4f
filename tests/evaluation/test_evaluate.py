from dataclasses import replace

import numpy as np
import pytest

from mitfrnet.errors import ParamsError
from mitfrnet.evaluation.evaluate import evaluate
from mitfrnet.evaluation.params import EvaluateParams
from mitfrnet.labels import ClassScale
from mitfrnet.missing import PROTOCOLS, Protocol
from mitfrnet.params import parse_params
from tests.helpers.splits import (
    StoredText,
    make_mask_params,
    make_splits,
    mask_splits,
    untrained_model,
)

MATCHED = EvaluateParams(rates="matched", protocol_rates=[0.0, 0.5], mask_seeds="matched")


@pytest.fixture(scope="module")
def splits():
    return make_splits()


def scored(splits, masks, text=None, **changes):
    """Return the scores of an untrained model, and the table of its predictions."""
    params = MATCHED.model_copy(update=changes)
    model = untrained_model(splits["test"])
    return evaluate(model, splits, masks, params, text or StoredText())


def test_the_matched_rate_is_scored_beside_the_references(splits):
    scores, table = scored(splits, mask_splits(splits, rate=0.4))
    assert table["utterance_id"].to_pylist() == splits["test"].ids
    assert set(table["missing_rate"].to_pylist()) == {0.4}
    label, prediction = (table[c].to_numpy() for c in ("label", "prediction"))
    assert np.array_equal(label, splits["test"].label)
    assert scores["mae"] == pytest.approx(np.abs(label - prediction).mean(), abs=1e-6)
    train_label = splits["train"].label
    assert np.allclose(table["train_mean"].to_numpy(), train_label.mean(), atol=1e-6)
    majority = np.median(train_label[train_label > 0])  # ten of twenty labels: positive wins ties
    assert np.allclose(table["majority"].to_numpy(), majority)
    assert len(set(table["text_ridge"].to_pylist())) > 1


def test_listed_rates_and_seeds_draw_masks_by_the_settings_of_training(splits):
    masks = mask_splits(splits, rate=0.4)
    scores, table = scored(splits, masks, rates=[0.0, 0.4], mask_seeds=[7, 8])
    matched, matched_table = scored(splits, masks)
    by_seed = scores["by_rate"]["0.4"]["by_mask_seed"]
    assert by_seed["7"] == matched
    assert by_seed["8"] != matched
    nothing_hidden = scores["by_rate"]["0.0"]["by_mask_seed"]
    assert nothing_hidden["7"] == nothing_hidden["8"] != matched
    rows = [row for row in table.to_pylist() if (row["missing_rate"], row["mask_seed"]) == (0.4, 7)]
    assert rows == matched_table.to_pylist()


def test_references_learn_and_predict_from_text_under_the_mask(splits):
    def ridge(train_rate, test_rate):
        table = scored(splits, mask_splits(splits, train_rate), rates=[test_rate])[1]
        return table["text_ridge"].to_pylist()

    assert ridge(0.4, 0.0) != ridge(0.4, 0.4)
    assert ridge(0.0, 0.0) != ridge(0.4, 0.0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_of_a_protocol_is_tested_at_all_its_rates(splits, protocol):
    masks = mask_splits(splits, rate=Protocol(protocol))
    scores, table = scored(splits, masks)
    assert list(scores["by_rate"]) == ["0.0", "0.5"]
    predictions = [
        [row["prediction"] for row in table.to_pylist() if row["missing_rate"] == rate]
        for rate in (0.0, 0.5)
    ]
    assert predictions[0] != predictions[1]


def test_seeds_for_a_pattern_that_has_its_own_are_refused(splits):
    masks = mask_splits(splits, rate=0.4, params=make_mask_params("legacy"))
    assert scored(splits, masks)[0]["n"] == 7
    with pytest.raises(ParamsError, match="pattern legacy has seeds of its own"):
        scored(splits, masks, mask_seeds=[1, 2])


def test_a_rate_that_the_pattern_cannot_reach_names_its_key_before_any_work(splits):
    params = make_mask_params("modality_random")
    masks = mask_splits(splits, rate=Protocol("complete_train"), params=params)
    unusable = object()  # to encode text with it would be another error
    with pytest.raises(ParamsError, match=r"evaluate\.protocol_rates: missing rate is 1 "):
        scored(splits, masks, unusable, protocol_rates=[0.0, 1.0])


def test_classes_are_scored_beside_their_references(splits):
    """Of 20 training labels 12 are joy, the majority."""
    scale = ClassScale(classes=("anger", "joy", "sadness")).model_dump()
    splits = {
        name: replace(
            split,
            label=np.array(([0, 1, 2, 1, 1] * 4)[: len(split.ids)], dtype=np.float32),
            metadata=split.metadata | {"scale": scale},
        )
        for name, split in splits.items()
    }
    scores, table = scored(splits, mask_splits(splits))
    assert set(table["prediction"].to_pylist()) <= {0.0, 1.0, 2.0}
    assert set(table["majority"].to_pylist()) == {1.0}
    assert set(table["text_logistic"].to_pylist()) <= {0.0, 1.0, 2.0}
    right = np.mean(table["prediction"].to_numpy() == table["label"].to_numpy())
    assert scores["accuracy"] == pytest.approx(right)
    assert {"f1_macro", "f1_weighted"} <= scores.keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rates": []}, "rates"),
        ({"rates": [1.2]}, "1.2 is not a missing rate"),
        ({"rates": "all"}, "expected 'matched' or a list"),
        ({"rates": [0.5, 0.5]}, "twice"),
        ({"protocol_rates": []}, "protocol_rates"),
        ({"mask_seeds": [-1]}, "-1 is not a seed"),
        ({"mask_seeds": "any"}, "expected 'matched' or a list"),
        ({"mask_seeds": [1.5]}, "expected 'matched' or a list of whole numbers"),
        ({"rates": [float("nan")]}, "expected 'matched' or a list of numbers"),
    ],
)
def test_wrong_rates_and_seeds_are_refused(change, message):
    with pytest.raises(ParamsError, match=message):
        parse_params(EvaluateParams, MATCHED.model_dump() | change, where="evaluate")
