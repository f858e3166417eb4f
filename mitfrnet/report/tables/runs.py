"""Tables about how results came to be: what training took, and what the masks really hid."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from mitfrnet.grid import Condition
from mitfrnet.modalities import MODALITIES
from mitfrnet.report.results import Cell, Corpus, Results
from mitfrnet.report.tables.scores import PROTOCOLS
from mitfrnet.report.tables.typeset import Entry, Line, Table

SPLITS = ("train", "valid", "test")


def timing_table(results: Results, corpus: str, names: Mapping[str, str]) -> Table:
    """Return seconds per epoch, size and memory of every model on one corpus."""
    lines, records = [], []
    for model in results.grid.models:
        cells = results.select(corpus, model)
        entries = [
            Entry(_range([cell.timings["parameters"] for cell in cells], "{:,}")),
            Entry(_range([cell.timings["peak_memory_mb"] for cell in cells], "{:,.0f}")),
            Entry(_range([cell.timings["epochs"] for cell in cells], "{}")),
        ]
        for condition in results.grid.missing_rates:
            own = results.select(corpus, model, condition)
            entries.append(Entry(_seconds([c.timings["seconds_per_epoch"] for c in own])))
            records += [_timing_record(cell) for cell in own]
        lines.append(Line(names[model], entries, model=model))
    seeds = len(results.grid.seeds)
    devices = sorted(
        {(c.timings["device"], c.timings["threads"]) for c in results.cells if c.corpus == corpus}
    )
    over = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    return Table(
        name=f"timings_{corpus}",
        title="Training time per epoch",
        caption=(
            f"Training on {corpus}: seconds per epoch by missing rate or protocol of training "
            "(as Table 6 of the paper, which does not say what its seconds are counted over)."
        ),
        notes=(
            f"Median epoch of a training, {over}. "
            + " and ".join(f"{d}, {t} thread{'s' * (t != 1)}" for d, t in devices)
            + ". Trainings that ran side by side shared the machine. A range shows trainings that "
            "differ.",
        ),
        heads=(
            "Model",
            "Parameters",
            "Peak memory, MB",
            "Epochs",
            *map(_condition_head, results.grid.missing_rates),
        ),
        lines=tuple(lines),
        records=tuple(records),
    )


def _condition_head(condition: Condition) -> str:
    where = condition.replace("_", " ") if isinstance(condition, str) else condition
    return f"s at {where}"


def _range(values: Sequence[float], form: str) -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"


def _seconds(values: Sequence[float]) -> str:
    spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{mean(values):.2f}{spread}"


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
    """Return how each training on one corpus went."""
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


def mask_table(corpus: Corpus) -> Table:
    """Return what the masks of one corpus hid, per condition, modality and split."""
    measures = {
        "asked": "Asked",
        "hidden_of_maskable": "Hidden of maskable steps",
        "missing_of_valid": "Missing of all steps",
        "clips_without": "Clips without",
        "clips_hidden": "Clips that lose it",
    }
    realised = [
        by_modality for mask in corpus.masks.values() for by_modality in mask["realised"].values()
    ]
    shown = [key for key in measures if any(key in r[m] for r in realised for m in MODALITIES)]
    lines, records = [], []
    for condition, mask in corpus.masks.items():
        for m in MODALITIES:
            entries = [
                Entry(_mask_value(key, _realised(mask, split, m).get(key)))
                for key in shown
                for split in SPLITS
            ]
            lines.append(Line(m, entries, group=_mask_heading(condition, mask)))
            for split in SPLITS:
                place = {
                    "corpus": corpus.name,
                    "condition": condition,
                    "pattern": mask["pattern"],
                    "mask_seed": mask["seed"],
                    "split": split,
                    "modality": m,
                }
                found = _realised(mask, split, m)
                records.append(place | {key: found.get(key) for key in shown})
    return Table(
        name=f"masks_{corpus.name}",
        title="Realised missing rates",
        caption=f"Realised missing rates of {corpus.name}.",
        notes=("A dash stands where masks are drawn anew, by training or by evaluation.",)
        if any(split not in mask["realised"] for mask in corpus.masks.values() for split in SPLITS)
        else (),
        heads=("Modality", *(f"{measures[key]}, {split}" for key in shown for split in SPLITS)),
        lines=tuple(lines),
        records=tuple(records),
    )


def _realised(mask: Mapping[str, Any], split: str, modality: str) -> Mapping[str, Any]:
    """Return the realised rates; none for masks that are drawn where they are used."""
    return mask["realised"].get(split, {}).get(modality, {})


def _mask_heading(condition: Condition, mask: Mapping[str, Any]) -> str:
    what = PROTOCOLS.get(str(condition), f"missing rate {condition}")
    factors = mask.get("params", {}).get("scale_factors", {})
    scaled = [f"rate of {m} times {f:g}" for m, f in factors.items() if f != 1]
    parts = [what, f"pattern {mask['pattern']}", f"seed {mask['seed']}", *scaled]
    return ", ".join(parts).capitalize()


def _mask_value(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if key.startswith("clips") else f"{100 * value:.1f} %"
