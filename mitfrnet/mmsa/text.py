"""The text of an imported feature file: checks its tokens, and keeps or computes its vectors."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mitfrnet.errors import FeatureError
from mitfrnet.features.extractor import Features
from mitfrnet.features.text import TextExtractor
from mitfrnet.features.text_encoder import TextEncoder, load_tokenizer
from mitfrnet.features.text_params import TextParams
from mitfrnet.mmsa.reading import MmsaFile, MmsaUtterance

# Largest difference at which stored vectors count as the encoder's own. Devices, versions and
# batches change values of a few units by 1e-5.
_TOLERANCE = 1e-3
_COMPARED = 16  # utterances
_BATCH_SIZE = 32

Place = tuple[str, int]  # of an utterance: split and row


def stated_description(source: MmsaFile, modality: str, dim: int) -> dict[str, Any] | None:
    """Return the file's description of a modality; None if there is no usable one."""
    features = (source.description or {}).get("features")
    stated = features.get(modality) if isinstance(features, dict) else None
    if not isinstance(stated, dict) or stated.keys() != {
        "version",
        "feature_names",
        "units",
        "identity",
    }:
        return None
    names, units = stated["feature_names"], stated["units"]
    lists = all(
        isinstance(part, list) and len(part) == dim and all(isinstance(p, str) for p in part)
        for part in (names, units)
    )
    whole = isinstance(stated["version"], str) and isinstance(stated["identity"], dict)
    return stated if lists and whole else None


class ImportedText:
    """The text of a file under one encoder.

    Args:
        source: the file.
        encoder_name: the encoder of its token ids.
        places: of all utterances.

    Raises:
        FeatureError: there is no such encoder, or the ids are from another vocabulary.

    Attributes:
        encoder_name: the argument.
        differing: number of transcripts that do not give the stored tokens.
        vectors_from: source of the vectors, in words.
    """

    def __init__(self, source: MmsaFile, encoder_name: str, places: Sequence[Place]) -> None:
        self._source, self.encoder_name = source, encoder_name
        self._tokenizer = load_tokenizer(encoder_name)
        width = max(split.token_width for split in source.splits.values())
        params = TextParams(
            encoders={"en": encoder_name}, max_tokens=max(3, width), batch_size=1, device="cpu"
        )
        self._extractor = TextExtractor(params, encoder_name)
        self._offsets: dict[Place, NDArray[np.int32]] = {}
        self.differing = self._check_vocabulary(places)
        self._kept = self._vectors_fit(places)
        self.vectors_from = "from the file" if self._kept else "computed from the token ids"

    @cached_property
    def _encoder(self) -> TextEncoder:
        return TextEncoder(self.encoder_name)

    def description(self) -> dict[str, Any]:
        """Return the description of the text features, equal to that of `TextExtractor`."""
        extractor = self._extractor
        stated = stated_description(self._source, "text", len(extractor.feature_names))
        decisive = ("encoder", "weights", "vocabulary", "unknown_id")
        if (
            stated is not None
            and self._kept
            and all(stated["identity"].get(k) == extractor.identity[k] for k in decisive)
        ):
            return stated
        return {
            "version": extractor.version,
            "feature_names": extractor.feature_names,
            "units": extractor.units,
            "identity": extractor.identity,
        }

    def _check_vocabulary(self, places: Sequence[Place]) -> int:
        """Compare the stored ids with those of the transcripts; return how many differ."""
        compared = differing = 0
        size = len(self._tokenizer)
        for split, row in places:
            ids = self._source.splits[split].tokens_of(row)
            where = f"{self._source.path}: {split} row {row}"
            if len(ids) and ids.max() >= size:
                raise FeatureError(
                    f"{where}: token id {ids.max()}, but text encoder {self.encoder_name!r} has "
                    f"{size} tokens (name the encoder of the token ids)"
                )
            transcript = self._source.splits[split].transcript_of(row)
            if not transcript.strip() or not len(ids):
                continue
            compared += 1
            tokens = self._tokenizer(transcript, return_offsets_mapping=True)
            words = ids[: -1 if ids[-1] == self._tokenizer.sep_token_id else None]
            # A file may have cut off the end, but nothing else.
            if tokens["input_ids"][: len(words)] == words.tolist():
                offsets = np.zeros((len(ids), 2), dtype=np.int32)
                offsets[: len(words)] = tokens["offset_mapping"][: len(words)]
                self._offsets[split, row] = offsets
            else:
                differing += 1
        if differing > compared / 2:
            raise FeatureError(
                f"{self._source.path}: {differing} of {compared} transcripts do not give the "
                f"stored tokens with text encoder {self.encoder_name!r} (name the encoder of the "
                "token ids)"
            )
        return differing

    def _vectors_fit(self, places: Sequence[Place]) -> bool:
        """Return whether the encoder gives the file's vectors for its tokens."""
        if self._source.dims["text"] != len(self._extractor.feature_names):
            return False
        spread = np.linspace(0, len(places) - 1, min(_COMPARED, len(places))).astype(int)
        utterances = [self._source.splits[s][r] for s, r in (places[i] for i in spread)]
        utterances = [u for u in utterances if not self._is_empty(u.token_ids)]
        return all(
            u.text is not None and np.abs(u.text - expected).max() <= _TOLERANCE
            for u, expected in zip(utterances, self._encode(utterances), strict=True)
        )

    def _encode(self, utterances: Sequence[MmsaUtterance]) -> list[NDArray[np.float32]]:
        sequences = [torch.from_numpy(u.token_ids.astype(np.int64)) for u in utterances]
        return [v.numpy() for v in self._encoder.encode(sequences, _BATCH_SIZE)]

    def _special(self, token_ids: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Return which tokens are [CLS] and [SEP]; if one was cut off, a word is in its place."""
        special = np.zeros(len(token_ids), dtype=bool)
        if len(token_ids):
            special[0] = token_ids[0] == self._tokenizer.cls_token_id
            special[-1] |= token_ids[-1] == self._tokenizer.sep_token_id
        return special

    def _is_empty(self, token_ids: NDArray[np.int32]) -> bool:
        return bool(self._special(token_ids).all())

    def vectors(self, utterances: Sequence[MmsaUtterance]) -> list[NDArray[np.float32] | None]:
        """Return the vectors of each utterance's tokens; None if it has no words."""
        spoken = [u for u in utterances if not self._is_empty(u.token_ids)]
        vectors = iter([u.text for u in spoken] if self._kept else self._encode(spoken))
        return [None if self._is_empty(u.token_ids) else next(vectors) for u in utterances]

    def features(
        self, place: Place, utterance: MmsaUtterance, vectors: NDArray[np.float32] | None
    ) -> tuple[Features | None, str | None]:
        """Return the text features of an utterance, or why it has none."""
        if vectors is None:
            return None, "empty_transcript"
        if not np.isfinite(vectors).all():
            raise FeatureError(
                f"{self._source.path}: {place[0]} row {place[1]}: text vectors hold NaN or "
                "infinity (expected vectors of an encoder)"
            )
        special = self._special(utterance.token_ids)
        offsets = self._offsets.get(place)
        if offsets is None:
            transcript = self.transcript(utterance)["transcript"] or ""
            offsets = _spread_offsets(special, len(transcript))
        offsets[special] = 0
        return (
            Features(
                values=vectors,
                detected=np.ones(len(vectors), dtype=bool),
                start_s=np.full(len(vectors), np.nan, dtype=np.float32),
                columns={
                    "input_ids": utterance.token_ids,
                    "special": special,
                    "char_start": np.ascontiguousarray(offsets[:, 0]),
                    "char_end": np.ascontiguousarray(offsets[:, 1]),
                },
            ),
            None,
        )

    def transcript(self, utterance: MmsaUtterance) -> dict[str, str | None]:
        """Return the transcript and its source; if the file has none, the tokens are decoded."""
        stored = utterance.transcript
        if stored.strip() or self._is_empty(utterance.token_ids):
            return {"transcript": stored, "transcript_source": "mmsa" if stored else None}
        words = utterance.token_ids[~self._special(utterance.token_ids)]
        return {"transcript": self._tokenizer.decode(words), "transcript_source": "tokens"}

    def notes(self, utterance: MmsaUtterance) -> Iterator[str]:
        """Yield notes about the text of an utterance."""
        special = self._special(utterance.token_ids)
        if len(special) and not special.all():
            if not special[-1]:
                yield "text: [SEP] cut off, so the last token is an ordinary word"
            if not special[0]:
                yield "text: no [CLS], so the first token is an ordinary word"


def _spread_offsets(special: NDArray[np.bool_], characters: int) -> NDArray[np.int32]:
    """Return character offsets as if all tokens were equally long, (tokens, 2)."""
    words = int((~special).sum())
    edges = np.linspace(0, characters, words + 1).astype(np.int32)
    offsets = np.zeros((len(special), 2), dtype=np.int32)
    offsets[~special] = np.stack([edges[:-1], edges[1:]], axis=1)
    return offsets
