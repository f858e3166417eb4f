"""The test clips that a model gets most wrong, to be looked at one by one."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mitfrnet.metrics import ClassScale, LabelScale
from mitfrnet.report.plain import kind
from mitfrnet.report.tables import Group

MOST = 10


@dataclass(frozen=True)
class WorstClip:
    """A test clip and what was made of it.

    Attributes:
        utterance_id: of the clip.
        label, prediction: as printed; of several runs the mean, of classes the most frequent.
        command: that opens its inspection.
    """

    utterance_id: str
    label: str
    prediction: str
    command: str


def worst_clips(group: Group, model: str, ids: Sequence[str]) -> list[WorstClip]:
    """Return the clips with the largest error, or that the most runs put in one wrong class.

    Of equal ones the first by id; of classes no clip that is put in its own.

    Args:
        group: the corpus and missing rate.
        model: key of the predictor.
        ids: of the test clips, in the order of the group's labels.
    """
    predictions, label, scale = group.row(model).predictions, group.label, group.scale
    if isinstance(scale, ClassScale):
        classes = np.arange(len(scale.classes))
        votes = (predictions[..., None] == classes).mean(0)  # (clips, classes)
        prediction = votes.argmax(-1)
        error = np.where(prediction == label, 0, votes.max(-1))
    else:
        prediction = predictions.mean(0)
        error = np.abs(prediction - label)
    order = sorted(np.flatnonzero(error), key=lambda i: (-error[i], ids[i]))
    return [
        WorstClip(
            utterance_id=ids[i],
            label=_shown(label[i], scale),
            prediction=_shown(prediction[i], scale),
            command=shlex.join(["mitfrnet", "inspect", f"{group.corpus}/{ids[i]}"]),
        )
        for i in order[:MOST]
    ]


def _shown(value: float, scale: LabelScale) -> str:
    return kind(value, scale) if isinstance(scale, ClassScale) else f"{value:.2f}"
