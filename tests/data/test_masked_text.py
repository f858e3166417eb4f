from dataclasses import replace

import numpy as np
import pytest
import torch

from mitfrnet.data.masked_text import FrozenText, load_encoder, masked_token_ids
from mitfrnet.errors import FeatureError
from mitfrnet.features.text_encoder import weights_digest
from tests.helpers.splits import DIMS, make_mask_params, make_split, observe, text_vectors


def test_hidden_words_become_the_unknown_token_before_they_are_encoded():
    split = make_split()
    observed = observe(split, 1.0)
    for ids, kept in zip(masked_token_ids(split, observed), observed["text"], strict=True):
        assert (ids[~torch.from_numpy(kept)] == 100).all()
        assert ids[0] == ids[-1] == 101


@pytest.mark.slow
def test_a_hidden_word_is_in_no_vector():
    """Another word at a hidden place changes no vector; at an observed place it does."""
    split = make_split()
    observed = observe(split, 0.5)
    text = FrozenText(split.metadata["features"]["text"]["identity"])
    before = text.encode(split, observed)
    hidden = ~np.concatenate(observed["text"])
    assert hidden.any()
    other = replace(split, token_ids=np.where(hidden, 5000, split.token_ids).astype(np.int32))
    assert all(torch.equal(a, b) for a, b in zip(before, text.encode(other, observed), strict=True))
    swapped = replace(split, token_ids=np.where(split.special, 101, 5000).astype(np.int32))
    after = text.encode(swapped, observed)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_where_nothing_is_hidden_the_stored_vectors_stay_and_no_encoder_is_loaded():
    split = make_split()
    text = FrozenText(split.metadata["features"]["text"]["identity"])
    vectors = text.encode(split, observe(split, 0.0))
    assert all(torch.equal(a, b) for a, b in zip(vectors, text_vectors(split), strict=True))
    assert "_encoder" not in vars(text)


def test_a_wholly_hidden_transcript_has_no_vectors():
    split = make_split()
    text = FrozenText(split.metadata["features"]["text"]["identity"])
    vectors = text.encode(split, observe(split, 1.0, make_mask_params("modality")))
    assert [tuple(v.shape) for v in vectors] == [(0, DIMS["text"])] * len(split.ids)


@pytest.mark.slow
def test_the_cache_gives_the_same_vectors_without_an_encoder(tmp_path):
    split = make_split()
    identity = split.metadata["features"]["text"]["identity"]
    observed = observe(split, 0.5)
    encoded = FrozenText(identity, tmp_path).encode(split, observed)
    assert len(list(tmp_path.iterdir())) == 1
    text = FrozenText(identity, tmp_path)
    cached = text.encode(split, observed)
    assert "_encoder" not in vars(text)
    assert all(torch.equal(a, b) for a, b in zip(encoded, cached, strict=True))


def test_an_encoder_of_other_weights_is_refused():
    with pytest.raises(FeatureError, match="other weights than the features"):
        load_encoder({"encoder": "embedded", "weights": "0"})


def test_an_encoder_of_another_vocabulary_is_refused():
    identity = {"encoder": "embedded", "weights": weights_digest("embedded"), "vocabulary": "0"}
    with pytest.raises(FeatureError, match="another vocabulary than the stored token ids"):
        load_encoder(identity)
