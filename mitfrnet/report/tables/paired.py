"""The table of paired tests: whether the first model of the grid differs from each other one."""

from collections.abc import Sequence
from dataclasses import dataclass

from mitfrnet.errors import ParamsError
from mitfrnet.evaluation.significance import PairedTest, paired_test
from mitfrnet.labels import ClassScale
from mitfrnet.params import PARAMS_FILE
from mitfrnet.report.columns import Column
from mitfrnet.report.over_rates import Block
from mitfrnet.report.params import BootstrapParams, PairedParams
from mitfrnet.report.tables.scores import runs_note
from mitfrnet.report.tables.table import Entry, Line, Table


@dataclass(frozen=True)
class AdjustedTest:
    """The first model against another one at one test rate.

    Attributes:
        other: key of the other model.
        tested: missing rate of the test masks.
        test: None if the score is not defined.
        adjusted: p value after Holm's correction for all tests of the block.
    """

    other: str
    tested: float
    test: PairedTest | None
    adjusted: float | None


def adjusted_tests(
    block: Block, metric: str, exchanges: int, bootstrap: BootstrapParams
) -> list[AdjustedTest]:
    """Return the tests of the first model of a block against each other one, at every rate."""
    first, *others = (row.key for row in block.models)
    tests = {
        (other, group.tested): paired_test(
            group.row(first).predictions,
            group.row(other).predictions,
            group.label,
            group.scale,
            metric=metric,
            seed=bootstrap.seed,
            resamples=exchanges,
            level=bootstrap.level,
        )
        for other in others
        for group in block.groups
    }
    p_values = {pair: test.p_value for pair, test in tests.items() if test}
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return [AdjustedTest(*pair, test, adjusted.get(pair)) for pair, test in tests.items()]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for the number of tests (Holm 1979).

    If an adjusted value below alpha counts as a finding, the chance of any false finding is at
    most alpha.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def paired_table(block: Block, params: PairedParams, bootstrap: BootstrapParams) -> Table:
    """Return the first model against each other one, by test rate.

    Raises:
        ParamsError: the report shows no such score of the corpus.
    """
    kind = "classes" if isinstance(block.scale, ClassScale) else "scores"
    metric = getattr(params, kind)
    columns = {column.key: column for column in block.columns}
    if metric not in columns:
        raise ParamsError(
            f"{PARAMS_FILE}: report.paired_test.{kind}: {metric!r} is no score of corpus "
            f"{block.corpus} (expected {', '.join(columns)})"
        )
    column = columns[metric]
    tests = adjusted_tests(block, metric, params.exchanges, bootstrap)
    first, *others = block.models
    alpha = 1 - bootstrap.level
    lines = [
        Line(
            other.name,
            [_entry(block, column, t, alpha) for t in tests if t.other == other.key],
            model=other.key,
        )
        for other in others
    ]
    records = [
        {
            "corpus": block.corpus,
            "condition": block.trained,
            "tested_at_rate": t.tested,
            "metric": metric,
            "predictor": first.key,
            "other": t.other,
            "difference": t.test.difference if t.test else None,
            "low": t.test.low if t.test else None,
            "high": t.test.high if t.test else None,
            "p_value": t.test.p_value if t.test else None,
            "p_value_holm": t.adjusted,
        }
        for t in tests
    ]
    count = sum(t.test is not None for t in tests)
    interval = (
        f"In brackets, the {100 * bootstrap.level:g} % interval of the difference over resampled "
        f"test clips. params.yaml sets the score as report.paired_test.{kind}."
    )
    return Table(
        name=f"paired_tests_{block.name}",
        caption=(
            f"{first.name} minus each other model on the same test clips of {block.title}: "
            f"difference in {column.full_head} by missing rate, {column.better} is better."
        ),
        notes=(
            runs_note(block.groups[0], spread=False),
            f"p is two-sided, from {params.exchanges} random exchanges of the two models' "
            f"predictions, with Holm's correction for all {count} tests of this table; bold below "
            f"{alpha:.2g}. The smallest possible p is "
            f"{min(1.0, count / (params.exchanges + 1)):.2g}.",
            "The test tells whether other test clips of the same kind could reverse the result, "
            "not whether other seeds could.",
        ),
        page_note=interval if count else "",
        bold_is=f"p below {alpha:.2g}",
        heads=(f"{first.name} minus", *map(str, block.rates)),
        lines=tuple(lines),
        records=tuple(records),
    )


def _entry(block: Block, column: Column, adjusted_test: AdjustedTest, alpha: float) -> Entry:
    test, p = adjusted_test.test, adjusted_test.adjusted
    pair = (block.models[0].key, adjusted_test.other)
    rows = (block.by_rate(key)[adjusted_test.tested] for key in pair)
    flags = tuple(f"{row.name}: constant" for row in rows if row.constant_runs)
    if test is None or p is None:
        return Entry("-", flags=flags)
    shown_p = f"{p:.3f}" if p >= 0.001 else "< 0.001"
    return Entry(
        f"{column.show_difference(test.difference)} (p {shown_p})",
        small=f"[{column.show(test.low)}, {column.show(test.high)}]",
        flags=flags,
        bold=p < alpha,
    )
