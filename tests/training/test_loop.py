"""Training on a few small utterances with the settings that are shipped."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mitfrnet.errors import TrainingError
from mitfrnet.features.text_encoder import TextEncoder
from mitfrnet.labels import ClassScale
from mitfrnet.missing import Protocol
from mitfrnet.modalities import MODALITIES
from mitfrnet.models import registry
from mitfrnet.params import load_params
from mitfrnet.trained.model import TrainedModel
from mitfrnet.training.batching import Utterances
from mitfrnet.training.load import load_model_params
from mitfrnet.training.loop import train
from mitfrnet.training.settings import TrainParams
from tests.helpers.splits import (
    StoredText,
    make_mask_params,
    make_split,
    make_splits,
    mask_splits,
    with_value,
)

slow = pytest.mark.slow

SHIPPED = load_model_params("mitfrnet")
PARAMS = load_params(TrainParams, section="train").model_copy(update={"max_epochs": 3})
ONE_EPOCH = PARAMS.model_copy(update={"max_epochs": 1})


@pytest.fixture(scope="module")
def splits():
    return make_splits()


@pytest.fixture(scope="module")
def masks(splits):
    return mask_splits(splits)


@pytest.fixture(scope="module")
def fit(splits, masks, tmp_path_factory):
    """Return a function that trains in batches of 8 with curves in `<folder>/curves`."""
    text_cache = tmp_path_factory.mktemp("text")

    def fit(
        folder, *, splits=splits, masks=masks, params=PARAMS, network=None, seed=1,
        unfinished=None, code="", run=None, **optimiser,
    ):  # fmt: skip
        changes = {"batch_size": 8, **optimiser}
        model_params = SHIPPED.model_copy(
            update={
                "network": SHIPPED.network | (network or {}),
                "optimiser": SHIPPED.optimiser.model_copy(update=changes),
            }
        )
        return train(
            splits, masks, name="mitfrnet", model_params=model_params, params=params, seed=seed,
            curves=folder / "curves", text_cache=text_cache, unfinished=unfinished, code=code,
            run=run,
        )  # fmt: skip

    return fit


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of the model in `trained`."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="module")
def trained(fit, folder):
    """Return what training with seed 1 gives; its model is saved in `folder`."""
    result = fit(folder)
    result.model.save(folder)
    return result


def weights_of(model):
    return torch.cat([p.detach().flatten() for p in model.network.parameters()])


def curve(folder, name):
    path = folder / "curves" / "plots" / "metrics" / f"{name}.tsv"
    if not path.exists():
        return []
    return [float(line.split("\t")[1]) for line in path.read_text().splitlines()[1:]]


@slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(fit, trained, folder, tmp_path):
    for seed in (1, 2):
        fit(tmp_path / str(seed), seed=seed).model.save(tmp_path / str(seed))
    files = ["model.safetensors", "scaling.safetensors", "config.json"]
    files += ["curves/plots/metrics/train/task.tsv", "curves/plots/metrics/valid/task.tsv"]
    for file in files:
        assert (tmp_path / "1" / file).read_bytes() == (folder / file).read_bytes(), file
    weights = [(p / "model.safetensors").read_bytes() for p in (folder, tmp_path / "2")]
    assert weights[0] != weights[1]


@slow
def test_the_test_split_is_not_used(fit, splits, trained, tmp_path):
    without = {name: split for name, split in splits.items() if name != "test"}
    assert torch.equal(weights_of(fit(tmp_path, splits=without).model), weights_of(trained.model))


@slow
def test_curves_hold_every_epoch_and_auxiliary_losses_from_the_epoch_that_settings_name(
    trained, folder
):
    """As shipped in the second of three; the task counts in all."""
    for name in ("train/task", "valid/task", "learning_rate"):
        assert len(curve(folder, name)) == 3
    for name in ("invariance", *(f"reconstruction_{m}" for m in MODALITIES)):
        assert len(curve(folder, f"train/{name}")) == 2


@slow
def test_no_pickle_is_among_the_outputs(trained, folder):
    suffixes = {p.suffix for p in folder.rglob("*") if p.is_file()}
    assert suffixes == {".safetensors", ".json", ".tsv"}


@pytest.fixture(scope="module")
def sound_and_face_masks(splits):
    """Return masks that hide no word, so that no text encoder is loaded."""
    factors = {"text": 0.0, "acoustic": 1.0, "visual": 1.0}
    return mask_splits(splits, params=make_mask_params(scale_factors=factors))


@slow
def test_the_best_epoch_is_kept(fit, splits, sound_and_face_masks, tmp_path):
    """The learning rate is so high that later epochs are worse."""
    params = PARAMS.model_copy(update={"max_epochs": 40})
    model = fit(
        tmp_path, masks=sound_and_face_masks, params=params, learning_rate=1.0, stop_patience=2
    ).model
    losses = curve(tmp_path, "valid/task")
    config = model.config["training"]
    assert config["best_valid_task_loss"] == pytest.approx(min(losses), abs=1e-6)
    assert config["best_epoch"] == 1 + int(np.argmin(losses)) < len(losses)
    valid, observed = splits["valid"], sound_and_face_masks.observed["valid"]
    error = np.abs(model.predict(valid, observed, StoredText(), whole=False) - valid.label).mean()
    assert error == pytest.approx(min(losses), abs=1e-4)


@slow
@pytest.mark.parametrize("name", registry.MODELS)
def test_each_model_is_trained(splits, sound_and_face_masks, tmp_path, name):
    params = load_model_params(name)
    optimiser = params.optimiser.model_copy(update={"batch_size": 8, "accumulate": 1})
    result = train(
        splits,
        sound_and_face_masks,
        name=name,
        model_params=params.model_copy(update={"optimiser": optimiser}),
        params=PARAMS,
        seed=1,
        curves=tmp_path / "curves",
    )
    losses = curve(tmp_path, "train/task")
    assert losses[-1] < losses[0]
    assert result.model.config["architecture"] == name


@pytest.fixture
def one_step(fit, sound_and_face_masks, tmp_path):
    """Return a function that gives the weights before and after one step on all utterances."""

    def one_step(learning_rate=1e-3, **changes):
        # A rate of almost nothing leaves the first weights.
        models = [
            fit(
                tmp_path,
                masks=sound_and_face_masks,
                params=ONE_EPOCH,
                learning_rate=rate,
                **{"batch_size": 20, **changes},
            ).model
            for rate in (1e-12, learning_rate)
        ]
        return [dict(model.network.named_parameters()) for model in models]

    return one_step


def test_accumulated_batches_make_the_step_of_the_whole(one_step):
    """One step on 20 utterances, at once and in parts of 7, without dropout and BatchNorm."""
    network = {k: 0.0 for k in SHIPPED.network if k.endswith("dropout")}
    network["attention_dropout"] = dict.fromkeys(MODALITIES, 0.0)
    network |= {"classifier_norm": "layer", "aux_start_epoch": 1}
    moves = []
    for size, accumulate in ((20, 1), (7, 3)):
        before, after = one_step(1e-4, network=network, batch_size=size, accumulate=accumulate)
        moves.append(torch.cat([(after[n] - before[n]).flatten() for n in before]))
    whole, parts = moves
    # Adam's first step moves nearly every weight by the learning rate. It turns rounding in a
    # tiny gradient into a visible part of that.
    assert whole.abs().mean() > 0.9e-4
    assert (whole - parts).abs().mean() < 1e-6


def test_weight_decay_acts_on_matrices_alone(one_step):
    """Under a decay that outweighs every gradient, Adam's step is the rate towards zero."""
    before, after = one_step(weight_decay=1e6)
    name = "model.fusion.classifier.1.weight"
    large = before[name].abs() > 1e-2
    assert large.any()
    moved = (before[name] - after[name])[large]
    assert torch.allclose(moved, 1e-3 * before[name][large].sign(), atol=1e-5)
    norm = "model.fusion.classifier.0.weight"
    assert not torch.allclose(before[norm] - after[norm], torch.tensor(1e-3), atol=1e-5)


def test_no_element_of_a_gradient_is_larger_than_clip_value(one_step):
    """Adam divides by the gradient's size, plus 1e-8: clipped to 1e-12, nothing moves."""
    before, after = one_step(clip_value=1e-12, weight_decay=0.0)
    assert max((before[n] - after[n]).abs().max() for n in before) < 1e-6
    before, after = one_step(clip_value=None, weight_decay=0.0)
    assert max((before[n] - after[n]).abs().max() for n in before) > 9e-4


@slow
def test_a_fine_tuned_encoder_learns_and_is_stored(fit, tmp_path, monkeypatch):
    splits = {name: make_split(4, seed=i) for i, name in enumerate(("train", "valid", "test"))}
    masks = mask_splits(splits)
    modes = []
    forward = TextEncoder.forward

    def recorded(self, *args):
        modes.append(self.bert.training)
        return forward(self, *args)

    monkeypatch.setattr(TextEncoder, "forward", recorded)
    params = ONE_EPOCH.model_copy(update={"text": "finetuned"})
    fit(tmp_path, splits=splits, masks=masks, params=params, text_learning_rate=1e-3).model.save(
        tmp_path
    )
    assert modes == [True, False]  # one batch to train on, one to validate
    model = TrainedModel.load(tmp_path)
    before = TextEncoder("embedded").state_dict()
    after = model.network.text_encoder.state_dict()
    # One step of Adam moves a weight by its learning rate: that of the text, not the model's.
    moved = max(float((before[k] - after[k].cpu()).abs().max()) for k in before)
    assert moved == pytest.approx(1e-3, rel=0.05)
    prediction = model.predict(splits["test"], masks.observed["test"], StoredText(), whole=False)
    assert np.isfinite(prediction).all()


@slow
def test_random_train_gives_the_same_model_again(fit, splits, tmp_path):
    masks = mask_splits(splits, Protocol("random_train"))
    params = PARAMS.model_copy(update={"max_epochs": 2})
    first, again = (fit(tmp_path / n, masks=masks, params=params).model for n in ("a", "b"))
    assert torch.equal(weights_of(first), weights_of(again))


@slow
def test_at_rate_1_nothing_unscaled_is_rebuilt_and_modalities_are_still_compared(
    fit, splits, tmp_path
):
    model = fit(tmp_path, masks=mask_splits(splits, rate=1.0)).model
    assert model.config["training"]["unscored_reconstructions"] == ["acoustic", "visual"]
    assert not curve(tmp_path, "train/reconstruction_acoustic")
    assert not curve(tmp_path, "train/reconstruction_visual")
    for name in ("reconstruction_text", "invariance"):
        assert curve(tmp_path, f"train/{name}")[-1] > 0


@slow
def test_the_learning_rate_falls_and_training_stops_where_validation_stalls(fit, tmp_path):
    """A rate so high that epochs are soon no better: training ends two after the best one."""
    params = PARAMS.model_copy(update={"max_epochs": 40})
    result = fit(tmp_path, params=params, learning_rate=1.0, stop_patience=2, plateau_patience=0)
    losses = curve(tmp_path, "valid/task")
    assert len(losses) == result.model.config["training"]["best_epoch"] + 2 < 40
    worse = [loss >= min(losses[:i], default=np.inf) for i, loss in enumerate(losses)]
    assert curve(tmp_path, "learning_rate") == pytest.approx(list(0.1 ** np.cumsum(worse)))


@slow
def test_classes_are_trained_and_named(fit, tmp_path):
    scale = ClassScale(classes=("anger", "joy", "sadness")).model_dump()
    splits = {
        name: replace(
            make_split(9, seed=i),
            label=np.array([0, 1, 2, 1, 0, 1, 2, 1, 1], dtype=np.float32),
            metadata=make_split(9).metadata | {"scale": scale},
        )
        for i, name in enumerate(("train", "valid", "test"))
    }
    masks = mask_splits(splits)
    model = fit(tmp_path, splits=splits, masks=masks).model
    assert model.config["scale"] == scale
    losses = curve(tmp_path, "train/task")
    # Cross-entropy of three classes starts near log 3 = 1.1 and falls.
    assert losses[-1] < losses[0] < 2
    prediction = model.predict(splits["test"], masks.observed["test"], StoredText(), whole=False)
    assert set(prediction) <= {0.0, 1.0, 2.0}


@slow
def test_what_training_took_is_measured_and_kept_out_of_the_model(trained):
    cost = trained.cost
    assert cost["epochs"] == PARAMS.max_epochs
    assert cost["seconds_per_epoch"] > 0
    assert cost["peak_memory_mb"] > 50
    assert cost["parameters"] == weights_of(trained.model).numel()
    assert "seconds_per_epoch" not in str(trained.model.config)


@slow
def test_training_that_diverges_is_an_error(fit, tmp_path):
    message = r"model 'mitfrnet': epoch 1, step 2: loss task.* \(a lower learning_rate may help\)"
    with pytest.raises(TrainingError, match=message):
        fit(tmp_path, learning_rate=1e30, clip_value=1e30)


def test_a_corpus_without_labels_is_refused(fit, splits, tmp_path):
    train = replace(splits["train"], metadata=splits["train"].metadata | {"scale": None})
    with pytest.raises(TrainingError, match="no labels to train on"):
        fit(tmp_path, splits={**splits, "train": train})


@slow
def test_a_corrupt_feature_that_is_hidden_breaks_a_loss_that_is_named(fit, splits, masks, tmp_path):
    """Nothing scales by it and no model sees it, but reconstruction is scored on it."""
    corrupt = {**splits, "train": with_value(splits["train"], "acoustic", 5, np.inf)}
    observed = {**masks.observed["train"]}
    observed["acoustic"] = [kept.copy() for kept in observed["acoustic"]]
    observed["acoustic"][5][0] = False
    masks = replace(masks, observed={**masks.observed, "train": observed})
    with pytest.raises(TrainingError) as error:
        fit(tmp_path, splits=corrupt, masks=masks)
    message = str(error.value)
    # As shipped, reconstruction counts from the second epoch on.
    assert "epoch 2, step " in message
    assert "loss reconstruction_acoustic is " in message
    assert "acoustic features of train/05 " in message
    assert "\n" not in message
    batch = message.split("the batch: ")[1].split(", ")
    assert "train/05" in batch
    assert len(batch) <= 8


@slow
def test_a_stopped_training_resumes_after_its_last_epoch(
    fit, splits, trained, folder, tmp_path, monkeypatch
):
    """Epochs 1 and 2 are not trained again; other inputs start anew."""
    epochs = []
    utterances_of_epoch = Utterances.train
    stop = 3

    def recorded(self, epoch):
        epochs.append(epoch)
        if epoch == stop:
            raise KeyboardInterrupt
        return utterances_of_epoch(self, epoch)

    monkeypatch.setattr(Utterances, "train", recorded)
    work = tmp_path / "work"
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, unfinished=work)
    (checkpoint,) = work.iterdir()
    assert checkpoint.suffix == ".safetensors"

    stop = 1
    other = {**splits, "train": with_value(splits["train"], "acoustic", 5, 1.5)}
    for change in ({"splits": other}, {"seed": 2}, {"code": "edited"}, {"learning_rate": 0.1}):
        epochs.clear()
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path, unfinished=work, **change)
        assert epochs == [1]

    stop = None
    epochs.clear()
    fit(tmp_path, unfinished=work)
    assert epochs == [3]

    epochs.clear()  # killed before the model was written: no epoch is trained again
    result = fit(tmp_path, unfinished=work)
    assert epochs == []
    result.model.save(tmp_path)
    result.checkpoint.remove()
    assert not list(work.iterdir())
    for file in [p for p in folder.rglob("*") if p.is_file()]:
        assert (tmp_path / file.relative_to(folder)).read_bytes() == file.read_bytes()
