"""Tables of scores averaged over missing rates."""

from collections.abc import Iterator, Sequence

from mitfrnet.report.columns import Column
from mitfrnet.report.over_rates import Average, Averages, Block, averages, is_best_average
from mitfrnet.report.scores import ScoreRow
from mitfrnet.report.tables.scores import runs_note
from mitfrnet.report.tables.table import Entry, Line, Table

AGGREGATES = {
    "mwa_normalised": "Weighted by 1 - missing rate, MWA",
    "mwa_paper": "MWA as the paper prints it",
    "auilc_normalised": "Area under the curve, AUILC",
    "mean": "Plain mean",
}


def average_table(block: Block) -> Table:
    """Return all aggregates over missing rates, of every predictor and score."""
    of_block = averages(block)
    records = [
        {
            "corpus": block.corpus,
            "condition": block.trained,
            "aggregate": aggregate,
            "predictor": row.key,
            "metric": column.key,
            "value": of_block[row.key][column.key].value[aggregate],
            "deviation": of_block[row.key][column.key].deviation[aggregate],
            "rates": len(block.groups),
            "skipped_rates": " ".join(map(str, of_block[row.key][column.key].skipped)),
            "constant_at_rates": " ".join(map(str, block.constant_at(row.key))),
        }
        for aggregate in AGGREGATES
        for row in block.rows
        for column in block.columns
    ]
    return Table(
        name=f"averages_{block.name}",
        title="All scores, averaged in four ways",
        caption=(
            f"Scores on {block.title}, averaged over {_rates(block)} of the test clips (as Figures "
            "5 to 7 of the paper)."
        ),
        notes=(
            runs_note(block.groups[0]),
            "MWA is the missing-weighted average of eq. 25: a rate r has the weight 1 - r. As "
            "printed, it needs the rates 0.0, 0.1, ..., 1.0 and divides by 10, although its "
            "weights add up to 5.5: a perfect 100 % gives 55 %. The normalised form divides by the "
            "sum of the weights. The area under the curve is divided by the range of the rates.",
            "A rate at which no run defines a score is left out and named. A rate at which only "
            "some runs define it is named too; its mean is over those runs.",
            "The best is in bold, among the averages that leave out the fewest rates.",
        ),
        heads=("Predictor", *(f"{column.full_head} {column.arrow}" for column in block.columns)),
        lines=tuple(
            line
            for aggregate, title in AGGREGATES.items()
            for line in _lines(block, of_block, block.columns, aggregate, title)
        ),
        records=tuple(records),
    )


def headline_average_table(block: Block) -> Table:
    """Return the normalised MWA of the headline scores, which the page shows first."""
    return Table(
        name=f"averages_{block.name}",
        caption=(
            f"{block.title}: average over {_rates(block)}, weighted by 1 - missing rate (eq. 25 of "
            "the paper, divided by the sum of the weights)."
        ),
        notes=(runs_note(block.groups[0]), "The best of each column is in bold."),
        heads=("Predictor", *(f"{column.head} {column.arrow}" for column in block.headline)),
        lines=tuple(_lines(block, averages(block), block.headline, "mwa_normalised", "")),
        records=(),
    )


def _rates(block: Block) -> str:
    return f"{len(block.groups)} missing rate{'s' * (len(block.groups) > 1)}"


def _lines(
    block: Block, of_block: Averages, columns: Sequence[Column], aggregate: str, heading: str
) -> Iterator[Line]:
    for row in block.rows:
        entries = [
            Entry(
                _shown(of_block[row.key][column.key], column, aggregate),
                flags=tuple(_flags(block, row, column, of_block[row.key][column.key], aggregate)),
                bold=is_best_average(of_block, row.key, column, aggregate),
            )
            for column in columns
        ]
        constant = block.constant_at(row.key)
        where = "every rate" if constant == block.rates else _listed(constant)
        rows = block.by_rate(row.key).values()
        some = "some run " * any(0 < r.constant_runs < len(r.runs) for r in rows)
        flags = (f"{some}constant at {where}",) if constant else ()
        yield Line(row.name, entries, heading, row.reference, flags, row.key)


def _shown(average: Average, column: Column, aggregate: str) -> str:
    value = average.value[aggregate]
    return "-" if value is None else column.show(value, average.deviation[aggregate])


def _flags(
    block: Block, row: ScoreRow, column: Column, average: Average, aggregate: str
) -> Iterator[str]:
    is_defined = average.value[aggregate] is not None
    if is_defined and (left_out := average.left_out(aggregate)):
        yield f"without {_listed(left_out)}"
    if row.key != "majority" and block.majority_at(row.key, column.key) == block.rates:
        yield "= majority at every rate"
    if is_defined and (fewer := block.fewer_at(row.key, column.key)):
        yield f"fewer runs at {_listed(fewer)}"


def _listed(rates: Sequence[float]) -> str:
    return ", ".join(map(str, rates))
