"""Measure one training step of our models, and of MMSA's TFR-Net and MulT, on made clips.

    python -m benchmarks.train_step --help

A step is forward, loss, backward, clipping and Adam, in train mode with dropout. All models see the
same clips; ours in batches of like length padded to the longest, MMSA's padded to the full length
of its feature files. Batches are spread over the epoch, and models take turns on each.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch loads; see NOTES.md

import numpy as np
import torch
import transformers
import yaml
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.utils import clip_grad_value_
from torch.profiler import ProfilerActivity, profile

from mitfrnet.data.batches import Batch, Utterance, collate
from mitfrnet.modalities import MODALITIES
from mitfrnet.models import registry
from mitfrnet.models.layers import split_weight_decay
from mitfrnet.models.output import objective
from mitfrnet.models.text_encoder import TextEncoder
from mitfrnet.trained import Network
from mitfrnet.training.epochs import batches

CLIPS = 1284  # the training split of CMU-MOSI
MISSING_RATE = 0.3
LONGEST_S = 11.7
VOCABULARY = 30522
CLIP_VALUE = 0.8


@dataclass(frozen=True)
class Shape:
    """A corpus as MMSA's files hold it: padded steps and features of a step by modality."""

    steps: dict[str, int]
    dims: dict[str, int]  # of sound and picture
    rates: dict[str, float]  # steps a second
    batch_size: int


def _shape(steps: tuple[int, int, int], dims: tuple[int, int], batch_size: int) -> Shape:
    """Return a shape whose longest clip just fills the padded steps of sound and picture."""
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

# Size, layers and heads of a text encoder; `none` is given features of BERT's size.
ENCODERS = {"minilm": (384, 6, 12), "bert": (768, 12, 12)}
TEXT_DIM = {"none": 768, "minilm": 384, "bert": 768}

OURS = tuple(registry.MODELS)
THEIRS = ("mmsa_tfrnet", "mmsa_mult")


def draw_utterances(shape: Shape, text_dim: int, count: int, scale: float = 1) -> list[Utterance]:
    """Return clips of random features; seconds follow gamma(2.8, 1.5), within 0.5 and 11.7.

    Args:
        shape: the corpus.
        text_dim: features of a text vector.
        count: how many clips.
        scale: every length is multiplied by it.
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
        batches(steps, batch_size, seed=1, epoch=1), key=lambda rows: steps[rows].sum()
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
    """Our text encoder around a BERT that is not loaded."""

    def __init__(self, encoder: str) -> None:
        nn.Module.__init__(self)
        self.bert = random_bert(encoder)


class Step:
    """A model with its optimiser; called with a batch's number, it makes a training step."""

    name: str
    network: nn.Module

    def __init__(self, name: str, network: nn.Module, device: str, *, autocast: bool) -> None:
        self.name, self.network, self.device = name, network.to(device).train(), device
        self.autocast = autocast
        decayed, spared = split_weight_decay(network)
        groups = [{"params": decayed, "weight_decay": 1e-3}, {"params": spared}]
        self.optimiser = torch.optim.Adam(groups, lr=1e-3)
        self.batches: dict[int, Any] = {}

    def __call__(self, i: int) -> None:
        self.optimiser.zero_grad()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.autocast):
            loss = self.loss(self.batches[i])
        loss.backward()
        clip_grad_value_(self.network.parameters(), CLIP_VALUE)
        self.optimiser.step()

    def loss(self, batch: Any) -> Tensor:
        raise NotImplementedError

    def prepare(self, i: int, utterances: list[Utterance]) -> None:
        """Put batch number `i` on the device."""
        raise NotImplementedError

    @property
    def parameters(self) -> int:
        """Return how many numbers are learnt."""
        return sum(p.numel() for p in self.network.parameters() if p.requires_grad)


class OurStep(Step):
    """One of the registry with the settings of `params.yaml`; frozen text is encoded already."""

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
    """A model of MMSA; every batch is padded to the full length, and text encoded in each step."""

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
            self.network.text_model.given = [batch.values["text"], batch.target["text"]]
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
    """Stands for MMSA's BERT where text is given as features: first the masked, then the full."""

    given: list[Tensor]

    def __init__(self, **_: object) -> None:
        super().__init__()

    def forward(self, text: Tensor) -> Tensor:
        return self.given.pop(0)


def their_bert(encoder: str, *, finetuned: bool) -> Callable[..., nn.Module]:
    """Return a class in place of MMSA's BERT, which would be downloaded."""

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


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def timed(step: Step, i: int) -> tuple[float, float]:
    """Return what one step takes: seconds, and seconds of processor time over all threads."""
    synchronise(step.device)
    wall, processor = time.perf_counter(), time.process_time()
    step(i)
    synchronise(step.device)
    return time.perf_counter() - wall, time.process_time() - processor


def measure(
    steps: list[Step], epoch: list[list[Utterance]], args: argparse.Namespace
) -> dict[str, tuple[float, float]]:
    """Return mean seconds and processor seconds of a step over an epoch, by model.

    `args.steps` batches at even places among those sorted by length stand for the epoch; for each,
    the median of `args.rounds` rounds counts. Models alternate.
    """
    places = [int((k + 0.5) * len(epoch) / args.steps) for k in range(args.steps)]
    for step in steps:
        for i in places:
            step.prepare(i, epoch[i])
        step(places[len(places) // 2])  # warm up
    seconds: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for _ in range(args.rounds):
        for i in places:
            for step in steps:
                seconds.setdefault((step.name, i), []).append(timed(step, i))
    means = {}
    for step in steps:
        medians = [
            [statistics.median(kind) for kind in zip(*seconds[step.name, i], strict=True)]
            for i in places
        ]
        wall, processor = (statistics.mean(kind) for kind in zip(*medians, strict=True))
        means[step.name] = (wall, processor)
    return means


def peak_memory_mb(name: str, shape: Shape, args: argparse.Namespace) -> float:
    """Return the most memory in use after two steps on the epoch's longest clips, in MB.

    Of the GPU, or of a process that does nothing else, libraries included.
    """
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        _two_longest_steps(name, shape, args)
        return torch.cuda.max_memory_allocated() / 1e6
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_two_longest_steps, name, shape, args).result()


def _two_longest_steps(name: str, shape: Shape, args: argparse.Namespace) -> float:
    torch.set_num_threads(args.threads)
    clips = draw_utterances(shape, TEXT_DIM[args.encoder], args.clips)
    step = build(name, shape, args)
    step.prepare(0, bucketed(clips, shape.batch_size)[-1])
    for _ in range(2):
        step(0)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def show(console: Console, title: str, columns: list[str], rows: list[list[str]]) -> None:
    table = Table(title=title, box=box.MARKDOWN, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def compare(console: Console, shape_name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the models on one shape with one encoder, and print the table."""
    shape = SHAPES[shape_name]
    clips = draw_utterances(shape, TEXT_DIM[args.encoder], args.clips)
    epoch = bucketed(clips, shape.batch_size)
    steps = [build(name, shape, args) for name in args.models]
    means = measure(steps, epoch, args)
    # Ratios are of processor time on the CPU, which a busy machine disturbs less.
    kind = 0 if args.device == "cuda" else 1
    reference = args.models[-1] if args.reference is None else args.reference
    rows, results = [], []
    for step in steps:
        wall, processor = means[step.name]
        memory = peak_memory_mb(step.name, shape, args) if args.memory else None
        result = {
            "shape": shape_name,
            "encoder": args.encoder,
            "text": args.text,
            "model": step.name,
            "ms": 1000 * wall,
            "processor_ms": 1000 * processor,
            "clips_per_s": len(clips) / (wall * len(epoch)),
            "epoch_s": wall * len(epoch) * CLIPS / len(clips),
            "parameters": step.parameters,
            "peak_memory_mb": memory,
            "times_faster": means[reference][kind] / means[step.name][kind],
        }
        results.append(result)
        rows.append(
            [
                step.name,
                f"{result['ms']:.0f}",
                f"{result['processor_ms']:.0f}",
                f"{result['clips_per_s']:.1f}",
                f"{result['epoch_s']:.1f}",
                f"{step.parameters:,}",
                "" if memory is None else f"{memory:.0f}",
                f"{result['times_faster']:.2f}",
            ]
        )
    text = "no text encoder" if args.encoder == "none" else f"{args.encoder}, {args.text}"
    columns = ["model", "ms/step", "CPU ms", "clips/s", "s/epoch", "parameters", "MB"]
    title = f"{shape_name}, {text}, {args.device}, {args.threads} threads"
    show(console, title, [*columns, f"times {reference}"], rows)
    if args.profile:
        slowest = max(steps, key=lambda step: means[step.name][kind])
        print_profile(slowest, sorted(slowest.batches)[len(slowest.batches) // 2])
    return results


def print_profile(step: Step, i: int) -> None:
    """Print the operations that take most of a step."""
    activities = [ProfilerActivity.CPU]
    if step.device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as record:
        step(i)
        synchronise(step.device)
    key = "self_cuda_time_total" if step.device == "cuda" else "self_cpu_time_total"
    print(f"{step.name}, batch {i} of the epoch:")
    print(record.key_averages().table(sort_by=key, row_limit=25, max_name_column_width=60))


def scaling(console: Console, shape_name: str, args: argparse.Namespace) -> None:
    """Print what a step takes with 1, 2 and 4 times the clips, and the steps, of a median batch."""
    shape = SHAPES[shape_name]
    rows = []
    for name in args.models:
        if name in THEIRS:
            continue
        step = build(name, shape, args)
        for i, (clips, length) in enumerate([(1, 1), (2, 1), (4, 1), (1, 2), (1, 4)]):
            drawn = draw_utterances(shape, TEXT_DIM[args.encoder], args.clips, scale=length)
            middle = bucketed(drawn, shape.batch_size)[args.clips // shape.batch_size // 2]
            step.prepare(i, middle * clips)
        for i in step.batches:
            step(i)
        times = {
            i: statistics.median(timed(step, i)[1] for _ in range(args.rounds))
            for i in step.batches
        }
        rows.append([name] + [f"{1000 * t:.0f} ({t / times[0]:.1f})" for t in times.values()])
    columns = ["model", "1x", "clips 2x", "clips 4x", "steps 2x", "steps 4x"]
    show(console, f"{shape_name}: CPU ms of a step (times the first)", columns, rows)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=[*OURS, *THEIRS], default=[*OURS, *THEIRS])
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument(
        "--encoders",
        nargs="+",
        choices=["none", *ENCODERS],
        default=["none", *ENCODERS],
        help="in front of the text: sizes, with random weights",
    )
    parser.add_argument(
        "--text", nargs="+", choices=["frozen", "finetuned"], default=["frozen", "finetuned"]
    )
    parser.add_argument("--steps", type=int, default=5, help="batches that stand for the epoch")
    parser.add_argument("--rounds", type=int, default=3, help="times each is repeated")
    parser.add_argument("--clips", type=int, default=CLIPS, help="of the made corpus")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    parser.add_argument("--reference", help="model the ratios refer to; the last one if not said")
    parser.add_argument("--memory", action="store_true", help="measure peak memory")
    parser.add_argument("--profile", action="store_true", help="operations of the slowest model")
    parser.add_argument("--scaling", action="store_true", help="with more clips and longer ones")
    parser.add_argument("--json", type=Path, help="write what was measured here too")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    console = Console(width=120)
    results = []
    for shape in args.shapes:
        for encoder in args.encoders:
            for text in args.text if encoder != "none" else ["frozen"]:
                run = argparse.Namespace(**{**vars(args), "encoder": encoder, "text": text})
                if args.scaling:
                    scaling(console, shape, run)
                else:
                    results += compare(console, shape, run)
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
