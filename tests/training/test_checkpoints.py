from dataclasses import replace

import pytest
import torch

from mitfrnet.training.checkpoints import Checkpoint, Progress, digest_of
from tests.helpers.splits import make_mask_params, make_splits, mask_splits, with_value


def test_a_checkpoint_that_cannot_be_read_counts_as_none(tmp_path):
    checkpoint = Checkpoint(tmp_path, "inputs")
    assert checkpoint.load() == Progress()
    progress = Progress(
        epochs=[{"valid/task": 1.0}],
        best={"a": torch.ones(2)},
        network={"a": torch.zeros(2)},
        optimiser={"0/step": torch.tensor(1.0)},
    )
    checkpoint.save(progress)
    loaded = checkpoint.load()
    assert loaded.epochs == progress.epochs
    for part in ("best", "network", "optimiser"):
        saved, read = getattr(progress, part), getattr(loaded, part)
        assert saved.keys() == read.keys()
        assert all(torch.equal(saved[name], read[name]) for name in saved)
    assert Checkpoint(tmp_path, "other inputs").load() == Progress()
    path = tmp_path / "inputs.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert checkpoint.load() == Progress()


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = Checkpoint(None, "inputs")
    checkpoint.save(Progress(epochs=[{"valid/task": 1.0}]))
    assert checkpoint.load() == Progress()
    checkpoint.remove()
    assert not list(tmp_path.iterdir())


def test_removal_takes_what_a_killed_save_left_and_nothing_else(tmp_path):
    checkpoint = Checkpoint(tmp_path, "inputs")
    checkpoint.save(Progress())
    Checkpoint(tmp_path, "other").save(Progress())
    (tmp_path / ".inputs.safetensors.0.tmp").touch()
    checkpoint.remove()
    assert [p.name for p in tmp_path.iterdir()] == ["other.safetensors"]


def with_other(name):
    """Return splits, masks and settings that differ from the usual ones in one thing."""
    splits, settings = make_splits(), {"seed": 1}
    train, masks = splits["train"], mask_splits(splits)
    if name == "feature":
        splits["train"] = with_value(train, "acoustic", 5, 1.5)
    elif name == "validation":
        splits["valid"] = with_value(splits["valid"], "acoustic", 5, 1.5)
    elif name == "label":
        splits["train"] = replace(train, label=-train.label)
    elif name == "word":
        splits["train"] = replace(train, token_ids=train.token_ids + 1)
    elif name == "mask":  # with the metadata of the usual one
        other = mask_splits(splits, params=make_mask_params(seed=8))
        masks = replace(masks, observed=other.observed)
    elif name == "protocol":  # which redraws the training masks
        masks = replace(masks, metadata=masks.metadata | {"protocol": "random_train"})
    elif name == "settings":
        settings = {"seed": 2}
    return splits, masks, settings


@pytest.mark.parametrize(
    "name", ["feature", "validation", "label", "word", "mask", "protocol", "settings"]
)
def test_other_inputs_have_another_digest(name):
    assert digest_of(*with_other(None)) == digest_of(*with_other(None))
    assert digest_of(*with_other(name)) != digest_of(*with_other(None))
