"""What `benchmarks.train_step` measures: random clips, and the training step of each model."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
import yaml
from torch import Tensor, nn
from torch.nn.utils import clip_grad_value_

from mitfrnet.data.batches import Batch, Utterance, collate
from mitfrnet.features.text_encoder import TextEncoder
from mitfrnet.modalities import MODALITIES
from mitfrnet.models import registry
from mitfrnet.models.base import objective
from mitfrnet.models.layers import split_weight_decay
from mitfrnet.trained.model import Network
from mitfrnet.training.batching import shuffled_batches

CLIPS = 1284  # the training split of CMU-MOSI
MISSING_RATE = 0.3
LONGEST_S = 11.7
VOCABULARY = 30522
CLIP_VALUE = 0.8


@dataclass(frozen=True)
class Shape:
    """The sizes of a corpus in MMSA's files: padded steps, and features of a step, by modality."""

    steps: dict[str, int]
    dims: dict[str, int]  # of sound and picture
    rates: dict[str, float]  # steps per second
    batch_size: int


def _shape(steps: tuple[int, int, int], dims: tuple[int, int], batch_size: int) -> Shape:
    """Return a shape whose longest clip exactly fills the padded steps of sound and picture."""
    text, acoustic, visual = steps
    rates = {"text": 3.6, "acoustic": acoustic / LONGEST_S, "visual": visual / LONGEST_S}
    return Shape(
        steps={"text": text, "acoustic": acoustic, "visual": visual},
        dims={"acoustic": dims[0], "visual": dims[1]},
        rates=rates,
        batch_size=batch_size,
    )


SHAPES = {
    "mosi": _shape((50, 375, 500), (5, 20), 24),
    "sims": _shape((39, 400, 55), (33, 709), 16),
}

# Size, layers and heads of a text encoder; with `none`, clips hold text features of BERT's size.
ENCODERS = {"minilm": (384, 6, 12), "bert": (768, 12, 12)}
TEXT_DIM = {"none": 768, "minilm": 384, "bert": 768}

OURS = tuple(registry.MODELS)
THEIRS = ("mmsa_tfrnet", "mmsa_mult")


def draw_utterances(shape: Shape, text_dim: int, count: int, scale: float = 1) -> list[Utterance]:
    """Return clips of random features; seconds follow gamma(2.8, 1.5), within 0.5 and 11.7.

    Args:
        shape: the corpus.
        text_dim: features of a text vector.
        count: number of clips.
        scale: factor on every length.
    """
    generator = torch.Generator().manual_seed(1)
    seconds = torch.distributions.Gamma(2.8, 1 / 1.5)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        durations = seconds.sample((count,)).clamp(0.5, LONGEST_S).tolist()
    dims = {"text": text_dim, **shape.dims}

    def draw(i: int, duration: float) -> Utterance:
        lengths = {m: duration * rate + 2 * (m == "text") for m, rate in shape.rates.items()}
        steps = {m: round(scale * min(max(n, 1), shape.steps[m])) for m, n in lengths.items()}
        target = {m: torch.randn(steps[m], dims[m], generator=generator) for m in MODALITIES}
        observed = {
            m: torch.rand(steps[m], generator=generator) >= MISSING_RATE for m in MODALITIES
        }
        return Utterance(
            utterance_id=str(i),
            values={m: target[m] * observed[m][:, None] for m in MODALITIES},
            target=target,
            observed=observed,
            hidden={m: ~observed[m] for m in MODALITIES},
            token_ids=torch.randint(1000, VOCABULARY, (steps["text"],), generator=generator),
            label=float(6 * torch.rand((), generator=generator) - 3),
        )

    return [draw(i, duration) for i, duration in enumerate(durations)]


def bucketed(utterances: list[Utterance], batch_size: int) -> list[list[Utterance]]:
    """Return the batches of an epoch of training, from the shortest clips to the longest."""
    steps = np.array([sum(len(u.observed[m]) for m in MODALITIES) for u in utterances])
    ordered = sorted(
        shuffled_batches(steps, batch_size, seed=1, epoch=1), key=lambda rows: steps[rows].sum()
    )
    return [[utterances[i] for i in rows] for rows in ordered]


def random_bert(encoder: str) -> transformers.BertModel:
    """Return a BERT of the named size with random weights."""
    hidden, layers, heads = ENCODERS[encoder]
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
    )
    return transformers.BertModel(config, add_pooling_layer=False)


class RandomTextEncoder(TextEncoder):
    """Our text encoder around a random BERT."""

    def __init__(self, encoder: str) -> None:
        nn.Module.__init__(self)
        self.bert = random_bert(encoder)


class Step(ABC):
    """A model with its optimiser; a call with the number of a batch runs one training step."""

    name: str
    network: nn.Module

    def __init__(self, name: str, network: nn.Module, device: str, *, autocast: bool) -> None:
        self.name, self.network, self.device = name, network.to(device).train(), device
        self.autocast = autocast
        decayed, exempt = split_weight_decay(network)
        groups = [{"params": decayed, "weight_decay": 1e-3}, {"params": exempt}]
        self.optimiser = torch.optim.Adam(groups, lr=1e-3)
        self.batches: dict[int, Any] = {}

    def __call__(self, i: int) -> None:
        self.optimiser.zero_grad()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.autocast):
            loss = self.loss(self.batches[i])
        loss.backward()
        clip_grad_value_(self.network.parameters(), CLIP_VALUE)
        self.optimiser.step()

    @abstractmethod
    def loss(self, batch: Any) -> Tensor:
        """Return the loss of a batch from `prepare`."""

    @abstractmethod
    def prepare(self, i: int, utterances: list[Utterance]) -> None:
        """Put batch number `i` on the device."""

    @property
    def parameters(self) -> int:
        """Return the number of trainable parameters."""
        return sum(p.numel() for p in self.network.parameters() if p.requires_grad)


class OurStep(Step):
    """A model of the registry with settings of `params.yaml`; frozen text is already encoded."""

    def prepare(self, i: int, utterances: list[Utterance]) -> None:
        self.batches[i] = collate(utterances).to(self.device)

    def loss(self, batch: Batch) -> Tensor:
        return objective(self.network(batch, aux=True).losses)


def our_step(name: str, shape: Shape, args: argparse.Namespace) -> Step:
    section = yaml.safe_load(Path("params.yaml").read_text())["model"][name]
    dims = {"text": TEXT_DIM[args.encoder], **shape.dims}
    model = registry.build(section["architecture"], dims=dims, **section["network"])
    finetuned = args.encoder != "none" and args.text == "finetuned"
    encoder = RandomTextEncoder(args.encoder) if finetuned else None
    network = Network(model, encoder)
    return OurStep(name, network, args.device, autocast=args.precision == "bf16-mixed")


class TheirStep(Step):
    """A model of MMSA; it pads every batch to the full length and encodes text in each step."""

    def __init__(self, name: str, network: nn.Module, shape: Shape, args: Any) -> None:
        super().__init__(name, network, args.device, autocast=args.precision == "bf16-mixed")
        self.shape = shape
        self.encodes = args.encoder != "none"

    def prepare(self, i: int, utterances: list[Utterance]) -> None:
        batch, steps = collate(utterances), self.shape.steps

        def full(x: Tensor, m: str) -> Tensor:
            return torch.stack([nn.functional.pad(row.T, (0, steps[m] - len(row))).T for row in x])

        def each(masks: dict[str, Tensor]) -> dict[str, Tensor]:
            return {m: full(masks[m][..., None].float(), m)[..., 0] for m in MODALITIES}

        valid = each(batch.valid)
        ids = full(batch.token_ids[..., None], "text")[..., 0].float()
        self.batches[i] = replace(
            batch,
            values={m: full(batch.values[m], m) for m in MODALITIES},
            target={m: full(batch.target[m], m) for m in MODALITIES},
            valid=valid,
            observed=each(batch.observed),
            token_ids=torch.stack([ids, valid["text"], torch.zeros_like(ids)], dim=1),
        ).to(self.device)


class TheirTFRNet(TheirStep):
    def loss(self, batch: Batch) -> Tensor:
        if not self.encodes:
            self.network.text_model.features = [batch.values["text"], batch.target["text"]]
        sound, picture = (
            (batch.target[m], batch.values[m], batch.valid[m], batch.observed[m])
            for m in ("acoustic", "visual")
        )
        text = (batch.token_ids, batch.token_ids, batch.observed["text"])
        score, rebuilt = self.network(text, sound, picture)
        return nn.functional.l1_loss(score, batch.label[:, None]) + rebuilt.sum()


class TheirMulT(TheirStep):
    def loss(self, batch: Batch) -> Tensor:
        text = batch.token_ids if self.encodes else batch.values["text"]
        score = self.network(text, batch.values["acoustic"], batch.values["visual"])["M"]
        return nn.functional.l1_loss(score, batch.label[:, None])


class GivenText(nn.Module):
    """Replaces MMSA's BERT: returns stored features, first of the masked text, then of the full."""

    features: list[Tensor]

    def __init__(self, **_: object) -> None:
        super().__init__()

    def forward(self, text: Tensor) -> Tensor:
        return self.features.pop(0)


def their_bert(encoder: str, *, finetuned: bool) -> Callable[..., nn.Module]:
    """Return a class that replaces MMSA's BERT, which would be downloaded."""

    class RandomBert(nn.Module):
        def __init__(self, **_: object) -> None:
            super().__init__()
            self.model = random_bert(encoder).requires_grad_(finetuned)

        def forward(self, text: Tensor) -> Tensor:
            ids, mask, segments = text[:, 0].long(), text[:, 1].float(), text[:, 2].long()
            with torch.set_grad_enabled(finetuned):
                return self.model(ids, attention_mask=mask, token_type_ids=segments)[0]

    return RandomBert


class Args(SimpleNamespace):
    """Settings as MMSA reads them, by attribute and by key."""

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)


def their_settings(name: str, shape: Shape, args: argparse.Namespace) -> Args:
    """Return the settings that MMSA ships for MOSI."""
    import MMSA

    config = json.loads(
        (Path(MMSA.__file__).parent / "config" / "config_regression.json").read_text()
    )[name]
    settings = {
        **config["commonParams"],
        **config["datasetParams"]["mosi"],
        "feature_dims": (TEXT_DIM[args.encoder], *shape.dims.values()),
        "seq_lens": tuple(shape.steps.values()),
        "train_mode": "regression",
        "device": args.device,
        "use_bert": args.encoder != "none",
        "use_finetune": args.text == "finetuned",
        "use_bert_finetune": args.text == "finetuned",
        "transformers": "bert",
        "pretrained": None,
    }
    if any(steps % 25 for steps in shape.steps.values()):
        settings["num_temporal_head"] = 1  # its 25 must divide every length
    return Args(**settings)


def their_step(name: str, shape: Shape, args: argparse.Namespace) -> Step:
    kind, where, config, step = {
        "mmsa_tfrnet": ("TFR_NET", "missingTask.TFR_NET.model", "tfr_net", TheirTFRNet),
        "mmsa_mult": ("MULT", "singleTask.MULT", "mult", TheirMulT),
    }[name]
    try:
        module = importlib.import_module(f"MMSA.models.{where}")
    except ImportError as error:
        sys.exit(f"{name}: MMSA cannot be imported ({error}); run `make parity` to install it")
    finetuned = args.text == "finetuned"
    module.BertTextEncoder = (
        GivenText if args.encoder == "none" else their_bert(args.encoder, finetuned=finetuned)
    )
    network = getattr(module, kind)(their_settings(config, shape, args))
    return step(name, network, shape, args)


def build(name: str, shape: Shape, args: argparse.Namespace) -> Step:
    torch.manual_seed(1)
    return (their_step if name in THEIRS else our_step)(name, shape, args)
