"""The mean of a score over runs, and how far runs differ."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev

from mitfrnet.metrics import Score


def defined(runs: Iterable[Mapping[str, Score]], metric: str) -> list[float]:
    """Return `metric` of each run that defines it."""
    return [float(value) for scores in runs if (value := scores.get(metric)) is not None]


def mean_of(values: Sequence[float]) -> float | None:
    """Return the mean; None without a value."""
    return mean(values) if values else None


def deviation_of(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation; None with fewer than two values."""
    return stdev(values) if len(values) > 1 else None
