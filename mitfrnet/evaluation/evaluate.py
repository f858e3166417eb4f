"""Score a trained model on the test split, beside references that need no neural network."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from mitfrnet.data.masked_text import FrozenText
from mitfrnet.data.ragged import Observed
from mitfrnet.data.tensors import SplitTensors
from mitfrnet.errors import ParamsError
from mitfrnet.evaluation.params import EvaluateParams
from mitfrnet.labels import ClassScale, parse_scale
from mitfrnet.metrics import Score, score
from mitfrnet.missing import WHOLE_PATTERNS, MaskParams, Masks, mask_steps
from mitfrnet.params import PARAMS_FILE
from mitfrnet.trained.model import TrainedModel

Scores = NDArray[np.float32]

# Cross-validation within the training split chooses one of these strengths.
_RIDGE_ALPHAS = tuple(10.0**k for k in range(-2, 5))


def evaluate(
    trained: TrainedModel,
    splits: Mapping[str, SplitTensors],
    masks: Masks,
    params: EvaluateParams,
    text: FrozenText,
) -> tuple[dict[str, Any], pa.Table]:
    """Return the scores on the test split, and the predictions they come from.

    Args:
        trained: the model.
        splits: complete features of `train`, for the references, and `test`.
        masks: the masks of the model's training.
        params: section `evaluate`.
        text: encodes masked transcripts.

    Returns:
        The scores, grouped `by_rate` and `by_mask_seed` if there are several test masks; and a
        table of `utterance_id`, `missing_rate`, `mask_seed`, `label`, `prediction` and each
        reference. Classes are given by index.

    Raises:
        ParamsError: the pattern of the masks cannot reach a rate, or has seeds of its own.
        FeatureError: the model was trained on features with other settings.
    """
    # The last bits of predictions depend on the number of threads.
    torch.set_num_threads(trained.config["training"]["train"]["threads"])
    test = splits["test"]
    scale = parse_scale(test.metadata["scale"])
    mask_params = MaskParams(**masks.metadata["params"])
    test_masks = _test_masks(test, masks.metadata["rate"], mask_params, params)
    references = References(splits["train"], _train_mask(splits["train"], masks, mask_params), text)
    by_rate: dict[str, dict[str, dict[str, dict[str, Score]]]] = {}
    tables = []
    for (rate, seed), observed in test_masks.items():
        whole = mask_params.pattern in WHOLE_PATTERNS
        prediction = trained.predict(test, observed, text, whole=whole)
        scores = score(prediction, test.label, scale)
        by_rate.setdefault(str(rate), {"by_mask_seed": {}})["by_mask_seed"][str(seed)] = scores
        n = len(test.ids)
        columns = {
            "utterance_id": pa.array(test.ids, pa.string()),
            "missing_rate": pa.array([rate] * n, pa.float64()),
            "mask_seed": pa.array([seed] * n, pa.int64()),
            "label": pa.array(test.label, pa.float32()),
            "prediction": pa.array(prediction, pa.float32()),
        }
        for name, values in references.predict(text.encode(test, observed)).items():
            columns[name] = pa.array(values, pa.float32())
        tables.append(pa.table(columns))
    return scores if len(tables) == 1 else {"by_rate": by_rate}, pa.concat_tables(tables)


def _test_masks(
    test: SplitTensors, trained_rate: float | None, mask_params: MaskParams, params: EvaluateParams
) -> dict[tuple[float, int], Observed]:
    """Return the test masks by rate and seed, all at once, so that errors come before the work."""
    if trained_rate is None:
        key, rates = "protocol_rates", params.protocol_rates
    else:
        key, rates = "rates", [trained_rate] if params.rates == "matched" else params.rates
    drawn: dict[tuple[float, int], Observed] = {}
    for rate in rates:
        for seed in _mask_seeds(mask_params, params):
            seeded = mask_params.model_copy(update={"seed": seed})
            try:
                observed = mask_steps(test.steps, rate=rate, split="test", params=seeded)
            except ParamsError as error:
                raise ParamsError(f"{PARAMS_FILE}: evaluate.{key}: {error}") from error
            drawn[rate, seed] = observed
    return drawn


def _train_mask(train: SplitTensors, masks: Masks, mask_params: MaskParams) -> Observed:
    """Return the training mask; under `random_train`, that of the first epoch."""
    if masks.metadata["protocol"] == "random_train":
        return mask_steps(train.steps, rate=None, split="train", params=mask_params, epoch=1)
    return masks.observed["train"]


def _mask_seeds(mask_params: MaskParams, params: EvaluateParams) -> Sequence[int]:
    if params.mask_seeds == "matched":
        return [mask_params.seed]
    if mask_params.pattern == "legacy":
        raise ParamsError(
            f"{PARAMS_FILE}: evaluate.mask_seeds: pattern legacy has seeds of its own "
            "(expected matched)"
        )
    return params.mask_seeds


class References:
    """Predictions that need no neural network, from the training split under the same mask.

    For scores: `majority` is the median label on the side of the neutral point with most training
    labels; `train_mean` is the mean label; `text_ridge` is ridge regression on the mean token
    vector, with a strength chosen by leave-one-out within the training split. For classes:
    `majority` is the most frequent class; `text_logistic` is logistic regression on the same
    vectors.
    """

    def __init__(self, train: SplitTensors, observed: Observed, text: FrozenText) -> None:
        label, scale = train.label, parse_scale(train.metadata["scale"])
        if isinstance(scale, ClassScale):
            self._constants = {"majority": float(np.bincount(label.astype(int)).argmax())}
            self._name, self._regression = "text_logistic", _logistic(label)
        else:
            neutral = scale.neutral_point
            above, below = label > neutral, label < neutral
            majority = above if above.sum() >= below.sum() else below
            median = float(np.median(label[majority])) if majority.any() else neutral
            self._constants = {"majority": median, "train_mean": float(label.mean())}
            self._name, self._regression = "text_ridge", _ridge()
        self._regression.fit(_mean_vectors(text.encode(train, observed)), label)

    def predict(self, text: Sequence[Tensor]) -> dict[str, Scores]:
        """Return the prediction of each reference, (utterances,).

        Args:
            text: token vectors under the mask, (steps, dim) per utterance.
        """
        predicted = {name: np.full(len(text), c) for name, c in self._constants.items()}
        predicted[self._name] = self._regression.predict(_mean_vectors(text))
        return {name: values.astype(np.float32) for name, values in predicted.items()}


def _ridge() -> Any:
    from sklearn.linear_model import RidgeCV

    return RidgeCV(alphas=_RIDGE_ALPHAS)


def _logistic(label: Scores) -> Any:
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(label)) < 2:  # which LogisticRegression refuses
        return DummyClassifier()
    return LogisticRegression(max_iter=1000)


def _mean_vectors(text: Sequence[Tensor]) -> NDArray[np.float64]:
    """Return the mean over steps, (utterances, dim); zeros without text."""
    means = [v.double().mean(0) if len(v) else v.new_zeros(v.shape[1]).double() for v in text]
    return np.stack([m.numpy() for m in means])
