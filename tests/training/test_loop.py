"""Training on a few made utterances with the settings that are shipped."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import pipeline.evaluate
from mitfrnet.data.masked_text import FrozenText
from mitfrnet.data.scaling import no_scaling
from mitfrnet.data.tensors import write_tensors
from mitfrnet.errors import FeatureError, ParamsError, TrainingError
from mitfrnet.evaluation.evaluate import EvaluateParams, evaluate
from mitfrnet.features.text_encoder import TextEncoder
from mitfrnet.labels import ClassScale
from mitfrnet.missing import MaskParams, Protocol, mask_corpus, write_masks
from mitfrnet.models.base import Loss
from mitfrnet.params import PARAMS_FILE, load_params, parse_params
from mitfrnet.trained.model import TrainedModel
from mitfrnet.training import loop
from mitfrnet.training.batching import Utterances, batches, sorted_batches
from mitfrnet.training.checkpoints import Checkpoint, Progress
from mitfrnet.training.loop import _explained, train
from mitfrnet.training.losses import EpochLosses
from mitfrnet.training.settings import TrainParams, load_model_params
from mitfrnet.workers.params import RunParams
from tests.helpers.running import write_params
from tests.helpers.splits import DIMS, make_split

pytestmark = pytest.mark.slow

SHIPPED = load_model_params("mitfrnet")
PARAMS = load_params(TrainParams, section="train").model_copy(update={"max_epochs": 3})
MASK = load_params(MaskParams, section="mask")


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


def fit(splits, masks, folder, **changes):
    return fitted(splits, masks, folder, **changes).model


def fitted(splits, masks, folder, seed=1, params=PARAMS, unfinished=None, **optimiser):
    changed = SHIPPED.optimiser.model_copy(update={"batch_size": 8, **optimiser})
    return train(
        splits,
        masks,
        name="mitfrnet",
        model_params=SHIPPED.model_copy(update={"optimiser": changed}),
        params=params,
        seed=seed,
        curves=folder / "curves",
        unfinished=unfinished,
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
    observed = masks.observed[name]
    return TrainedModel.load(folder).predict(split, observed, text_of(split), whole=False)


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
                    time_s=r.rows(r.time_s)[i],
                    offsets=np.array([0, r.offsets[i + 1] - r.offsets[i]]),
                )
                for m, r in split.modalities.items()
            },
            token_ids=split.modalities["text"].rows(split.token_ids)[i],
            special=split.modalities["text"].rows(split.special)[i],
        )
        observed = {m: [rows[i]] for m, rows in masks.observed["test"].items()}
        prediction = model.predict(alone, observed, text_of(split), whole=False)
        assert prediction == pytest.approx(together[i], abs=1e-5)


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
            name="mitfrnet",
            model_params=SHIPPED.model_copy(update={"network": network, "optimiser": optimiser}),
            params=PARAMS.model_copy(update={"max_epochs": 1}),
            seed=1,
            curves=tmp_path / str(size),
        ).model
        weights.append(torch.cat([p.flatten() for p in model.network.parameters()]))
    start = torch.cat([w.abs() for w in weights]).max()
    # Adam turns rounding in a tiny gradient into a visible part of a step of 1e-4.
    assert (weights[0] - weights[1]).abs().mean() < 1e-6
    assert start > 0.1


def test_a_fine_tuned_encoder_learns_and_is_stored(splits, tmp_path, monkeypatch):
    few = {n: make_split(4, seed=i) for i, n in enumerate(splits)}
    drawn = mask_corpus({n: s.steps for n, s in few.items()}, rate=0.4, params=MASK)
    params = PARAMS.model_copy(update={"text": "finetuned", "max_epochs": 1})
    training = []
    given = TextEncoder.forward

    def watched(self, *args):
        training.append(self.bert.training)
        return given(self, *args)

    monkeypatch.setattr(TextEncoder, "forward", watched)
    fit(few, drawn, tmp_path, params=params, text_learning_rate=1e-3).save(tmp_path)
    training = training[:1]  # then come validation and predictions
    model = TrainedModel.load(tmp_path)
    before = TextEncoder("embedded").state_dict()
    after = model.network.text_encoder.state_dict()
    # One step of Adam moves a weight by its learning rate: that of the text, not the model's.
    moved = max(float((before[k] - after[k].cpu()).abs().max()) for k in before)
    assert moved == pytest.approx(1e-3, rel=0.05)
    assert training == [True]
    assert np.isfinite(predict(tmp_path, few["test"], drawn)).all()


MATCHED = EvaluateParams(rates="matched", protocol_rates=[0.0, 0.5], mask_seeds="matched")


def scored(folder, splits, masks, **changes):
    model = TrainedModel.load(folder)
    params = MATCHED.model_copy(update=changes)
    return evaluate(model, splits, masks, params, text_of(splits["test"]))


def test_evaluation_scores_the_matched_rate_beside_the_references(splits, masks, trained):
    scores, table = scored(trained, splits, masks)
    assert table["utterance_id"].to_pylist() == splits["test"].ids
    assert set(table["missing_rate"].to_pylist()) == {0.4}
    label, prediction = (table[c].to_numpy() for c in ("label", "prediction"))
    assert scores["mae"] == pytest.approx(np.abs(label - prediction).mean(), abs=1e-6)
    train_label = splits["train"].label
    assert np.allclose(table["train_mean"].to_numpy(), train_label.mean(), atol=1e-6)
    majority = np.median(train_label[train_label > 0])  # ten of twenty labels: positive wins ties
    assert np.allclose(table["majority"].to_numpy(), majority)
    assert len(set(table["text_ridge"].to_pylist())) > 1


def test_evaluation_at_listed_rates_and_seeds_uses_the_recipe_of_the_masks(splits, masks, trained):
    scores, table = scored(trained, splits, masks, rates=[0.0, 0.4], mask_seeds=[1, 2])
    matched, matched_table = scored(trained, splits, masks)
    by_seed = scores["by_rate"]["0.4"]["by_mask_seed"]
    assert by_seed["1"] == matched
    assert by_seed["2"] != matched
    whole = scores["by_rate"]["0.0"]["by_mask_seed"]
    assert whole["1"] == whole["2"] != matched
    rows = [row for row in table.to_pylist() if (row["missing_rate"], row["mask_seed"]) == (0.4, 1)]
    assert rows == matched_table.to_pylist()


def test_seeds_for_a_pattern_that_has_its_own_are_refused(splits, trained):
    legacy = MASK.model_copy(update={"pattern": "legacy"})
    drawn = mask_corpus({n: s.steps for n, s in splits.items()}, rate=0.4, params=legacy)
    assert scored(trained, splits, drawn)[0]["n"] == 7
    with pytest.raises(ParamsError, match="pattern legacy has seeds of its own"):
        scored(trained, splits, drawn, mask_seeds=[1, 2])


def test_a_rate_that_the_pattern_cannot_reach_names_its_key_before_any_work(splits, trained):
    params = MASK.model_copy(update={"pattern": "modality_random"})
    steps = {n: s.steps for n, s in splits.items()}
    drawn = mask_corpus(steps, rate=Protocol("complete_train"), params=params)
    with pytest.raises(ParamsError, match=r"evaluate\.protocol_rates: missing rate is 1 "):
        scored(trained, splits, drawn, protocol_rates=[0.0, 1.0])


def test_random_train_hides_something_else_each_epoch_and_is_tested_at_all_rates(splits, tmp_path):
    steps = {n: s.steps for n, s in splits.items()}
    drawn = mask_corpus(steps, rate=Protocol("random_train"), params=MASK)
    text = text_of(splits["train"])
    utterances = Utterances(splits, drawn, no_scaling(DIMS), frozen=text, redrawn=text)
    epochs = [utterances.train(epoch) for epoch in (1, 2)]
    hidden = [torch.cat([u.hidden["acoustic"] for u in epoch]) for epoch in epochs]
    assert not torch.equal(*hidden)
    # A rate for each clip: some lose much, others little.
    shares = [float(u.hidden["acoustic"].float().mean()) for u in epochs[0]]
    assert min(shares) < 0.25
    assert max(shares) > 0.75
    assert torch.equal(
        torch.cat([u.values["text"] for u in utterances.train(1)]),
        torch.cat([u.values["text"] for u in epochs[0]]),
    )

    fit(splits, drawn, tmp_path).save(tmp_path)
    scores, _ = scored(tmp_path, splits, drawn)
    assert list(scores["by_rate"]) == ["0.0", "0.5"]
    fit(splits, drawn, tmp_path / "again").save(tmp_path / "again")
    weights = [(p / "model.safetensors").read_bytes() for p in (tmp_path, tmp_path / "again")]
    assert weights[0] == weights[1]


def test_a_wholly_hidden_modality_looks_as_one_that_was_never_there(splits, trained):
    """Under `modality` at rate 1 neither what was said nor how long it took changes a score."""
    params = MASK.model_copy(update={"pattern": "modality", "modalities": ("text", "visual")})
    split = splits["test"]
    observed = mask_corpus({"test": split.steps}, rate=1.0, params=params).observed["test"]
    empty = {m: [np.zeros(0, bool) for _ in split.ids] for m in ("text", "visual")}
    nothing = np.zeros(len(split.ids) + 1, dtype=np.int64)
    gone = {
        m: replace(r, values=r.values[:0], detected=r.detected[:0], time_s=r.time_s[:0],
                   offsets=nothing)
        for m, r in split.modalities.items() if m != "acoustic"
    }  # fmt: skip
    absent = replace(
        split,
        modalities={**split.modalities, **gone},
        token_ids=split.token_ids[:0],
        special=split.special[:0],
    )
    model = TrainedModel.load(trained)
    hidden = model.predict(split, observed, text_of(split), whole=True)
    missing = model.predict(absent, {**observed, **empty}, text_of(split), whole=True)
    assert np.array_equal(hidden, missing)


def curve(folder, name):
    path = folder / "curves" / "plots" / "metrics" / f"{name}.tsv"
    if not path.exists():
        return []
    return [float(line.split("\t")[1]) for line in path.read_text().splitlines()[1:]]


def test_at_rate_1_nothing_unscaled_is_rebuilt_and_modalities_are_still_compared(splits, tmp_path):
    drawn = mask_corpus({n: s.steps for n, s in splits.items()}, rate=1.0, params=MASK)
    model = fit(splits, drawn, tmp_path)
    assert model.config["training"]["unscored_reconstructions"] == ["acoustic", "visual"]
    assert not curve(tmp_path, "train/reconstruction_acoustic")
    assert not curve(tmp_path, "train/reconstruction_visual")
    for name in ("reconstruction_text", "invariance"):
        assert curve(tmp_path, f"train/{name}")[-1] > 0


def test_auxiliary_losses_begin_in_the_epoch_that_settings_name(trained):
    """As shipped in the second of three; the task counts in all."""
    assert len(curve(trained, "train/task")) == 3
    for name in ("reconstruction_text", "invariance"):
        assert len(curve(trained, f"train/{name}")) == 2


def test_each_epoch_of_training_asks_for_its_own_utterances(splits, masks, tmp_path, monkeypatch):
    asked = []
    given = Utterances.train
    monkeypatch.setattr(Utterances, "train", lambda s, e: asked.append(e) or given(s, e))
    fit(splits, masks, tmp_path)
    assert asked == [1, 2, 3]


def test_the_learning_rate_falls_and_training_stops_where_validation_stalls(
    splits, masks, tmp_path
):
    """A rate so high that epochs are soon no better: training ends two after the best one."""
    params = PARAMS.model_copy(update={"max_epochs": 40})
    chosen = {"learning_rate": 1.0, "stop_patience": 2, "plateau_patience": 0}
    model = fit(splits, masks, tmp_path, params=params, **chosen)
    valid = curve(tmp_path, "valid/task")
    best = model.config["training"]["best_epoch"]
    assert len(valid) == best + 2 < 40
    worse = [loss >= min(valid[:i], default=np.inf) for i, loss in enumerate(valid)]
    assert curve(tmp_path, "learning_rate") == pytest.approx(list(0.1 ** np.cumsum(worse)))


def one_step(splits, masks, folder, **optimiser):
    """Return the weights before and after one step of plain Adam on all utterances."""
    few = PARAMS.model_copy(update={"max_epochs": 1})
    weights = []
    for rate in (1e-12, 1e-3):  # a rate of almost nothing leaves the first weights
        model = fit(
            splits, masks, folder / str(rate), params=few, batch_size=20, learning_rate=rate,
            **optimiser,
        )  # fmt: skip
        weights.append(dict(model.network.named_parameters()))
    return weights


def test_weight_decay_acts_on_matrices_alone(splits, masks, tmp_path):
    """Under a decay that outweighs every gradient, Adam's step is the rate towards zero."""
    before, after = one_step(splits, masks, tmp_path, weight_decay=1e6)
    name = "model.fusion.classifier.1.weight"
    large = before[name].abs() > 1e-2
    moved = (before[name] - after[name])[large]
    assert torch.allclose(moved, 1e-3 * before[name][large].sign(), atol=1e-5)
    norm = "model.fusion.classifier.0.weight"
    assert not torch.allclose(before[norm] - after[norm], torch.tensor(1e-3), atol=1e-5)


def test_no_element_of_a_gradient_is_larger_than_clip_value(splits, masks, tmp_path):
    """Adam divides by the gradient's size, plus 1e-8: clipped to 1e-12, nothing moves."""
    before, after = one_step(splits, masks, tmp_path, clip_value=1e-12, weight_decay=0.0)
    assert max((before[n] - after[n]).abs().max() for n in before) < 1e-6
    before, after = one_step(splits, masks, tmp_path / "free", clip_value=None, weight_decay=0.0)
    assert max((before[n] - after[n]).abs().max() for n in before) > 9e-4


def test_classes_are_trained_scored_and_named(tmp_path):
    """Three emotions: cross-entropy, accuracy and F1, beside the majority and text alone."""
    scale = ClassScale(classes=("anger", "joy", "sadness")).model_dump()
    few = {
        n: replace(
            make_split(9, seed=i),
            label=np.array([0, 1, 2, 1, 0, 1, 2, 1, 1], dtype=np.float32),
            metadata=make_split(9).metadata | {"scale": scale},
        )
        for i, n in enumerate(("train", "valid", "test"))
    }
    drawn = mask_corpus({n: s.steps for n, s in few.items()}, rate=0.4, params=MASK)
    fit(few, drawn, tmp_path).save(tmp_path)
    scores, table = scored(tmp_path, few, drawn)
    assert set(table["prediction"].to_pylist()) <= {0.0, 1.0, 2.0}
    assert set(table["majority"].to_pylist()) == {1.0}
    assert set(table["text_logistic"].to_pylist()) <= {0.0, 1.0, 2.0}
    right = np.mean(table["prediction"].to_numpy() == table["label"].to_numpy())
    assert scores["accuracy"] == pytest.approx(right)
    assert {"f1_macro", "f1_weighted"} <= scores.keys()


def test_what_training_took_is_measured_and_kept_out_of_the_model(splits, masks, tmp_path):
    trained = train(
        splits, masks, name="mitfrnet", model_params=SHIPPED, params=PARAMS, seed=1, curves=tmp_path
    )
    cost = trained.cost
    assert cost["epochs"] == PARAMS.max_epochs
    assert cost["seconds_per_epoch"] > 0
    assert cost["peak_memory_mb"] > 50
    assert cost["parameters"] == sum(p.numel() for p in trained.model.network.parameters())
    assert "seconds_per_epoch" not in str(trained.model.config)


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
        load_model_params("mitfrnet", path=tmp_path / "params.yaml")
    assert message in str(error.value)


def test_an_unknown_model_is_refused():
    with pytest.raises(ParamsError, match=r"model\.mitfrnett: no such section \(found: mitfrnet, "):
        load_model_params("mitfrnett")


def test_ablations_differ_from_the_full_model_in_their_switch_alone():
    full = SHIPPED.network
    for name, switch in (("mitfrnet_no_mmr", "mmr"), ("mitfrnet_no_mitr", "mitr")):
        ablated = load_model_params(name)
        assert full[switch] is True
        assert ablated.network == full | {switch: False}
        assert ablated.optimiser == SHIPPED.optimiser


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rates": []}, "rates"),
        ({"rates": [1.2]}, "1.2 is no missing rate"),
        ({"rates": "all"}, "expected 'matched' or a list"),
        ({"rates": [0.5, 0.5]}, "stands there twice"),
        ({"protocol_rates": []}, "protocol_rates"),
        ({"mask_seeds": [-1]}, "-1 is no seed"),
        ({"mask_seeds": "any"}, "expected 'matched' or a list"),
        ({"mask_seeds": [1.5]}, "expected 'matched' or a list of whole numbers"),
        ({"rates": [float("nan")]}, "expected 'matched' or a list of numbers"),
    ],
)
def test_wrong_masks_to_evaluate_under_are_refused(wrong, message):
    with pytest.raises(ParamsError, match=message):
        parse_params(EvaluateParams, MATCHED.model_dump() | wrong, where="evaluate")


def test_training_that_diverges_is_an_error(splits, masks, tmp_path):
    message = r"model 'mitfrnet': epoch 1, step 2: loss task.* \(a lower learning_rate may help\)"
    with pytest.raises(TrainingError, match=message):
        fit(splits, masks, tmp_path, learning_rate=1e30, clip_value=1e30)


def test_epoch_means_weigh_batches_by_their_counts():
    """Two batches: sum 3 of 1 item and sum 1 of 3 items have the mean 1, not 1.67."""
    losses = EpochLosses()
    nothing = Loss(torch.tensor(0.0), torch.tensor(0.0), 1.0)
    for total, count in ((3.0, 1.0), (1.0, 3.0)):
        task = Loss(torch.tensor(total), torch.tensor(count), 1.0)
        losses.add([{"task": task, "invariance": nothing, "off": replace(task, weight=0.0)}])
    assert losses.means(losses.steps().numpy()) == {"task": 1.0}


def test_the_first_step_that_broke_is_found_with_its_terms():
    losses = EpochLosses()
    for a, b in ((1.0, 1.0), (1.0, float("inf")), (float("nan"), float("nan"))):
        one = torch.tensor(1.0)
        losses.add([{"a": Loss(torch.tensor(a), one, 1.0), "b": Loss(torch.tensor(b), one, 0.0)}])
    assert losses.broken(losses.steps().numpy()) == (1, ["b"])
    assert losses.broken(losses.steps().numpy()[:1]) is None


def with_value(split, modality, row, value):
    """Return the split with one feature of its row-th utterance changed, and the place of it."""
    features = split.modalities[modality]
    values = features.values.copy()
    values[features.offsets[row], 1] = value
    changed = replace(features, values=values)
    return replace(split, modalities={**split.modalities, modality: changed})


def test_a_corrupt_feature_that_is_scaled_by_is_named_before_training(splits, masks, tmp_path):
    bad = {**splits, "train": with_value(splits["train"], "acoustic", 5, np.nan)}
    kept = {**masks.observed["train"]}
    kept["acoustic"] = [np.ones_like(k) for k in kept["acoustic"]]
    shown = replace(masks, observed={**masks.observed, "train": kept})
    with pytest.raises(FeatureError, match=r"acoustic features: column 1 of v/05 is nan"):
        fit(bad, shown, tmp_path)


def test_a_corrupt_feature_that_is_hidden_breaks_a_loss_that_is_named(splits, masks, tmp_path):
    """Nothing scales by it and no model sees it, but reconstruction is scored on it."""
    bad = {**splits, "train": with_value(splits["train"], "acoustic", 5, np.inf)}
    kept = {**masks.observed["train"]}
    kept["acoustic"] = [k.copy() for k in kept["acoustic"]]
    kept["acoustic"][5][0] = False
    hidden = replace(masks, observed={**masks.observed, "train": kept})
    with pytest.raises(TrainingError) as error:
        fit(bad, hidden, tmp_path)
    message = str(error.value)
    # As shipped, reconstruction counts from the second epoch on.
    assert "epoch 2, step " in message
    assert "loss reconstruction_acoustic is no finite number" in message
    assert "(acoustic features of v/05 are none" in message
    assert "\n" not in message
    batch = message.split("the batch: ")[1].split(", ")
    assert "v/05" in batch
    assert len(batch) <= 8


@pytest.mark.parametrize(
    ("size", "processes", "message"),
    [
        (24, 1, r"a batch of 24 does not fit .* batch_size 16 with accumulate 3 makes"),
        (9, 1, r"a batch of 9 does not fit .* batch_size 6 with accumulate 3 makes"),
        (1, 1, r"a batch of 1 does not fit .* bf16-mixed"),
        (24, 4, r"a batch of 6 does not fit .* batch_size 16 with accumulate 3 makes"),
    ],
)
def test_too_little_memory_says_what_would_fit(size, processes, message):
    """Of batches of two parts, each shared out to the processes."""
    optimiser = SHIPPED.optimiser.model_copy(update={"batch_size": size, "accumulate": 2})
    with (
        pytest.raises(TrainingError, match=message),
        _explained("mitfrnet", optimiser, processes),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_more_devices_than_there_are_is_one_line(splits, masks, tmp_path, monkeypatch):
    """Seen before anything starts: each further device is a process that imports all of this."""
    monkeypatch.setattr(loop, "Fabric", lambda **_: pytest.fail("processes would have started"))
    run = RunParams(workers=1, timeout_seconds=1, devices=9999)
    with pytest.raises(ParamsError, match=r"params\.yaml: run\.devices: 9999 \(expected at most"):
        train(
            splits, masks, name="mitfrnet", model_params=SHIPPED, params=PARAMS, seed=1,
            curves=tmp_path, run=run,
        )  # fmt: skip


def test_a_training_that_was_stopped_goes_on_from_its_last_epoch(
    splits, masks, trained, tmp_path, monkeypatch
):
    """Epochs 1 and 2 are not trained again; other inputs do start again."""
    given, asked = Utterances.train, []

    def watched(self, epoch):
        asked.append(epoch)
        if stop == epoch:
            raise KeyboardInterrupt
        return given(self, epoch)

    monkeypatch.setattr(Utterances, "train", watched)
    stop = 3
    with pytest.raises(KeyboardInterrupt):
        fit(splits, masks, tmp_path, unfinished=tmp_path / "work")
    first = {p.name for p in (tmp_path / "work").iterdir()}
    assert [name.rsplit(".")[-1] for name in first] == ["safetensors"]
    stop = None

    asked.clear()
    others = {**splits, "train": with_value(splits["train"], "acoustic", 5, 1.5)}
    fit(others, masks, tmp_path / "others", unfinished=tmp_path / "work")
    fit(splits, masks, tmp_path / "seed", seed=2, unfinished=tmp_path / "work")
    assert asked == [1, 2, 3] * 2
    others_left = {p.name for p in (tmp_path / "work").iterdir()} - first

    asked.clear()
    fit(splits, masks, tmp_path / "again", unfinished=tmp_path / "work")
    assert asked == [3]

    asked.clear()  # killed before it was written: no epoch again
    found = fitted(splits, masks, tmp_path / "again", unfinished=tmp_path / "work")
    assert asked == []
    found.model.save(tmp_path / "again")
    (name,) = first
    (tmp_path / "work" / f".{name}.0.tmp").touch()  # of a save that was killed
    found.checkpoint.remove()
    assert {p.name for p in (tmp_path / "work").iterdir()} == others_left
    for file in [p for p in trained.rglob("*") if p.is_file()]:
        assert (tmp_path / "again" / file.relative_to(trained)).read_bytes() == file.read_bytes()


def test_a_checkpoint_that_cannot_be_read_is_no_checkpoint(tmp_path):
    checkpoint = Checkpoint(tmp_path, "inputs")
    done = Progress(
        epochs=[{"valid/task": 1.0}],
        best={"a": torch.ones(2)},
        network={"a": torch.zeros(2)},
        optimiser={"0/step": torch.tensor(1.0)},
    )
    checkpoint.save(done)
    found = checkpoint.load()
    assert found.epochs == done.epochs
    assert torch.equal(found.best["a"], done.best["a"])
    assert found.optimiser.keys() == done.optimiser.keys()
    path = tmp_path / "inputs.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert checkpoint.load() == Progress()


def lengths():
    return np.random.default_rng(0).integers(1, 400, 1284)


def padding(steps, order):
    return sum(len(rows) * steps[rows].max() for rows in order) / steps.sum()


def test_an_epoch_has_every_utterance_once_in_batches_of_like_length():
    steps = lengths()
    order = batches(steps, 24, seed=1, epoch=1)
    assert sorted(np.concatenate(order)) == list(range(1284))
    assert {len(rows) for rows in order} == {23, 24}
    assert len(order) == 54
    # Uniform lengths of up to 400: 24 at random are padded to nearly 400, twice the mean.
    assert padding(steps, order) < 1.1
    # The order of batches says nothing about their length.
    means = [steps[rows].mean() for rows in order]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.4


def test_an_order_depends_on_seed_and_epoch_alone():
    steps = lengths()
    first = batches(steps, 24, seed=1, epoch=3)
    again = batches(steps, 24, seed=1, epoch=3)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    kept = {frozenset(rows) for rows in first}
    for seed, epoch in ((2, 3), (1, 4)):
        assert not kept & {frozenset(rows) for rows in batches(steps, 24, seed=seed, epoch=epoch)}


def test_each_utterance_is_validated_once():
    order = sorted_batches(lengths()[:50], 24)
    assert sorted(np.concatenate(order)) == list(range(50))
    assert {len(rows) for rows in order} == {16, 17}


def test_eleven_rates_are_scored_from_one_reading(splits, trained, tmp_path, monkeypatch):
    """Tensors, masks, the model and the text encoder are loaded once."""
    named = {n: replace(s, ids=[f"{n}/{i}" for i in range(len(s.ids))]) for n, s in splits.items()}
    steps = {n: s.steps for n, s in named.items()}
    write_tensors(named, tmp_path / "tensors")
    write_masks(mask_corpus(steps, rate=0.4, params=MASK), steps, tmp_path / "masks.parquet")
    write_params(tmp_path, evaluate__rates=[i / 10 for i in range(11)])
    monkeypatch.chdir(tmp_path)
    read = []
    for owner, name in (
        (pipeline.evaluate, "read_tensors"),
        (pipeline.evaluate, "read_masks"),
        (TrainedModel, "load"),
        (TextEncoder, "__init__"),
    ):
        given = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *a, n=name, g=given, **k: read.append(n) or g(*a, **k)
        )
    words = "--corpus mine --tensors tensors --masks masks.parquet --work work --card card.md"
    words += f" --scores scores.json --predictions predictions.parquet --model {trained}"
    pipeline.evaluate.main(words.split())
    assert len(json.loads((tmp_path / "scores.json").read_text())["by_rate"]) == 11
    assert sorted(read) == ["__init__", "load", "read_masks", "read_tensors"]
