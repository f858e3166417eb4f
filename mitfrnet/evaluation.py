"""Score a trained model on the test split, beside what needs no model at all."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import field_validator
from torch import Tensor

from mitfrnet.data.tensors import SplitTensors
from mitfrnet.data.utterances import FrozenText, Observed
from mitfrnet.metrics import Scale, Score, score
from mitfrnet.missing import MaskParams, Masks, mask_corpus
from mitfrnet.params import StageParams
from mitfrnet.trained import TrainedModel

Scores = NDArray[np.float32]

# Strengths that cross-validation within the training split chooses from.
_RIDGE_ALPHAS = tuple(10.0**k for k in range(-2, 5))


class EvaluateParams(StageParams):
    """Section `evaluate`."""

    rates: Literal["matched"] | list[float]  # of the test masks; matched: as trained

    @field_validator("rates", mode="before")
    @classmethod
    def _known_rates(cls, rates: Any) -> Any:
        if rates == "matched":
            return rates
        if not isinstance(rates, list) or not all(isinstance(r, int | float) for r in rates):
            raise ValueError("expected 'matched' or a list of rates")
        if not rates:
            raise ValueError("expected 'matched' or at least one rate")
        if len(set(rates)) < len(rates):
            raise ValueError("a rate stands there twice")
        for rate in rates:
            if not 0 <= rate <= 1:
                raise ValueError(f"{rate} is no missing rate (expected within [0, 1])")
        return rates


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
        splits: complete features of `train` and `test`; the former for the references only.
        masks: those the model was trained under.
        params: which rates of missing the test split is scored at.
        text: encodes masked transcripts.

    Returns:
        The scores of the one matched rate, or `by_rate` with those of each listed one; and a
        table of `utterance_id`, `missing_rate`, `label`, `prediction` and each reference.
    """
    test = splits["test"]
    scale = Scale(**test.metadata["scale"])
    references = References(splits["train"], masks.observed["train"], text)
    trained_rate = masks.metadata["rate"]
    recipe = MaskParams(pattern=masks.metadata["pattern"], seed=masks.metadata["seed"])
    by_rate: dict[str, dict[str, Score]] = {}
    tables = []
    for rate in [trained_rate] if params.rates == "matched" else params.rates:
        if rate == trained_rate:
            observed = masks.observed["test"]
        else:
            observed = mask_corpus({"test": test.steps}, rate=rate, params=recipe).observed["test"]
        prediction = trained.predict(test, observed, text)
        by_rate[str(rate)] = score(prediction, test.label, scale)
        columns = {
            "utterance_id": pa.array(test.ids, pa.string()),
            "missing_rate": pa.array([rate] * len(test.ids), pa.float64()),
            "label": pa.array(test.label, pa.float32()),
            "prediction": pa.array(prediction, pa.float32()),
        }
        for name, values in references.predict(text.encode(test, observed)).items():
            columns[name] = pa.array(values, pa.float32())
        tables.append(pa.table(columns))
    scores = by_rate[str(trained_rate)] if params.rates == "matched" else {"by_rate": by_rate}
    return scores, pa.concat_tables(tables)


REFERENCES = ("majority", "train_mean", "text_ridge")


class References:
    """Predictions that need no neural network, from the training split under the same mask.

    `majority`: the median label on the side of zero where most training labels are.
    `train_mean`: their mean. `text_ridge`: ridge regression on the mean of the token vectors,
    its strength chosen by leave-one-out within the training split.
    """

    def __init__(self, train: SplitTensors, observed: Observed, text: FrozenText) -> None:
        from sklearn.linear_model import RidgeCV

        label = train.label
        majority = label > 0 if (label > 0).sum() >= (label < 0).sum() else label < 0
        self._majority = float(np.median(label[majority])) if majority.any() else 0.0
        self._mean = float(label.mean())
        self._ridge = RidgeCV(alphas=_RIDGE_ALPHAS)
        self._ridge.fit(_mean_vectors(text.encode(train, observed)), label)

    def predict(self, text: Sequence[Tensor]) -> dict[str, Scores]:
        """Return the prediction of each reference, (utterances,).

        Args:
            text: token vectors under the mask, (steps, dim) per utterance.
        """
        n = len(text)
        ridge = self._ridge.predict(_mean_vectors(text)).astype(np.float32)
        constants = [np.full(n, c, dtype=np.float32) for c in (self._majority, self._mean)]
        return dict(zip(REFERENCES, [*constants, ridge], strict=True))


def _mean_vectors(text: Sequence[Tensor]) -> NDArray[np.float64]:
    """Return the mean over steps, (utterances, dim); zeros where there is no text."""
    means = [v.double().mean(0) if len(v) else v.new_zeros(v.shape[1]).double() for v in text]
    return np.stack([m.numpy() for m in means])
