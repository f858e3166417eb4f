"""The masks that a clip is shown under: those of its corpus, and the same recipe at other rates."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mitfrnet.data.ragged import Bools
from mitfrnet.data.tensors import SplitTensors
from mitfrnet.errors import FeatureError
from mitfrnet.files import metadata_of
from mitfrnet.missing import MaskParams, mask_steps, parse_protocol
from mitfrnet.modalities import MODALITIES

_RATES = tuple(i / 10 for i in range(11))


@dataclass(frozen=True)
class ClipMask:
    """What one mask keeps of a clip.

    Attributes:
        name: as a person reads it.
        rate: before scale factors; None where each clip has its own.
        observed: detected and kept, (steps,) per modality.
    """

    name: str
    rate: float | None
    observed: dict[str, Bools]


class Judged(NamedTuple):
    """The mask of the test split under which a model was scored."""

    rate: float
    seed: int


@dataclass(frozen=True)
class ShownMasks:
    """Which masks of a corpus are shown.

    Attributes:
        conditions: of the grid: the folder may hold masks that no stage writes any more.
        otherwise: recipe where none is stored.
        judged: the mask to show first, which is drawn where it is none of the others.
    """

    conditions: Sequence[float | str]
    otherwise: MaskParams
    judged: Judged | None = None


@dataclass(frozen=True)
class ClipMasks:
    """All masks of a clip; the first hides nothing.

    Attributes:
        recipe: what they are drawn by.
        masks: by rising rate, those without one at the end.
        opening: index of the one that is shown first.
    """

    recipe: MaskParams
    masks: Sequence[ClipMask]
    opening: int = 0


def corpus_masks(tensors: SplitTensors, part: str, folder: Path, shown: ShownMasks) -> ClipMasks:
    """Return the masks of an utterance: as stored, and drawn by the same recipe at other rates.

    But for pattern `legacy` a mask does not depend on the other clips, so that one drawn here is
    the one the mask stage would write.

    Args:
        tensors: a split of this one utterance.
        part: the split it is in.
        folder: the corpus's masks, of which some may not have been made yet.
        shown: which of them.

    Raises:
        FeatureError: a mask cannot be read, or was drawn for other tensors.
    """
    recipe, stored, judged = shown.otherwise, [], shown.judged
    for path in filter(Path.exists, (folder / f"{c}.parquet" for c in shown.conditions)):
        metadata, observed = _stored(path, tensors)
        recipe = MaskParams(**metadata["params"])
        rate = metadata["rate"]
        protocol = parse_protocol(metadata["protocol"] if rate is None else rate)
        if protocol.rate is not None:
            stored.append(ClipMask(f"rate {protocol.rate:g}, as stored", protocol.rate, observed))
        elif not protocol.drawn_later(part):
            stored.append(ClipMask(f"{protocol.name}, as stored", None, observed))
    masks = stored
    if recipe.pattern != "legacy":
        known = {mask.rate for mask in stored}
        drawn = draw(tensors, part, recipe).masks[1:]
        masks = [*stored, *(mask for mask in drawn if mask.rate not in known)]
    first = None
    if judged is not None and judged.rate > 0:
        same_seed = judged.seed == recipe.seed or recipe.pattern == "legacy"
        first = next((m for m in masks if same_seed and m.rate == judged.rate), None)
        if first is None:
            seeded = recipe.model_copy(update={"seed": judged.seed})
            name = f"rate {judged.rate:g}, mask seed {judged.seed}"
            first = ClipMask(name, judged.rate, _drawn(tensors, part, seeded, judged.rate))
            masks.append(first)
    masks = [_complete(tensors), *_sorted(masks)]
    return ClipMasks(recipe, masks, next((i for i, mask in enumerate(masks) if mask is first), 0))


def draw(tensors: SplitTensors, part: str, recipe: MaskParams) -> ClipMasks:
    """Return masks of one utterance at rates 0.1 to 1."""
    masks = [_complete(tensors)]
    for rate in _RATES[1:]:
        masks.append(ClipMask(f"rate {rate:g}", rate, _drawn(tensors, part, recipe, rate)))
    return ClipMasks(recipe, masks)


def _drawn(tensors: SplitTensors, part: str, recipe: MaskParams, rate: float) -> dict[str, Bools]:
    observed = mask_steps(tensors.steps, rate=[rate], split=part, params=recipe)
    return {m: observed[m][0] for m in MODALITIES}


def _complete(tensors: SplitTensors) -> ClipMask:
    observed = {m: tensors.steps.detected[m][0] for m in MODALITIES}
    return ClipMask("nothing hidden", 0.0, observed)


def _sorted(masks: list[ClipMask]) -> list[ClipMask]:
    """Return the masks by rising rate, without those that are `_complete`."""
    return sorted(
        (mask for mask in masks if mask.rate != 0),
        key=lambda mask: (mask.rate is None, mask.rate or 0, mask.name),
    )


def _stored(path: Path, tensors: SplitTensors) -> tuple[dict[str, Any], dict[str, Bools]]:
    """Return what a mask file says of itself, and what it keeps of one utterance."""
    utterance_id = tensors.ids[0]
    try:
        metadata = metadata_of(pq.read_schema(path))
        rows = pq.read_table(path, filters=[("utterance_id", "=", utterance_id)]).to_pylist()
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise FeatureError(f"{path}: no masks ({error}); run the mask stage") from error
    observed = {m: np.array(rows[0][m] if rows else [], dtype=bool) for m in MODALITIES}
    for modality, kept in observed.items():
        if not rows or len(kept) != len(tensors.modalities[modality].detected):
            raise FeatureError(
                f"{path}: {utterance_id}: drawn for other tensors (run the mask stage)"
            )
    return metadata, observed
