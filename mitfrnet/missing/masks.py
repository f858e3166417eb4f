"""The masks of a corpus: drawn, measured, written and read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mitfrnet.errors import FeatureError, ParamsError
from mitfrnet.files import replacing
from mitfrnet.missing.conditions import Condition, MaskParams, parse_condition
from mitfrnet.missing.patterns import (
    WHOLE_PATTERNS,
    Bools,
    Floats,
    Rates,
    draw_masks,
    draw_rates,
)
from mitfrnet.modalities import MODALITIES

METADATA_KEY = b"mitfrnet"


@dataclass(frozen=True)
class Steps:
    """The steps of one split that a mask is drawn for.

    Attributes:
        ids: utterance ids.
        detected: per modality and utterance, (steps,); no step where it is naturally missing.
        special: special tokens of the text, (steps,) per utterance; never hidden alone.
        times: centre of each step in seconds, per modality and utterance, (steps,).
    """

    ids: list[str]
    detected: dict[str, list[Bools]]
    special: list[Bools]
    times: dict[str, list[Floats]]

    def maskable(self, modality: str) -> list[Bools]:
        """Return the steps that may be hidden: detected and not special, (steps,) each."""
        if modality != "text":
            return self.detected[modality]
        return [d & ~s for d, s in zip(self.detected["text"], self.special, strict=True)]

    def present(self) -> dict[str, list[bool]]:
        """Return per modality whether each utterance has any detected step of it."""
        return {m: [bool(d.any()) for d in self.detected[m]] for m in MODALITIES}


def reachable_rate(steps: Steps) -> float:
    """Return a bound on the rate of `modality_random`: all present modalities but one per clip.

    Where clips differ in how many modalities they have, what is realised may stay below a rate
    within the bound: a clip with one modality loses nothing.
    """
    counts = np.sum(list(steps.present().values()), axis=0)
    total = int(counts.sum())
    return int(np.maximum(counts - 1, 0).sum()) / total if total else 1.0


def mask_steps(
    steps: Steps,
    *,
    rate: Rates | None,
    split: str,
    params: MaskParams,
    epoch: int | None = None,
) -> dict[str, list[Bools]]:
    """Return the observed steps of one split: detected and kept, (steps,) per utterance.

    Where a modality is wholly hidden, so are its special tokens: no step is observed.

    Args:
        steps: of the split.
        rate: before scale factors; of all utterances, or of each; None: drawn from U(0, 1) for
            each, as `random_train` does.
        split: its name.
        params: section `mask`.
        epoch: for masks of their own each epoch; `legacy` changes with the drawn rates alone.

    Raises:
        ParamsError: the rate is not within [0, 1], or is one for all utterances and more than
            `modality_random` can reach.
    """
    if rate is None:
        rate = draw_rates(steps.ids, seed=params.seed, split=split, epoch=epoch)
    effective = params.effective(rate)
    if params.pattern == "modality_random" and np.ndim(rate) == 0:
        limit, asked = reachable_rate(steps), max(effective.values())
        if asked > limit + 1e-9:
            raise ParamsError(
                f"missing rate is {asked:g} (expected at most {limit:.4f}: of every clip of the "
                f"{split} split, pattern modality_random keeps one modality that it has)"
            )
    seeds = dict.fromkeys(MODALITIES, params.seed)
    if params.pattern == "legacy":
        seeds = params.legacy_seeds.model_dump()
    present = steps.present()
    observed: dict[str, list[Bools]] = {}
    for modality in MODALITIES:
        detected = steps.detected[modality]
        kept = draw_masks(
            [len(d) for d in detected],
            steps.ids,
            rate=effective[modality],
            seed=seeds[modality],
            split=split,
            modality=modality,
            pattern=params.pattern,
            maskable=steps.maskable(modality),
            epoch=epoch,
            times=steps.times[modality],
            cell_seconds=params.cell_seconds,
            modalities=params.modalities,
            present=present,
        )
        observed[modality] = [d & k for d, k in zip(detected, kept, strict=True)]
    return observed


def realised_rates(
    steps: Steps, observed: Mapping[str, list[Bools]], *, rate: Rates, params: MaskParams
) -> dict[str, Any]:
    """Return what a mask really hides, per modality.

    `asked`: the rate times the scale factor, the mean over utterances where each has its own;
    `hidden_of_maskable`: of the steps it may hide; `missing_of_valid`: of all steps, with those
    where nothing was detected; `clips_without`: utterances naturally without the modality; with
    a pattern of whole modalities also `clips_hidden`: those that lose it.
    Shares are null where there is nothing to hide.
    """
    rates: dict[str, Any] = {}
    effective = params.effective(rate)
    for modality in MODALITIES:
        detected, kept = steps.detected[modality], observed[modality]
        pairs = list(zip(steps.maskable(modality), kept, strict=True))
        maskable = sum(int(m.sum()) for m, _ in pairs)
        valid = sum(map(len, detected))
        hidden = sum(int((m & ~k).sum()) for m, k in pairs)
        missing = sum(int((~k).sum()) for k in kept)
        asked = effective[modality]
        rates[modality] = {
            "asked": float(asked.mean()) if asked.size else None,
            "hidden_of_maskable": hidden / maskable if maskable else None,
            "missing_of_valid": missing / valid if valid else None,
            "clips_without": sum(not len(d) for d in detected),
        }
        if params.pattern in WHOLE_PATTERNS:
            lost = [d.any() and not k.any() for d, k in zip(detected, kept, strict=True)]
            rates[modality]["clips_hidden"] = int(sum(lost))
    return rates


@dataclass(frozen=True)
class Masks:
    """The masks of a corpus under one condition.

    Attributes:
        observed: per split and modality, in the order of the split's utterances.
        metadata: `protocol`; `rate`, null but for `matched`; `params`, of which `MaskParams`
            can be built again, and of it `pattern` and `seed`; `realised` per split, but for
            those whose masks are drawn where they are used.
    """

    observed: dict[str, dict[str, list[Bools]]]
    metadata: dict[str, Any]


def mask_corpus(
    splits: Mapping[str, Steps], *, rate: float | Condition, params: MaskParams
) -> Masks:
    """Return the masks of all splits at one rate, or under one condition.

    Raises:
        ParamsError: the rate is not within [0, 1], or more than the pattern can reach.
    """
    condition = rate if isinstance(rate, Condition) else parse_condition(rate)
    observed, realised = {}, {}
    for split, steps in splits.items():
        rates: Rates | None = condition.rate_of(split, params.fixed_rate)
        if rates is None:
            rates = draw_rates(steps.ids, seed=params.seed, split=split)
        observed[split] = mask_steps(steps, rate=rates, split=split, params=params)
        if not condition.drawn_later(split):
            realised[split] = realised_rates(steps, observed[split], rate=rates, params=params)
    used = params.used(condition.protocol)
    metadata = {
        "protocol": condition.protocol,
        "rate": condition.rate,
        "pattern": used.pattern,
        "seed": used.seed,
        "params": used.model_dump(mode="json"),
        "realised": realised,
    }
    return Masks(observed, metadata)


def write_masks(masks: Masks, splits: Mapping[str, Steps], path: Path) -> None:
    """Write one row per utterance: its id, split, and the observed steps of each modality."""
    columns: dict[str, list[Any]] = {
        "utterance_id": [u for steps in splits.values() for u in steps.ids],
        "split": [name for name, steps in splits.items() for _ in steps.ids],
    }
    for modality in MODALITIES:
        columns[modality] = [o for name in splits for o in masks.observed[name][modality]]
    schema = pa.schema(
        [
            pa.field("utterance_id", pa.string(), nullable=False),
            pa.field("split", pa.string(), nullable=False),
            *(pa.field(m, pa.list_(pa.bool_()), nullable=False) for m in MODALITIES),
        ],
        metadata={METADATA_KEY: json.dumps(masks.metadata, sort_keys=True)},
    )
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns, schema=schema), temporary, compression="zstd")


def read_masks(path: Path, splits: Mapping[str, Steps]) -> Masks:
    """Return the masks at `path`, in the order of `splits`.

    Raises:
        FeatureError: the file is absent, or not drawn for these utterances and lengths.
    """
    try:
        table = pq.read_table(path)
        metadata = json.loads(table.schema.metadata[METADATA_KEY])
    except (OSError, pa.ArrowInvalid, KeyError, TypeError) as error:
        raise FeatureError(f"{path}: no masks ({error}); run the mask stage") from error
    rows = {row["utterance_id"]: row for row in table.to_pylist()}
    observed: dict[str, dict[str, list[Bools]]] = {}
    for split, steps in splits.items():
        observed[split] = {m: [] for m in MODALITIES}
        for i, utterance_id in enumerate(steps.ids):
            row = rows.get(utterance_id)
            for modality in MODALITIES:
                kept = np.asarray(row[modality] if row else [], dtype=bool)
                if (
                    row is None
                    or row["split"] != split
                    or len(kept) != len(steps.detected[modality][i])
                ):
                    raise FeatureError(
                        f"{path}: {utterance_id}: drawn for other tensors (run the mask stage)"
                    )
                observed[split][modality].append(kept)
    return Masks(observed, metadata)
