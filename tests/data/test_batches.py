import torch

from mitfrnet.data.batches import Utterance, collate
from mitfrnet.modalities import MODALITIES


def utterance(name, steps, label=0.5):
    values = {m: torch.full((steps, 2), float(steps)) for m in MODALITIES}
    observed = {m: torch.arange(steps) % 2 == 0 for m in MODALITIES}
    hidden = {m: ~observed[m] for m in MODALITIES}
    return Utterance(name, values, values, observed, hidden, torch.arange(steps) + 7, label)


def test_rows_are_padded_at_the_end_and_padding_is_not_valid():
    batch = collate([utterance("a", 3, 1.0), utterance("b", 1, -1.0)])
    assert batch.utterance_ids == ("a", "b")
    assert len(batch) == 2
    assert batch.valid["visual"].tolist() == [[True] * 3, [True, False, False]]
    assert batch.values["text"][:, :, 0].tolist() == [[3, 3, 3], [1, 0, 0]]
    assert batch.observed["text"].tolist() == [[True, False, True], [True, False, False]]
    assert batch.hidden["text"].tolist() == [[False, True, False], [False, False, False]]
    assert batch.missing["text"].tolist() == [[False, True, False], [False, False, False]]
    assert batch.token_ids.tolist() == [[7, 8, 9], [7, 0, 0]]
    assert batch.label.tolist() == [1, -1]


def test_to_moves_every_tensor():
    batch = collate([utterance("a", 3)]).to("meta")
    assert batch.label.is_meta
    assert batch.token_ids.is_meta
    for name in ("values", "target", "valid", "observed", "hidden"):
        assert all(t.is_meta for t in getattr(batch, name).values())
