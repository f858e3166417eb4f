"""From tensors and masks to what a model sees: hide, encode the text, scale."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from mitfrnet.data.batches import Batch, Utterance
from mitfrnet.data.tensors import SplitTensors
from mitfrnet.errors import FeatureError
from mitfrnet.files import replacing
from mitfrnet.missing import Bools, Rows
from mitfrnet.modalities import MODALITIES
from mitfrnet.models.text_encoder import (
    TextEncoder,
    best_device,
    load_tokenizer,
    vocabulary_digest,
    weights_digest,
)

# Fewer observed steps than this say too little about a column to scale it by.
_MIN_STEPS = 32
_ENCODED_TOGETHER = 64
_KEPT_TOGETHER = 4096  # transcripts in one file, which is made in memory
_SUMMED_TOGETHER = 1 << 16  # steps
_SCALED: tuple[str, ...] = ("acoustic", "visual")

Observed = Mapping[str, Sequence[Bools]]


@dataclass(frozen=True)
class Scaling:
    """What acoustic and visual features are shifted and divided by; text is left as it is.

    Attributes:
        mean, scale: per modality, (dim,) of float32.
        unscored: modalities of which too few training steps were observed to scale them by;
            their reconstruction must not be scored, since it would outweigh all else.
    """

    mean: dict[str, Tensor]
    scale: dict[str, Tensor]
    unscored: tuple[str, ...] = ()

    def tensors(self) -> dict[str, Tensor]:
        """Return both as named tensors, to be stored beside the weights."""
        parts = {"mean": self.mean, "scale": self.scale}
        return {f"{m}.{name}": part[m] for name, part in parts.items() for m in _SCALED}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Scaling":
        """Return what `tensors` was made from."""
        mean, scale = ({m: tensors[f"{m}.{name}"] for m in _SCALED} for name in ("mean", "scale"))
        return cls(mean, scale)


def fit_scaling(train: SplitTensors, observed: Observed) -> Scaling:
    """Return mean and deviation of every column over the observed training steps.

    A column that is constant, or of a modality with fewer than 32 observed steps, is left as it
    is; such a modality leaves the reconstruction loss.

    Raises:
        FeatureError: a value is no finite number; the first is named.
    """
    mean, scale = {}, {}
    unscored = []
    for modality in _SCALED:
        values = train.modalities[modality].values
        kept = Rows.of(observed[modality]).flat
        if kept.sum() < _MIN_STEPS:
            unscored.append(modality)
            centre, deviation = np.zeros(values.shape[1]), np.ones(values.shape[1])
        else:
            centre = _mean(values, kept)
            deviation = np.sqrt(_mean(values, kept, squared_from=centre))
            if not np.isfinite(deviation).all():
                raise FeatureError(_not_finite(train, modality))
        mean[modality] = torch.tensor(centre, dtype=torch.float32)
        scale[modality] = torch.tensor(np.where(deviation > 0, deviation, 1), dtype=torch.float32)
    return Scaling(mean, scale, tuple(unscored))


def _not_finite(split: SplitTensors, modality: str) -> str:
    ragged = split.modalities[modality]
    step, column = np.argwhere(~np.isfinite(ragged.values))[0]
    utterance = split.ids[int(np.searchsorted(ragged.offsets, step, side="right")) - 1]
    return (
        f"{modality} features: column {column} of {utterance} is {ragged.values[step, column]} "
        f"(expected a finite number; dvc repro -f extract@<corpus>-{modality})"
    )


def _mean(
    values: NDArray[np.float32],
    kept: NDArray[np.bool_],
    squared_from: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return the mean of the kept rows, or of their squared distances, without copying them all."""
    total = np.zeros(values.shape[1])
    for start in range(0, len(values), _SUMMED_TOGETHER):
        rows = slice(start, start + _SUMMED_TOGETHER)
        steps = values[rows][kept[rows]].astype(np.float64)
        total += (steps if squared_from is None else (steps - squared_from) ** 2).sum(axis=0)
    return total / kept.sum()


def no_scaling(dims: Mapping[str, int]) -> Scaling:
    """Return the scaling that changes nothing."""
    return Scaling(
        {m: torch.zeros(dims[m]) for m in _SCALED}, {m: torch.ones(dims[m]) for m in _SCALED}
    )


def masked_token_ids(split: SplitTensors, observed: Observed) -> list[Tensor]:
    """Return the token ids of each utterance, hidden ones replaced by the unknown token."""
    rows = split.modalities["text"].rows(_masked_ids(split, observed))
    return [torch.from_numpy(ids) for ids in rows]


def _masked_ids(split: SplitTensors, observed: Observed) -> NDArray[np.int64]:
    unknown = split.metadata["features"]["text"]["identity"]["unknown_id"]
    return np.where(Rows.of(observed["text"]).flat, split.token_ids, unknown).astype(np.int64)


def load_encoder(identity: Mapping[str, Any]) -> TextEncoder:
    """Return the text encoder that features come from.

    Args:
        identity: of the text features, from the tensors' metadata.

    Raises:
        FeatureError: it is not to be had, or its weights or vocabulary are others by now.
    """
    name = identity["encoder"]
    again = "(extract again: dvc repro -f extract@<corpus>-text)"
    if weights_digest(name) != identity["weights"]:
        raise FeatureError(
            f"text encoder {name!r}: other weights than the features were made with {again}"
        )
    if vocabulary_digest(load_tokenizer(name)) != identity["vocabulary"]:
        raise FeatureError(
            f"text encoder {name!r}: another vocabulary than the stored token ids are from {again}"
        )
    return TextEncoder(name)


class FrozenText:
    """Encodes masked transcripts with the encoder that the stored features come from.

    Tokens are hidden before they are encoded: the vectors of the others would carry a hidden
    word. The encoder is loaded when it is first needed, which at rate 0 is never.

    Args:
        identity: of the text features, from the tensors' metadata.
        cache: folder in which vectors are kept, by a digest of the tokens and the encoder.
    """

    def __init__(self, identity: Mapping[str, Any], cache: Path | None = None) -> None:
        self._identity, self._cache = identity, cache

    @cached_property
    def _encoder(self) -> TextEncoder:
        return load_encoder(self._identity).to(best_device())

    def encode(self, split: SplitTensors, observed: Observed) -> list[Tensor]:
        """Return the vectors of the masked tokens, (steps, dim) per utterance.

        An utterance of which nothing is hidden keeps its stored vectors; of one whose text is
        wholly hidden, special tokens included, there are none.

        Raises:
            FeatureError: the encoder is not to be had, or its weights are others by now.
        """
        text = split.modalities["text"]
        vectors = [torch.from_numpy(v) for v in text.rows(text.values)]
        changed = [i for i, kept in enumerate(observed["text"]) if kept.any() and not kept.all()]
        for i, kept in enumerate(observed["text"]):
            if not kept.any():
                vectors[i] = vectors[i][:0]
        if changed:
            token_ids = masked_token_ids(split, observed)
            encoded = self._encode([token_ids[i] for i in changed])
            for i, vector in zip(changed, encoded, strict=True):
                vectors[i] = vector
        return vectors

    def _encode(self, token_ids: list[Tensor]) -> list[Tensor]:
        if self._cache is None:
            return self._encoder.encode(token_ids, _ENCODED_TOGETHER)
        starts = range(0, len(token_ids), _KEPT_TOGETHER)
        parts = [self._kept(self._cache, token_ids[i : i + _KEPT_TOGETHER]) for i in starts]
        return [vectors for part in parts for vectors in part]

    def _kept(self, cache: Path, token_ids: list[Tensor]) -> Sequence[Tensor]:
        """Return the vectors of some transcripts out of a mapped file, which is made if absent."""
        versions = [torch.__version__, transformers.__version__, str(best_device())]
        key = hashlib.sha256(json.dumps([self._identity, versions], sort_keys=True).encode())
        for ids in token_ids:
            key.update(np.int64(len(ids)).tobytes() + ids.numpy().tobytes())
        path = cache / f"{key.hexdigest()[:32]}.safetensors"
        if not path.exists():
            encoded = self._encoder.encode(token_ids, _ENCODED_TOGETHER)
            with replacing(path) as temporary:
                save_file({"text": torch.cat(encoded)}, temporary)
        return load_file(path)["text"].split([len(ids) for ids in token_ids])


class MaskedUtterances(Sequence[Utterance]):
    """The utterances of a split as a model sees them under a mask, each made when asked for.

    The features stay where they are, which may be a mapped file: a batch is gathered from them,
    and only then scaled and masked.

    Args:
        split: complete features.
        observed: what the mask keeps of what was detected, (steps,) per utterance.
        text: vectors of the masked tokens, from `FrozenText`; None: zeros in their place.
        scaling: of acoustic and visual features.
        whole: whether the mask hides modalities as wholes. One that is hidden then looks as one
            that was never there, down to its length; otherwise its steps stay, as zeros.
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
        self._token_ids = torch.from_numpy(_masked_ids(split, observed)).to(device)
        self._features = {
            m: _Features(
                torch.from_numpy(r.values).to(device),
                torch.from_numpy(r.detected).to(device),
                torch.from_numpy(Rows.of(observed[m]).flat).to(device),
                starts=r.offsets[:-1],
                steps=np.where(_shown(observed[m], whole=whole), np.diff(r.offsets), 0),
                scaling=(scaling.mean[m].to(device), scaling.scale[m].to(device))
                if m in _SCALED
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
        index = range(len(self))[index]  # also of a negative one, and too large is an error
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
        """Return the utterances at `rows` as `collate` would put them together."""
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
    """Where the steps of a batch are found: `rows` of a flat array, (batch, time).

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
        steps: of each utterance; 0 where it has nothing but a null step.
        scaling: mean and scale of columns; None: they stay as they are.
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
        """Return the complete features, (batch, time, dim), what is observed and what hidden."""
        detected = _taken(self.detected, at.rows) & at.real
        observed = _taken(self.observed, at.rows) & at.real
        values = _taken(self.values, at.rows)
        if self.scaling is not None:
            values.sub_(self.scaling[0]).div_(self.scaling[1])
        return values.masked_fill_(~detected[..., None], 0), observed, detected & ~observed


def _taken(flat: Tensor, index: Tensor) -> Tensor:
    """Return the rows of `flat` at `index`, which may point anywhere if there are none."""
    shape = (*index.shape, *flat.shape[1:])
    return flat.index_select(0, index.flatten()).view(shape) if len(flat) else flat.new_zeros(shape)


def _shown(observed: Sequence[Bools], *, whole: bool) -> NDArray[np.bool_]:
    """Return which utterances have steps of a modality, (utterances,)."""
    return np.array([bool(kept.any()) if whole else True for kept in observed], dtype=bool)
