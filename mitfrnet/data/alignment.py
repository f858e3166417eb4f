"""Acoustic and visual features brought to the steps of the text: per word, or in equal segments.

A step of the result is the mean of the steps at which something was detected. Where there is
none, in a pause or with the face turned away, nothing was detected in the result either: no
value is made up, and a model sees a missing step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mitfrnet.corpus.transcripts.words import Word
from mitfrnet.data.tensors import ModalityTensors
from mitfrnet.params import StageParams

# Decimals of a second to which step and word times are compared: step times are stored as
# float32, which late in a long clip knows no more.
_DECIMALS = 4


class TensorParams(StageParams):
    """Section `tensors`."""

    align: Literal["none", "words", "pool"]
    segments: int = Field(gt=0)  # of sound and face where an utterance has no text


@dataclass(frozen=True)
class Timeline:
    """The steps that acoustic and visual features of one utterance are brought to.

    Attributes:
        time_s: centre of each in seconds, float32, (steps,).
        filled: steps that stand for a part of the utterance, unlike special tokens; bool,
            (steps,).
        spans_s: from when to when each lasts, float64, (steps, 2), NaN: at no time; None: all
            that are filled share the utterance equally.
    """

    time_s: NDArray[np.float32]
    filled: NDArray[np.bool_]
    spans_s: NDArray[np.float64] | None = None

    def cut(self, centres_s: NDArray[np.floating[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the first step that belongs to each of these, and the one after the last.

        Spans: steps whose centre lies in [start, end). Equal shares, of n steps for m of these:
        as in adaptive average pooling, number i has steps floor(i n / m) to ceil((i + 1) n / m),
        so that none is empty, however few steps there are.

        Args:
            centres_s: when the steps of a modality are, ascending, (steps of it,).

        Returns:
            Both (steps,). Of a span without a step the second is not above the first.
        """
        if self.spans_s is not None:
            centres = np.round(centres_s.astype(np.float64), _DECIMALS)
            first, last = np.searchsorted(centres, np.round(self.spans_s, _DECIMALS)).T
            return first, last
        steps, shares = len(centres_s), int(self.filled.sum())
        number = np.arange(shares)
        first, last = np.zeros((2, len(self.filled)), dtype=np.int64)
        first[self.filled] = number * steps // max(shares, 1)
        last[self.filled] = -(-(number + 1) * steps // max(shares, 1))
        return first, last


def token_timeline(
    chars: NDArray[np.integer[Any]],
    special: NDArray[np.bool_],
    *,
    words: Sequence[Word],
    characters: int,
    duration_s: float,
    align: str,
) -> Timeline:
    """Return the steps of a text.

    A token is at the centre of its word, cut to the utterance; one of no word, as punctuation,
    is where it would be if all characters took equally long, special tokens at 0.

    Args:
        chars: places of the tokens in the transcript, (tokens, 2).
        special: [CLS] and [SEP], (tokens,).
        words: of the utterance, as far as anybody says when they are spoken.
        characters: length of the transcript.
        duration_s: length of the utterance.
        align: of `TensorParams`; `words` gives each token the span of its word, or, where there
            are no words, an equal share.
    """
    time_s = chars.sum(axis=1) / 2 / max(characters, 1) * duration_s
    spans_s = word_times(chars, words)
    centres = np.clip(spans_s, 0, duration_s).mean(axis=1)
    time_s = np.where(np.isnan(centres), time_s, centres).astype(np.float32)
    return Timeline(time_s, ~special, spans_s if align == "words" and words else None)


def word_times(chars: NDArray[np.integer[Any]], words: Sequence[Word]) -> NDArray[np.float64]:
    """Return start and end of the word that each token is a part of, (tokens, 2) in seconds.

    NaN where a token shares no character with a word.

    Args:
        chars: places of the tokens in the transcript, (tokens, 2).
        words: in any order, no two of which share a character.
    """
    times = np.full((len(chars), 2), np.nan)
    if words:
        ordered = sorted(words, key=lambda word: word.char_end)
        starts, ends = np.array([(w.char_start, w.char_end) for w in ordered]).T
        # The first word that ends behind the token's start; of a token over two words, the first.
        found = np.minimum(np.searchsorted(ends, chars[:, 0], "right"), len(ends) - 1)
        shared = np.minimum(ends[found], chars[:, 1]) > np.maximum(starts[found], chars[:, 0])
        spans = np.array([(w.start_s, w.end_s) for w in ordered], dtype=np.float64)
        times[shared] = spans[found[shared]]
    return times


def segment_timeline(segments: int, duration_s: float) -> Timeline:
    """Return equal segments, for an utterance without text."""
    centres = (np.arange(segments) + 0.5) / segments * duration_s
    return Timeline(centres.astype(np.float32), np.ones(segments, dtype=bool))


def align(ragged: ModalityTensors, timelines: Sequence[Timeline]) -> ModalityTensors:
    """Return a modality in the steps of `timelines`, one per utterance.

    A modality that is naturally missing stays so, without any step. So becomes one of which all
    that was detected lies outside the words, e.g. a face seen in a pause alone.
    """
    values = [np.empty((0, ragged.values.shape[1]), dtype=np.float32)]
    detected, time_s = [np.empty(0, dtype=bool)], [np.empty(0, dtype=np.float32)]
    lengths = []
    for (start, end), timeline in zip(pairwise(ragged.offsets), timelines, strict=True):
        own = slice(start, end)
        first, last = timeline.cut(ragged.time_s[own])
        means, found = mean_steps(ragged.values[own], ragged.detected[own], first, last)
        if found.any():
            values.append(means)
            detected.append(found)
            time_s.append(timeline.time_s)
        lengths.append(len(found) if found.any() else 0)
    return ModalityTensors(
        values=np.concatenate(values),
        detected=np.concatenate(detected),
        time_s=np.concatenate(time_s),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


def mean_steps(
    values: NDArray[np.float32],
    detected: NDArray[np.bool_],
    first: NDArray[np.integer[Any]],
    last: NDArray[np.integer[Any]],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the mean of the detected steps of each interval, and whether it has any.

    Args:
        values: (steps, dim); zero where nothing was detected.
        detected: (steps,).
        first: the first step of each interval, (intervals,).
        last: the step after its last, (intervals,), at most the number of steps; where it is not
            above the first, the interval is empty.

    Returns:
        Means, summed in float64, (intervals, dim) of float32, zero where there is no detected
        step; and where there is one, (intervals,) of bool.
    """
    # reduceat sums from each index up to the next, so every other sum is that of an interval.
    # It asks for a step at every index, which one of zeros behind the last provides.
    padded = np.concatenate([values, np.zeros((1, values.shape[1]), dtype=np.float32)])
    bounds = np.stack([first, last], axis=1).ravel()
    sums = np.add.reduceat(padded, bounds, axis=0, dtype=np.float64)[::2]
    before = np.concatenate([[0], np.cumsum(detected)])
    counts = (before[last] - before[first])[:, None]
    # Of an empty interval, reduceat gives the step at its index.
    means = np.where(counts > 0, sums / np.maximum(counts, 1), 0)
    return means.astype(np.float32), counts[:, 0] > 0
