"""Labels and predictions as classes, and how often the two agree."""

from collections.abc import Iterable, Mapping

import numpy as np

from mitfrnet.labels import ClassScale, LabelScale

SIGNS = ("negative", "neutral", "positive")


def classes_of(scale: LabelScale) -> tuple[str, ...]:
    """Return the classes of the labels; on a scale, the sides of its neutral point."""
    return scale.classes if isinstance(scale, ClassScale) else SIGNS


def class_of(value: float, scale: LabelScale) -> str:
    """Return the class of a label or prediction, one of `classes_of`."""
    if isinstance(scale, ClassScale):
        return scale.classes[int(value)]
    neutral = np.float32(scale.neutral_point)  # labels are float32 too
    return SIGNS[int(value > neutral) - int(value < neutral) + 1]


def confusion(
    labels: Iterable[float], predictions: Iterable[float], scale: LabelScale
) -> Mapping[str, Mapping[str, int]]:
    """Return how many clips have which label and prediction, by class of one, then the other."""
    classes = classes_of(scale)
    counts = {name: dict.fromkeys(classes, 0) for name in classes}
    for label, prediction in zip(labels, predictions, strict=True):
        counts[class_of(label, scale)][class_of(prediction, scale)] += 1
    return counts
