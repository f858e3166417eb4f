import json

import pytest

import pipeline.evaluate
from mitfrnet.data.tensors import write_tensors
from mitfrnet.features.text_encoder import TextEncoder
from mitfrnet.missing import write_masks
from mitfrnet.trained.model import TrainedModel
from tests.helpers.running import write_params
from tests.helpers.splits import make_splits, mask_splits, untrained_model


@pytest.mark.slow
def test_eleven_rates_are_scored_from_one_reading(tmp_path, monkeypatch):
    """Tensors, masks, the model and the text encoder are loaded once."""
    splits = make_splits()
    masks = mask_splits(splits)
    write_tensors(splits, tmp_path / "tensors")
    write_masks(masks, {n: s.steps for n, s in splits.items()}, tmp_path / "masks.parquet")
    untrained_model(splits["test"]).save(tmp_path / "model")
    write_params(tmp_path, evaluate__rates=[i / 10 for i in range(11)])
    monkeypatch.chdir(tmp_path)
    loaded = []
    for owner, name in (
        (pipeline.evaluate, "read_tensors"),
        (pipeline.evaluate, "read_masks"),
        (TrainedModel, "load"),
        (TextEncoder, "__init__"),
    ):
        load = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *a, n=name, g=load, **k: loaded.append(n) or g(*a, **k)
        )
    words = "--model model --tensors tensors --masks masks.parquet --work work"
    pipeline.evaluate.main(
        [*words.split(), "--scores", "scores.json", "--predictions", "predictions.parquet"]
    )
    assert len(json.loads((tmp_path / "scores.json").read_text())["by_rate"]) == 11
    assert (tmp_path / "predictions.parquet").exists()
    assert sorted(loaded) == ["__init__", "load", "read_masks", "read_tensors"]
