"""Masked utterances: tensors after hiding, scaling and encoding of the text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mitfrnet.data.batches import Batch, Utterance
from mitfrnet.data.masked_text import FrozenText, masked_ids
from mitfrnet.data.ragged import Bools, Observed, RaggedArray
from mitfrnet.data.scaling import SCALED, Scaling
from mitfrnet.data.tensors import SplitTensors
from mitfrnet.modalities import MODALITIES


def mask_utterances(
    split: SplitTensors,
    observed: Observed,
    scaling: Scaling,
    text: FrozenText | None,
    *,
    whole: bool,
    device: torch.device | str = "cpu",
) -> "MaskedUtterances":
    """Return the utterances of a split under a mask, as a network takes them.

    Args:
        split: complete features.
        observed: the steps that the mask keeps.
        scaling: of acoustic and visual features.
        text: encodes the masked transcripts; None: the network encodes the token ids, and gets
            zeros in place of vectors.
        whole: whether the mask hides whole modalities.
        device: where features are kept and batches are made.
    """
    vectors = None if text is None else text.encode(split, observed)
    return MaskedUtterances(split, observed, vectors, scaling, whole=whole, device=device)


class MaskedUtterances(Sequence[Utterance]):
    """The utterances of a split under a mask, as a model takes them; each is made when asked for.

    Features stay where they are, for instance in a mapped file. A batch is gathered from them, then
    scaled and masked.

    Args:
        split: complete features.
        observed: steps that were detected and kept by the mask, (steps,) per utterance.
        text: vectors of the masked tokens, from `FrozenText`; None: zeros in their place.
        scaling: of acoustic and visual features.
        whole: whether the mask hides whole modalities. A hidden one then looks like one that
            was never there, down to its length; otherwise its steps stay, as zeros.
        device: where features are kept and batches are made.
    """

    def __init__(
        self,
        split: SplitTensors,
        observed: Observed,
        text: Sequence[Tensor] | None,
        scaling: Scaling,
        *,
        whole: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self._ids = split.ids
        self._label = torch.from_numpy(split.label).to(device)
        self._text = None if text is None else [v.to(device) for v in text]
        self._token_ids = torch.from_numpy(masked_ids(split, observed)).to(device)
        self._features = {
            m: _Features(
                torch.from_numpy(r.values).to(device),
                torch.from_numpy(r.detected).to(device),
                torch.from_numpy(RaggedArray.of(observed[m]).flat).to(device),
                starts=r.offsets[:-1],
                steps=np.where(_shown(observed[m], whole=whole), np.diff(r.offsets), 0),
                scaling=(scaling.mean[m].to(device), scaling.scale[m].to(device))
                if m in SCALED
                else None,
            )
            for m, r in split.modalities.items()
        }

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def steps(self) -> NDArray[np.int64]:
        """Return how many steps each utterance has in all modalities together, (utterances,)."""
        return np.sum([np.maximum(f.steps, 1) for f in self._features.values()], axis=0)

    def __getitem__(self, index: Any) -> Any:
        """Return one utterance."""
        index = range(len(self))[index]  # accepts negative indices, refuses those out of range
        batch = self.batch([index])

        def row(values: dict[str, Tensor]) -> dict[str, Tensor]:
            return {m: v[0] for m, v in values.items()}

        return Utterance(
            utterance_id=self._ids[index],
            values=row(batch.values),
            target=row(batch.target),
            observed=row(batch.observed),
            hidden=row(batch.hidden),
            token_ids=batch.token_ids[0],
            label=float(batch.label[0]),
        )

    def batch(self, rows: Sequence[int] | NDArray[np.int64]) -> Batch:
        """Return the utterances at `rows` as one batch, equal to what `collate` gives."""
        rows = np.asarray(rows)
        values, target, valid, observed, hidden = {}, {}, {}, {}, {}
        for modality in MODALITIES:
            features = self._features[modality]
            at = features.places(rows)
            valid[modality] = at.valid
            target[modality], observed[modality], hidden[modality] = features.take(at)
            if modality == "text":
                values[modality] = self._vectors(rows, target[modality])
                token_ids = _taken(self._token_ids, at.rows).masked_fill_(~at.real, 0)
            else:
                values[modality] = target[modality].masked_fill(~observed[modality][..., None], 0)
        return Batch(
            utterance_ids=tuple(self._ids[i] for i in rows),
            values=values,
            target=target,
            valid=valid,
            observed=observed,
            hidden=hidden,
            token_ids=token_ids,
            label=self._label[torch.from_numpy(rows).to(self._label.device, non_blocking=True)],
        )

    def _vectors(self, rows: NDArray[np.int64], like: Tensor) -> Tensor:
        """Return the text of a batch, (batch, time, dim); zero on padding and null steps."""
        padded = torch.zeros_like(like)
        if self._text is not None:
            steps = self._features["text"].steps[rows]
            for out, row, n in zip(padded, rows, steps, strict=True):
                vectors = self._text[row][:n]
                out[: len(vectors)] = vectors
        return padded


class _Places(NamedTuple):
    """The places of the steps of a batch: `rows` of a flat array, (batch, time).

    `real` steps are in the array, (batch, time) of bool; `valid` ones are real or null steps.
    """

    rows: Tensor
    real: Tensor
    valid: Tensor


@dataclass(frozen=True)
class _Features:
    """One modality of a split under a mask.

    Attributes:
        values, detected, observed: of all steps, end to end.
        starts: where each utterance begins, (utterances,).
        steps: of each utterance; 0 if it has only a null step.
        scaling: mean and scale of the columns; None: not scaled.
    """

    values: Tensor
    detected: Tensor
    observed: Tensor
    starts: NDArray[np.int64]
    steps: NDArray[np.int64]
    scaling: tuple[Tensor, Tensor] | None

    def places(self, rows: NDArray[np.int64]) -> _Places:
        """Return where the steps of the utterances at `rows` are, padded to the longest."""
        time = max(int(self.steps[rows].max()), 1)
        both = torch.from_numpy(np.stack([self.starts[rows], self.steps[rows]]))
        starts, steps = both.to(self.values.device, non_blocking=True)[..., None]  # (batch, 1)
        step = torch.arange(time, device=self.values.device)
        real = step < steps
        return _Places(((starts + step) * real), real, step < steps.clamp(min=1))

    def take(self, at: _Places) -> tuple[Tensor, Tensor, Tensor]:
        """Return complete features, (batch, time, dim), observed and hidden, (batch, time)."""
        detected = _taken(self.detected, at.rows) & at.real
        observed = _taken(self.observed, at.rows) & at.real
        values = _taken(self.values, at.rows)
        if self.scaling is not None:
            values.sub_(self.scaling[0]).div_(self.scaling[1])
        return values.masked_fill_(~detected[..., None], 0), observed, detected & ~observed


def _taken(flat: Tensor, index: Tensor) -> Tensor:
    """Return the rows of `flat` at `index`; zeros if `flat` is empty."""
    shape = (*index.shape, *flat.shape[1:])
    return flat.index_select(0, index.flatten()).view(shape) if len(flat) else flat.new_zeros(shape)


def _shown(observed: Sequence[Bools], *, whole: bool) -> NDArray[np.bool_]:
    """Return which utterances have steps of a modality, (utterances,)."""
    return np.array([bool(kept.any()) if whole else True for kept in observed], dtype=bool)
