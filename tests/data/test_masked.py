import numpy as np
import pytest
import torch

from mitfrnet.data.batches import collate
from mitfrnet.data.masked import MaskedUtterances
from mitfrnet.data.scaling import fit_scaling, no_scaling
from mitfrnet.modalities import MODALITIES
from tests.helpers.splits import DIMS, make_split, observe, text_vectors


def test_a_modality_without_steps_has_one_missing_null_step():
    split = make_split(without=[4])
    observed = observe(split, 0.0)
    u = MaskedUtterances(split, observed, text_vectors(split), no_scaling(DIMS))[4]
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
    stays = MaskedUtterances(split, observed, text_vectors(split), no_scaling(DIMS))[0]
    assert len(stays.values["acoustic"]) == len(observed["acoustic"][0])
    assert stays.hidden["acoustic"].all()
    nothing = {m: [np.zeros_like(kept) for kept in observed[m]] for m in MODALITIES}
    gone = MaskedUtterances(split, nothing, text_vectors(split), no_scaling(DIMS), whole=True)[0]
    for modality in MODALITIES:
        assert gone.values[modality].shape == (1, DIMS[modality])
        assert not gone.hidden[modality].any()
    assert gone.token_ids.tolist() == [0]


def step_by_step(split, observed, text, scaling, i, *, whole):
    """Return values, target, observed and hidden of one utterance, per modality."""
    expected = {}
    for modality, ragged in split.modalities.items():
        dim = ragged.values.shape[1]
        kept = observed[modality][i]
        if not len(kept) or (whole and not kept.any()):
            expected[modality] = (torch.zeros(1, dim), torch.zeros(1, dim), [False], [False])
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
        expected[modality] = (torch.stack(values), torch.stack(target), kept.tolist(), hidden)
    return expected


@pytest.mark.parametrize(("whole", "rate"), [(False, 0.5), (False, 1.0), (True, 0.5)])
def test_a_batch_is_what_its_utterances_are_one_by_one(whole, rate):
    split = make_split(without=[4])
    observed = observe(split, rate)
    if whole:
        observed["visual"] = [k if i % 2 else np.zeros_like(k) for i, k in
                              enumerate(observed["visual"])]  # fmt: skip
    text = [v[: len(v) if i % 3 else 0] for i, v in enumerate(text_vectors(split))]
    scaling = fit_scaling(split, observe(split, 0.0))
    utterances = MaskedUtterances(split, observed, text, scaling, whole=whole)
    rows = [7, 4, 0, 11, 2, 1, 3, 5, 6, 8, 9, 10]
    batch = utterances.batch(rows)
    assert batch.utterance_ids == tuple(split.ids[i] for i in rows)
    assert batch.label.tolist() == split.label[rows].tolist()
    for row, i in enumerate(rows):
        expected = step_by_step(split, observed, text, scaling, i, whole=whole)
        for modality, (values, target, kept, hidden) in expected.items():
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
    assert [len(b) for b in (batch, utterances)] == [12, 12]
    assert utterances.steps[4] == 3  # a null step of each
    lengths = [sum(len(u.observed[m]) for m in MODALITIES) for u in utterances]
    assert utterances.steps.tolist() == lengths


def test_features_are_not_copied():
    """A value that changes where it is stored changes in the batch."""
    split = make_split()
    utterances = MaskedUtterances(split, observe(split, 0.0), None, no_scaling(DIMS))
    split.modalities["acoustic"].values[0] = 99
    assert utterances.batch([0]).values["acoustic"][0, 0].tolist() == [99] * 5
    assert not utterances.batch([0]).values["text"].any()
