"""How steps are chosen: seeded, nested over rates, and but for `legacy` free of order."""

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mitfrnet.data.ragged import Bools
from mitfrnet.errors import ParamsError
from mitfrnet.modalities import MODALITIES

Pattern = Literal["random", "structured", "block", "modality", "modality_random", "legacy"]

# These hide a modality as a whole, its special tokens too; a model then sees one null step, as
# where the modality is naturally missing.
WHOLE_PATTERNS: tuple[Pattern, ...] = ("modality", "modality_random")
# Of these, the draws of one utterance serve all its modalities.
_JOINT_PATTERNS: tuple[Pattern, ...] = ("structured", *WHOLE_PATTERNS)

Floats = NDArray[np.floating[Any]]
Rates = float | Sequence[float] | Floats  # one of all utterances, or one of each


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
    rate: Rates,
    seed: int,
    split: str,
    modality: str,
    pattern: Pattern = "random",
    maskable: Sequence[Bools] | None = None,
    epoch: int | None = None,
    times: Sequence[Floats] | None = None,
    cell_seconds: float = 0.1,
    modalities: Collection[str] | None = None,
    present: Mapping[str, Sequence[bool]] | None = None,
) -> list[Bools]:
    """Return what each utterance keeps of one modality, (steps,) of bool each, True = kept.

    Each utterance draws from its own stream, keyed by (seed, split, modality, id), so a mask
    changes neither with the order of utterances nor with other clips; and what is hidden at a
    rate stays hidden at every higher one. Patterns:

    - `random`: step i where the i-th draw is at most the rate.
    - `structured`: as `random`, by fixed cells of time in place of steps, and without modality
      in the key: all modalities lose the same moments.
    - `block`: of n maskable steps, floor(rate n + 1/2) in a row; every start is as likely.
    - `modality`: wholly, with special tokens, in clips whose one draw is at most the rate; no
      modality in the key, so those of `modalities` vanish together.
    - `modality_random`: of m present modalities, min(floor(rate m + draw), m - 1), wholly, in
      an order drawn per clip; no modality in the key. One is kept whatever the rate.
    - `legacy`: `legacy_masks` of all utterances, padded to the longest of them. Alone of all,
      it depends on their order and number; `split`, `epoch` and `maskable` do not matter.

    Args:
        lengths: steps of each utterance.
        ids: utterance ids, as many.
        rate: how much is hidden, in [0, 1], of all utterances or of each; 0 hides nothing.
        seed: of the masks, apart from the seed of training.
        split: `train`, `valid` or `test`.
        modality: which one.
        pattern: one of the above.
        maskable: steps that may be hidden one by one, (steps,) each; default: all.
        epoch: joins the key where masks are redrawn each epoch.
        times: `structured`: centre of each step in seconds, (steps,) each.
        cell_seconds: `structured`: length of a cell.
        modalities: `modality`: those that are hidden; default: this one.
        present: `modality_random`: per modality, whether each utterance has it; default: all.

    Raises:
        ParamsError: a rate is not within [0, 1].
        ValueError: arguments differ in number, times are needed, or the pattern is unknown.
    """
    if pattern not in get_args(Pattern):
        raise ValueError(
            f"pattern: {pattern!r} is unknown (expected {', '.join(get_args(Pattern))})"
        )
    if len(lengths) != len(ids):
        raise ValueError(f"{len(lengths)} lengths for {len(ids)} ids")
    rates = np.broadcast_to(np.asarray(rate, dtype=float), (len(ids),))
    for value in np.unique(np.asarray(rate, dtype=float)):
        check_rate(value)
    if pattern == "legacy":
        valid = np.arange(max(lengths, default=0)) < np.asarray(lengths, dtype=int)[:, None]
        legacy = legacy_masks(valid, rates[:, None], seed, text=modality == "text")
        return [row[:length] for row, length in zip(legacy, lengths, strict=True)]
    masks = []
    for i, (length, utterance_id) in enumerate(zip(lengths, ids, strict=True)):
        key = [seed, split, *([] if pattern in _JOINT_PATTERNS else [modality]), utterance_id]
        stream = _stream(key + ([] if epoch is None else [epoch]))
        hidden = np.zeros(length, dtype=bool)
        may_hide = np.ones(length, dtype=bool) if maskable is None else maskable[i]
        if rates[i] == 0:
            pass
        elif pattern == "random":
            hidden = may_hide & (stream.random(length) <= rates[i])
        elif pattern == "structured":
            if times is None:
                raise ValueError("pattern: structured needs the times of the steps")
            hidden = may_hide & (_of_cells(stream, times[i], cell_seconds) <= rates[i])
        elif pattern == "block":
            hidden[_block(stream, np.flatnonzero(may_hide), rates[i])] = True
        elif pattern == "modality":
            named = modalities is None or modality in modalities
            hidden[:] = named and stream.random() <= rates[i]
        else:
            there = [m for m in MODALITIES if present is None or present[m][i]]
            hidden[:] = modality in _modalities_hidden(stream, there, rates[i])
        masks.append(~hidden)
    return masks


def _stream(key: list[Any]) -> np.random.Generator:
    """Return the generator of one key; Philox gives the same numbers on every platform."""
    digest = hashlib.sha256(json.dumps(key).encode()).digest()
    return np.random.Generator(np.random.Philox(int.from_bytes(digest[:16], "big")))


def _of_cells(stream: np.random.Generator, times: Floats, cell_seconds: float) -> Floats:
    """Return the draw of the cell that holds each step's centre, (steps,)."""
    cells = np.floor(np.asarray(times, dtype=float) / cell_seconds).astype(int)
    return stream.random(cells.max(initial=-1) + 1)[cells]


def _block(stream: np.random.Generator, places: NDArray[Any], rate: float) -> NDArray[Any]:
    """Return those of `places` that are hidden: as many in a row as the rate asks for."""
    length = math.floor(rate * len(places) + 0.5)
    # One draw sets the start at every rate, or a longer block need not hold a shorter one.
    start = math.floor(stream.random() * (len(places) - length + 1))
    return places[start : start + length]


def _modalities_hidden(stream: np.random.Generator, present: list[str], rate: float) -> list[str]:
    """Return the modalities hidden in one clip, at most all present but one."""
    rounding, *ranks = stream.random(1 + len(MODALITIES))
    rank = dict(zip(MODALITIES, ranks, strict=True))
    count = min(math.floor(rate * len(present) + rounding), len(present) - 1)
    return sorted(present, key=rank.__getitem__)[: max(0, count)]


def legacy_masks(valid: Bools, rate: float | Floats, seed: int, text: bool = False) -> Bools:
    """Return what TFR-Net's generator keeps, (utterances, steps) of bool, True = kept.

    Bit for bit its numbers (Yuan et al., ACM MM 2021, as in MMSA 2.2.1), without touching
    NumPy's global state. They depend on the shape of `valid` and on the order of its rows.

    Args:
        valid: True at real steps, which come first in each row, (utterances, steps).
        rate: probability that a step is hidden; or one of each utterance, (utterances, 1).
        seed: theirs are 111 for text, 1111 for acoustic, 11111 for visual features.
        text: first and last real position, [CLS] and [SEP], are kept. A row without a real
            position then keeps its first and last one, as theirs does.
    """
    valid = np.asarray(valid, dtype=bool)
    kept = (np.random.RandomState(seed).uniform(size=valid.shape) > rate) & valid
    if text and valid.size:
        lengths = np.argmin(valid, axis=1)  # 0 where a row is full: its last is then at -1
        kept[:, 0] = True
        kept[np.arange(len(kept)), lengths - 1] = True
    return kept


def draw_rates(
    ids: Sequence[str], *, seed: int, split: str, epoch: int | None = None
) -> list[float]:
    """Return a missing rate from U(0, 1) per utterance, each from a stream of its own."""
    end = [] if epoch is None else [epoch]
    return [float(_stream([seed, "rate", split, u, *end]).random()) for u in ids]
