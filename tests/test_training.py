"""Training on a few made utterances with the settings that are shipped."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mitfrnet.data.utterances import FrozenText
from mitfrnet.errors import FeatureError, ParamsError, TrainingError
from mitfrnet.evaluation import EvaluateParams, evaluate
from mitfrnet.missing import MaskParams, mask_corpus
from mitfrnet.models.output import Loss
from mitfrnet.params import PARAMS_FILE, load_params
from mitfrnet.trained import TrainedModel
from mitfrnet.training import TrainParams, _EpochMeans, load_model_params, train
from tests.data.made import make_split

pytestmark = pytest.mark.slow

SHIPPED = load_model_params("mitfrnet")
PARAMS = load_params(TrainParams, section="train").model_copy(update={"max_epochs": 3})
MASK = MaskParams(pattern="random", seed=1)


@pytest.fixture(scope="module")
def splits():
    return {
        "train": make_split(20, seed=0, without=[3]),
        "valid": make_split(6, seed=1),
        "test": make_split(7, seed=2, without=[0]),
    }


@pytest.fixture(scope="module")
def masks(splits):
    return mask_corpus({n: s.steps for n, s in splits.items()}, rate=0.4, params=MASK)


def fit(splits, masks, folder, seed=1, params=PARAMS, **optimiser):
    changed = SHIPPED.optimiser.model_copy(update={"batch_size": 8, **optimiser})
    return train(
        splits,
        masks,
        model="mitfrnet",
        model_params=SHIPPED.model_copy(update={"optimiser": changed}),
        params=params,
        seed=seed,
        curves=folder / "curves",
    )


@pytest.fixture(scope="module")
def trained(splits, masks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    model = fit(splits, masks, folder)
    model.save(folder)
    return folder


def text_of(split):
    return FrozenText(split.metadata["features"]["text"]["identity"])


def predict(folder, split, masks, name="test"):
    return TrainedModel.load(folder).predict(split, masks.observed[name], text_of(split))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    splits, masks, trained, tmp_path
):
    for seed in (1, 2):
        fit(splits, masks, tmp_path / str(seed), seed=seed).save(tmp_path / str(seed))
    files = ["model.safetensors", "scaling.safetensors", "config.json"]
    files += ["curves/plots/metrics/train/task.tsv", "curves/plots/metrics/valid/task.tsv"]
    for file in files:
        assert (tmp_path / "1" / file).read_bytes() == (trained / file).read_bytes(), file
    weights = [(p / "model.safetensors").read_bytes() for p in (trained, tmp_path / "2")]
    assert weights[0] != weights[1]


def test_the_test_split_is_not_looked_at(splits, masks, trained, tmp_path):
    garbage = replace(splits["test"], label=np.full(7, 3, dtype=np.float32))
    fit({**splits, "test": garbage}, masks, tmp_path).save(tmp_path)
    weights = [(p / "model.safetensors").read_bytes() for p in (trained, tmp_path)]
    assert weights[0] == weights[1]


def test_curves_hold_every_epoch_and_each_loss(trained):
    folder = trained / "curves" / "plots" / "metrics"
    names = {str(p.relative_to(folder)) for p in folder.rglob("*.tsv")}
    losses = ["task", "reconstruction_text", "reconstruction_acoustic", "reconstruction_visual"]
    assert {f"train/{name}.tsv" for name in [*losses, "invariance"]} <= names
    assert "valid/task.tsv" in names
    assert len((folder / "valid" / "task.tsv").read_text().splitlines()) == 1 + PARAMS.max_epochs


def test_no_pickle_is_among_the_outputs(trained):
    kinds = {p.suffix for p in trained.rglob("*") if p.is_file()}
    assert kinds == {".safetensors", ".json", ".tsv"}


def test_the_best_epoch_is_kept(splits, masks, trained):
    lines = (trained / "curves/plots/metrics/valid/task.tsv").read_text().splitlines()[1:]
    curve = [float(line.split("\t")[1]) for line in lines]
    model = TrainedModel.load(trained)
    assert model.config["training"]["best_valid_task_loss"] == pytest.approx(min(curve), abs=1e-6)
    assert model.config["training"]["best_epoch"] == 1 + int(np.argmin(curve))
    prediction = predict(trained, splits["valid"], masks, "valid")
    assert np.abs(prediction - splits["valid"].label).mean() == pytest.approx(min(curve), abs=1e-5)


def test_what_is_hidden_changes_no_prediction(splits, masks, trained):
    """Garbage at every missing step and at every hidden word; at an observed step it shows."""
    split, observed = splits["test"], masks.observed["test"]
    before = predict(trained, split, masks)
    kept = {m: np.concatenate(observed[m]) for m in observed}
    changed = {
        m: replace(r, values=np.where(kept[m][:, None], r.values, 1e4).astype(np.float32))
        for m, r in split.modalities.items()
        if m != "text"
    }
    words = np.where(kept["text"], split.token_ids, 5000).astype(np.int32)
    hidden = replace(split, modalities={**split.modalities, **changed}, token_ids=words)
    assert np.array_equal(predict(trained, hidden, masks), before)

    visual = split.modalities["visual"]
    moved = replace(visual, values=visual.values + kept["visual"][:, None].astype(np.float32))
    shown = replace(split, modalities={**split.modalities, "visual": moved})
    assert not np.array_equal(predict(trained, shown, masks), before)


def test_a_prediction_does_not_depend_on_other_utterances(splits, masks, trained):
    split = splits["test"]
    together = predict(trained, split, masks)
    model = TrainedModel.load(trained)
    for i in range(len(split.ids)):
        alone = replace(
            split,
            ids=[split.ids[i]],
            label=split.label[i : i + 1],
            modalities={
                m: replace(
                    r,
                    values=r.rows(r.values)[i],
                    detected=r.rows(r.detected)[i],
                    start_s=r.rows(r.start_s)[i],
                    offsets=np.array([0, r.offsets[i + 1] - r.offsets[i]]),
                )
                for m, r in split.modalities.items()
            },
            token_ids=split.modalities["text"].rows(split.token_ids)[i],
            special=split.modalities["text"].rows(split.special)[i],
        )
        observed = {m: [rows[i]] for m, rows in masks.observed["test"].items()}
        assert model.predict(alone, observed, text_of(split)) == pytest.approx(
            together[i], abs=1e-5
        )


def test_accumulated_batches_make_the_step_of_the_whole(splits, masks, tmp_path):
    """One step on 20 utterances, at once and in parts of 7, without dropout and BatchNorm."""
    network = {k: 0.0 if k.endswith("dropout") else v for k, v in SHIPPED.network.items()}
    network |= {"attention_dropout": dict.fromkeys(("text", "acoustic", "visual"), 0.0)}
    network |= {"classifier_norm": "layer", "aux_start_epoch": 1}
    weights = []
    for size, accumulate in ((20, 1), (7, 3)):
        optimiser = SHIPPED.optimiser.model_copy(
            update={"batch_size": size, "accumulate": accumulate, "learning_rate": 1e-4}
        )
        model = train(
            splits,
            masks,
            model="mitfrnet",
            model_params=SHIPPED.model_copy(update={"network": network, "optimiser": optimiser}),
            params=PARAMS.model_copy(update={"max_epochs": 1}),
            seed=1,
            curves=tmp_path / str(size),
        )
        weights.append(torch.cat([p.flatten() for p in model.network.parameters()]))
    start = torch.cat([w.abs() for w in weights]).max()
    # Adam turns rounding in a tiny gradient into a visible part of a step of 1e-4.
    assert (weights[0] - weights[1]).abs().mean() < 1e-6
    assert start > 0.1


def test_a_fine_tuned_encoder_learns_and_is_stored(splits, masks, tmp_path):
    few = {n: make_split(4, seed=i) for i, n in enumerate(splits)}
    drawn = mask_corpus({n: s.steps for n, s in few.items()}, rate=0.4, params=MASK)
    params = PARAMS.model_copy(update={"text": "finetuned", "max_epochs": 1})
    fit(few, drawn, tmp_path, params=params, text_learning_rate=1e-3).save(tmp_path)
    model = TrainedModel.load(tmp_path)
    from mitfrnet.models.text_encoder import TextEncoder

    before = TextEncoder("embedded").state_dict()
    after = model.network.text_encoder.state_dict()
    assert any(not torch.equal(before[k], after[k].cpu()) for k in before)
    assert np.isfinite(predict(tmp_path, few["test"], drawn)).all()


def test_evaluation_scores_the_matched_rate_beside_the_references(splits, masks, trained):
    model = TrainedModel.load(trained)
    scores, table = evaluate(
        model, splits, masks, EvaluateParams(rates="matched"), text_of(splits["test"])
    )
    assert table["utterance_id"].to_pylist() == splits["test"].ids
    assert set(table["missing_rate"].to_pylist()) == {0.4}
    label, prediction = (table[c].to_numpy() for c in ("label", "prediction"))
    assert scores["mae"] == pytest.approx(np.abs(label - prediction).mean(), abs=1e-6)
    train_label = splits["train"].label
    assert np.allclose(table["train_mean"].to_numpy(), train_label.mean(), atol=1e-6)
    majority = np.median(train_label[train_label > 0])  # ten of twenty labels: positive wins ties
    assert np.allclose(table["majority"].to_numpy(), majority)
    assert len(set(table["text_ridge"].to_pylist())) > 1


def test_evaluation_at_listed_rates_uses_the_recipe_of_the_masks(splits, masks, trained):
    model = TrainedModel.load(trained)
    scores, table = evaluate(
        model, splits, masks, EvaluateParams(rates=[0.0, 0.4]), text_of(splits["test"])
    )
    matched, _ = evaluate(
        model, splits, masks, EvaluateParams(rates="matched"), text_of(splits["test"])
    )
    assert scores["by_rate"]["0.4"] == matched
    assert set(table["missing_rate"].to_pylist()) == {0.0, 0.4}
    assert scores["by_rate"]["0.0"] != matched


def test_features_of_other_settings_are_refused(splits, masks, trained):
    features = splits["test"].metadata["features"] | {"visual": {"digest": "other"}}
    other = replace(splits["test"], metadata=splits["test"].metadata | {"features": features})
    with pytest.raises(FeatureError, match="visual features: extracted with other settings"):
        predict(trained, other, masks)


def test_a_folder_without_a_model_is_refused(tmp_path, trained):
    with pytest.raises(FeatureError, match="run train"):
        TrainedModel.load(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("      dim: 30", "      dmi: 30", "model.mitfrnet.network.dmi: unknown key"),
        ("      learning_rate: 0.002", "      learning_rate: fast", "learning_rate: Input should"),
        ("    optimiser:", "    optimizer:", "model.mitfrnet.optimizer: unknown key"),
    ],
)
def test_wrong_model_settings_are_explained(tmp_path, old, new, message):
    text = PARAMS_FILE.read_text()
    assert old in text
    (tmp_path / "params.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(ParamsError) as error:
        load_model_params("mitfrnet", tmp_path / "params.yaml")
    assert message in str(error.value)


def test_an_unknown_model_is_named():
    with pytest.raises(ParamsError, match="unknown model"):
        load_model_params("mitfrnett")


@pytest.mark.parametrize("rates", [[], [1.2], "all"])
def test_wrong_rates_to_evaluate_are_refused(rates):
    with pytest.raises(ValueError, match="rate"):
        EvaluateParams(rates=rates)


def test_training_that_diverges_is_an_error(splits, masks, tmp_path):
    with pytest.raises(TrainingError, match="validation loss was not a number"):
        fit(splits, masks, tmp_path, learning_rate=1e30, clip_value=1e30)


def test_epoch_means_weigh_batches_by_their_counts():
    """Two batches: sum 3 of 1 item and sum 1 of 3 items have the mean 1, not 1.67."""
    means = _EpochMeans()
    for total, count in ((3.0, 1.0), (1.0, 3.0)):
        means.add({"task": Loss(torch.tensor(total), torch.tensor(count), 1.0)})
    means.add({"invariance": Loss(torch.tensor(0.0), torch.tensor(0.0), 1.0)})
    assert means.collect("train") == {"train/task": torch.tensor(1.0)}
    assert means.collect("train") == {}
