"""The scores that tables and charts show: their names, units and meanings on a label scale."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mitfrnet.labels import ClassScale, Edges, LabelScale, Scale
from mitfrnet.metrics import metric_names
from mitfrnet.report.words import listed


@dataclass(frozen=True)
class Column:
    """A score as tables and charts show it.

    Attributes:
        key: its key in `mitfrnet.metrics.score`.
        name: unique among the scores of a scale.
        short: the name in tables of a few scores.
        meaning: in words.
        share: whether it is a fraction, shown in percent.
        higher_is_better: whether a higher value is better.
    """

    key: str
    name: str
    short: str
    meaning: str
    share: bool = True
    higher_is_better: bool = True

    @property
    def head(self) -> str:
        """Return the short name with its unit."""
        return f"{self.short} %" if self.share else self.short

    @property
    def full_head(self) -> str:
        """Return the name with its unit."""
        return f"{self.name} %" if self.share else self.name

    @property
    def arrow(self) -> str:
        """Return the direction in which the score gets better, as an arrow."""
        return "↑" if self.higher_is_better else "↓"

    @property
    def better(self) -> str:
        """Return which values are better: `higher` or `lower`."""
        return "higher" if self.higher_is_better else "lower"

    @property
    def factor(self) -> int:
        """Return what turns a value into the unit of `head`."""
        return 100 if self.share else 1

    def best(self, values: Iterable[float]) -> float:
        """Return the best of some values."""
        return max(values) if self.higher_is_better else min(values)

    def show(self, value: float, deviation: float | None = None) -> str:
        """Return the value as printed, with its deviation if there is one.

        Percent have one decimal, other values three.
        """
        shown = f"{100 * value:.1f}" if self.share else f"{value:.3f}"
        shown = shown.removeprefix("-") if float(shown) == 0 else shown
        return shown if deviation is None else f"{shown} ± {self.show(deviation)}"

    def show_difference(self, value: float) -> str:
        """Return a difference as printed, with its sign."""
        shown = self.show(value)
        return shown if shown.startswith("-") or float(shown) == 0 else f"+{shown}"


_F1 = "of the two classes of Acc-2, weighted by their true shares"
_FIXED = {
    column.key: column
    for column in (
        Column("acc2_has0", "Acc-2 has0", "Acc-2", "negative or not, over all clips"),
        Column("f1_has0", "F1 has0", "F1", _F1),
        Column("acc2_non0", "Acc-2 non0", "Acc-2", "positive or not, over clips not labelled 0"),
        Column("f1_non0", "F1 non0", "F1", _F1),
        Column("f1", "F1", "F1", _F1),
        Column("f1_non_neutral", "F1", "F1", _F1),
        Column("mae", "MAE", "MAE", "mean absolute error, in units of the label", False, False),
        Column("corr", "Corr", "Corr", "Pearson correlation with the label", False),
        Column("accuracy", "Accuracy", "Accuracy", "clips put in their class"),
        Column("f1_macro", "F1 macro", "F1 macro", "mean of the classes' F1"),
        Column("f1_weighted", "F1 weighted", "F1 weighted", "by the classes' true shares"),
        Column("recall_macro", "Recall macro", "Recall macro", "mean of the classes' recall"),
    )
}


def all_columns(scale: LabelScale) -> tuple[Column, ...]:
    """Return every score of the scale except F1 with its arguments swapped."""
    keys = (key for key in metric_names(scale) if not key.endswith("_swapped"))
    return tuple(_FIXED.get(key) or _accuracy(key, scale) for key in keys)


def headline_columns(scale: LabelScale) -> tuple[Column, ...]:
    """Return the scores of the first table, at most five."""
    columns = {column.key: column for column in all_columns(scale)}
    if isinstance(scale, ClassScale):
        return tuple(columns.values())
    if scale.family == "mosi":
        keys = ["acc2_non0", "f1_non0", "acc7", "mae", "corr"]
    else:
        multiclass = [key for key in columns if re.fullmatch(r"acc\d+", key) and key != "acc2"]
        keys = [*list(columns)[:2], *multiclass[:1], "mae", "corr"]
    return tuple(columns[key] for key in keys)


def _accuracy(key: str, scale: LabelScale) -> Column:
    assert isinstance(scale, Scale)  # the scores of class labels are all in _FIXED
    neutral = f"{scale.neutral_point:g}"
    if key.startswith("acc2"):
        side = "negative" if scale.family == "sims" else scale.neutral_is
        where = {
            "negative": f"with {neutral} among the negative, over all clips",
            "positive": f"with {neutral} among the positive, over all clips",
            "excluded": f"over clips not labelled {neutral}",
        }
        return Column(key, "Acc-2", "Acc-2", f"positive or not, {where[str(side)]}")
    classes = int(key.removeprefix("acc"))
    cut = (scale.cuts or {}).get(classes)
    edges = cut.edges if isinstance(cut, Edges) else ()
    if scale.family == "sims":
        edges = (-0.1, 0.1) if classes == 3 else (-0.7, -0.1, 0.1, 0.7)
    how = f"cut at {listed(f'{edge:g}' for edge in edges)}" if edges else "after rounding"
    name = f"Acc-{classes}"
    return Column(key, name, name, f"exact class of {classes}, {how}")
