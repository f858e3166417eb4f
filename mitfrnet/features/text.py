"""Text features: the last hidden state of a BERT-type encoder at every token."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
import transformers

from mitfrnet.features.extractor import Clip, Features
from mitfrnet.features.text_encoder import (
    TextEncoder,
    encoder_config,
    load_tokenizer,
    vocabulary_digest,
    weights_digest,
)
from mitfrnet.features.text_params import TextParams

VERSION = "1"


class TextExtractor:
    """Turns a transcript into one contextual vector per token, (tokens, dim).

    The first and last tokens are the encoder's special tokens, [CLS] and [SEP]. Tokens have no
    times. Further columns: `input_ids`; `special`; `char_start` and `char_end`, the token's place
    in the transcript (both 0 for special tokens).

    Args:
        params: length limit, batch size and device.
        encoder: `embedded`, a hub name, or a local folder.

    Raises:
        FeatureError: there is no such encoder.
    """

    version = VERSION
    columns: ClassVar[dict[str, type[np.generic]]] = {
        "input_ids": np.int32,
        "special": np.bool_,
        "char_start": np.int32,
        "char_end": np.int32,
    }

    def __init__(self, params: TextParams, encoder: str) -> None:
        self.batch_size = params.batch_size
        self._name, self._device = encoder, params.device
        config = encoder_config(encoder)
        self._tokenizer = load_tokenizer(encoder)
        self._max_tokens = min(params.max_tokens, config.max_position_embeddings)
        self.feature_names = [f"text_{i:04d}" for i in range(config.hidden_size)]
        self.units = ["1"] * config.hidden_size
        self.identity: dict[str, Any] = {
            "encoder": encoder,
            "weights": weights_digest(encoder),
            "vocabulary": vocabulary_digest(self._tokenizer),
            "unknown_id": self._tokenizer.unk_token_id,
            "max_tokens": self._max_tokens,
            "batch_size": params.batch_size,
            "device": params.device,
            "torch": torch.__version__.split("+")[0],
            "transformers": transformers.__version__,
        }

    @cached_property
    def _encoder(self) -> TextEncoder:
        return TextEncoder(self._name).to(self._device)

    def extract(self, clip: Clip) -> Features:
        """Return the features of one transcript."""
        return self.extract_batch([clip])[0]

    def extract_batch(self, clips: Sequence[Clip]) -> list[Features]:
        """Return the features of several transcripts, encoded `batch_size` at a time."""
        tokens = self._tokenizer(
            [clip.transcript for clip in clips],
            truncation=True,
            max_length=self._max_tokens,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        sequences = [torch.tensor(ids) for ids in tokens["input_ids"]]
        features = []
        for i, hidden in enumerate(self._encoder.encode(sequences, self.batch_size)):
            offsets = np.asarray(tokens["offset_mapping"][i], dtype=np.int32)
            features.append(
                Features(
                    values=hidden.numpy(),
                    detected=np.ones(len(hidden), dtype=bool),
                    start_s=np.full(len(hidden), np.nan, dtype=np.float32),
                    columns={
                        "input_ids": sequences[i].numpy().astype(np.int32),
                        "special": np.asarray(tokens["special_tokens_mask"][i], dtype=bool),
                        "char_start": offsets[:, 0],
                        "char_end": offsets[:, 1],
                    },
                    reason="empty_transcript" if all(tokens["special_tokens_mask"][i]) else None,
                )
            )
        return features
