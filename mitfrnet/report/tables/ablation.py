"""The table of MIT-FRNet without some of its parts."""

import json
from collections.abc import Mapping
from typing import Any

from mitfrnet.models.registry import lacking
from mitfrnet.report.columns import Column
from mitfrnet.report.over_rates import Block
from mitfrnet.report.results import Results
from mitfrnet.report.tables.scores import mean_record, runs_note
from mitfrnet.report.tables.table import Entry, Line, Table


def ablation_table(results: Results, block: Block) -> Table | None:
    """Return variants of MIT-FRNet beside the whole model; None if the grid has no such pair."""
    whole_of = _whole_of_each_variant(results, block.corpus)
    if not whole_of:
        return None
    shown = [m for m in results.grid.models if m in whole_of or m in whole_of.values()]
    lines, records = [], []
    for model in shown:
        for group in block.groups:
            row, whole = group.row(model), group.row(whole_of.get(model, model))
            entries = []
            for column in block.columns:
                mean, whole_mean = row.mean(column.key), whole.mean(column.key)
                difference = None if mean is None or whole_mean is None else mean - whole_mean
                change = "" if model not in whole_of else _change(difference, column)
                entries.append(Entry(row.show(column) + change, flags=row.flags(column.key)))
                records.append(
                    mean_record(group, row, column)
                    | {"difference_to_full": difference, "runs": len(row.runs)}
                )
            lines.append(Line(str(group.tested), entries, group=row.name))
    return Table(
        name=f"ablation_{block.name}",
        title=f"Parts of MIT-FRNet switched off, on {block.title}",
        caption=(
            f"MIT-FRNet on {block.title} with parts switched off: MMR, the reconstruction of "
            "missing modalities, or MITR, the modality-invariant representation (as Table 7 of "
            "the paper)."
        ),
        notes=(
            runs_note(block.groups[0]),
            "In brackets, the difference from the whole model: ↑ better, ↓ worse.",
        ),
        heads=("Missing rate", *(f"{column.full_head} {column.arrow}" for column in block.columns)),
        lines=tuple(lines),
        records=tuple(records),
    )


def _whole_of_each_variant(results: Results, corpus: str) -> dict[str, str]:
    """Return the variants in the grid, each with the whole model that has its other settings."""
    configs = {m: results.select(corpus, m)[0].config for m in results.grid.models}
    own = {m: config for m, config in configs.items() if config["architecture"] == "mitfrnet"}
    whole: dict[str, str] = {}
    for model, config in own.items():
        if not lacking(config):
            whole.setdefault(_other_settings(config), model)
    return {
        model: whole[key]
        for model, config in own.items()
        if lacking(config) and (key := _other_settings(config)) in whole
    }


def _other_settings(config: Mapping[str, Any]) -> str:
    """Return the settings of a model without the two switches, as text."""
    settings = {k: v for k, v in config["settings"].items() if k not in ("mmr", "mitr")}
    return json.dumps(settings, sort_keys=True)


def _change(difference: float | None, column: Column) -> str:
    if difference is None:
        return ""
    shown = column.show_difference(difference)
    if float(shown) == 0:
        return f" ({shown})"
    better = (difference > 0) == column.higher_is_better
    return f" ({shown} {'↑' if better else '↓'})"
