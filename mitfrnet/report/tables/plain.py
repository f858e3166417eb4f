"""Scores, losses and predictions as plain text, for a terminal and for other programs."""

from collections.abc import Iterator, Sequence
from typing import Any

from mitfrnet.report.columns import Column
from mitfrnet.report.confusion import class_of
from mitfrnet.report.over_rates import Block, averages, blocks, is_best_average
from mitfrnet.report.results import Cell
from mitfrnet.report.scores import Group, ScoreRow
from mitfrnet.report.tables.table import delimited

# A corpus with more groups is shown by curves and averages instead of group by group.
FEW_GROUPS = 3
_RATES_ABREAST = 11
_NAME_WIDTH = 23


def scores_text(title: str, groups: Sequence[Group]) -> str:
    """Return the headline scores as plain text, at most 100 columns wide."""
    lines = [title, ""]
    for corpus in dict.fromkeys(g.corpus for g in groups):
        of_corpus = [g for g in groups if g.corpus == corpus]
        if len(of_corpus) <= FEW_GROUPS:
            for group in of_corpus:
                lines += [*_group_lines(group), ""]
        else:
            for block in blocks(of_corpus):
                lines += _block_lines(block)
    lines += [
        "* best of its column; - not defined; after ±, the standard deviation over runs (a run has",
        "one training seed and one seed of the test masks).",
        "A constant prediction is the same for every clip: its accuracy is the share of a class.",
        "= majority: every clip is put in the class in which the majority class puts it.",
    ]
    return "\n".join(lines) + "\n"


def _group_lines(group: Group) -> Iterator[str]:
    """Yield one table of scores and its warnings."""
    yield f"{group.corpus}, {group.title}, {group.clips} test clips"
    yield f"{'':<25}" + "".join(f"{column.head:>15}" for column in group.headline)
    for row in group.rows:
        scores = (row.show(c) + _star(group.is_best(row, c)) for c in group.headline)
        yield (f"{_short(row):<25}" + "".join(f"{score:>15}" for score in scores)).rstrip()
    yield from group.undefined
    for row in group.rows:
        if row.constant:
            yield f"{row.name}: {row.constant}"
        scores_of_warning: dict[str, list[str]] = {}
        for column in group.headline:
            if warning := row.majority(column.key):
                scores_of_warning.setdefault(warning, []).append(column.short)
        for warning, scores_with_it in scores_of_warning.items():
            yield f"{row.name}: {warning} ({', '.join(scores_with_it)})"
        for column in group.headline:
            if fewer := row.fewer(column.key):
                yield f"{row.name}: {column.short} is a {fewer}"


def _block_lines(block: Block) -> Iterator[str]:
    """Yield the averages of one block, then a table of missing rates per score."""
    runs = max(len(row.runs) for row in block.rows)
    clips = block.groups[0].clips
    yield f"{block.title}: {clips} test clips, {runs} run{'s' * (runs > 1)} of each model"
    yield ""
    if len(block.groups) > 1:
        yield "Averages over missing rates, weighted by 1 - missing rate (MWA, normalised)"
        yield _line("", [column.head for column in block.headline], 12)
        of_block = averages(block)
        for row in block.rows:
            cells = []
            for c in block.headline:
                value = of_block[row.key][c.key].value["mwa_normalised"]
                best = is_best_average(of_block, row.key, c, "mwa_normalised")
                cells.append(("-" if value is None else c.show(value)) + _star(best))
            yield _line(_short(row), cells, 12)
        yield ""
    for column in block.headline:
        yield f"{column.head} ({column.meaning}), by missing rate of the test clips"
        for start in range(0, len(block.groups), _RATES_ABREAST):
            abreast = block.groups[start : start + _RATES_ABREAST]
            yield _line("", [f"{group.tested} " for group in abreast], 7)
            for row in block.rows:
                yield _line(_short(row), [_mean(group, row.key, column) for group in abreast], 7)
        for row in block.models:
            rates_of_flags: dict[str, list[str]] = {}
            for rate, at_rate in block.by_rate(row.key).items():
                if flags := at_rate.flags(column.key):
                    rates_of_flags.setdefault(", ".join(flags), []).append(str(rate))
            for flags_in_words, rates in rates_of_flags.items():
                yield f"  {row.name}: {flags_in_words} at {', '.join(rates)}"
        yield ""


def _mean(group: Group, key: str, column: Column) -> str:
    row = group.row(key)
    value = row.mean(column.key)
    return ("-" if value is None else column.show(value)) + _star(group.is_best(row, column))


def _star(best: bool) -> str:
    return "*" if best else " "


def _line(name: str, cells: Sequence[str], width: int) -> str:
    return (f"{name:<{_NAME_WIDTH}}" + "".join(f"{cell:>{width}}" for cell in cells)).rstrip()


def _short(row: ScoreRow) -> str:
    return (row.name if len(row.name) < _NAME_WIDTH else row.key)[: _NAME_WIDTH - 1]


def scores_csv(groups: Sequence[Group]) -> str:
    """Return every score, unrounded, with a line per predictor, mask and run."""
    lines: list[dict[str, Any]] = []
    for group in groups:
        for row in group.rows:
            for (seed, mask_seed), scores in zip(row.runs, row.scores, strict=True):
                place = {
                    "corpus": group.corpus,
                    "predictor": row.key,
                    "condition": group.trained,
                    "tested_at_rate": group.tested,
                    "seed": "" if seed is None else seed,
                    "mask_seed": mask_seed,
                }
                lines.append(place | dict(sorted(scores.items())))
    return delimited(lines, delimiter=",")


def loss_table(cell: Cell) -> str:
    """Return the losses per epoch as tab-separated text, with a column per term."""
    curves = {name.replace("/", "_"): dict(curve) for name, curve in cell.losses.items()}
    return delimited(
        {"epoch": epoch} | {name: curve.get(epoch) for name, curve in curves.items()}
        for epoch, _ in cell.losses["valid/task"]
    )


def prediction_table(cell: Cell) -> str:
    """Return label and prediction of every test clip and mask as tab-separated text."""
    columns = ["utterance_id", "missing_rate", "mask_seed", "label", "prediction"]
    return delimited(cell.predictions.select(columns).to_pylist())


def sign_table(cell: Cell) -> str:
    """Return the class of label and prediction of every test clip as tab-separated text.

    If labels are scores, the classes are the sides of the neutral point.
    """
    rows = cell.predictions.select(["label", "prediction"]).to_pylist()
    scale = cell.scale
    return delimited({key: class_of(value, scale) for key, value in row.items()} for row in rows)


def rate_tables(groups: Sequence[Group]) -> dict[str, str]:
    """Return headline scores per test rate as tab-separated text, by the name of their curve.

    There is one curve per predictor, or one per predictor and condition of training if test
    rates differ from those of training.
    """
    curves: dict[str, list[dict[str, Any]]] = {}
    matched = all(group.trained == group.tested for group in groups)
    for group in groups:
        for row in group.rows:
            name = row.key if matched else f"{row.key}/{group.trained}"
            scores = {column.short: row.mean(column.key) for column in group.headline}
            # Vega draws an empty field as zero, and leaves out NaN.
            numbers = {key: "NaN" if v is None else v for key, v in scores.items()}
            curves.setdefault(name, []).append({"missing_rate": group.tested} | numbers)
    return {name: delimited(rows) for name, rows in curves.items()}
