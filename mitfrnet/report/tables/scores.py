"""Scores of models and references side by side, per missing rate and averaged over rates."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import mean, stdev

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mitfrnet.errors import FeatureError
from mitfrnet.evaluation.significance import Interval, bootstrap_intervals
from mitfrnet.grid import Condition
from mitfrnet.labels import ClassScale, LabelScale
from mitfrnet.metrics import ClassCounts, Score, as_scored, measures, score, why_null
from mitfrnet.models.registry import full_name
from mitfrnet.params import StageParams
from mitfrnet.report.results import Cell, Results
from mitfrnet.report.tables.columns import Column, all_columns, headline_columns

# Columns of the predictions that train no neural network.
REFERENCES = {
    "majority": "Majority class",
    "train_mean": "Training mean",
    "text_ridge": "Text ridge",
    "text_logistic": "Text logistic",
}

PROTOCOLS = {
    "complete_train": "trained on complete clips",
    "fixed_train": "trained at one fixed missing rate",
    "random_train": "trained at a random missing rate per clip",
}


class BootstrapParams(StageParams):
    """Section `report.bootstrap`: intervals and paired tests over test clips."""

    resamples: int = Field(ge=1)
    seed: int = Field(ge=0)
    level: float = Field(gt=0, lt=1)  # share of the resamples within an interval


@dataclass(frozen=True, eq=False)
class ScoreRow:
    """One predictor under one test mask.

    Attributes:
        key, name: in files, and as shown.
        reference: trains no neural network, and has no training seed.
        runs: seed of the training (None for a reference) and of the test masks.
        scores: one set per run.
        predictions: (runs, clips).
        majority_runs: per score of classes, how many runs put every clip that counts in the
            class in which the majority reference puts them.
        intervals: per score, over test clips; empty where none were asked for.
    """

    key: str
    name: str
    reference: bool
    runs: tuple[tuple[int | None, int], ...]
    scores: tuple[Mapping[str, Score], ...]
    predictions: NDArray[np.float32]
    majority_runs: Mapping[str, int]
    intervals: Mapping[str, Interval | None] = field(default_factory=dict)

    def mean(self, metric: str) -> float | None:
        """Return the mean over the runs for which `metric` is defined."""
        values = self._defined(metric)
        return mean(values) if values else None

    def deviation(self, metric: str) -> float | None:
        """Return the sample standard deviation over runs; None with fewer than two."""
        values = self._defined(metric)
        return stdev(values) if len(values) > 1 else None

    def show(self, column: Column) -> str:
        """Return mean and deviation as printed, `-` where the score is not defined."""
        return shown(self.mean(column.key), self.deviation(column.key), column)

    def show_interval(self, column: Column) -> str:
        """Return the interval as printed, or nothing."""
        interval = self.intervals.get(column.key)
        if interval is None:
            return ""
        return f"[{column.show(interval.low)}, {column.show(interval.high)}]"

    def defined_runs(self, metric: str) -> int:
        """Return how many runs define `metric`."""
        return len(self._defined(metric))

    @property
    def constant_runs(self) -> int:
        """Return how many runs predict one value for all clips."""
        return sum(bool(s["constant_prediction"]) for s in self.scores)

    @property
    def constant(self) -> str:
        """Return the warning that it predicts one value for all clips, or nothing."""
        return self._counted("constant prediction", self.constant_runs)

    def majority(self, metric: str) -> str:
        """Return the warning that it says what the majority reference says, or nothing."""
        return self._counted("= majority", self.majority_runs.get(metric, 0))

    def fewer(self, metric: str) -> str:
        """Return the warning that the mean leaves out runs without the score, or nothing."""
        defined, runs = self.defined_runs(metric), len(self.scores)
        return f"mean of {defined} of {runs} runs" if 0 < defined < runs else ""

    def flags(self, metric: str) -> tuple[str, ...]:
        """Return all warnings about a score."""
        constant = self._counted("constant", self.constant_runs)
        majority = "" if self.key == "majority" else self.majority(metric)
        return tuple(flag for flag in (constant, majority, self.fewer(metric)) if flag)

    def _counted(self, warning: str, runs: int) -> str:
        if not runs:
            return ""
        return warning if runs == len(self.scores) else f"{warning} in {runs} of {len(self.scores)}"

    def _defined(self, metric: str) -> list[float]:
        return [float(v) for s in self.scores if (v := s[metric]) is not None]


def shown(value: float | None, deviation: float | None, column: Column) -> str:
    """Return mean and deviation as printed, `-` for none."""
    if value is None:
        return "-"
    return column.show(value) + ("" if deviation is None else f" ± {column.show(deviation)}")


@dataclass(frozen=True, eq=False)
class Group:
    """All predictors under the same test mask of one corpus.

    Attributes:
        corpus: its name.
        scale: of its labels.
        trained: missing rate or protocol of training.
        tested: missing rate.
        label: of the test clips, (clips,).
        rows: models in the grid's order, then references.
    """

    corpus: str
    scale: LabelScale
    trained: Condition
    tested: float
    label: NDArray[np.float32]
    rows: tuple[ScoreRow, ...]

    @property
    def n(self) -> int:
        """Return how many test clips there are."""
        return len(self.label)

    @property
    def signed(self) -> int:
        """Return how many of them have a label other than the neutral one; all, of classes."""
        if isinstance(self.scale, ClassScale):
            return self.n
        return int((self.label != np.float32(self.scale.neutral_point)).sum())

    @property
    def points_of_a_clip(self) -> float | None:
        """Return what one clip more or less moves the first score by, in percent; None: no clip.

        It is for one run: the mean over several moves by less.
        """
        first = self.headline[0].key
        counted = self.signed if first in ("acc2_non0", "acc2_non_neutral") else self.n
        return 100 / counted if counted else None

    @property
    def headline(self) -> tuple[Column, ...]:
        """Return the scores of the first table."""
        return headline_columns(self.scale)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return all scores."""
        return all_columns(self.scale)

    @property
    def condition(self) -> str:
        """Return the missing rate, or both where test and training differ."""
        if self.trained == self.tested:
            return f"missing rate {self.trained}"
        return f"{trained_words(self.trained)}, tested at {self.tested}"

    @property
    def undefined(self) -> tuple[str, ...]:
        """Return which scores the test clips leave undefined for every predictor, and why."""
        lines = []
        for column in self.headline:
            reasons = {why_null(column.key, s) for row in self.rows for s in row.scores}
            reasons -= {"constant prediction"}
            if reasons and None not in reasons:
                lines.append(f"{column.short} is not defined: {', '.join(map(str, reasons))}")
        return tuple(lines)

    def row(self, key: str) -> ScoreRow:
        """Return the row of one predictor."""
        return next(row for row in self.rows if row.key == key)

    @cached_property
    def best(self) -> Mapping[str, float]:
        """Return the best mean of each score that any row defines."""
        best = {}
        for column in self.columns:
            values = [v for row in self.rows if (v := row.mean(column.key)) is not None]
            if values:
                best[column.key] = (max if column.higher_is_better else min)(values)
        return best

    def is_best(self, row: ScoreRow, column: Column) -> bool:
        """Return whether `row` reaches the best mean of `column`; several can."""
        value = row.mean(column.key)
        return value is not None and same(value, self.best[column.key])


def same(a: float, b: float) -> bool:
    """Return whether two means differ by no more than the rounding of their sums."""
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)


def trained_words(trained: Condition) -> str:
    """Return what a model was trained under."""
    return PROTOCOLS.get(str(trained), f"trained at missing rate {trained}")


def score_groups(results: Results, bootstrap: BootstrapParams | None = None) -> list[Group]:
    """Return the scores of every corpus under every mask, references included.

    References depend on the masks alone, so the first cell's are everybody's.

    Args:
        results: of the grid.
        bootstrap: of the intervals; None: none are computed.

    Raises:
        FeatureError: two cells were scored on different clips or rates.
    """
    names = model_names(results)
    groups = []
    for corpus in results.grid.corpora:
        for trained in results.grid.missing_rates:
            by_model = {m: results.select(corpus, m, trained) for m in results.grid.models}
            first = next(iter(by_model.values()))[0]
            for tested in sorted(first.scores):
                label, references = _references(first, tested)
                rows = [_model_row(m, names[m], c, first, tested) for m, c in by_model.items()]
                rows += references
                groups.append(
                    Group(
                        corpus=corpus,
                        scale=first.scale,
                        trained=trained,
                        tested=tested,
                        label=label,
                        rows=tuple(_completed(rows, label, first.scale, bootstrap)),
                    )
                )
    return groups


def _model_row(
    model: str, name: str, cells: Sequence[Cell], first: Cell, tested: float
) -> ScoreRow:
    ids = first.tested_at(tested)["utterance_id"]
    runs, scores, predictions = [], [], []
    for cell in cells:
        if cell.scores.keys() != first.scores.keys():
            raise FeatureError(f"{cell.path}: scored at other rates than {first.path}")
        for mask_seed, found in cell.scores[tested].items():
            table = cell.tested_at(tested, mask_seed)
            if table["utterance_id"] != ids:
                raise FeatureError(f"{cell.path}: scored on other clips than {first.path}")
            runs.append((cell.seed, mask_seed))
            scores.append(found)
            predictions.append(table["prediction"].to_numpy().astype(np.float32))
    return ScoreRow(model, name, False, tuple(runs), tuple(scores), np.stack(predictions), {})


def _references(cell: Cell, tested: float) -> tuple[NDArray[np.float32], list[ScoreRow]]:
    """Return the labels, and the predictors that train no neural network."""
    by_seed = {seed: cell.tested_at(tested, seed) for seed in cell.scores[tested]}
    label = next(iter(by_seed.values()))["label"].to_numpy().astype(np.float32)
    rows = []
    for key, name in REFERENCES.items():
        if key in cell.predictions.column_names:
            predictions = np.stack([t[key].to_numpy().astype(np.float32) for t in by_seed.values()])
            scores = tuple(score(p, label, cell.scale) for p in predictions)
            runs = tuple((None, seed) for seed in by_seed)
            rows.append(ScoreRow(key, name, True, runs, scores, predictions, {}))
    return label, rows


def _completed(
    rows: Sequence[ScoreRow],
    label: NDArray[np.float32],
    scale: LabelScale,
    bootstrap: BootstrapParams | None,
) -> Iterable[ScoreRow]:
    """Return rows that know where they say what the majority reference says, and intervals."""
    majority = next(row for row in rows if row.key == "majority").predictions[:1]
    for row in rows:
        intervals: Mapping[str, Interval | None] = {}
        if bootstrap:
            intervals = bootstrap_intervals(
                row.predictions,
                label,
                scale,
                metrics=[column.key for column in all_columns(scale)],
                seed=bootstrap.seed,
                resamples=bootstrap.resamples,
                level=bootstrap.level,
            )
        yield ScoreRow(
            row.key,
            row.name,
            row.reference,
            row.runs,
            row.scores,
            row.predictions,
            _majority_runs(row.predictions, majority, label, scale),
            intervals,
        )


def _majority_runs(
    predictions: NDArray[np.float32],
    majority: NDArray[np.float32],
    label: NDArray[np.float32],
    scale: LabelScale,
) -> dict[str, int]:
    """Return per score how many runs put all clips in the one class of the majority."""
    both, true = as_scored(np.concatenate([majority, predictions]), label, scale)
    runs: dict[str, int] = {}
    for measure in measures(scale):
        if isinstance(measure, ClassCounts):
            predicted = measure.terms(both, true).sum(-2)[:, -measure.classes :]
            one_class = (predicted[0] > 0).sum() == 1
            equal = (predicted[1:] == predicted[0]).all(-1)
            runs |= dict.fromkeys(measure.names, int(equal.sum()) if one_class else 0)
    return runs


def model_names(results: Results) -> dict[str, str]:
    """Return each model's name as its paper writes it, and what a variant lacks."""
    names = {}
    for model in results.grid.models:
        names[model] = full_name(results.select(results.grid.corpora[0], model)[0].config)
    shared = [name for name in names.values() if list(names.values()).count(name) > 1]
    return {m: f"{name} ({m})" if name in shared else name for m, name in names.items()}
