"""Small tensors of known content, without video."""

import numpy as np

from mitfrnet.data.tensors import ModalityTensors, SplitTensors
from mitfrnet.features.text_encoder import load_tokenizer, vocabulary_digest, weights_digest
from mitfrnet.labels import SCALES
from mitfrnet.missing import MaskParams

DIMS = {"text": 384, "acoustic": 5, "visual": 4}


def ragged(lengths, dim, rng, detected=None):
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


def make_split(n=12, seed=0, without=()):
    """Return `n` utterances with labels from -2 to 2; those of `without` lack all modalities."""
    rng = np.random.default_rng(seed)
    lengths = {
        "text": rng.integers(3, 8, n),
        "acoustic": rng.integers(8, 20, n),
        "visual": rng.integers(4, 9, n),
    }
    for i in without:
        for modality in lengths:
            lengths[modality][i] = 0
    seen = rng.random(lengths["visual"].sum()) > 0.2
    modalities = {
        m: ragged(lengths[m], DIMS[m], rng, seen if m == "visual" else None) for m in DIMS
    }
    text = modalities["text"]
    special = np.zeros(len(text.values), dtype=bool)
    full = np.flatnonzero(lengths["text"])
    special[text.offsets[:-1][full]] = special[text.offsets[1:][full] - 1] = True
    identity = {
        "encoder": "embedded",
        "weights": weights_digest("embedded"),
        "vocabulary": vocabulary_digest(load_tokenizer("embedded")),
        "unknown_id": 100,
    }
    features = {m: {"digest": m, "identity": identity if m == "text" else {}} for m in DIMS}
    return SplitTensors(
        ids=[f"v/{i:02d}" for i in range(n)],
        label=np.linspace(-2, 2, n).astype(np.float32),
        modalities=modalities,
        token_ids=np.where(special, 101, rng.integers(2000, 9000, len(special))).astype(np.int32),
        special=special,
        metadata={"language": "en", "scale": SCALES["mosi"].model_dump(), "features": features},
    )
