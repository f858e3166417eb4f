"""The masks that a clip is shown under: those of its corpus, and others drawn by its settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mitfrnet.data.ragged import Bools
from mitfrnet.data.tensors import SplitTensors
from mitfrnet.missing import MaskParams, mask_steps, parse_protocol, read_masks
from mitfrnet.modalities import MODALITIES

_RATES = tuple(i / 10 for i in range(11))


@dataclass(frozen=True)
class ClipMask:
    """What one mask keeps of a clip.

    Attributes:
        name: for people.
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
        conditions: of the grid; the folder may hold masks that no stage writes any more.
        default_params: to draw masks with where none is stored.
        judged: the mask to show first; it is drawn if it is none of the others.
    """

    conditions: Sequence[float | str]
    default_params: MaskParams
    judged: Judged | None = None


@dataclass(frozen=True)
class ClipMasks:
    """All masks of a clip; the first hides nothing.

    Attributes:
        params: that they are drawn with.
        masks: by rising rate, those without a rate at the end.
        opening: index of the one that is shown first.
    """

    params: MaskParams
    masks: Sequence[ClipMask]
    opening: int = 0


def corpus_masks(tensors: SplitTensors, part: str, folder: Path, shown: ShownMasks) -> ClipMasks:
    """Return the masks of an utterance: as stored, and drawn with the same settings at other rates.

    Except for pattern `legacy` a mask does not depend on other clips, so a mask drawn here is the
    one that the mask stage would write.

    Args:
        tensors: a split of this one utterance.
        part: the name of its split.
        folder: the corpus's masks; some may not exist yet.
        shown: which of them.

    Raises:
        FeatureError: a mask cannot be read, or was drawn for other tensors.
    """
    params, masks, judged = shown.default_params, [_complete(tensors)], shown.judged
    for path in filter(Path.exists, (folder / f"{c}.parquet" for c in shown.conditions)):
        stored = read_masks(path, {part: tensors.steps})
        params = MaskParams(**stored.metadata["params"])
        rate = stored.metadata["rate"]
        protocol = parse_protocol(stored.metadata["protocol"] if rate is None else rate)
        if protocol.rate == 0 or protocol.drawn_later(part):
            continue
        name = protocol.name if protocol.rate is None else f"rate {protocol.rate:g}"
        observed = {m: stored.observed[part][m][0] for m in MODALITIES}
        masks.append(ClipMask(f"{name}, as stored", protocol.rate, observed))
    if params.pattern != "legacy":
        stored_rates = {mask.rate for mask in masks}
        drawn = draw(tensors, part, params).masks
        masks += [mask for mask in drawn if mask.rate not in stored_rates]
    opening = masks[0]
    if judged is not None and judged.rate > 0:
        same_seed = judged.seed == params.seed or params.pattern == "legacy"
        same = [mask for mask in masks if same_seed and mask.rate == judged.rate]
        if not same:
            seeded = params.model_copy(update={"seed": judged.seed})
            name = f"rate {judged.rate:g}, mask seed {judged.seed}"
            same = [ClipMask(name, judged.rate, _drawn(tensors, part, seeded, judged.rate))]
            masks += same
        opening = same[0]
    masks.sort(key=lambda mask: (mask.rate is None, mask.rate or 0, mask.name))
    return ClipMasks(params, masks, next(i for i, mask in enumerate(masks) if mask is opening))


def draw(tensors: SplitTensors, part: str, params: MaskParams) -> ClipMasks:
    """Return masks of one utterance at rates 0 to 1, in steps of 0.1."""
    masks = [_complete(tensors)]
    for rate in _RATES[1:]:
        masks.append(ClipMask(f"rate {rate:g}", rate, _drawn(tensors, part, params, rate)))
    return ClipMasks(params, masks)


def _drawn(tensors: SplitTensors, part: str, params: MaskParams, rate: float) -> dict[str, Bools]:
    observed = mask_steps(tensors.steps, rate=[rate], split=part, params=params)
    return {m: observed[m][0] for m in MODALITIES}


def _complete(tensors: SplitTensors) -> ClipMask:
    observed = {m: tensors.steps.detected[m][0] for m in MODALITIES}
    return ClipMask("nothing hidden", 0.0, observed)
