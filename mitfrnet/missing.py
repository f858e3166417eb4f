"""Which steps of every utterance are missing: seeded, nested over rates, free of order."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from mitfrnet.errors import FeatureError, ParamsError
from mitfrnet.files import replacing
from mitfrnet.modalities import MODALITIES
from mitfrnet.params import StageParams

METADATA_KEY = b"mitfrnet"

Pattern = Literal["random"]
Bools = NDArray[np.bool_]


class MaskParams(StageParams):
    """Section `mask`."""

    pattern: Pattern  # random: each step by itself, as in the paper
    seed: int = Field(ge=0)


def check_rate(rate: float | str) -> float:
    """Return `rate` as a number.

    Raises:
        ParamsError: it is none, or not within [0, 1].
    """
    try:
        value = float(rate)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ParamsError(f"missing rate is {rate} (expected a number in [0, 1])")
    return value


def draw_masks(
    lengths: Sequence[int],
    ids: Sequence[str],
    *,
    rate: float,
    seed: int,
    split: str,
    modality: str,
    pattern: Pattern = "random",
    maskable: Sequence[Bools] | None = None,
    epoch: int | None = None,
) -> list[Bools]:
    """Return what each utterance keeps of one modality, (steps,) of bool each, True = kept.

    Step i is hidden where the i-th uniform draw of the utterance's own stream is at most
    `rate`. The stream depends on (seed, split, modality, id) alone, so a mask does not change
    with the order of utterances, with other clips, or with what follows step i; and what is
    hidden at a rate stays hidden at every higher one.

    Args:
        lengths: steps of each utterance.
        ids: utterance ids, as many.
        rate: probability that a maskable step is hidden; 0 hides nothing, 1 all of them.
        seed: of the masks, apart from the seed of training.
        split: `train`, `valid` or `test`.
        modality: which one.
        pattern: `random`.
        maskable: steps that may be hidden, (steps,) each; others are kept. Default: all.
        epoch: joins the key where masks are redrawn each epoch.

    Raises:
        ParamsError: the rate is not within [0, 1].
        ValueError: `lengths` and `ids` differ in number, or the pattern is unknown.
    """
    check_rate(rate)
    if pattern != "random":
        raise ValueError(f"pattern: {pattern!r} is unknown (expected random)")
    masks = []
    for i, (length, utterance_id) in enumerate(zip(lengths, ids, strict=True)):
        key = [seed, split, modality, utterance_id] + ([] if epoch is None else [epoch])
        uniform = _stream(key).random(length)
        hidden = uniform <= rate if rate > 0 else np.zeros(length, dtype=bool)
        masks.append(~hidden if maskable is None else ~(hidden & maskable[i]))
    return masks


def _stream(key: list[Any]) -> np.random.Generator:
    """Return the generator of one key; Philox gives the same numbers on every platform."""
    digest = hashlib.sha256(json.dumps(key).encode()).digest()
    return np.random.Generator(np.random.Philox(int.from_bytes(digest[:16], "big")))


@dataclass(frozen=True)
class Steps:
    """The steps of one split that a mask is drawn for.

    Attributes:
        ids: utterance ids.
        detected: per modality and utterance, (steps,); no step where it is naturally missing.
        special: special tokens of the text, (steps,) per utterance; never hidden.
    """

    ids: list[str]
    detected: dict[str, list[Bools]]
    special: list[Bools]

    def maskable(self, modality: str) -> list[Bools]:
        """Return the steps that may be hidden: detected and not special, (steps,) each."""
        if modality != "text":
            return self.detected[modality]
        return [d & ~s for d, s in zip(self.detected["text"], self.special, strict=True)]


def mask_steps(
    steps: Steps, *, rate: float, split: str, params: MaskParams
) -> dict[str, list[Bools]]:
    """Return the observed steps of one split: detected and kept, (steps,) per utterance."""
    observed: dict[str, list[Bools]] = {}
    for modality in MODALITIES:
        detected = steps.detected[modality]
        kept = draw_masks(
            [len(d) for d in detected],
            steps.ids,
            rate=rate,
            seed=params.seed,
            split=split,
            modality=modality,
            pattern=params.pattern,
            maskable=steps.maskable(modality),
        )
        observed[modality] = [d & k for d, k in zip(detected, kept, strict=True)]
    return observed


def realised_rates(steps: Steps, observed: Mapping[str, list[Bools]]) -> dict[str, Any]:
    """Return what a mask really hides, per modality.

    `hidden_of_maskable`: of the steps it may hide; `missing_of_valid`: of all steps, with those
    where nothing was detected; `clips_without`: utterances naturally without the modality.
    Shares are null where there is nothing to hide.
    """
    rates = {}
    for modality in MODALITIES:
        detected, kept = steps.detected[modality], observed[modality]
        maskable = sum(int(m.sum()) for m in steps.maskable(modality))
        valid = sum(map(len, detected))
        hidden = sum(int((d & ~k).sum()) for d, k in zip(detected, kept, strict=True))
        missing = sum(int((~k).sum()) for k in kept)
        rates[modality] = {
            "hidden_of_maskable": hidden / maskable if maskable else None,
            "missing_of_valid": missing / valid if valid else None,
            "clips_without": sum(not len(d) for d in detected),
        }
    return rates


@dataclass(frozen=True)
class Masks:
    """The masks of a corpus at one rate.

    Attributes:
        observed: per split and modality, in the order of the split's utterances.
        metadata: `rate`, `pattern`, `seed`, and `realised` per split.
    """

    observed: dict[str, dict[str, list[Bools]]]
    metadata: dict[str, Any]


def mask_corpus(splits: Mapping[str, Steps], *, rate: float, params: MaskParams) -> Masks:
    """Return the masks of all splits at one rate.

    Raises:
        ParamsError: the rate is not within [0, 1].
    """
    observed = {
        s: mask_steps(steps, rate=rate, split=s, params=params) for s, steps in splits.items()
    }
    realised = {s: realised_rates(steps, observed[s]) for s, steps in splits.items()}
    return Masks(observed, params.model_dump() | {"rate": rate, "realised": realised})


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
