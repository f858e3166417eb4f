"""Tables of the training runs: how long they took, and how they ended."""

from collections.abc import Mapping, Sequence
from typing import Any

from mitfrnet.report.results import Cell, Results
from mitfrnet.report.runs import deviation_of, mean_of
from mitfrnet.report.tables.table import Entry, Line, Table
from mitfrnet.report.words import in_words


def timing_table(results: Results, corpus: str, names: Mapping[str, str]) -> Table:
    """Return the seconds per epoch, size and memory of every model on one corpus."""
    lines, records = [], []
    for model in results.grid.models:
        cells = results.select(corpus, model)
        entries = [
            Entry(_range([cell.timings["parameters"] for cell in cells], "{:,}")),
            Entry(_range([cell.timings["peak_memory_mb"] for cell in cells], "{:,.0f}")),
            Entry(_range([cell.timings["epochs"] for cell in cells], "{}")),
        ]
        for condition in results.grid.missing_rates:
            same_condition = results.select(corpus, model, condition)
            entries.append(
                Entry(_seconds([c.timings["seconds_per_epoch"] for c in same_condition]))
            )
            records += [_timing_record(cell) for cell in same_condition]
        lines.append(Line(names[model], entries, model=model))
    seeds = len(results.grid.seeds)
    devices = sorted(
        {(c.timings["device"], c.timings["threads"]) for c in results.cells if c.corpus == corpus}
    )
    over = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    return Table(
        name=f"timings_{corpus}",
        caption=(
            f"Training on {corpus}: seconds per epoch, by missing rate or protocol (as Table 6 of "
            "the paper, which does not say what its seconds measure)."
        ),
        notes=(
            f"Median epoch of each run, {over}. "
            + " and ".join(f"{d}, {t} thread{'s' * (t != 1)}" for d, t in devices)
            + ". Runs side by side shared the machine. A range means that runs differ.",
        ),
        heads=(
            "Model",
            "Parameters",
            "Peak memory, MB",
            "Epochs",
            *(f"s at {in_words(c)}" for c in results.grid.missing_rates),
        ),
        lines=tuple(lines),
        records=tuple(records),
    )


def _range(values: Sequence[float], form: str) -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"


def _seconds(values: Sequence[float]) -> str:
    deviation = deviation_of(values)
    spread = "" if deviation is None else f" ± {deviation:.2f}"
    return f"{mean_of(values):.2f}{spread}"


def _timing_record(cell: Cell) -> dict[str, Any]:
    place = {
        "corpus": cell.corpus,
        "model": cell.model,
        "condition": cell.condition,
        "seed": cell.seed,
    }
    keys = ("seconds_per_epoch", "epochs", "parameters", "peak_memory_mb", "device", "threads")
    return place | {key: cell.timings[key] for key in keys}


def training_table(results: Results, corpus: str, names: Mapping[str, str]) -> Table:
    """Return the epochs and the validation loss of each training run on one corpus."""
    lines, records = [], []
    for cell in (cell for cell in results.cells if cell.corpus == corpus):
        training = cell.config["training"]
        values = {
            "condition": cell.condition,
            "seed": cell.seed,
            "clips": training["clips"]["train"],
            "epochs": len(cell.losses["valid/task"]),
            "kept_epoch": training["best_epoch"],
            "valid_task_loss": training["best_valid_task_loss"],
        }
        texts = [*list(values.values())[:-1], f"{values['valid_task_loss']:.4f}"]
        entries = [Entry(str(text)) for text in texts]
        lines.append(Line(names[cell.model], entries, model=cell.model))
        records.append({"corpus": corpus, "model": cell.model} | values)
    return Table(
        name=f"trainings_{corpus}",
        title=f"All {len(lines)} training runs" if len(lines) > 1 else "The training run",
        caption=f"Training runs on {corpus}.",
        notes=("The kept epoch is the one with the lowest task loss on the validation split.",),
        heads=(
            "Model",
            "Missing rate or protocol",
            "Seed",
            "Clips",
            "Epochs",
            "Kept epoch",
            "Its validation loss",
        ),
        lines=tuple(lines),
        records=tuple(records),
    )
