"""Scores of models and references side by side, and the tables written for other programs."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean, stdev
from typing import Any

import pyarrow as pa

from mitfrnet.metrics import Scale, Score, mwa, score
from mitfrnet.report.results import Cell, Results

MODEL_NAMES = {
    "mitfrnet": "MIT-FRNet",
    "tfn": "TFN",
    "mult": "MulT",
    "misa": "MISA",
    "tfrnet": "TFR-Net",
}

# Columns of the predictions that need no neural network.
REFERENCES = {
    "majority": "Majority class",
    "train_mean": "Training mean",
    "text_ridge": "Text ridge",
}


@dataclass(frozen=True)
class Column:
    """A score of the headline table."""

    key: str
    name: str
    meaning: str
    share: bool = True  # shown in percent
    higher_is_better: bool = True

    @property
    def head(self) -> str:
        """Return the name with its unit."""
        return f"{self.name} %" if self.share else self.name

    def show(self, value: float) -> str:
        """Return the value as printed: percent with one decimal, others with three."""
        return f"{100 * value:.1f}" if self.share else f"{value:.3f}"


_MAE = Column("mae", "MAE", "mean absolute error, in units of the label", False, False)
_CORR = Column("corr", "Corr", "Pearson correlation with the label", False)
COLUMNS = {
    "mosi": (
        Column("acc2_non0", "Acc-2", "positive or not, over clips with a label other than 0"),
        Column("f1_non0", "F1", "of the same two classes, weighted by their true shares"),
        Column("acc7", "Acc-7", "exact class of seven, after rounding"),
        _MAE,
        _CORR,
    ),
    "sims": (
        Column("acc2", "Acc-2", "positive or not, with 0 among the negative, over all clips"),
        Column("f1", "F1", "of the same two classes, weighted by their true shares"),
        Column("acc3", "Acc-3", "negative, neutral or positive, cut at -0.1 and 0.1"),
        _MAE,
        _CORR,
    ),
}


@dataclass(frozen=True)
class Row:
    """One predictor under one test mask.

    Attributes:
        key, name: in files, and as shown.
        seeds: of its trainings; empty for a reference, which has none.
        scores: one set per seed, or one.
    """

    key: str
    name: str
    seeds: tuple[int, ...]
    scores: tuple[Mapping[str, Score], ...]

    def mean(self, metric: str) -> float | None:
        """Return the mean over the seeds for which `metric` is defined."""
        values = self._defined(metric)
        return mean(values) if values else None

    def deviation(self, metric: str) -> float | None:
        """Return the sample standard deviation over seeds; None with fewer than two."""
        values = self._defined(metric)
        return stdev(values) if len(values) > 1 else None

    def show(self, column: Column) -> str:
        """Return mean and deviation as printed, `-` where the score is not defined."""
        value, deviation = self.mean(column.key), self.deviation(column.key)
        if value is None:
            return "-"
        spread = f" ± {column.show(deviation)}" if deviation is not None else ""
        return column.show(value) + spread

    @property
    def constant(self) -> str:
        """Return the warning that it predicts one value for all clips, or nothing."""
        constant = sum(bool(s["constant_prediction"]) for s in self.scores)
        if not constant:
            return ""
        some = constant < len(self.scores)
        among = f" with {constant} of {len(self.scores)} seeds" if some else ""
        return f"constant prediction{among}"

    def _defined(self, metric: str) -> list[float]:
        return [float(v) for s in self.scores if (v := s[metric]) is not None]


@dataclass(frozen=True)
class Group:
    """All predictors under the same test mask of one corpus.

    Attributes:
        corpus: its name.
        scale: of its labels.
        trained, tested: missing rates.
        n, signed: test clips; those with a label other than 0.
        rows: models in the grid's order, then references.
    """

    corpus: str
    scale: Scale
    trained: float
    tested: float
    n: int
    signed: int
    rows: tuple[Row, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the headline scores of the scale."""
        return COLUMNS[self.scale.family]

    @property
    def condition(self) -> str:
        """Return the missing rate, or both where test and training differ."""
        if self.trained == self.tested:
            return f"missing rate {self.trained}"
        return f"trained at missing rate {self.trained}, tested at {self.tested}"

    @cached_property
    def best(self) -> Mapping[str, float]:
        """Return the best mean of each headline score that any row defines."""
        best = {}
        for column in self.columns:
            values = [v for row in self.rows if (v := row.mean(column.key)) is not None]
            if values:
                best[column.key] = (max if column.higher_is_better else min)(values)
        return best

    def is_best(self, row: Row, column: Column) -> bool:
        """Return whether `row` reaches the best mean of `column`."""
        value = row.mean(column.key)
        return value is not None and value == self.best[column.key]


def score_groups(results: Results) -> list[Group]:
    """Return the scores of every corpus under every mask, references included.

    References depend on the masks alone, so the first cell's are everybody's.
    """
    groups = []
    for corpus in results.grid.corpora:
        for trained in results.grid.missing_rates:
            by_model = {m: results.select(corpus, m, trained) for m in results.grid.models}
            first = next(iter(by_model.values()))[0]
            for tested in sorted(first.scores):
                predictions = first.tested_at(tested)
                label = predictions["label"].to_numpy()
                groups.append(
                    Group(
                        corpus=corpus,
                        scale=first.scale,
                        trained=trained,
                        tested=tested,
                        n=len(label),
                        signed=int((label != 0).sum()),
                        rows=(
                            *(_model_row(m, cells, tested) for m, cells in by_model.items()),
                            *_reference_rows(predictions, first.scale),
                        ),
                    )
                )
    return groups


def _model_row(model: str, cells: Sequence[Cell], tested: float) -> Row:
    return Row(
        key=model,
        name=model_name(model),
        seeds=tuple(cell.seed for cell in cells),
        scores=tuple(cell.scores[tested] for cell in cells),
    )


def _reference_rows(predictions: pa.Table, scale: Scale) -> Iterable[Row]:
    label = predictions["label"].to_numpy()
    for key, name in REFERENCES.items():
        yield Row(key, name, (), (score(predictions[key].to_numpy(), label, scale),))


def model_name(model: str) -> str:
    """Return the name as its paper writes it."""
    return MODEL_NAMES.get(model, model)


@dataclass(frozen=True)
class Average:
    """Missing-weighted averages over test rates, eq. 25.

    Attributes:
        corpus: its name.
        name: of the predictor.
        columns: the scores averaged.
        normalised: per score, divided by the sum of the weights.
        printed: as the paper prints it; None unless all of its eleven rates are there.
    """

    corpus: str
    name: str
    columns: tuple[Column, ...]
    normalised: Mapping[str, float | None]
    printed: Mapping[str, float | None]


def averages(groups: Sequence[Group]) -> list[Average]:
    """Return averages over the groups whose test rate is that of training."""
    found = []
    for corpus in dict.fromkeys(g.corpus for g in groups):
        matched = [g for g in groups if g.corpus == corpus and g.trained == g.tested]
        if len(matched) < 2:
            continue
        columns = matched[0].columns
        for i, row in enumerate(matched[0].rows):
            normalised, printed = {}, {}
            for column in columns:
                means = {g.tested: g.rows[i].mean(column.key) for g in matched}
                defined = {rate: v for rate, v in means.items() if v is not None}
                # An average over fewer rates than its neighbours would not compare with them;
                # a rate of 1 weighs nothing.
                whole = all(rate in defined or rate == 1 for rate in means)
                normalised[column.key] = mwa(defined, normalised=True) if whole else None
                printed[column.key] = mwa(defined) if whole else None
            found.append(Average(corpus, row.name, columns, normalised, printed))
    return found


def scores_text(title: str, groups: Sequence[Group]) -> str:
    """Return the headline tables as plain text, at most 100 columns wide."""
    lines = [title, ""]
    for group in groups:
        lines.append(f"{group.corpus}, {group.condition}, {group.n} test clips")
        lines.append(f"{'':<25}" + "".join(f"{column.head:>15}" for column in group.columns))
        for row in group.rows:
            shown = [row.show(c) + ("*" if group.is_best(row, c) else " ") for c in group.columns]
            lines.append((f"{row.name:<25}" + "".join(f"{s:>15}" for s in shown)).rstrip())
        for row in group.rows:
            if row.constant:
                lines.append(f"{row.name}: {row.constant}")
        lines.append("")
    lines += [
        "* best of its column; - not defined; after ±, the standard deviation over seeds.",
        "A constant prediction is the same for every clip: its accuracy is the share of a class.",
    ]
    return "\n".join(lines) + "\n"


def scores_csv(groups: Sequence[Group]) -> str:
    """Return every score, unrounded, one line per predictor, mask and seed."""
    lines: list[dict[str, Any]] = []
    for group in groups:
        for row in group.rows:
            for seed, scores in zip(row.seeds or ("",), row.scores, strict=True):
                place = {
                    "corpus": group.corpus,
                    "predictor": row.key,
                    "trained_at_rate": group.trained,
                    "tested_at_rate": group.tested,
                    "seed": seed,
                }
                lines.append(place | dict(sorted(scores.items())))
    return delimited(lines, delimiter=",")


def loss_table(cell: Cell) -> str:
    """Return the losses per epoch as tab-separated text, a column per term."""
    curves = loss_curves(cell)
    epochs = max(len(curve) for curve in cell.losses.values())
    return delimited(
        {"epoch": epoch}
        | {name.replace("/", "_"): dict(curve).get(epoch) for name, curve in curves.items()}
        for epoch in range(1, epochs + 1)
    )


def loss_curves(cell: Cell) -> dict[str, list[tuple[int, float]]]:
    """Return (epoch, loss) per term, without the epochs in which a term is not yet computed."""
    start = cell.config["settings"].get("aux_start_epoch", 1)
    return {
        name: [(e, v) for e, v in enumerate(values, 1) if name.endswith("/task") or e >= start]
        for name, values in cell.losses.items()
    }


def prediction_table(cell: Cell) -> str:
    """Return label and prediction of every test clip and mask as tab-separated text."""
    columns = ["utterance_id", "missing_rate", "label", "prediction"]
    return delimited(cell.predictions.select(columns).to_pylist())


SIGNS = ("negative", "zero", "positive")


def sign(value: float) -> str:
    """Return the side of zero on which `value` lies."""
    return SIGNS[(value > 0) - (value < 0) + 1]


def sign_table(cell: Cell) -> str:
    """Return the signs of label and prediction of every test clip as tab-separated text."""
    pairs = zip(*(cell.predictions[c].to_pylist() for c in ("label", "prediction")), strict=True)
    return delimited({"label": sign(a), "prediction": sign(b)} for a, b in pairs)


def rate_tables(groups: Sequence[Group]) -> dict[str, str]:
    """Return headline scores per test rate as tab-separated text, by the name of their curve.

    There is one curve per predictor; where test rates are not those of training, one per
    predictor and training rate.
    """
    curves: dict[str, list[dict[str, Any]]] = {}
    matched = all(group.trained == group.tested for group in groups)
    for group in groups:
        for row in group.rows:
            name = row.key if matched else f"{row.key}/{group.trained}"
            scores = {column.name: row.mean(column.key) for column in group.columns}
            # Vega draws an empty field as zero, and leaves out what is no number.
            shown = {key: "NaN" if v is None else v for key, v in scores.items()}
            curves.setdefault(name, []).append({"missing_rate": group.tested} | shown)
    return {name: delimited(rows) for name, rows in curves.items()}


def delimited(rows: Iterable[Mapping[str, Any]], delimiter: str = "\t") -> str:
    """Return rows as delimited text; the columns are all keys in order of appearance."""
    rows = list(rows)
    text = io.StringIO()
    fields = dict.fromkeys(key for row in rows for key in row)
    writer = csv.DictWriter(text, list(fields), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
