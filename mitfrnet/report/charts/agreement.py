"""Predictions of one trained model against the labels of the test clips."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mitfrnet.labels import Scale
from mitfrnet.report.charts import figures
from mitfrnet.report.charts.drawing import Chart
from mitfrnet.report.confusion import SIGNS, classes_of, confusion
from mitfrnet.report.results import Cell
from mitfrnet.report.scores import Group


@dataclass(frozen=True)
class Agreement:
    """Predictions of one cell against the labels, under one test mask.

    Attributes:
        group: corpus and missing rates.
        title: model, corpus, rate and seed.
        chart: a scatter of predictions over labels; None if labels are classes.
        classes: the classes; on a scale, the sides of the neutral point that occur, in order.
        confusion: number of clips by class of the label, then of the prediction.
    """

    group: Group
    title: str
    chart: Chart | None
    classes: Sequence[str]
    confusion: Mapping[str, Mapping[str, int]]


def agreement(cell: Cell, group: Group, name: str) -> Agreement:
    """Return how the predictions of `cell` compare with the labels.

    Args:
        cell: a trained model.
        group: the corpus and test mask; of several mask seeds, the first is used.
        name: the model's name, as shown.
    """
    rows = cell.tested_at(group.tested)
    label, prediction = (rows[c].to_numpy() for c in ("label", "prediction"))
    scale = cell.scale
    counts = confusion(label.tolist(), prediction.tolist(), scale)
    title = f"{name} on {cell.corpus}, {group.title}, seed {cell.seed}"
    if not isinstance(scale, Scale):
        return Agreement(group, title, None, classes_of(scale), counts)

    # Neutral is shown only if a label or a prediction is exactly that.
    has_neutral = scale.neutral_point in label or scale.neutral_point in prediction
    same_side = sum(counts[sign][sign] for sign in SIGNS)
    chart = Chart(
        name=f"scatter-{cell.path}-{group.tested}",
        title=title,
        described=(
            f"Predictions of {name} against labels of {len(label)} test clips of {cell.corpus}. "
            f"Labels from {label.min():.2f} to {label.max():.2f}, predictions from "
            f"{prediction.min():.2f} to {prediction.max():.2f}; {same_side} are on the side of "
            "their label."
        ),
        draw=figures.scatter_chart(label, prediction, scale),
    )
    return Agreement(
        group=group,
        title=title,
        chart=chart,
        classes=[sign for sign in SIGNS if sign != "neutral" or has_neutral],
        confusion=counts,
    )
