"""Scores of models and references side by side, under one test mask."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mitfrnet.errors import FeatureError
from mitfrnet.evaluation.significance import Interval, bootstrap_intervals
from mitfrnet.grid import Condition
from mitfrnet.labels import ClassScale, LabelScale
from mitfrnet.metrics import ClassCounts, Score, as_scored, measures, score, why_null
from mitfrnet.models.registry import full_name
from mitfrnet.report.columns import Column, all_columns, headline_columns
from mitfrnet.report.params import BootstrapParams
from mitfrnet.report.results import Cell, Results
from mitfrnet.report.runs import defined, deviation_of, mean_of

# Predictors without a neural network: their column in the predictions, and their name.
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


@dataclass(frozen=True, eq=False)
class ScoreRow:
    """One predictor under one test mask.

    Attributes:
        key, name: its name in files, and as shown.
        reference: whether it is a reference, which has no neural network and no training seed.
        runs: training seed (None for a reference) and mask seed of each run.
        scores: one set per run.
        predictions: (runs, clips).
        majority_runs: by score, how many runs put every clip that counts in the same class as
            the majority reference does; only for scores of classes.
        intervals: by score, over resampled test clips; empty if none were computed.
    """

    key: str
    name: str
    reference: bool
    runs: tuple[tuple[int | None, int], ...]
    scores: tuple[Mapping[str, Score], ...]
    predictions: NDArray[np.float32]
    majority_runs: Mapping[str, int] = field(default_factory=dict)
    intervals: Mapping[str, Interval | None] = field(default_factory=dict)

    def mean(self, metric: str) -> float | None:
        """Return the mean over the runs that define `metric`."""
        return mean_of(defined(self.scores, metric))

    def deviation(self, metric: str) -> float | None:
        """Return the standard deviation over the runs that define `metric`."""
        return deviation_of(defined(self.scores, metric))

    def show(self, column: Column) -> str:
        """Return mean and deviation as printed, `-` where the score is not defined."""
        value = self.mean(column.key)
        return "-" if value is None else column.show(value, self.deviation(column.key))

    def show_interval(self, column: Column) -> str:
        """Return the interval as printed, or an empty string."""
        interval = self.intervals.get(column.key)
        if interval is None:
            return ""
        return f"[{column.show(interval.low)}, {column.show(interval.high)}]"

    def defined_runs(self, metric: str) -> int:
        """Return how many runs define `metric`."""
        return len(defined(self.scores, metric))

    @property
    def constant_runs(self) -> int:
        """Return how many runs predict one value for all clips."""
        return sum(bool(scores["constant_prediction"]) for scores in self.scores)

    @property
    def constant(self) -> str:
        """Return the warning that it predicts one value for all clips, or an empty string."""
        return self._in_runs("constant prediction", self.constant_runs)

    def majority(self, metric: str) -> str:
        """Return the warning that it predicts what the majority reference does, or nothing."""
        if self.key == "majority":
            return ""
        return self._in_runs("= majority", self.majority_runs.get(metric, 0))

    def fewer(self, metric: str) -> str:
        """Return the warning that some runs do not define `metric`, or an empty string."""
        defined_runs, runs = self.defined_runs(metric), len(self.scores)
        return f"mean of {defined_runs} of {runs} runs" if 0 < defined_runs < runs else ""

    def flags(self, metric: str) -> tuple[str, ...]:
        """Return all warnings about a score."""
        constant = self._in_runs("constant", self.constant_runs)
        warnings = (constant, self.majority(metric), self.fewer(metric))
        return tuple(warning for warning in warnings if warning)

    def _in_runs(self, warning: str, runs: int) -> str:
        if not runs:
            return ""
        return warning if runs == len(self.scores) else f"{warning} in {runs} of {len(self.scores)}"


@dataclass(frozen=True, eq=False)
class Group:
    """All predictors under the same test mask of one corpus.

    Attributes:
        corpus: its name.
        scale: the scale of its labels.
        trained: missing rate or protocol of the training.
        tested: missing rate of the test mask.
        label: labels of the test clips, (clips,).
        rows: models in the grid's order, then references.
    """

    corpus: str
    scale: LabelScale
    trained: Condition
    tested: float
    label: NDArray[np.float32]
    rows: tuple[ScoreRow, ...]

    @property
    def clips(self) -> int:
        """Return how many test clips there are."""
        return len(self.label)

    @property
    def signed_clips(self) -> int:
        """Return how many test clips are not labelled neutral; all, if labels are classes."""
        if isinstance(self.scale, ClassScale):
            return self.clips
        return int((self.label != np.float32(self.scale.neutral_point)).sum())

    @property
    def points_of_a_clip(self) -> float | None:
        """Return by how many percentage points one clip moves the first score of one run."""
        signed = self.headline[0].key in ("acc2_non0", "acc2_non_neutral")
        clips = self.signed_clips if signed else self.clips
        return 100 / clips if clips else None

    @property
    def headline(self) -> tuple[Column, ...]:
        """Return the scores of the first table."""
        return headline_columns(self.scale)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return all scores."""
        return all_columns(self.scale)

    @property
    def title(self) -> str:
        """Return the missing rate, or how models were trained and tested where that differs."""
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
        means = {
            c: [v for row in self.rows if (v := row.mean(c.key)) is not None] for c in self.columns
        }
        return {column.key: column.best(values) for column, values in means.items() if values}

    def is_best(self, row: ScoreRow, column: Column) -> bool:
        """Return whether `row` has the best mean of `column`; several rows can."""
        value = row.mean(column.key)
        return value is not None and same(value, self.best[column.key])


def same(a: float, b: float) -> bool:
    """Return whether two means differ by no more than the rounding of their sums."""
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)


def trained_words(trained: Condition) -> str:
    """Return in words what a model was trained under."""
    return PROTOCOLS.get(str(trained), f"trained at missing rate {trained}")


def score_groups(results: Results, bootstrap: BootstrapParams | None = None) -> list[Group]:
    """Return the scores of every corpus under every test mask.

    References depend on the masks alone, so those of a condition's first cell serve all models.

    Args:
        results: of the grid.
        bootstrap: settings of the intervals; None: no intervals.

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
                models = [_model_row(m, names[m], c, first, tested) for m, c in by_model.items()]
                rows = _completed([*models, *references], label, first.scale, bootstrap)
                groups.append(Group(corpus, first.scale, trained, tested, label, rows))
    return groups


def _model_row(
    model: str, name: str, cells: Sequence[Cell], first: Cell, tested: float
) -> ScoreRow:
    ids = first.tested_at(tested)["utterance_id"]
    runs, scores, predictions = [], [], []
    for cell in cells:
        if cell.scores.keys() != first.scores.keys():
            raise FeatureError(f"{cell.path}: scored at other rates than {first.path}")
        for mask_seed, run_scores in cell.scores[tested].items():
            table = cell.tested_at(tested, mask_seed)
            if table["utterance_id"] != ids:
                raise FeatureError(f"{cell.path}: scored on other clips than {first.path}")
            runs.append((cell.seed, mask_seed))
            scores.append(run_scores)
            predictions.append(table["prediction"].to_numpy().astype(np.float32))
    return ScoreRow(model, name, False, tuple(runs), tuple(scores), np.stack(predictions))


def _references(cell: Cell, tested: float) -> tuple[NDArray[np.float32], list[ScoreRow]]:
    """Return the labels and the rows of the references."""
    by_seed = {seed: cell.tested_at(tested, seed) for seed in cell.scores[tested]}
    label = next(iter(by_seed.values()))["label"].to_numpy().astype(np.float32)
    rows = []
    for key, name in REFERENCES.items():
        if key in cell.predictions.column_names:
            predictions = np.stack([t[key].to_numpy().astype(np.float32) for t in by_seed.values()])
            scores = tuple(score(p, label, cell.scale) for p in predictions)
            runs = tuple((None, seed) for seed in by_seed)
            rows.append(ScoreRow(key, name, True, runs, scores, predictions))
    return label, rows


def _completed(
    rows: Sequence[ScoreRow],
    label: NDArray[np.float32],
    scale: LabelScale,
    bootstrap: BootstrapParams | None,
) -> tuple[ScoreRow, ...]:
    """Return rows, with majority-class counts and intervals filled in."""
    majority = next(row for row in rows if row.key == "majority").predictions[:1]
    metrics = [column.key for column in all_columns(scale)]
    completed = []
    for row in rows:
        intervals: Mapping[str, Interval | None] = {}
        if bootstrap:
            intervals = bootstrap_intervals(
                row.predictions, label, scale, metrics=metrics, **bootstrap.model_dump()
            )
        majority_runs = _majority_runs(row.predictions, majority, label, scale)
        completed.append(replace(row, majority_runs=majority_runs, intervals=intervals))
    return tuple(completed)


def _majority_runs(
    predictions: NDArray[np.float32],
    majority: NDArray[np.float32],
    label: NDArray[np.float32],
    scale: LabelScale,
) -> dict[str, int]:
    """Return by score how many runs put all clips in the one class of the majority reference."""
    majority_first, true = as_scored(np.concatenate([majority, predictions]), label, scale)
    runs: dict[str, int] = {}
    for measure in measures(scale):
        if isinstance(measure, ClassCounts):
            counts = measure.terms(majority_first, true).sum(-2)[:, -measure.classes :]
            one_class = (counts[0] > 0).sum() == 1
            equal = (counts[1:] == counts[0]).all(-1)
            runs |= dict.fromkeys(measure.names, int(equal.sum()) if one_class else 0)
    return runs


def model_names(results: Results) -> dict[str, str]:
    """Return the name of each model in its paper and the parts it lacks.

    Models that share a name have their key in the grid beside it.
    """
    names = {}
    for model in results.grid.models:
        names[model] = full_name(results.select(results.grid.corpora[0], model)[0].config)
    shared = [name for name in names.values() if list(names.values()).count(name) > 1]
    return {m: f"{name} ({m})" if name in shared else name for m, name in names.items()}
