"""The table of what the masks really hid."""

from collections.abc import Mapping
from typing import Any

from mitfrnet.grid import Condition
from mitfrnet.modalities import MODALITIES
from mitfrnet.report.results import Corpus
from mitfrnet.report.scores import PROTOCOLS
from mitfrnet.report.tables.table import Entry, Line, Table

SPLITS = ("train", "valid", "test")

# By key in the masks' metrics. Some patterns lack some of them.
MEASURES = {
    "asked": "Asked",
    "hidden_of_maskable": "Hidden of maskable steps",
    "missing_of_valid": "Missing of all steps",
    "clips_without": "Clips without",
    "clips_hidden": "Clips that lose it",
}


def mask_table(corpus: Corpus) -> Table:
    """Return the realised missing rates of one corpus by condition, modality and split."""
    by_modality = [r for mask in corpus.masks.values() for r in mask["realised"].values()]
    measures = [k for k in MEASURES if any(k in r[m] for r in by_modality for m in MODALITIES)]
    lines, records = [], []
    redrawn = False
    for condition, mask in corpus.masks.items():
        for modality in MODALITIES:
            # Masks that training or evaluation draws anew have no realised rates.
            realised = {s: mask["realised"].get(s, {}).get(modality, {}) for s in SPLITS}
            redrawn |= not all(split in mask["realised"] for split in SPLITS)
            entries = [
                Entry(_shown(key, realised[split].get(key))) for key in measures for split in SPLITS
            ]
            lines.append(Line(modality, entries, group=_heading(condition, mask)))
            records += [
                {
                    "corpus": corpus.name,
                    "condition": condition,
                    "pattern": mask["pattern"],
                    "mask_seed": mask["seed"],
                    "split": split,
                    "modality": modality,
                    **{key: realised[split].get(key) for key in measures},
                }
                for split in SPLITS
            ]
    note = "A dash stands for masks that training or evaluation draws anew."
    return Table(
        name=f"masks_{corpus.name}",
        title=f"Realised missing rates of {corpus.name}",
        caption=f"Realised missing rates of {corpus.name}.",
        notes=(note,) if redrawn else (),
        heads=("Modality", *(f"{MEASURES[key]}, {split}" for key in measures for split in SPLITS)),
        lines=tuple(lines),
        records=tuple(records),
    )


def _heading(condition: Condition, mask: Mapping[str, Any]) -> str:
    what = PROTOCOLS.get(str(condition), f"missing rate {condition}")
    factors = mask.get("params", {}).get("scale_factors", {})
    scaled = [f"rate of {m} times {f:g}" for m, f in factors.items() if f != 1]
    return ", ".join(
        [what, f"pattern {mask['pattern']}", f"seed {mask['seed']}", *scaled]
    ).capitalize()


def _shown(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if key.startswith("clips") else f"{100 * value:.1f} %"
