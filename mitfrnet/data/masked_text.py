"""Masked transcripts: their token ids, and their vectors from a frozen encoder."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from mitfrnet.data.ragged import Observed, RaggedArray
from mitfrnet.data.tensors import SplitTensors
from mitfrnet.errors import FeatureError
from mitfrnet.features.text_encoder import (
    TextEncoder,
    best_device,
    load_tokenizer,
    vocabulary_digest,
    weights_digest,
)
from mitfrnet.files import replacing

_ENCODED_TOGETHER = 64
_KEPT_TOGETHER = 4096  # transcripts in one file, which is built in memory


def masked_token_ids(split: SplitTensors, observed: Observed) -> list[Tensor]:
    """Return the token ids of each utterance, hidden ones replaced by the unknown token."""
    rows = split.modalities["text"].rows(masked_ids(split, observed))
    return [torch.from_numpy(ids) for ids in rows]


def masked_ids(split: SplitTensors, observed: Observed) -> NDArray[np.int64]:
    """Return the masked token ids of all utterances, (steps of text,)."""
    unknown = split.metadata["features"]["text"]["identity"]["unknown_id"]
    return np.where(RaggedArray.of(observed["text"]).flat, split.token_ids, unknown).astype(
        np.int64
    )


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
    """Encodes masked transcripts with the encoder of the stored features.

    Tokens are hidden before encoding: otherwise the vectors of other tokens would carry the hidden
    word. The encoder is loaded when first needed, so never at rate 0.

    Args:
        identity: of the text features, from the tensors' metadata.
        cache: folder for the vectors, named by a digest of the tokens and the encoder.
    """

    def __init__(self, identity: Mapping[str, Any], cache: Path | None = None) -> None:
        self._identity, self._cache = identity, cache

    @cached_property
    def _encoder(self) -> TextEncoder:
        return load_encoder(self._identity).to(best_device())

    def encode(self, split: SplitTensors, observed: Observed) -> list[Tensor]:
        """Return the vectors of the masked tokens, (steps, dim) per utterance.

        An utterance with nothing hidden keeps its stored vectors. One whose text is wholly hidden,
        special tokens included, has none.

        Raises:
            FeatureError: the encoder cannot be loaded, or its weights have changed.
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
        """Return the vectors of some transcripts from a mapped file, after making it if absent."""
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
