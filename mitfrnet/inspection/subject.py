"""The clip that is inspected: its media, words and features, and what is naturally missing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mitfrnet.corpus.manifest import utterance_duration_s
from mitfrnet.data.tensors import SplitTensors
from mitfrnet.features.extractor import Clip
from mitfrnet.media.decode import MediaLimits, Probe, probe
from mitfrnet.modalities import MODALITIES


@dataclass(frozen=True)
class Token:
    """A step of the text.

    Attributes:
        text: its part of the transcript; for a special token its name.
        start_s, end_s: when it is spoken; both 0 for a special token.
        special: whether it stands for no part of the transcript.
    """

    text: str
    start_s: float
    end_s: float
    special: bool


@dataclass(frozen=True)
class Subject:
    """The clip that is inspected.

    Attributes:
        name: utterance id, or the file's name.
        corpus: its corpus; None for a clip outside any corpus.
        part: its split; `test` for a clip outside any corpus.
        file: the name of its file; empty: there is none.
        clip: its media; those of an utterance exist only inside `gather_utterance`.
        limits: what reading them may cost.
        probe: what is in the file.
        duration_s: how long the utterance lasts, in seconds.
        tensors: the features, a split of this one utterance.
        tokens: the steps of the text.
        timed: whether the times of words are known; if not, words are spread over the utterance
            by their characters.
        label: None where there is none.
        reasons: why a modality is naturally missing; None: it is there.
    """

    name: str
    corpus: str | None
    part: str
    file: str
    clip: Clip
    limits: MediaLimits
    probe: Probe
    duration_s: float
    tensors: SplitTensors
    tokens: Sequence[Token]
    timed: bool
    label: float | None
    reasons: dict[str, str | None]


def make_subject(
    *,
    name: str,
    corpus: str | None,
    file: str,
    clip: Clip,
    limits: MediaLimits,
    row: dict[str, Any],
    features: dict[str, pa.Table],
    tensors: SplitTensors,
) -> Subject:
    """Return the subject of an inspection.

    Args:
        name: utterance id, or the name of its file.
        corpus: its name; None for a clip outside any corpus.
        file: the name of its file.
        clip: its media.
        limits: what reading them may cost.
        row: its row of the manifest.
        features: a table of one row per modality, as the extract stage stores it.
        tensors: a split of this one utterance.
    """
    last_step_s = max(float(t.time_s.max(initial=0)) for t in tensors.modalities.values())
    duration_s = utterance_duration_s(row) or max(1.0, last_step_s)
    words = row["words"] or []
    label = float(tensors.label[0])
    return Subject(
        name=name,
        corpus=corpus,
        part=row["split"],
        file=file,
        clip=clip,
        limits=limits,
        probe=probe(clip.path, limits, start_s=clip.start_s, end_s=clip.end_s),
        duration_s=duration_s,
        tensors=tensors,
        tokens=_tokens(features["text"].to_pylist()[0], clip.transcript, words, duration_s),
        timed=bool(words),
        label=None if corpus is None or math.isnan(label) else label,
        reasons={m: features[m]["reason"][0].as_py() for m in MODALITIES},
    )


def _tokens(
    stored: dict[str, Any], transcript: str, words: list[dict[str, Any]], duration_s: float
) -> list[Token]:
    """Return the steps of the text; none where it is naturally missing."""
    if stored["reason"] is not None:
        return []
    tokens = []
    columns = (stored[c] for c in ("char_start", "char_end", "special"))
    last = len(stored["special"]) - 1
    for i, (start, end, special) in enumerate(zip(*columns, strict=True)):
        if special:
            name = {0: "[CLS]", last: "[SEP]"}.get(i, "[special]")
            tokens.append(Token(name, 0.0, 0.0, special=True))
        else:
            times = _spoken(start, end, len(transcript), words, duration_s)
            tokens.append(Token(transcript[start:end], *times, special=False))
    return tokens


def _spoken(
    start: int, end: int, characters: int, words: list[dict[str, Any]], duration_s: float
) -> tuple[float, float]:
    """Return when the characters from `start` to `end` are spoken, in seconds.

    Within a word of known time, or the whole transcript, all characters take equally long.
    """
    for word in words:
        if min(end, word["char_end"]) > max(start, word["char_start"]):
            at, length = word["char_start"], word["char_end"] - word["char_start"]
            from_s, lasts_s = word["start_s"], word["end_s"] - word["start_s"]
            break
    else:
        at, length, from_s, lasts_s = 0, characters, 0.0, duration_s
    first, second = (
        min(max((c - at) / max(length, 1), 0), 1) * lasts_s + from_s for c in (start, end)
    )
    return min(max(first, 0.0), duration_s), min(max(second, 0.0), duration_s)
