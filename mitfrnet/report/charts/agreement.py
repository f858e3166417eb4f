"""Predictions of one trained model against the labels of the test clips."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mitfrnet.labels import Scale
from mitfrnet.report.charts import figures
from mitfrnet.report.charts.drawing import Chart
from mitfrnet.report.results import Cell
from mitfrnet.report.tables.plain import SIGNS, kind, kinds
from mitfrnet.report.tables.scores import Group


@dataclass(frozen=True)
class Agreement:
    """Predictions of one cell against the labels, under one test mask.

    Attributes:
        group: corpus and missing rates.
        title: model, corpus, rate and seed.
        chart: the scatter; None of class labels.
        thinned: whether it leaves clips out.
        kinds: the classes; or the sides of the neutral point that occur, in order.
        confusion: clips by kind of the label, then of the prediction.
    """

    group: Group
    title: str
    chart: Chart | None
    thinned: bool
    kinds: Sequence[str]
    confusion: Mapping[str, Mapping[str, int]]


def agreement(cell: Cell, group: Group, name: str) -> Agreement:
    """Return how the predictions of `cell` compare with the labels under the masks of `group`.

    Args:
        cell: trained model; of several test masks, the first seed's are looked at.
        group: of the same corpus and condition.
        name: of the model, as shown.
    """
    rows = cell.tested_at(group.tested)
    label, prediction = (rows[c].to_numpy() for c in ("label", "prediction"))
    scale = cell.scale
    counts = {a: dict.fromkeys(kinds(scale), 0) for a in kinds(scale)}
    for true, predicted in zip(label.tolist(), prediction.tolist(), strict=True):
        counts[kind(true, scale)][kind(predicted, scale)] += 1
    title = f"{name} on {cell.corpus}, {group.condition}, seed {cell.seed}"
    if not isinstance(scale, Scale):
        return Agreement(group, title, None, False, kinds(scale), counts)

    # Neutral is shown only where a label or a prediction is exactly that.
    has_neutral = scale.neutral_point in label or scale.neutral_point in prediction
    same_side = sum(counts[s][s] for s in SIGNS)
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
        thinned=len(label) > figures.MAX_DOTS,
        kinds=[s for s in SIGNS if s != "neutral" or has_neutral],
        confusion=counts,
    )
