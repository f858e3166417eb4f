"""From tensors and masks to what a model sees: hide, encode the text, scale."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from mitfrnet.data.batches import Utterance
from mitfrnet.data.tensors import SplitTensors
from mitfrnet.errors import FeatureError
from mitfrnet.files import replacing
from mitfrnet.missing import Bools
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
_SCALED: tuple[str, ...] = ("acoustic", "visual")

Observed = Mapping[str, list[Bools]]


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
    """
    mean, scale = {}, {}
    unscored = []
    for modality in _SCALED:
        values = train.modalities[modality].values
        steps = values[_joined(observed[modality])].astype(np.float64)
        dim = values.shape[1]
        enough = len(steps) >= _MIN_STEPS
        if not enough:
            unscored.append(modality)
        deviation = steps.std(axis=0) if enough else np.ones(dim)
        mean[modality] = torch.tensor(
            steps.mean(axis=0) if enough else np.zeros(dim), dtype=torch.float32
        )
        scale[modality] = torch.tensor(np.where(deviation > 0, deviation, 1), dtype=torch.float32)
    return Scaling(mean, scale, tuple(unscored))


def no_scaling(dims: Mapping[str, int]) -> Scaling:
    """Return the scaling that changes nothing."""
    return Scaling(
        {m: torch.zeros(dims[m]) for m in _SCALED}, {m: torch.ones(dims[m]) for m in _SCALED}
    )


def _joined(rows: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    return np.concatenate([np.empty(0, dtype=bool), *rows])


def masked_token_ids(split: SplitTensors, observed: Observed) -> list[Tensor]:
    """Return the token ids of each utterance, hidden ones replaced by the unknown token."""
    unknown = split.metadata["features"]["text"]["identity"]["unknown_id"]
    text = split.modalities["text"]
    return [
        torch.from_numpy(np.where(kept, ids, unknown).astype(np.int64))
        for ids, kept in zip(text.rows(split.token_ids), observed["text"], strict=True)
    ]


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
        versions = [torch.__version__, transformers.__version__, str(best_device())]
        key = hashlib.sha256(json.dumps([self._identity, versions], sort_keys=True).encode())
        for ids in token_ids:
            key.update(np.int64(len(ids)).tobytes() + ids.numpy().tobytes())
        path = self._cache / f"{key.hexdigest()[:32]}.safetensors"
        if not path.exists():
            encoded = self._encoder.encode(token_ids, _ENCODED_TOGETHER)
            with replacing(path) as temporary:
                save_file({"text": torch.cat(encoded)}, temporary)
        return list(load_file(path)["text"].split([len(ids) for ids in token_ids]))


def masked_utterances(
    split: SplitTensors,
    observed: Observed,
    text: Sequence[Tensor],
    scaling: Scaling,
    *,
    whole: bool = False,
) -> list[Utterance]:
    """Return the utterances of a split as a model sees them under a mask.

    Args:
        split: complete features.
        observed: what the mask keeps of what was detected, (steps,) per utterance.
        text: vectors of the masked tokens, from `FrozenText`.
        scaling: of acoustic and visual features.
        whole: whether the mask hides modalities as wholes. One that is hidden then looks as one
            that was never there, down to its length; otherwise its steps stay, as zeros.
    """
    complete: dict[str, list[Tensor]] = {}
    for modality, ragged in split.modalities.items():
        values = torch.from_numpy(ragged.values)
        if modality in _SCALED:
            values = (values - scaling.mean[modality]) / scaling.scale[modality]
            values[~torch.from_numpy(ragged.detected)] = 0
        complete[modality] = list(values.split(np.diff(ragged.offsets).tolist()))
    token_ids = masked_token_ids(split, observed)
    return [
        _utterance(
            split,
            i,
            whole=whole,
            complete={m: complete[m][i] for m in MODALITIES},
            observed={m: torch.from_numpy(observed[m][i]) for m in MODALITIES},
            text=text[i],
            token_ids=token_ids[i],
        )
        for i in range(len(split.ids))
    ]


def _utterance(
    split: SplitTensors,
    index: int,
    *,
    whole: bool,
    complete: dict[str, Tensor],
    observed: dict[str, Tensor],
    text: Tensor,
    token_ids: Tensor,
) -> Utterance:
    detected = split.steps.detected
    values, target, kept, hidden = {}, {}, {}, {}
    for modality in MODALITIES:
        target[modality] = complete[modality]
        kept[modality] = observed[modality]
        hidden[modality] = torch.from_numpy(detected[modality][index]) & ~kept[modality]
        if not len(kept[modality]) or (whole and not kept[modality].any()):
            null = torch.zeros(1, target[modality].shape[1])
            values[modality] = target[modality] = null
            kept[modality] = hidden[modality] = torch.zeros(1, dtype=torch.bool)
            if modality == "text":
                token_ids = torch.zeros(1, dtype=torch.int64)
        elif modality == "text":
            values[modality] = text
        else:
            values[modality] = torch.where(kept[modality][:, None], target[modality], 0.0)
    return Utterance(
        utterance_id=split.ids[index],
        values=values,
        target=target,
        observed=kept,
        hidden=hidden,
        token_ids=token_ids,
        label=float(split.label[index]),
    )
