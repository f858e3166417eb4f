"""Curves over test rates, and scores averaged over them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev

from mitfrnet.grid import Condition
from mitfrnet.labels import LabelScale
from mitfrnet.metrics import over_rates
from mitfrnet.report.tables.columns import Column
from mitfrnet.report.tables.scores import Group, ScoreRow, same, trained_words


@dataclass(frozen=True, eq=False)
class Block:
    """The groups of one corpus that make a curve over test rates.

    Attributes:
        corpus: its name.
        trained: `matched`, each test rate with a model trained at it; else the one condition
            that all its models were trained under.
        groups: by test rate, rising.
    """

    corpus: str
    trained: Condition
    groups: tuple[Group, ...]

    @property
    def name(self) -> str:
        """Return the corpus, and the condition where it is not `matched`; for files."""
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

    def constant_at(self, key: str) -> tuple[float, ...]:
        """Return the rates at which some run of a predictor says the same for every clip."""
        return tuple(group.tested for group in self.groups if group.row(key).constant_runs)

    def fewer_at(self, key: str, metric: str) -> tuple[float, ...]:
        """Return the rates at which some but not all runs of a predictor define a score."""
        return tuple(group.tested for group in self.groups if group.row(key).fewer(metric))

    def majority_at(self, key: str, metric: str) -> tuple[float, ...]:
        """Return the rates at which all runs say what the majority reference says."""
        rows = {group.tested: group.row(key) for group in self.groups}
        return tuple(t for t, r in rows.items() if r.majority_runs.get(metric) == len(r.runs))

    @property
    def models(self) -> tuple[ScoreRow, ...]:
        """Return the rows of the first group that are models."""
        return tuple(row for row in self.groups[0].rows if not row.reference)


def blocks(groups: Sequence[Group]) -> list[Block]:
    """Return the groups of each corpus by how they were trained, matched rates first."""
    found = []
    for corpus in dict.fromkeys(g.corpus for g in groups):
        own = sorted((g for g in groups if g.corpus == corpus), key=lambda g: g.tested)
        if matched := [g for g in own if g.trained == g.tested]:
            found.append(Block(corpus, "matched", tuple(matched)))
        for trained in dict.fromkeys(g.trained for g in groups if g.corpus == corpus):
            same_model = [g for g in own if g.trained == trained]
            if any(g.tested != trained for g in same_model):
                found.append(Block(corpus, trained, tuple(same_model)))
    return found


AGGREGATES = {
    "mwa_normalised": "Weighted by what is left, MWA",
    "mwa_paper": "MWA as the paper prints it",
    "auilc_normalised": "Area under the curve, AUILC",
    "mean": "Plain mean",
}


@dataclass(frozen=True)
class Average:
    """One score of one predictor over the test rates of a block.

    Attributes:
        value, deviation: by aggregate; the deviation is over runs that define the score at
            every rate that counts, None with fewer than two.
        skipped: rates at which no run defines the score.
    """

    value: Mapping[str, float | None]
    deviation: Mapping[str, float | None]
    skipped: tuple[float, ...]

    def missed(self, aggregate: str) -> tuple[float, ...]:
        """Return the skipped rates that would have counted: a rate of 1 weighs nothing in MWA."""
        return tuple(r for r in self.skipped if r != 1 or not aggregate.startswith("mwa"))


def averages(block: Block) -> dict[str, dict[str, Average]]:
    """Return the averages over rates by predictor and score."""
    found: dict[str, dict[str, Average]] = {}
    for first in block.groups[0].rows:
        rows = {g.tested: g.row(first.key) for g in block.groups}
        found[first.key] = {c.key: _average(rows, c.key) for c in block.groups[0].columns}
    return found


def is_best_average(
    found: Mapping[str, Mapping[str, Average]], key: str, column: Column, aggregate: str
) -> bool:
    """Return whether a predictor is best among the averages that leave out the fewest rates."""
    known = {
        k: (len(average.missed(aggregate)), value)
        for k, by_metric in found.items()
        if (value := (average := by_metric[column.key]).value[aggregate]) is not None
    }
    if key not in known:
        return False
    fewest = min(count for count, _ in known.values())
    choose = max if column.higher_is_better else min
    best = choose(value for count, value in known.values() if count == fewest)
    return known[key][0] == fewest and same(known[key][1], best)


def _average(rows: Mapping[float, ScoreRow], metric: str) -> Average:
    value, skipped = _over_rates({rate: row.mean(metric) for rate, row in rows.items()})
    kept = {rate: row for rate, row in rows.items() if rate not in skipped}
    by_run = [
        _over_rates({rate: _of_run(row, run, metric) for rate, row in kept.items()})[0]
        for run in next(iter(rows.values())).runs
        if all(_of_run(row, run, metric) is not None for row in kept.values())
    ]
    deviation = {}
    for name in value:
        values = [v for run in by_run if (v := run[name]) is not None]
        deviation[name] = stdev(values) if len(values) > 1 else None
    return Average(value, deviation, skipped)


def _of_run(row: ScoreRow, run: tuple[int | None, int], metric: str) -> float | None:
    value = dict(zip(row.runs, row.scores, strict=True)).get(run, {}).get(metric)
    return None if value is None else float(value)


def _over_rates(
    by_rate: Mapping[float, float | None],
) -> tuple[dict[str, float | None], tuple[float, ...]]:
    """Return the aggregates, and the rates that they leave out."""
    found = over_rates(by_rate)
    skipped = found.pop("skipped")
    assert isinstance(skipped, list)
    values = {name: v for name, v in found.items() if not isinstance(v, list)}
    return values, tuple(skipped)
