"""Align acoustic and visual features with the steps of the text, by words or by equal segments.

An aligned step is the mean of the detected steps in its time. If there are none, as in a pause or
with the face turned away, the aligned step is undetected too, so a model sees a missing step.
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

# Step and word times are rounded to so many decimals of a second before they are compared. Late in
# a long clip, the float32 of step times holds no more.
_DECIMALS = 4


class TensorParams(StageParams):
    """Section `tensors`."""

    align: Literal["none", "words", "pool"]
    segments: int = Field(gt=0)  # for an utterance without text


@dataclass(frozen=True)
class Timeline:
    """The steps with which one utterance's acoustic and visual features are aligned.

    Attributes:
        time_s: centre of each step in seconds, float32, (steps,).
        filled: steps that get a part of the utterance, unlike special tokens; bool, (steps,).
        spans_s: start and end of each step in seconds, float64, (steps, 2); NaN: it has no time.
            None: all filled steps share the utterance equally.
    """

    time_s: NDArray[np.float32]
    filled: NDArray[np.bool_]
    spans_s: NDArray[np.float64] | None = None

    def cut(self, centres_s: NDArray[np.floating[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the range of a modality's steps for each step of this timeline.

        With spans, these are the modality's steps whose centre lies in [start, end). With equal
        shares, n steps are divided among m as in adaptive average pooling: number i gets steps
        floor(i n / m) to ceil((i + 1) n / m), so none is empty, however few steps there are.

        Args:
            centres_s: centres of the modality's steps, ascending, (modality steps,).

        Returns:
            The first step, and the one after the last, each (steps,). If a span contains no step,
            the second is not above the first.
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

    A token's time is the centre of its word, within the utterance. A token outside words, such as
    punctuation, is placed as if all characters took equally long; special tokens are at 0.

    Args:
        chars: start and end of the tokens in the transcript, (tokens, 2).
        special: [CLS] and [SEP], (tokens,).
        words: of the utterance, those with known times.
        characters: length of the transcript.
        duration_s: length of the utterance.
        align: of `TensorParams`. With `words`, each token gets the span of its word, or an equal
            share if there are no words.
    """
    time_s = chars.sum(axis=1) / 2 / max(characters, 1) * duration_s
    spans_s = word_times(chars, words)
    centres = np.clip(spans_s, 0, duration_s).mean(axis=1)
    time_s = np.where(np.isnan(centres), time_s, centres).astype(np.float32)
    return Timeline(time_s, ~special, spans_s if align == "words" and words else None)


def word_times(chars: NDArray[np.integer[Any]], words: Sequence[Word]) -> NDArray[np.float64]:
    """Return start and end of each token's word, (tokens, 2) in seconds.

    They are NaN if a token shares no character with a word.

    Args:
        chars: start and end of the tokens in the transcript, (tokens, 2).
        words: in any order; no two share a character.
    """
    times = np.full((len(chars), 2), np.nan)
    if words:
        ordered = sorted(words, key=lambda word: word.char_end)
        starts, ends = np.array([(w.char_start, w.char_end) for w in ordered]).T
        # The first word that ends after the token's start, even if the token covers two words.
        nearest = np.minimum(np.searchsorted(ends, chars[:, 0], "right"), len(ends) - 1)
        shared = np.minimum(ends[nearest], chars[:, 1]) > np.maximum(starts[nearest], chars[:, 0])
        spans = np.array([(w.start_s, w.end_s) for w in ordered], dtype=np.float64)
        times[shared] = spans[nearest[shared]]
    return times


def segment_timeline(segments: int, duration_s: float) -> Timeline:
    """Return equal segments, for an utterance without text."""
    centres = (np.arange(segments) + 0.5) / segments * duration_s
    return Timeline(centres.astype(np.float32), np.ones(segments, dtype=bool))


def align(ragged: ModalityTensors, timelines: Sequence[Timeline]) -> ModalityTensors:
    """Return a modality aligned with `timelines`, one per utterance.

    A modality without steps stays without. One that is detected only outside the words, such as a
    face seen only in a pause, loses its steps too.
    """
    values = [np.empty((0, ragged.values.shape[1]), dtype=np.float32)]
    detected, time_s = [np.empty(0, dtype=bool)], [np.empty(0, dtype=np.float32)]
    lengths = []
    for (start, end), timeline in zip(pairwise(ragged.offsets), timelines, strict=True):
        own = slice(start, end)
        first, last = timeline.cut(ragged.time_s[own])
        means, filled = mean_steps(ragged.values[own], ragged.detected[own], first, last)
        if filled.any():
            values.append(means)
            detected.append(filled)
            time_s.append(timeline.time_s)
        lengths.append(len(filled) if filled.any() else 0)
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
        values: (steps, dim); zero at undetected steps.
        detected: (steps,).
        first: first step of each interval, (intervals,).
        last: the step after its last, (intervals,), at most the number of steps. If it is not
            above the first, the interval is empty.

    Returns:
        The means, float32, (intervals, dim), summed in float64; zero without a detected step.
        Then, whether there is a detected step, bool, (intervals,).
    """
    # reduceat sums from each index to the next, so every other sum belongs to an interval. It
    # needs a step at every index, so a step of zeros follows the last.
    padded = np.concatenate([values, np.zeros((1, values.shape[1]), dtype=np.float32)])
    bounds = np.stack([first, last], axis=1).ravel()
    sums = np.add.reduceat(padded, bounds, axis=0, dtype=np.float64)[::2]
    before = np.concatenate([[0], np.cumsum(detected)])
    counts = (before[last] - before[first])[:, None]
    # For an empty interval, reduceat returns the step at its index, which is not used.
    means = np.where(counts > 0, sums / np.maximum(counts, 1), 0)
    return means.astype(np.float32), counts[:, 0] > 0
