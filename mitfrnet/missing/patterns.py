"""How steps are chosen: seeded, nested over rates, and (except `legacy`) in any order the same."""

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

# These hide a whole modality, special tokens included. A model then gets one null step, as for a
# modality that is naturally missing.
WHOLE_PATTERNS: tuple[Pattern, ...] = ("modality", "modality_random")
# Under these, all modalities of an utterance share the same draws.
_JOINT_PATTERNS: tuple[Pattern, ...] = ("structured", *WHOLE_PATTERNS)

Floats = NDArray[np.floating[Any]]
Rates = float | Sequence[float] | Floats  # one for all utterances, or one each


def check_rate(rate: float | str) -> float:
    """Return `rate` as a number.

    Raises:
        ParamsError: it is not a number in [0, 1].
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

    Each utterance draws from its own stream, keyed by (seed, split, modality, id), so its mask
    depends neither on the order of utterances nor on other clips. A step that is hidden at one
    rate is hidden at every higher rate. Patterns:

    - `random`: step i where the i-th draw is at most the rate.
    - `structured`: as `random`, but by fixed cells of time instead of steps. The key has no
      modality, so all modalities lose the same moments.
    - `block`: floor(rate n + 1/2) of n maskable steps, in a row; all starts are equally likely.
    - `modality`: the whole modality, special tokens included, in clips whose one draw is at most
      the rate. The key has no modality, so all of `modalities` vanish together.
    - `modality_random`: min(floor(rate m + draw), m - 1) of the m present modalities, whole, in
      an order drawn per clip; the key has no modality. One modality is always kept.
    - `legacy`: `legacy_masks` of all utterances, padded to the longest. The only pattern that
      depends on their order and number; it ignores `split`, `epoch` and `maskable`.

    Args:
        lengths: steps of each utterance.
        ids: utterance ids, as many.
        rate: the missing rate, in [0, 1], one for all utterances or one each; 0 hides nothing.
        seed: of the masks, not of training.
        split: `train`, `valid` or `test`.
        modality: its name.
        pattern: one of the above.
        maskable: steps that may be hidden one by one, (steps,) each; default: all.
        epoch: part of the key if masks are redrawn each epoch.
        times: `structured`: centre of each step in seconds, (steps,) each.
        cell_seconds: `structured`: length of a cell.
        modalities: `modality`: the modalities to hide; default: this one.
        present: `modality_random`: per modality, whether each utterance has it; default: all.

    Raises:
        ParamsError: a rate is not within [0, 1].
        ValueError: arguments differ in length, times are absent, or the pattern is unknown.
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
            available = [m for m in MODALITIES if present is None or present[m][i]]
            hidden[:] = modality in _modalities_hidden(stream, available, rates[i])
        masks.append(~hidden)
    return masks


def _stream(key: list[Any]) -> np.random.Generator:
    """Return the generator of a key; Philox gives the same numbers on every platform."""
    digest = hashlib.sha256(json.dumps(key).encode()).digest()
    return np.random.Generator(np.random.Philox(int.from_bytes(digest[:16], "big")))


def _of_cells(stream: np.random.Generator, times: Floats, cell_seconds: float) -> Floats:
    """Return the draw of the cell that holds each step's centre, (steps,)."""
    cells = np.floor(np.asarray(times, dtype=float) / cell_seconds).astype(int)
    return stream.random(cells.max(initial=-1) + 1)[cells]


def _block(stream: np.random.Generator, places: NDArray[Any], rate: float) -> NDArray[Any]:
    """Return the adjacent ones of `places` that are hidden, as many as the rate asks for."""
    length = math.floor(rate * len(places) + 0.5)
    # One draw sets the start at every rate, so that a longer block holds every shorter one.
    start = math.floor(stream.random() * (len(places) - length + 1))
    return places[start : start + length]


def _modalities_hidden(stream: np.random.Generator, present: list[str], rate: float) -> list[str]:
    """Return the modalities hidden in one clip, at most all present but one."""
    rounding, *ranks = stream.random(1 + len(MODALITIES))
    rank = dict(zip(MODALITIES, ranks, strict=True))
    count = min(math.floor(rate * len(present) + rounding), len(present) - 1)
    return sorted(present, key=rank.__getitem__)[: max(0, count)]


def legacy_masks(valid: Bools, rate: float | Floats, seed: int, text: bool = False) -> Bools:
    """Return the masks of TFR-Net's generator, (utterances, steps) of bool, True = kept.

    They equal those of Yuan et al., ACM MM 2021, as in MMSA 2.2.1, bit for bit; NumPy's global
    state stays untouched. They depend on the shape of `valid` and on the order of its rows.

    Args:
        valid: True at real steps, which come first in each row, (utterances, steps).
        rate: probability that a step is hidden, one or one per utterance, (utterances, 1).
        seed: TFR-Net uses 111 for text, 1111 for acoustic, 11111 for visual features.
        text: keep the first and last real position, [CLS] and [SEP]. A row without a real
            position then keeps its first and last one, as in TFR-Net.
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
    """Return a missing rate from U(0, 1) per utterance, each from its own stream."""
    end = [] if epoch is None else [epoch]
    return [float(_stream([seed, "rate", split, u, *end]).random()) for u in ids]
