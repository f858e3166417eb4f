"""Scores of one corpus over test rates, and their averages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mitfrnet.grid import Condition
from mitfrnet.labels import LabelScale
from mitfrnet.metrics import over_rates
from mitfrnet.report.columns import Column
from mitfrnet.report.runs import deviation_of
from mitfrnet.report.scores import Group, ScoreRow, same, trained_words


@dataclass(frozen=True, eq=False)
class Block:
    """The groups of one corpus that make a curve over test rates.

    Attributes:
        corpus: its name.
        trained: the one condition that all its models were trained under; `matched` if each test
            rate has models trained at that rate.
        groups: by test rate, rising.
    """

    corpus: str
    trained: Condition
    groups: tuple[Group, ...]

    @property
    def name(self) -> str:
        """Return the corpus, and the condition unless it is `matched`, for file names."""
        return self.corpus if self.trained == "matched" else f"{self.corpus}_{self.trained}"

    @property
    def title(self) -> str:
        """Return the corpus and how its models were trained."""
        if self.trained == "matched":
            return self.corpus
        return f"{self.corpus}, {trained_words(self.trained)}"

    @property
    def scale(self) -> LabelScale:
        """Return the scale of the labels."""
        return self.groups[0].scale

    @property
    def rates(self) -> tuple[float, ...]:
        """Return the test rates, rising."""
        return tuple(group.tested for group in self.groups)

    @property
    def rows(self) -> tuple[ScoreRow, ...]:
        """Return the rows at the lowest test rate."""
        return self.groups[0].rows

    @property
    def models(self) -> tuple[ScoreRow, ...]:
        """Return the rows of models at the lowest test rate."""
        return tuple(row for row in self.rows if not row.reference)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return all scores."""
        return self.groups[0].columns

    @property
    def headline(self) -> tuple[Column, ...]:
        """Return the scores of the first table."""
        return self.groups[0].headline

    def by_rate(self, key: str) -> dict[float, ScoreRow]:
        """Return the rows of one predictor by test rate."""
        return {group.tested: group.row(key) for group in self.groups}

    def constant_at(self, key: str) -> tuple[float, ...]:
        """Return the rates at which a run of a predictor is constant."""
        return tuple(rate for rate, row in self.by_rate(key).items() if row.constant_runs)

    def fewer_at(self, key: str, metric: str) -> tuple[float, ...]:
        """Return the rates at which some runs of a predictor define a score and others do not."""
        return tuple(rate for rate, row in self.by_rate(key).items() if row.fewer(metric))

    def majority_at(self, key: str, metric: str) -> tuple[float, ...]:
        """Return the rates at which all runs predict the class of the majority reference."""
        rows = self.by_rate(key).items()
        return tuple(t for t, row in rows if row.majority_runs.get(metric) == len(row.runs))


def blocks(groups: Sequence[Group]) -> list[Block]:
    """Return the groups of each corpus by how models were trained, matched rates first."""
    all_blocks = []
    for corpus in dict.fromkeys(g.corpus for g in groups):
        of_corpus = [g for g in groups if g.corpus == corpus]
        by_rate = sorted(of_corpus, key=lambda g: g.tested)
        if matched := tuple(g for g in by_rate if g.trained == g.tested):
            all_blocks.append(Block(corpus, "matched", matched))
        for trained in dict.fromkeys(g.trained for g in of_corpus):
            same_model = tuple(g for g in by_rate if g.trained == trained)
            if any(g.tested != trained for g in same_model):
                all_blocks.append(Block(corpus, trained, same_model))
    return all_blocks


@dataclass(frozen=True)
class Average:
    """One score of one predictor, averaged over the test rates of a block.

    Attributes:
        value: by aggregate, a key of `mitfrnet.metrics.over_rates`.
        deviation: likewise, over the runs that define the score at every rate that counts; None
            with fewer than two.
        skipped: rates at which no run defines the score.
    """

    value: Mapping[str, float | None]
    deviation: Mapping[str, float | None]
    skipped: tuple[float, ...]

    def left_out(self, aggregate: str) -> tuple[float, ...]:
        """Return the skipped rates that would have counted: MWA gives rate 1 no weight."""
        return tuple(r for r in self.skipped if r != 1 or not aggregate.startswith("mwa"))


# Averages by predictor and score.
Averages = Mapping[str, Mapping[str, Average]]


def averages(block: Block) -> Averages:
    """Return the averages over the test rates of a block."""
    return {
        row.key: {c.key: _average(block.by_rate(row.key), c.key) for c in block.columns}
        for row in block.rows
    }


def is_best_average(all_averages: Averages, key: str, column: Column, aggregate: str) -> bool:
    """Return whether a predictor is best among the averages that leave out the fewest rates."""
    left_out, values = {}, {}
    for predictor, by_metric in all_averages.items():
        average = by_metric[column.key]
        if (value := average.value[aggregate]) is not None:
            left_out[predictor] = len(average.left_out(aggregate))
            values[predictor] = value
    if key not in values or left_out[key] > min(left_out.values()):
        return False
    best = column.best(v for other, v in values.items() if left_out[other] == left_out[key])
    return same(values[key], best)


def _average(rows: Mapping[float, ScoreRow], metric: str) -> Average:
    value, skipped = _over_rates({rate: row.mean(metric) for rate, row in rows.items()})
    kept = {rate: row for rate, row in rows.items() if rate not in skipped}
    by_run = [
        _over_rates(by_rate)[0]
        for run in next(iter(rows.values())).runs
        if None
        not in (by_rate := {r: _run_score(row, run, metric) for r, row in kept.items()}).values()
    ]
    deviation = {
        aggregate: deviation_of(
            [v for averaged in by_run if (v := averaged[aggregate]) is not None]
        )
        for aggregate in value
    }
    return Average(value, deviation, skipped)


def _run_score(row: ScoreRow, run: tuple[int | None, int], metric: str) -> float | None:
    value = dict(zip(row.runs, row.scores, strict=True)).get(run, {}).get(metric)
    return None if value is None else float(value)


def _over_rates(
    by_rate: Mapping[float, float | None],
) -> tuple[dict[str, float | None], tuple[float, ...]]:
    """Return the aggregates, and the rates that they leave out."""
    aggregates = over_rates(by_rate)
    skipped = aggregates.pop("skipped")
    return aggregates, tuple(skipped)
