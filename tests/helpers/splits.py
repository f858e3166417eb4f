"""Small tensors, masks and untrained models, without clips and without BERT."""

from dataclasses import replace
from functools import cache

import numpy as np
import torch

from mitfrnet.data.scaling import SCALED, Scaling
from mitfrnet.data.tensors import ModalityTensors, SplitTensors
from mitfrnet.features.text_encoder import load_tokenizer, vocabulary_digest, weights_digest
from mitfrnet.labels import SCALES
from mitfrnet.missing import MaskParams, mask_corpus
from mitfrnet.models import registry
from mitfrnet.trained.model import Network, TrainedModel, task_of
from mitfrnet.training.load import load_model_params

DIMS = {"text": 384, "acoustic": 5, "visual": 4}


@cache
def _text_identity():
    """Return the identity of text features made with the embedded encoder."""
    return {
        "encoder": "embedded",
        "weights": weights_digest("embedded"),
        "vocabulary": vocabulary_digest(load_tokenizer("embedded")),
        "unknown_id": 100,
    }


def _ragged(lengths, dim, rng, detected=None):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    total = int(offsets[-1])
    values = rng.normal(3, 2, (total, dim)).astype(np.float32)
    detected = np.ones(total, dtype=bool) if detected is None else detected
    values[~detected] = 0
    places = np.arange(total) - np.repeat(offsets[:-1], np.diff(offsets))
    return ModalityTensors(values, detected, (places + 0.5).astype(np.float32), offsets)


def make_mask_params(pattern="random", **changes):
    """Return section `mask` with TFR-Net's seeds and no scaling of the rate."""
    settings = {
        "seed": 7,
        "scale_factors": {"text": 1.0, "acoustic": 1.0, "visual": 1.0},
        "modalities": ["text"],
        "cell_seconds": 0.1,
        "legacy_seeds": {"text": 111, "acoustic": 1111, "visual": 11111},
        "fixed_rate": 0.5,
    }
    return MaskParams(pattern=pattern, **(settings | changes))


def make_split(n=12, seed=0, without=(), video="v"):
    """Return `n` utterances with labels from -2 to 2; those in `without` lack all modalities."""
    rng = np.random.default_rng(seed)
    lengths = {
        "text": rng.integers(3, 8, n),
        "acoustic": rng.integers(8, 20, n),
        "visual": rng.integers(4, 9, n),
    }
    for i in without:
        for modality in lengths:
            lengths[modality][i] = 0
    detected = rng.random(lengths["visual"].sum()) > 0.2
    modalities = {
        m: _ragged(lengths[m], DIMS[m], rng, detected if m == "visual" else None) for m in DIMS
    }
    text = modalities["text"]
    special = np.zeros(len(text.values), dtype=bool)
    full = np.flatnonzero(lengths["text"])
    special[text.offsets[:-1][full]] = special[text.offsets[1:][full] - 1] = True
    features = {m: {"digest": m, "identity": {}} for m in DIMS}
    features["text"]["identity"] = _text_identity()
    return SplitTensors(
        ids=[f"{video}/{i:02d}" for i in range(n)],
        label=np.linspace(-2, 2, n).astype(np.float32),
        modalities=modalities,
        token_ids=np.where(special, 101, rng.integers(2000, 9000, len(special))).astype(np.int32),
        special=special,
        metadata={"language": "en", "scale": SCALES["mosi"].model_dump(), "features": features},
    )


def with_value(split, modality, row, value):
    """Return the split with one feature of its row-th utterance changed, in column 1."""
    features = split.modalities[modality]
    values = features.values.copy()
    values[features.offsets[row], 1] = value
    changed = replace(features, values=values)
    return replace(split, modalities={**split.modalities, modality: changed})


def make_splits():
    """Return 20 utterances to train on, 6 to validate and 7 to test."""
    return {
        "train": make_split(20, seed=0, without=[3], video="train"),
        "valid": make_split(6, seed=1, video="valid"),
        "test": make_split(7, seed=2, without=[0], video="test"),
    }


def mask_splits(splits, rate=0.4, params=None):
    """Return the masks of all splits at one rate, or under one protocol."""
    steps = {name: split.steps for name, split in splits.items()}
    return mask_corpus(steps, rate=rate, params=params or make_mask_params())


def observe(split, rate, params=None):
    """Return the observed steps of one split under a mask, per modality."""
    return mask_splits({"train": split}, rate, params).observed["train"]


def text_vectors(split):
    """Return the stored vectors of the complete transcripts, (steps, dim) per utterance."""
    text = split.modalities["text"]
    return [torch.from_numpy(vectors) for vectors in text.rows(text.values)]


class StoredText:
    """Stands in for `FrozenText`: the stored vectors, zero where a word is hidden."""

    def encode(self, split, observed):
        vectors = zip(text_vectors(split), observed["text"], strict=True)
        return [v * torch.from_numpy(kept)[:, None] for v, kept in vectors]


def untrained_model(split, name="mitfrnet", encoder=None):
    """Return a model with random weights for the features and the labels of a split.

    Args:
        split: from `make_split`.
        name: a model of `params.yaml`.
        encoder: a `TextEncoder` to count as fine-tuned; None: text is frozen.
    """
    shipped = load_model_params(name)
    scale = split.metadata["scale"]
    torch.manual_seed(1)
    model = registry.build(
        shipped.architecture, dims=split.dims, task=task_of(scale), **shipped.network
    )
    config = {
        "model": name,
        "architecture": shipped.architecture,
        "settings": shipped.network,
        "dims": split.dims,
        "text": "frozen" if encoder is None else "finetuned",
        "features": split.metadata["features"],
        "language": split.metadata["language"],
        "scale": scale,
        "training": {"train": {"threads": 1}},
    }
    columns = {m: torch.arange(split.dims[m], dtype=torch.float32) for m in SCALED}
    scaling = Scaling(mean=columns, scale={m: 1 + c for m, c in columns.items()})
    return TrainedModel(Network(model, encoder).eval(), scaling, config)
