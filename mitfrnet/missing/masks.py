"""The masks of a corpus: drawn, measured, written and read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mitfrnet.data.ragged import Bools, RaggedArray, Steps
from mitfrnet.errors import FeatureError, ParamsError
from mitfrnet.files import metadata_of, replacing, with_metadata
from mitfrnet.missing.params import MaskParams, Protocol, parse_protocol
from mitfrnet.missing.patterns import WHOLE_PATTERNS, Rates, draw_masks, draw_rates
from mitfrnet.modalities import MODALITIES

# Utterances drawn or decoded at a time: a mask in hand takes more than a byte a step.
_TOGETHER = 4096
# Rows of Parquet encoded at a time: in hand a step takes several bytes, in the file one bit.
_ROW_GROUP = 1 << 16


def reachable_rate(steps: Steps) -> float:
    """Return the highest rate of `modality_random`, which keeps one modality of every clip.

    If clips differ in the number of their modalities, even a lower rate may not be reached: a clip
    with one modality loses nothing.
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
) -> dict[str, RaggedArray[np.bool_]]:
    """Return the observed steps of one split: detected and kept, (steps,) per utterance.

    A wholly hidden modality has no observed step, special tokens included.

    Args:
        steps: of the split.
        rate: before scale factors, one for all utterances or one each; None: each is drawn
            from U(0, 1), as under `random_train`.
        split: its name.
        params: section `mask`.
        epoch: gives each epoch its own masks; those of `legacy` change with the drawn rates only.

    Raises:
        ParamsError: the rate is not within [0, 1], or one rate for all utterances is more than
            `modality_random` can reach.
    """
    if rate is None:
        rate = draw_rates(steps.ids, seed=params.seed, split=split, epoch=epoch)
    effective = params.effective(rate)
    if params.pattern == "modality_random" and np.ndim(rate) == 0:
        limit, asked = reachable_rate(steps), max(effective.values())
        if asked > limit + 1e-9:
            raise ParamsError(
                f"missing rate is {asked:g} (expected at most {limit:.4f}: pattern "
                f"modality_random keeps one modality of every clip of the {split} split)"
            )
    seeds = dict.fromkeys(MODALITIES, params.seed)
    if params.pattern == "legacy":
        seeds = params.legacy_seeds.model_dump()
    present = steps.present()
    # The draws of `legacy` depend on all utterances, so they cannot be made in parts.
    together = len(steps.ids) if params.pattern == "legacy" else _TOGETHER
    observed: dict[str, RaggedArray[np.bool_]] = {}
    for modality in MODALITIES:
        detected, maskable = steps.detected[modality], steps.maskable(modality)
        rates = np.broadcast_to(effective[modality], (len(steps.ids),))
        kept = np.empty_like(detected.flat)
        for first in range(0, len(steps.ids), max(1, together)):
            part = slice(first, first + together)
            drawn = draw_masks(
                detected.lengths[part].tolist(),
                steps.ids[part],
                rate=rates[part],
                seed=seeds[modality],
                split=split,
                modality=modality,
                pattern=params.pattern,
                maskable=maskable[part],
                epoch=epoch,
                times=steps.times[modality][part],
                cell_seconds=params.cell_seconds,
                modalities=params.modalities,
                present={m: there[part].tolist() for m, there in present.items()},
            )
            ends = detected.offsets[first : first + together + 1]
            np.concatenate(drawn, out=kept[ends[0] : ends[-1]])
        observed[modality] = RaggedArray(detected.flat & kept, detected.offsets)
    return observed


def realised_rates(
    steps: Steps, observed: Mapping[str, Sequence[Bools]], *, rate: Rates, params: MaskParams
) -> dict[str, Any]:
    """Return what a mask really hides, per modality.

    `asked`: the rate times the scale factor, averaged over utterances. `hidden_of_maskable`: hidden
    steps, as a share of those that may be hidden. `missing_of_valid`: steps that are hidden or were
    not detected, as a share of all. `clips_without`: utterances that naturally lack the modality.
    `clips_hidden`, under patterns of whole modalities: utterances that lose it. A share of nothing
    is None.
    """
    rates: dict[str, Any] = {}
    effective = params.effective(rate)
    for modality in MODALITIES:
        detected, kept = steps.detected[modality], RaggedArray.of(observed[modality])
        may_hide = steps.maskable(modality).flat
        maskable, valid = int(may_hide.sum()), len(may_hide)
        hidden = int((may_hide & ~kept.flat).sum())
        missing = valid - int(kept.flat.sum())
        asked = effective[modality]
        rates[modality] = {
            "asked": float(asked.mean()) if asked.size else None,
            "hidden_of_maskable": hidden / maskable if maskable else None,
            "missing_of_valid": missing / valid if valid else None,
            "clips_without": int((detected.lengths == 0).sum()),
        }
        if params.pattern in WHOLE_PATTERNS:
            rates[modality]["clips_hidden"] = int((detected.any() & ~kept.any()).sum())
    return rates


@dataclass(frozen=True)
class Masks:
    """The masks of a corpus under one protocol.

    Attributes:
        observed: per split and modality, in the order of the split's utterances.
        metadata: `protocol`; `rate`, None except for `matched`; `params`, from which `MaskParams`
            can be built again, with its `pattern` and `seed` beside it; `realised` per split,
            except for splits whose masks are drawn later.
    """

    observed: Mapping[str, Mapping[str, Sequence[Bools]]]
    metadata: dict[str, Any]


def mask_corpus(
    splits: Mapping[str, Steps], *, rate: float | Protocol, params: MaskParams
) -> Masks:
    """Return the masks of all splits at one rate, or under one protocol.

    Raises:
        ParamsError: the rate is not within [0, 1], or more than the pattern can reach.
    """
    protocol = rate if isinstance(rate, Protocol) else parse_protocol(rate)
    observed, realised = {}, {}
    for split, steps in splits.items():
        rates: Rates | None = protocol.rate_of(split, params.fixed_rate)
        if rates is None:
            rates = draw_rates(steps.ids, seed=params.seed, split=split)
        observed[split] = mask_steps(steps, rate=rates, split=split, params=params)
        if not protocol.drawn_later(split):
            realised[split] = realised_rates(steps, observed[split], rate=rates, params=params)
    used = params.used(protocol.name)
    metadata = {
        "protocol": protocol.name,
        "rate": protocol.rate,
        "pattern": used.pattern,
        "seed": used.seed,
        "params": used.model_dump(mode="json"),
        "realised": realised,
    }
    return Masks(observed, metadata)


def write_masks(masks: Masks, splits: Mapping[str, Steps], path: Path) -> None:
    """Write one row per utterance: its id, split, and the observed steps of each modality."""
    columns: dict[str, Any] = {
        "utterance_id": [u for steps in splits.values() for u in steps.ids],
        "split": [name for name, steps in splits.items() for _ in steps.ids],
    }
    for modality in MODALITIES:
        rows = [RaggedArray.of(masks.observed[name][modality]) for name in splits]
        columns[modality] = pa.concat_arrays(
            [pa.ListArray.from_arrays(r.offsets.astype(np.int32), r.flat) for r in rows]
        )
    schema = pa.schema(
        [
            pa.field("utterance_id", pa.string(), nullable=False),
            pa.field("split", pa.string(), nullable=False),
            *(pa.field(m, pa.list_(pa.bool_()), nullable=False) for m in MODALITIES),
        ],
    )
    with replacing(path) as temporary:
        table = pa.table(columns, schema=with_metadata(schema, masks.metadata))
        pq.write_table(table, temporary, compression="zstd", row_group_size=_ROW_GROUP)


def read_masks(path: Path, splits: Mapping[str, Steps]) -> Masks:
    """Return the masks at `path`, in the order of `splits`.

    Raises:
        FeatureError: the file is absent, or not drawn for these utterances and lengths.
    """
    try:
        with pq.ParquetFile(path) as file:
            metadata = metadata_of(file.schema_arrow)
            table = pa.Table.from_batches(file.iter_batches(_TOGETHER), file.schema_arrow)
    except (OSError, pa.ArrowInvalid, KeyError, TypeError) as error:
        raise FeatureError(f"{path}: no masks ({error}); run the mask stage") from error
    observed: dict[str, dict[str, RaggedArray[np.bool_]]] = {}
    for split, steps in splits.items():
        places = pc.index_in(pa.array(steps.ids, pa.string()), table["utterance_id"])
        rows = _rows_at(table, places.drop_null().to_numpy())
        lists = {m: rows[m].combine_chunks() for m in MODALITIES}
        if places.null_count == 0:
            ours = pc.equal(rows["split"], split).to_numpy()
            for modality in MODALITIES:
                lengths = pc.list_value_length(lists[modality]).to_numpy(zero_copy_only=False)
                ours &= lengths == steps.detected[modality].lengths
        else:
            ours = places.is_valid().to_numpy(zero_copy_only=False)
        if not ours.all():
            raise FeatureError(
                f"{path}: {steps.ids[int(ours.argmin())]}: drawn for other tensors "
                "(run the mask stage)"
            )
        observed[split] = {
            m: RaggedArray(
                lists[m].flatten().to_numpy(zero_copy_only=False), steps.detected[m].offsets
            )
            for m in MODALITIES
        }
    return Masks(observed, metadata)


def _rows_at(table: pa.Table, places: NDArray[np.int32]) -> pa.Table:
    """Return some rows of a table; without a copy if they are adjacent, as in our own files."""
    if len(places) and (np.diff(places) == 1).all():
        return table.slice(places[0], len(places))
    return table.take(places)
