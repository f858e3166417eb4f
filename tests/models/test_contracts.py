"""What every registered model promises.

Each needs a fixture `<name>_settings` in `conftest.py`, small and without dropout; without one its
tests fail.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mitfrnet.data.batches import Batch, collate
from mitfrnet.errors import ParamsError
from mitfrnet.modalities import MODALITIES
from mitfrnet.models.base import SCORE, Task, objective
from mitfrnet.models.registry import MODELS, build

TOLERANCE = 1e-5  # float32 sums in another order; leaks in published code start at 1e-3


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def settings(request: pytest.FixtureRequest, name: str) -> dict[str, Any]:
    return request.getfixturevalue(f"{name}_settings")


@pytest.fixture
def model(name: str, dims: dict[str, int], settings: dict[str, Any]) -> nn.Module:
    """A model in evaluation mode, as for predictions."""
    return lively(name, dims, settings)


def lively(
    name: str, dims: dict[str, int], settings: dict[str, Any], task: Task = SCORE
) -> nn.Module:
    """Return a model with noise on its weights: a fresh one hardly depends on its input."""
    torch.manual_seed(0)
    model = build(name, dims=dims, task=task, **settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def predict(model: nn.Module, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return model(batch).prediction


def gradients(model: nn.Module, batch: Batch, *, aux: bool = True) -> dict[str, torch.Tensor]:
    model.zero_grad()
    objective(model(batch, aux=aux).losses).backward()
    return {name: p.grad for name, p in model.named_parameters()}


def garbage(shape: torch.Size) -> torch.Tensor:
    values = torch.full(shape, 1e3)
    values[..., 0] = torch.nan
    return values


def pad(batch: Batch, steps: int, *, dirty: bool) -> Batch:
    """Return `batch` with more padding, holding zeros or garbage."""

    def wider(x: torch.Tensor) -> torch.Tensor:
        return F.pad(x, (0, 0, 0, steps) if x.ndim == 3 else (0, steps))

    masks = {
        name: {m: wider(getattr(batch, name)[m]) for m in MODALITIES}
        for name in ("valid", "observed", "hidden")
    }

    def fill(features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        wide = {m: wider(features[m]) for m in MODALITIES}
        if not dirty:
            return wide
        return {
            m: torch.where(masks["valid"][m][..., None], wide[m], garbage(wide[m].shape))
            for m in MODALITIES
        }

    return replace(
        batch,
        values=fill(batch.values),
        target=fill(batch.target),
        token_ids=wider(batch.token_ids),
        **masks,
    )


def test_output_has_one_score_per_utterance_and_rebuilt_features(model, make_utterance):
    batch = collate([make_utterance(i) for i in range(3)])
    output = model(batch)
    assert output.prediction.shape == (3,)
    for m, rebuilt in output.reconstructed.items():
        assert rebuilt.shape == batch.target[m].shape
        assert (rebuilt[~batch.valid[m]] == 0).all()
    assert output.losses["task"].count == 3


def test_prediction_depends_on_the_utterance(model, make_utterance):
    """A constant would pass the tests below."""
    scores = predict(model, collate([make_utterance(i) for i in range(4)]))
    assert scores.std() > 100 * TOLERANCE


def test_prediction_is_independent_of_batch_mates_and_order(model, make_utterance):
    utterances = [make_utterance(i) for i in range(4)]
    utterances.append(make_utterance(9, lengths={"text": 30, "acoustic": 3, "visual": 40}))
    together = predict(model, collate(utterances))
    alone = torch.cat([predict(model, collate([u])) for u in utterances])
    reverse = predict(model, collate(utterances[::-1])).flip(0)
    torch.testing.assert_close(together, alone, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(together, reverse, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("dirty", [False, True])
def test_padding_changes_nothing(model, make_utterance, dirty):
    batch = collate([make_utterance(i) for i in range(3)])
    padded = pad(batch, 7, dirty=dirty)
    plain, wide = model(batch), model(padded)
    torch.testing.assert_close(wide.prediction, plain.prediction, atol=TOLERANCE, rtol=0)
    for name, loss in plain.losses.items():
        torch.testing.assert_close(wide.losses[name].mean, loss.mean, atol=TOLERANCE, rtol=1e-5)
    expected = gradients(model, batch)
    for name, gradient in gradients(model, padded).items():
        torch.testing.assert_close(gradient, expected[name], atol=TOLERANCE, rtol=1e-4)


def test_hidden_values_change_no_prediction(model, make_utterance):
    batch = collate([make_utterance(i) for i in range(3)])
    other = replace(batch, target={m: garbage(batch.target[m].shape) for m in MODALITIES})
    assert torch.equal(predict(model, batch), predict(model, other))


@pytest.mark.parametrize("absent", [("text",), ("acoustic",), ("visual",), MODALITIES])
def test_absent_modalities_stay_finite(model, make_utterance, absent):
    model.train()
    for mates in ([], [make_utterance(1), make_utterance(2)]):
        batch = collate([make_utterance(0, absent=absent), *mates])
        assert model(batch).prediction.isfinite().all()
        assert all(g.isfinite().all() for g in gradients(model, batch).values())


@pytest.mark.parametrize("missing_rate", [0.0, 1.0])
def test_extreme_missing_rates_stay_finite(model, make_utterance, missing_rate):
    batch = collate([make_utterance(i, missing_rate=missing_rate) for i in range(3)])
    assert model(batch).prediction.isfinite().all()
    assert all(g.isfinite().all() for g in gradients(model.train(), batch).values())


def test_a_batch_of_one_trains(model, make_utterance):
    batch = collate([make_utterance(0)])
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    before = [p.clone() for p in model.parameters()]
    assert all(g.isfinite().all() for g in gradients(model.train(), batch).values())
    optimiser.step()
    assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_every_parameter_learns(model, make_utterance):
    batch = collate([make_utterance(i) for i in range(5)])  # odd: signs cannot cancel
    idle = [n for n, g in gradients(model.train(), batch).items() if g is None or not g.any()]
    assert idle == []


def test_without_auxiliary_losses_only_the_task_counts(model, make_utterance):
    batch = collate([make_utterance(i) for i in range(4)])
    output = model(batch, aux=False)
    assert objective(output.losses) == output.losses["task"].weight * output.losses["task"].mean
    assert all(loss.sum == 0 for name, loss in output.losses.items() if name != "task")
    assert all(g is not None for g in gradients(model, batch, aux=False).values())


def test_auxiliary_losses_start_when_set(model, settings):
    assert model.aux_start_epoch == settings.get("aux_start_epoch", 1)


def test_counts_are_known_before_the_model_runs(model, make_utterance):
    batch = collate([make_utterance(0, absent=("visual", "acoustic")), make_utterance(1)])
    counts = model.loss_counts(batch)
    losses = model(batch).losses
    assert counts.keys() == losses.keys()
    assert all(counts[name] == loss.count for name, loss in losses.items())
    assert all(model.weights[name] == loss.weight for name, loss in losses.items())


def test_parts_of_a_batch_add_up_to_the_whole(model, make_utterance):
    utterances = [make_utterance(0, absent=("visual",))] + [make_utterance(i) for i in range(1, 5)]
    whole = collate(utterances)
    for name in model.batch_losses:  # these compare utterances across the parts
        model.weights[name] = 0.0
    expected = gradients(model, whole)
    counts = model.loss_counts(whole)
    model.zero_grad()
    for part in (utterances[:1], utterances[1:]):
        objective(model(collate(part)).losses, counts).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=TOLERANCE, rtol=1e-4)


def test_same_seed_same_model(name, dims, settings, model, make_utterance):
    batch = collate([make_utterance(i) for i in range(3)])
    twin = lively(name, dims, settings)
    assert torch.equal(predict(twin, batch), predict(model, batch))


def test_bfloat16_autocast_stays_finite(model, make_utterance):
    batch = collate([make_utterance(i) for i in range(4)])
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(batch)
        loss = objective(output.losses)
    loss.backward()
    assert all(part.sum.isfinite() for part in output.losses.values())
    assert all(part.sum.dtype == torch.float32 for part in output.losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_classes_are_learnt_by_heart(name, dims, settings, make_utterance):
    """Logits tell five utterances of three classes apart."""
    model = lively(name, dims, settings, Task(classes=3))
    utterances = [replace(make_utterance(i), label=float(i % 3)) for i in range(5)]
    batch = collate(utterances)
    assert predict(model, batch).shape == (5, 3)
    model.train()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        objective(model(batch).losses).backward()
        optimiser.step()
    assert model(batch).prediction.argmax(1).tolist() == [0, 1, 2, 0, 1]


def test_a_small_batch_is_learnt_by_heart(model, make_utterance):
    batch = collate([make_utterance(i) for i in range(4)])
    model.train()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    start = model(batch).losses["task"].mean.item()
    for _ in range(40):
        optimiser.zero_grad()
        objective(model(batch).losses).backward()
        optimiser.step()
    assert model(batch).losses["task"].mean < 0.1 * start


def single_dropouts(settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the settings with a dropout of 0.5 in one place, for each place that has one."""
    for key, value in settings.items():
        if isinstance(value, dict) and key.endswith("dropout"):
            yield from ({**settings, key: {**value, m: 0.5}} for m in MODALITIES)
        elif key.endswith("dropout"):
            yield {**settings, key: 0.5}


def test_each_dropout_is_active_in_training_only(name, dims, settings, make_utterance):
    batch = collate([make_utterance(i) for i in range(4)])
    for dropped in single_dropouts(settings):
        model = lively(name, dims, dropped).train()
        assert objective(model(batch).losses) != objective(model(batch).losses), dropped
        model.eval()
        assert objective(model(batch).losses) == objective(model(batch).losses), dropped


def test_a_step_never_waits_for_its_numbers(monkeypatch, name, dims, settings, make_utterance):
    """On PyTorch's `meta` device tensors have no numbers, so no shape or branch depends on one.

    On a GPU such a shape or branch would wait for the device.
    """
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # does not support it
    batch = collate([make_utterance(i) for i in range(3)]).to("meta")
    dropouts = {
        key: dict.fromkeys(value, 0.1) if isinstance(value, dict) else 0.1
        for key, value in settings.items()
        if key.endswith("dropout")
    }
    model = build(name, dims=dims, **settings | dropouts).to("meta").train()
    objective(model(batch).losses).backward()
    assert all(p.grad.shape == p.shape for p in model.parameters())


def test_no_setting_has_a_default(name, dims, settings):
    for key in settings:
        others = {k: v for k, v in settings.items() if k != key}
        with pytest.raises(ParamsError, match=rf"model\.{name}\.network\.{key}: key is absent"):
            build(name, dims=dims, **others)


def test_an_unknown_setting_is_refused(name, dims, settings):
    with pytest.raises(ParamsError, match=rf"model\.{name}\.network\.widht: unknown key"):
        build(name, dims=dims, **settings, widht=3)
