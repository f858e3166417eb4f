"""The tables of the study: scores per rate, averages, ablations and paired tests."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mitfrnet.labels import ClassScale, Scale
from mitfrnet.models.registry import lacking
from mitfrnet.report.results import Results
from mitfrnet.report.tables.averages import AGGREGATES, Block, averages, is_best_average
from mitfrnet.report.tables.columns import Column
from mitfrnet.report.tables.paired import Comparison
from mitfrnet.report.tables.scores import BootstrapParams, Group, ScoreRow, shown
from mitfrnet.report.tables.typeset import Entry, Line, Table


def percent_of(level: float) -> str:
    """Return a level as `95 %`."""
    return f"{100 * level:g} %"


def runs_note(block: Block, spread: bool = True) -> str:
    """Return what is behind a value, and what ± is where the table shows it."""
    first = block.groups[0]
    runs = next((row.runs for row in first.rows if not row.reference), ())
    seeds, masks = ({run[axis] for run in runs} for axis in (0, 1))
    clips = f"{first.n} test clips"
    if len(runs) < 2:
        return f"{clips}, one run of each model."
    of = f"{len(seeds)} training seed{'s' * (len(seeds) > 1)}"
    of += f" by {len(masks)} mask seed{'s' * (len(masks) > 1)}"
    mean = "mean ± standard deviation" if spread else "means"
    return f"{clips}; {mean} over {len(runs)} runs of each model ({of})."


def _arrow(column: Column) -> str:
    return "↑" if column.higher_is_better else "↓"


def headline_table(groups: Sequence[Group], bootstrap: BootstrapParams) -> Table:
    """Return the headline scores of a corpus with few groups: all that a small grid needs."""
    columns = groups[0].headline
    lines, records = [], []
    for group in groups:
        for row in group.rows:
            entries = [
                Entry(
                    row.show(column),
                    small=row.show_interval(column),
                    # That it is constant stands at the row's name.
                    flags=tuple(f for f in row.flags(column.key) if not f.startswith("constant")),
                    bold=group.is_best(row, column),
                )
                for column in columns
            ]
            condition = group.condition[0].upper() + group.condition[1:]
            flags = (row.constant,) if row.constant else ()
            lines.append(Line(row.name, entries, condition, row.reference, flags, row.key))
            records += [_score_record(group, row, column) for column in columns]
    first = groups[0]
    return Table(
        name=f"scores_{first.corpus}",
        caption=f"Scores on the test clips of {first.corpus}.",
        notes=(
            runs_note(Block(first.corpus, "matched", (first,))),
            *(
                [f"{first.signed} of them have a label other than the neutral one."]
                if first.signed < first.n
                else []
            ),
            "Best of each column in bold.",
        ),
        page_note=_interval_note(bootstrap),
        heads=("Predictor", *(f"{column.head} {_arrow(column)}" for column in columns)),
        lines=tuple(lines),
        records=tuple(records),
    )


def _interval_note(bootstrap: BootstrapParams) -> str:
    return (
        f"In brackets, the {percent_of(bootstrap.level)} interval over {bootstrap.resamples} "
        "resamples of the test clips."
    )


def _table_of_the_paper(block: Block) -> str:
    family = block.scale.family if isinstance(block.scale, Scale) else None
    return {"mosi": "Table 4", "sims": "Table 5"}.get(str(family), "Tables 4 and 5")


def score_tables(block: Block, bootstrap: BootstrapParams) -> list[Table]:
    """Return one table of predictors and test rates per score."""
    return [_score_table(block, column, bootstrap) for column in block.groups[0].columns]


def _score_table(block: Block, column: Column, bootstrap: BootstrapParams) -> Table:
    lines, records = [], []
    for first in block.groups[0].rows:
        rows = [(group, group.row(first.key)) for group in block.groups]
        entries = [
            Entry(
                row.show(column),
                small=row.show_interval(column),
                flags=row.flags(column.key),
                bold=group.is_best(row, column),
            )
            for group, row in rows
        ]
        lines.append(Line(first.name, entries, reference=first.reference, model=first.key))
        records += [_score_record(group, row, column) for group, row in rows]
    return Table(
        name=f"scores_{block.name}_{column.key}",
        title=f"{column.full_head}: {column.meaning}",
        caption=(
            f"{column.full_head} on {block.title}, by missing rate of the test clips "
            f"(as {_table_of_the_paper(block)} of the paper)."
        ),
        notes=(
            runs_note(block),
            f"{'Higher' if column.higher_is_better else 'Lower'} is better, the best of each rate "
            "in bold.",
        ),
        page_note=_interval_note(bootstrap),
        heads=("Predictor", *(str(group.tested) for group in block.groups)),
        lines=tuple(lines),
        records=tuple(records),
    )


def _score_record(group: Group, row: ScoreRow, column: Column) -> dict[str, object]:
    interval = row.intervals.get(column.key)
    return {
        "corpus": group.corpus,
        "condition": group.trained,
        "tested_at_rate": group.tested,
        "predictor": row.key,
        "metric": column.key,
        "mean": row.mean(column.key),
        "deviation": row.deviation(column.key),
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "test_clips": group.n,
        "runs": len(row.runs),
        "runs_defined": row.defined_runs(column.key),
        "runs_constant": row.constant_runs,
        "runs_of_the_majority_class": row.majority_runs.get(column.key, ""),
        "best": group.is_best(row, column),
    }


def average_table(block: Block) -> Table:
    """Return the aggregates over test rates, of every predictor and score."""
    columns = block.groups[0].columns
    found = averages(block)
    records = [
        {
            "corpus": block.corpus,
            "condition": block.trained,
            "aggregate": aggregate,
            "predictor": row.key,
            "metric": column.key,
            "value": found[row.key][column.key].value[aggregate],
            "deviation": found[row.key][column.key].deviation[aggregate],
            "rates": len(block.groups),
            "skipped_rates": " ".join(map(str, found[row.key][column.key].skipped)),
            "constant_at_rates": " ".join(map(str, block.constant_at(row.key))),
        }
        for aggregate in AGGREGATES
        for row in block.groups[0].rows
        for column in columns
    ]
    return Table(
        name=f"averages_{block.name}",
        title="All scores, averaged in four ways",
        caption=(
            f"Scores on {block.title} averaged over {_rates(block)} of the test clips (as Figures "
            "5 to 7 of the paper)."
        ),
        notes=(
            runs_note(block),
            "MWA is the missing-weighted average of eq. 25: a rate r has the weight 1 - r. As "
            "printed it needs the rates 0.0, 0.1, ..., 1.0, and its weights add up to 5.5 while "
            "it divides by 10, so that a perfect 100 % gives 55 %; the normalised one divides by "
            "the weights. The area under the curve is divided by the range of the rates.",
            "A rate at which no run defines a score is left out and named, as is one at which some "
            "runs do not, so that its mean is of the others.",
            "Best in bold, among the averages that leave out the fewest rates.",
        ),
        heads=("Predictor", *(f"{column.full_head} {_arrow(column)}" for column in columns)),
        lines=tuple(
            line
            for aggregate, title in AGGREGATES.items()
            for line in _average_lines(block, columns, aggregate, title)
        ),
        records=tuple(records),
    )


def headline_average_table(block: Block) -> Table:
    """Return the normalised MWA of the headline scores alone: what the page shows first."""
    columns = block.groups[0].headline
    return Table(
        name=f"averages_{block.name}",
        caption=(
            f"{block.title}: average over {_rates(block)}, weighted by what is left (eq. 25 of "
            "the paper, divided by the sum of its weights)."
        ),
        notes=(runs_note(block), "Best of each column in bold."),
        heads=("Predictor", *(f"{column.head} {_arrow(column)}" for column in columns)),
        lines=tuple(_average_lines(block, columns, "mwa_normalised", "")),
        records=(),
    )


def _rates(block: Block) -> str:
    return f"{len(block.groups)} missing rate{'s' * (len(block.groups) > 1)}"


def _average_lines(
    block: Block, columns: Sequence[Column], aggregate: str, title: str
) -> Iterator[Line]:
    found = averages(block)
    for row in block.groups[0].rows:
        entries = []
        for column in columns:
            average = found[row.key][column.key]
            value, deviation = average.value[aggregate], average.deviation[aggregate]
            without = average.missed(aggregate) if value is not None else ()
            flags = [f"without {', '.join(map(str, without))}"] if without else []
            if row.key != "majority" and block.majority_at(row.key, column.key) == block.rates:
                flags.append("= majority at every rate")
            if value is not None and (fewer := block.fewer_at(row.key, column.key)):
                flags.append(f"fewer runs at {', '.join(map(str, fewer))}")
            entries.append(
                Entry(
                    shown(value, deviation, column),
                    flags=tuple(flags),
                    bold=is_best_average(found, row.key, column, aggregate),
                )
            )
        constant = block.constant_at(row.key)
        where = "every rate" if constant == block.rates else ", ".join(map(str, constant))
        rows = [group.row(row.key) for group in block.groups]
        some = "some run " * any(0 < r.constant_runs < len(r.runs) for r in rows)
        flags = [f"{some}constant at {where}"] if constant else []
        yield Line(row.name, entries, title, row.reference, tuple(flags), row.key)


def ablation_table(results: Results, block: Block) -> Table | None:
    """Return MIT-FRNet without its parts beside the whole; None where the grid has no such pair."""
    configs = {m: results.select(block.corpus, m)[0].config for m in results.grid.models}
    own = [m for m, config in configs.items() if config["architecture"] == "mitfrnet"]
    # Of several with the same settings the first.
    wholes = {_but_for_ablations(configs[m]): m for m in own[::-1] if not lacking(configs[m])}
    whole_of = {  # of each variant
        m: wholes[key]
        for m in own
        if lacking(configs[m]) and (key := _but_for_ablations(configs[m])) in wholes
    }
    if not whole_of:
        return None
    columns = block.groups[0].columns
    lines, records = [], []
    for model in (m for m in own if m in whole_of or m in whole_of.values()):
        for group in block.groups:
            full, row = group.row(whole_of.get(model, model)), group.row(model)
            entries = []
            for column in columns:
                a, b = row.mean(column.key), full.mean(column.key)
                difference = None if a is None or b is None else a - b
                entries.append(
                    Entry(
                        row.show(column)
                        + _changed(difference if model in whole_of else None, column),
                        flags=row.flags(column.key),
                    )
                )
                record = _score_record(group, row, column)
                records.append(
                    {key: record[key] for key in list(record)[:7]}
                    | {"difference_to_full": difference, "runs": len(row.runs)}
                )
            lines.append(Line(str(group.tested), entries, group=row.name))
    return Table(
        name=f"ablation_{block.name}",
        title="Per missing rate",
        caption=(
            f"MIT-FRNet on {block.title} with parts switched off: without MMR, the reconstruction "
            "of missing modalities, and without MITR, the modality-invariant representation "
            "(as Table 7 of the paper)."
        ),
        notes=(
            runs_note(block),
            "In brackets, the difference to the whole model; ↑ better than it, ↓ worse.",
        ),
        heads=("Missing rate", *(f"{column.full_head} {_arrow(column)}" for column in columns)),
        lines=tuple(lines),
        records=tuple(records),
    )


def _but_for_ablations(config: Mapping[str, Any]) -> str:
    """Return the settings of a model without the two switches, to be compared."""
    rest = {k: v for k, v in config["settings"].items() if k not in ("mmr", "mitr")}
    return json.dumps(rest, sort_keys=True)


def _changed(difference: float | None, column: Column) -> str:
    if difference is None:
        return ""
    shown_difference = column.show_difference(difference)
    if float(shown_difference) == 0:
        return f" ({shown_difference})"
    better = (difference > 0) == column.higher_is_better
    return f" ({shown_difference} {'↑' if better else '↓'})"


def paired_table(
    block: Block, column: Column, found: Sequence[Comparison], exchanges: int, level: float
) -> Table:
    """Return the first model against each other, per test rate.

    Args:
        block: the models.
        column: the score compared.
        found: all comparisons of the block.
        exchanges: behind each p value.
        level: of the intervals; 1 - level is where a p value is called small.
    """
    first, *others = block.models
    alpha = 1 - level
    lines = []
    for other in others:
        own = [c for c in found if c.other == other.key]
        entries = [_paired_entry(block, column, c, alpha) for c in own]
        lines.append(Line(other.name, entries, model=other.key))
    tests = sum(c.test is not None for c in found)
    kind = "classes" if isinstance(block.scale, ClassScale) else "scores"
    first_test = next((c.test for c in found if c.test), None)
    records = [
        {
            "corpus": block.corpus,
            "condition": block.trained,
            "tested_at_rate": c.tested,
            "metric": column.key,
            "predictor": first.key,
            "other": c.other,
            "difference": c.test.difference if c.test else None,
            "low": c.test.low if c.test else None,
            "high": c.test.high if c.test else None,
            "p_value": c.test.p_value if c.test else None,
            "p_value_holm": c.adjusted,
        }
        for c in found
    ]
    return Table(
        name=f"paired_tests_{block.name}",
        caption=(
            f"{first.name} minus each other model on the same test clips of {block.title}: "
            f"difference in {column.full_head} by missing rate, "
            f"{'higher' if column.higher_is_better else 'lower'} is better."
        ),
        notes=(
            runs_note(block, spread=False),
            f"p: two-sided, by {exchanges} exchanges of the two models' predictions, after Holm's "
            f"correction for all {tests} tests of this table; bold below {alpha:.2g}. The "
            f"smallest that can come out is {min(1.0, tests / (exchanges + 1)):.2g}.",
            "It says whether other test clips of the same kind could turn the result around, not "
            "whether other seeds could.",
        ),
        page_note=(
            f"In brackets, the {percent_of(level)} interval of the difference over resampled test "
            f"clips. The score is set in params.yaml, report.paired_test.{kind}."
        )
        if first_test
        else "",
        bold_is=f"p below {alpha:.2g}",
        heads=(f"{first.name} minus", *(str(group.tested) for group in block.groups)),
        lines=tuple(lines),
        records=tuple(records),
    )


def _paired_entry(block: Block, column: Column, comparison: Comparison, alpha: float) -> Entry:
    test, adjusted = comparison.test, comparison.adjusted
    group = next(g for g in block.groups if g.tested == comparison.tested)
    pair = (group.row(block.models[0].key), group.row(comparison.other))
    flags = tuple(f"{row.name}: constant" for row in pair if row.constant_runs)
    if test is None or adjusted is None:
        return Entry("-", flags=flags)
    return Entry(
        f"{column.show_difference(test.difference)} (p {_p_value(adjusted)})",
        small=f"[{column.show(test.low)}, {column.show(test.high)}]",
        flags=flags,
        bold=adjusted < alpha,
    )


def _p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"
