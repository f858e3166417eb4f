"""Scores, losses and predictions as plain text, for a terminal and for other programs."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mitfrnet.labels import ClassScale, LabelScale
from mitfrnet.report.results import Cell
from mitfrnet.report.tables.averages import Block, averages, blocks, is_best_average
from mitfrnet.report.tables.columns import Column
from mitfrnet.report.tables.scores import Group, ScoreRow

# A corpus with more groups than this is shown as curves and averages, not group by group.
FEW_GROUPS = 3
RATES_ABREAST = 11
_NAME_WIDTH = 23


def scores_text(title: str, groups: Sequence[Group]) -> str:
    """Return the scores of a person's interest as plain text, at most 100 columns wide."""
    lines = [title, ""]
    for corpus in dict.fromkeys(g.corpus for g in groups):
        own = [g for g in groups if g.corpus == corpus]
        if len(own) <= FEW_GROUPS:
            for group in own:
                lines += _group_lines(group)
        else:
            for block in blocks(own):
                lines += _block_lines(block)
    lines += [
        "* best of its column; - not defined; after ±, the standard deviation over runs (a run is",
        "a training seed and a seed of the test masks).",
        "A constant prediction is the same for every clip: its accuracy is the share of a class.",
        "= majority: every clip is put in the class in which the majority class puts it.",
    ]
    return "\n".join(lines) + "\n"


def _group_lines(group: Group) -> list[str]:
    lines = [f"{group.corpus}, {group.condition}, {group.n} test clips"]
    lines.append(f"{'':<25}" + "".join(f"{column.head:>15}" for column in group.headline))
    for row in group.rows:
        cells = [row.show(c) + ("*" if group.is_best(row, c) else " ") for c in group.headline]
        lines.append((f"{_short(row):<25}" + "".join(f"{s:>15}" for s in cells)).rstrip())
    lines += group.undefined
    for row in group.rows:
        if row.constant:
            lines.append(f"{row.name}: {row.constant}")
        lines += [f"{row.name}: {warning}" for warning in majority_warnings(row, group.headline)]
        lines += [
            f"{row.name}: {column.short} is a {fewer}"
            for column in group.headline
            if (fewer := row.fewer(column.key))
        ]
    return [*lines, ""]


def majority_warnings(row: ScoreRow, columns: Sequence[Column]) -> list[str]:
    """Return in words which scores are those of the majority reference."""
    by_warning: dict[str, list[str]] = {}
    for column in columns:
        if row.key != "majority" and (warning := row.majority(column.key)):
            by_warning.setdefault(warning, []).append(column.short)
    return [f"{warning} ({', '.join(names)})" for warning, names in by_warning.items()]


def _block_lines(block: Block) -> list[str]:
    """Return the averages of one block, then a table of rates per score."""
    first = block.groups[0]
    counts = f"{first.n} test clips, {_runs(first)}"
    lines = [f"{block.title}: {counts}", ""]
    if len(block.groups) > 1:
        found = averages(block)
        lines.append("Averages over missing rates, weighted by what is left (MWA, normalised)")
        lines.append(_line("", [c.head for c in first.headline], 12))
        for row in first.rows:
            cells = []
            for c in first.headline:
                value = found[row.key][c.key].value["mwa_normalised"]
                best = is_best_average(found, row.key, c, "mwa_normalised")
                cells.append(("-" if value is None else c.show(value)) + ("*" if best else " "))
            lines.append(_line(_short(row), cells, 12))
        lines.append("")
    for column in first.headline:
        lines.append(f"{column.head} ({column.meaning}), by missing rate of the test clips")
        for start in range(0, len(block.groups), RATES_ABREAST):
            abreast = block.groups[start : start + RATES_ABREAST]
            lines.append(_line("", [f"{g.tested} " for g in abreast], 7))
            for row in first.rows:
                lines.append(_line(_short(row), [_cell(g, row.key, column) for g in abreast], 7))
        for row in first.rows:
            lines += _rates_of_warnings(block, row.key, column)
        lines.append("")
    return lines


def _cell(group: Group, key: str, column: Column) -> str:
    row = group.row(key)
    value = row.mean(column.key)
    shown = "-" if value is None else column.show(value)
    return shown + ("*" if group.is_best(row, column) else " ")


def _rates_of_warnings(block: Block, key: str, column: Column) -> list[str]:
    """Return at which rates a model says the same for every clip, or what the majority says."""
    rates: dict[str, list[str]] = {}
    for group in block.groups:
        row = group.row(key)
        if not row.reference and (flags := row.flags(column.key)):
            rates.setdefault(", ".join(flags), []).append(str(group.tested))
    name = block.groups[0].row(key).name
    return [f"  {name}: {flag} at {', '.join(at)}" for flag, at in rates.items()]


def _line(name: str, cells: Sequence[str], width: int) -> str:
    return (f"{name:<{_NAME_WIDTH}}" + "".join(f"{s:>{width}}" for s in cells)).rstrip()


def _short(row: ScoreRow) -> str:
    return (row.name if len(row.name) < _NAME_WIDTH else row.key)[: _NAME_WIDTH - 1]


def _runs(group: Group) -> str:
    runs = max(len(row.runs) for row in group.rows)
    return f"{runs} run{'s' * (runs > 1)} of each model"


def scores_csv(groups: Sequence[Group]) -> str:
    """Return every score, unrounded, one line per predictor, mask and run."""
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
    """Return the losses per epoch as tab-separated text, a column per term."""
    curves = cell.losses
    epochs = len(curves["valid/task"])
    return delimited(
        {"epoch": epoch}
        | {name.replace("/", "_"): dict(curve).get(epoch) for name, curve in curves.items()}
        for epoch in range(1, epochs + 1)
    )


def prediction_table(cell: Cell) -> str:
    """Return label and prediction of every test clip and mask as tab-separated text."""
    columns = ["utterance_id", "missing_rate", "mask_seed", "label", "prediction"]
    return delimited(cell.predictions.select(columns).to_pylist())


SIGNS = ("negative", "neutral", "positive")


def kinds(scale: LabelScale) -> tuple[str, ...]:
    """Return what a label can be, for a table of confusions: a class, or a side of neutral."""
    return scale.classes if isinstance(scale, ClassScale) else SIGNS


def kind(value: float, scale: LabelScale) -> str:
    """Return which of `kinds` a label or a prediction is."""
    if isinstance(scale, ClassScale):
        return scale.classes[int(value)]
    neutral = np.float32(scale.neutral_point)  # as labels are
    return SIGNS[int(value > neutral) - int(value < neutral) + 1]


def sign_table(cell: Cell) -> str:
    """Return the kinds of label and prediction of every test clip as tab-separated text."""
    pairs = zip(*(cell.predictions[c].to_pylist() for c in ("label", "prediction")), strict=True)
    scale = cell.scale
    return delimited({"label": kind(a, scale), "prediction": kind(b, scale)} for a, b in pairs)


def rate_tables(groups: Sequence[Group]) -> dict[str, str]:
    """Return headline scores per test rate as tab-separated text, by the name of their curve.

    There is one curve per predictor; where test rates are not those of training, one per
    predictor and condition of training.
    """
    curves: dict[str, list[dict[str, Any]]] = {}
    matched = all(group.trained == group.tested for group in groups)
    for group in groups:
        for row in group.rows:
            name = row.key if matched else f"{row.key}/{group.trained}"
            scores = {column.short: row.mean(column.key) for column in group.headline}
            # Vega draws an empty field as zero, and leaves out what is no number.
            numbers = {key: "NaN" if v is None else v for key, v in scores.items()}
            curves.setdefault(name, []).append({"missing_rate": group.tested} | numbers)
    return {name: delimited(rows) for name, rows in curves.items()}


def delimited(rows: Iterable[Mapping[str, Any]], delimiter: str = "\t") -> str:
    """Return rows as delimited text; the columns are all keys in order of appearance."""
    rows = list(rows)
    text = io.StringIO()
    fields = dict.fromkeys(key for row in rows for key in row)
    writer = csv.DictWriter(text, list(fields), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
