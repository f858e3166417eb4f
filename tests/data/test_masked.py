from dataclasses import replace

import numpy as np
import pytest
import torch

from mitfrnet.data.batches import collate
from mitfrnet.data.masked import MaskedUtterances
from mitfrnet.data.masked_text import FrozenText, load_encoder, masked_token_ids
from mitfrnet.data.scaling import Scaling, fit_scaling, no_scaling
from mitfrnet.errors import FeatureError
from mitfrnet.features.text_encoder import weights_digest
from mitfrnet.missing import MaskParams, mask_steps
from mitfrnet.modalities import MODALITIES
from mitfrnet.params import load_params
from tests.helpers.splits import DIMS, make_split

MASK = load_params(MaskParams, section="mask").model_copy(update={"seed": 3})


def observe(split, rate):
    return mask_steps(split.steps, rate=rate, split="train", params=MASK)


def text_of(split):
    text = split.modalities["text"]
    return [torch.from_numpy(v) for v in text.rows(text.values)]


def test_scaling_comes_from_observed_steps_alone():
    """Values at hidden steps are replaced by garbage: the statistics stay as they are."""
    split = make_split()
    observed = observe(split, 0.5)
    scaling = fit_scaling(split, observed)
    acoustic = split.modalities["acoustic"]
    kept = np.concatenate(observed["acoustic"])
    assert np.allclose(scaling.mean["acoustic"], acoustic.values[kept].mean(0), atol=1e-6)
    assert np.allclose(scaling.scale["acoustic"], acoustic.values[kept].std(0), atol=1e-6)

    garbage = replace(acoustic, values=np.where(kept[:, None], acoustic.values, 1e6))
    changed = replace(split, modalities={**split.modalities, "acoustic": garbage})
    again = fit_scaling(changed, observed)
    assert torch.equal(again.mean["acoustic"], scaling.mean["acoustic"])
    assert torch.equal(again.scale["acoustic"], scaling.scale["acoustic"])


def test_constant_and_rarely_seen_columns_are_left_as_they_are():
    split = make_split()
    split.modalities["acoustic"].values[:, 1] = 4
    scaling = fit_scaling(split, observe(split, 0.0))
    assert scaling.scale["acoustic"][1] == 1
    few = make_split(n=2)  # fewer than 32 faces
    scaling = fit_scaling(few, observe(few, 0.0))
    assert scaling.mean["visual"].tolist() == [0] * 4
    assert scaling.scale["visual"].tolist() == [1] * 4


def test_a_modality_never_observed_in_training_leaves_the_reconstruction_loss():
    """At rate 1 nothing is there to scale by: unscaled targets would outweigh all else."""
    split = make_split()
    observed = observe(split, 1.0)
    scaling = fit_scaling(split, observed)
    assert scaling.unscored == ("acoustic", "visual")
    # What is hidden stays known: the invariance loss compares whatever has real steps.
    for u in MaskedUtterances(split, observed, text_of(split), scaling):
        assert u.hidden["acoustic"].all()


def test_scaling_is_stored_and_read_back():
    scaling = fit_scaling(make_split(), observe(make_split(), 0.0))
    again = Scaling.from_tensors(scaling.tensors())
    assert all(torch.equal(again.mean[m], scaling.mean[m]) for m in scaling.mean)


def test_hidden_words_become_the_unknown_token_before_they_are_encoded():
    split = make_split()
    observed = observe(split, 1.0)
    for ids, kept in zip(masked_token_ids(split, observed), observed["text"], strict=True):
        assert (ids[~torch.from_numpy(kept)] == 100).all()
        assert ids[0] == ids[-1] == 101


def test_values_are_scaled_and_zero_where_missing_and_targets_are_complete():
    split = make_split()
    observed = observe(split, 0.4)
    scaling = fit_scaling(split, observed)
    for i, u in enumerate(MaskedUtterances(split, observed, text_of(split), scaling)):
        raw = split.modalities["acoustic"]
        complete = (raw.rows(raw.values)[i] - scaling.mean["acoustic"].numpy()) / scaling.scale[
            "acoustic"
        ].numpy()
        assert np.allclose(u.target["acoustic"], complete, atol=1e-5)
        kept = torch.from_numpy(observed["acoustic"][i])
        assert torch.equal(u.values["acoustic"][kept], u.target["acoustic"][kept])
        assert not u.values["acoustic"][~kept].any()
        assert torch.equal(u.hidden["acoustic"], ~kept)
        seen = torch.from_numpy(split.steps.detected["visual"][i])
        assert not (u.hidden["visual"] | u.observed["visual"])[~seen].any()
        assert not u.target["visual"][~seen].any()


def test_a_modality_without_steps_has_one_missing_null_step():
    split = make_split(without=[4])
    observed = observe(split, 0.0)
    u = MaskedUtterances(split, observed, text_of(split), no_scaling(DIMS))[4]
    for modality in MODALITIES:
        assert u.values[modality].shape == (1, DIMS[modality])
        assert not u.values[modality].any()
        assert not u.observed[modality].any()
        assert not u.hidden[modality].any()
    assert u.token_ids.tolist() == [0]


def test_a_wholly_hidden_modality_has_a_null_step_without_target():
    """Under `random` at rate 1 the steps stay, as zeros; under whole patterns nothing does."""
    split = make_split()
    observed = observe(split, 1.0)
    stays = MaskedUtterances(split, observed, text_of(split), no_scaling(DIMS))[0]
    assert len(stays.values["acoustic"]) == len(observed["acoustic"][0])
    assert stays.hidden["acoustic"].all()
    nothing = {m: [np.zeros_like(kept) for kept in observed[m]] for m in MODALITIES}
    gone = MaskedUtterances(split, nothing, text_of(split), no_scaling(DIMS), whole=True)[0]
    for modality in MODALITIES:
        assert gone.values[modality].shape == (1, DIMS[modality])
        assert not gone.hidden[modality].any()
    assert gone.token_ids.tolist() == [0]


def plainly(split, observed, text, scaling, i, *, whole):
    """Return values, target, observed and hidden of one utterance, one step after the other."""
    made = {}
    for modality, ragged in split.modalities.items():
        dim = ragged.values.shape[1]
        kept = observed[modality][i]
        if not len(kept) or (whole and not kept.any()):
            made[modality] = (torch.zeros(1, dim), torch.zeros(1, dim), [False], [False])
            continue
        values, target, hidden = [], [], []
        for step in range(len(kept)):
            place = ragged.offsets[i] + step
            detected = bool(ragged.detected[place])
            complete = torch.from_numpy(ragged.values[place])
            if modality != "text":
                complete = (complete - scaling.mean[modality]) / scaling.scale[modality]
            target.append(complete if detected else torch.zeros(dim))
            values.append(target[-1] if kept[step] else torch.zeros(dim))
            hidden.append(detected and not kept[step])
        if modality == "text":
            values = [*text[i], *torch.zeros(len(kept) - len(text[i]), dim)]
        made[modality] = (torch.stack(values), torch.stack(target), kept.tolist(), hidden)
    return made


@pytest.mark.parametrize(("whole", "rate"), [(False, 0.5), (False, 1.0), (True, 0.5)])
def test_a_batch_is_what_its_utterances_are_one_by_one(whole, rate):
    split = make_split(without=[4])
    observed = observe(split, rate)
    if whole:
        observed["visual"] = [k if i % 2 else np.zeros_like(k) for i, k in
                              enumerate(observed["visual"])]  # fmt: skip
    text = [v[: len(v) if i % 3 else 0] for i, v in enumerate(text_of(split))]
    scaling = fit_scaling(split, observe(split, 0.0))
    utterances = MaskedUtterances(split, observed, text, scaling, whole=whole)
    rows = [7, 4, 0, 11, 2]
    batch = utterances.batch(rows)
    assert batch.utterance_ids == tuple(split.ids[i] for i in rows)
    assert batch.label.tolist() == split.label[rows].tolist()
    for row, i in enumerate(rows):
        made = plainly(split, observed, text, scaling, i, whole=whole)
        for modality, (values, target, kept, hidden) in made.items():
            n = len(values)
            assert torch.equal(batch.values[modality][row, :n], values)
            assert torch.equal(batch.target[modality][row, :n], target)
            assert batch.observed[modality][row, :n].tolist() == kept
            assert batch.hidden[modality][row, :n].tolist() == hidden
            assert batch.valid[modality][row].tolist() == [
                step < n for step in range(batch.valid[modality].shape[1])
            ]
            for name in ("values", "target", "observed", "hidden"):
                assert not getattr(batch, name)[modality][row, n:].any()
    together = collate([utterances[i] for i in rows])
    for name in ("values", "target", "valid", "observed", "hidden"):
        for modality in MODALITIES:
            assert torch.equal(getattr(batch, name)[modality], getattr(together, name)[modality])
    assert torch.equal(batch.token_ids, together.token_ids)
    assert [len(b) for b in (batch, utterances)] == [5, 12]
    assert utterances.steps[4] == 3  # a null step of each
    lengths = [sum(len(u.observed[m]) for m in MODALITIES) for u in utterances]
    assert utterances.steps.tolist() == lengths


def test_features_stay_where_they_are():
    """Changed where they are stored, they are changed in the batch."""
    split = make_split()
    utterances = MaskedUtterances(split, observe(split, 0.0), None, no_scaling(DIMS))
    split.modalities["acoustic"].values[0] = 99
    assert utterances.batch([0]).values["acoustic"][0, 0].tolist() == [99] * 5
    assert not utterances.batch([0]).values["text"].any()


@pytest.mark.slow
def test_a_hidden_word_is_in_no_vector(tmp_path):
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


@pytest.mark.slow
def test_nothing_hidden_keeps_the_stored_vectors_and_the_cache_gives_the_same(tmp_path):
    split = make_split()
    identity = split.metadata["features"]["text"]["identity"]
    stored = FrozenText(identity).encode(split, observe(split, 0.0))
    assert all(torch.equal(a, b) for a, b in zip(stored, text_of(split), strict=True))

    observed = observe(split, 0.5)
    first = FrozenText(identity, tmp_path).encode(split, observed)
    assert len(list(tmp_path.iterdir())) == 1
    cached = FrozenText(identity, tmp_path)
    again = cached.encode(split, observed)
    assert "_encoder" not in vars(cached)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_an_encoder_of_other_weights_is_refused():
    with pytest.raises(FeatureError, match="other weights than the features"):
        load_encoder({"encoder": "embedded", "weights": "0"})


def test_an_encoder_of_another_vocabulary_is_refused():
    identity = {"encoder": "embedded", "weights": weights_digest("embedded"), "vocabulary": "0"}
    with pytest.raises(FeatureError, match="another vocabulary than the stored token ids"):
        load_encoder(identity)
