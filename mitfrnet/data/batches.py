"""Padded batches of utterances, the input of every model."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mitfrnet.modalities import MODALITIES


@dataclass(frozen=True)
class Utterance:
    """One labelled sample under one mask; every modality has at least one step.

    A modality without steps has one null step of zeros, which is valid and missing. Text is encoded
    after masking, so no vector holds a hidden word.

    Attributes:
        utterance_id: `<video_id>/<clip_id>`.
        values: the input of a model, (steps, dim); zero at missing acoustic and visual steps.
        target: the complete features, (steps, dim); zero where nothing was detected.
        observed: kept by the mask and detected, (steps,) of bool.
        hidden: detected but hidden by the mask, (steps,) of bool; reconstruction is scored there.
        token_ids: ids of the masked transcript, (steps of text,) of int64.
        label: the score to predict.
    """

    utterance_id: str
    values: dict[str, Tensor]
    target: dict[str, Tensor]
    observed: dict[str, Tensor]
    hidden: dict[str, Tensor]
    token_ids: Tensor
    label: float


@dataclass(frozen=True)
class Batch:
    """Utterances padded at the end to the longest of each modality.

    Attributes:
        utterance_ids: one per row.
        values: the input of a model, (batch, time, dim); zero on padding.
        target: complete features for the reconstruction loss, (batch, time, dim).
        valid: real steps, (batch, time) of bool; True on at least the first step of each row.
        observed: valid, detected and kept by the mask, (batch, time) of bool.
        hidden: valid and detected but hidden by the mask, (batch, time) of bool.
        token_ids: masked token ids, (batch, time of text); 0 on padding.
        label: (batch,) float32.
    """

    utterance_ids: tuple[str, ...]
    values: dict[str, Tensor]
    target: dict[str, Tensor]
    valid: dict[str, Tensor]
    observed: dict[str, Tensor]
    hidden: dict[str, Tensor]
    token_ids: Tensor
    label: Tensor

    def __len__(self) -> int:
        return len(self.utterance_ids)

    @property
    def missing(self) -> dict[str, Tensor]:
        """Valid steps that are not observed, (batch, time) of bool."""
        return {m: self.valid[m] & ~self.observed[m] for m in MODALITIES}

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch with all tensors on `device`."""
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                moved[field.name] = value.to(device, non_blocking=True)
            elif isinstance(value, dict):
                moved[field.name] = {m: v.to(device, non_blocking=True) for m, v in value.items()}
        return replace(self, **moved)


def collate(utterances: list[Utterance]) -> Batch:
    """Return the utterances as one batch, padded at the end with zeros and False."""

    def padded(name: str) -> dict[str, Tensor]:
        rows = [getattr(u, name) for u in utterances]
        return {m: pad_sequence([row[m] for row in rows], batch_first=True) for m in MODALITIES}

    lengths = {m: torch.tensor([len(u.observed[m]) for u in utterances]) for m in MODALITIES}
    return Batch(
        utterance_ids=tuple(u.utterance_id for u in utterances),
        values=padded("values"),
        target=padded("target"),
        valid={m: torch.arange(int(n.max()))[None] < n[:, None] for m, n in lengths.items()},
        observed=padded("observed"),
        hidden=padded("hidden"),
        token_ids=pad_sequence([u.token_ids for u in utterances], batch_first=True),
        label=torch.tensor([u.label for u in utterances], dtype=torch.float32),
    )
