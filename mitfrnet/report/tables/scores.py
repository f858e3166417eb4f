"""Tables of scores: a few of them in one table, or a table per score over missing rates."""

from collections.abc import Sequence

from mitfrnet.labels import Scale
from mitfrnet.report.columns import Column
from mitfrnet.report.over_rates import Block
from mitfrnet.report.params import BootstrapParams
from mitfrnet.report.scores import Group, ScoreRow
from mitfrnet.report.tables.table import Entry, Line, Table


def headline_table(groups: Sequence[Group], bootstrap: BootstrapParams) -> Table:
    """Return the headline scores of one corpus, for a grid with few missing rates."""
    first = groups[0]
    columns = first.headline
    lines, records = [], []
    for group in groups:
        heading = group.title[0].upper() + group.title[1:]
        for row in group.rows:
            constant = (row.constant,) if row.constant else ()  # beside the name, not each score
            entries = [
                _entry(group, row, c, [row.majority(c.key), row.fewer(c.key)]) for c in columns
            ]
            lines.append(Line(row.name, entries, heading, row.reference, constant, row.key))
            records += [_record(group, row, column) for column in columns]
    signed = f"{first.signed_clips} of them have a label other than the neutral one."
    return Table(
        name=f"scores_{first.corpus}",
        caption=f"Scores on the test clips of {first.corpus}.",
        notes=(
            runs_note(first),
            *([signed] if first.signed_clips < first.clips else []),
            "The best of each column is in bold.",
        ),
        page_note=_interval_note(bootstrap),
        heads=("Predictor", *(f"{column.head} {column.arrow}" for column in columns)),
        lines=tuple(lines),
        records=tuple(records),
    )


def score_tables(block: Block, bootstrap: BootstrapParams) -> list[Table]:
    """Return one table per score, of predictors by missing rate."""
    return [_score_table(block, column, bootstrap) for column in block.columns]


def _score_table(block: Block, column: Column, bootstrap: BootstrapParams) -> Table:
    lines, records = [], []
    for first in block.rows:
        rows = [(group, group.row(first.key)) for group in block.groups]
        entries = [_entry(group, row, column, row.flags(column.key)) for group, row in rows]
        lines.append(Line(first.name, entries, reference=first.reference, model=first.key))
        records += [_record(group, row, column) for group, row in rows]
    family = block.scale.family if isinstance(block.scale, Scale) else None
    of_paper = {"mosi": "Table 4", "sims": "Table 5"}.get(str(family), "Tables 4 and 5")
    return Table(
        name=f"scores_{block.name}_{column.key}",
        title=f"{column.full_head}: {column.meaning}",
        caption=(
            f"{column.full_head} on {block.title}, by missing rate of the test clips (as "
            f"{of_paper} of the paper)."
        ),
        notes=(
            runs_note(block.groups[0]),
            f"{column.better.capitalize()} is better; the best at each rate is in bold.",
        ),
        page_note=_interval_note(bootstrap),
        heads=("Predictor", *map(str, block.rates)),
        lines=tuple(lines),
        records=tuple(records),
    )


def runs_note(group: Group, *, spread: bool = True) -> str:
    """Return how many clips and runs a value comes from.

    Args:
        group: any group of the table.
        spread: whether the table shows deviations over runs.
    """
    runs = next((row.runs for row in group.rows if not row.reference), ())
    clips = f"{group.clips} test clips"
    if len(runs) < 2:
        return f"{clips}, one run of each model."
    seeds, masks = ({run[axis] for run in runs} for axis in (0, 1))
    axes = f"{len(seeds)} training seed{'s' * (len(seeds) > 1)}"
    axes += f" by {len(masks)} mask seed{'s' * (len(masks) > 1)}"
    mean = "mean ± standard deviation" if spread else "means"
    return f"{clips}; {mean} over {len(runs)} runs of each model ({axes})."


def mean_record(group: Group, row: ScoreRow, column: Column) -> dict[str, object]:
    """Return the mean and deviation of a score, and where they belong."""
    return {
        "corpus": group.corpus,
        "condition": group.trained,
        "tested_at_rate": group.tested,
        "predictor": row.key,
        "metric": column.key,
        "mean": row.mean(column.key),
        "deviation": row.deviation(column.key),
    }


def _record(group: Group, row: ScoreRow, column: Column) -> dict[str, object]:
    interval = row.intervals.get(column.key)
    return mean_record(group, row, column) | {
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "test_clips": group.clips,
        "runs": len(row.runs),
        "runs_defined": row.defined_runs(column.key),
        "runs_constant": row.constant_runs,
        "runs_of_the_majority_class": row.majority_runs.get(column.key, ""),
        "best": group.is_best(row, column),
    }


def _entry(group: Group, row: ScoreRow, column: Column, flags: Sequence[str]) -> Entry:
    return Entry(
        row.show(column),
        small=row.show_interval(column),
        flags=tuple(flag for flag in flags if flag),
        bold=group.is_best(row, column),
    )


def _interval_note(bootstrap: BootstrapParams) -> str:
    return (
        f"In brackets, the {100 * bootstrap.level:g} % interval over {bootstrap.resamples} "
        "resamples of the test clips."
    )
