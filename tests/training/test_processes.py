"""Training as a process of its own: killed and run again, or several that train together."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from mitfrnet.data.tensors import write_tensors
from mitfrnet.missing import MaskParams, mask_corpus, write_masks
from mitfrnet.params import load_params
from tests.helpers.paths import ROOT
from tests.helpers.running import write_params
from tests.helpers.splits import make_split

pytestmark = pytest.mark.slow

EPOCHS = 6
# Dropout draws other numbers in each process.
NO_DROPOUT = {
    **{
        f"{name}_dropout": 0.0
        for name in ("text", "relu", "residual", "embed", "fusion", "classifier")
    },
    "attention_dropout": {"text": 0.0, "acoustic": 0.0, "visual": 0.0},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Return a folder with tensors, masks and params.yaml, batches of eight."""
    folder = tmp_path_factory.mktemp("corpus")
    valid = replace(make_split(6, seed=1), ids=[f"w/{i}" for i in range(6)])
    splits = {"train": make_split(20, seed=0, without=[3]), "valid": valid}
    steps = {name: split.steps for name, split in splits.items()}
    masks = mask_corpus(steps, rate=0.4, params=load_params(MaskParams, section="mask"))
    write_tensors(splits, folder / "tensors")
    write_masks(masks, steps, folder / "masks.parquet")
    write_params(folder, train__max_epochs=EPOCHS, model__mitfrnet__optimiser__batch_size=8)
    return folder


def stage(out):
    return [
        "-m", "pipeline.train", "--tensors", "tensors", "--masks", "masks.parquet",
        "--model", "mitfrnet", "--seed", "1", "--work", "work", "--out", out,
        "--timings", f"{out}.json",
    ]  # fmt: skip


def start(folder, *words):
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 0, output[-3000:]


def epochs_done(work):
    """Return how many epochs a checkpoint holds; 0 before there is one."""
    for path in work.glob("[!.]*.safetensors"):
        with safe_open(path, framework="pt") as file:
            return len(json.loads(file.metadata()["mitfrnet"]))
    return 0


def test_a_training_killed_at_any_moment_gives_the_same_bytes(corpus, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(corpus, folder)
    finish(start(folder, *stage("whole")))

    last = random.SystemRandom().randint(1, EPOCHS - 2)
    process = start(folder, *stage("killed"))
    work = folder / "work" / "training"
    while epochs_done(work) < last:
        assert process.poll() is None, process.communicate()[0][-3000:]
        time.sleep(0.002)
    time.sleep(random.SystemRandom().random() / 5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert epochs_done(work) >= last
    shutil.rmtree(folder / "killed")  # as DVC does before it runs a stage again

    finish(start(folder, *stage("killed")))
    files = [p for p in (folder / "whole").rglob("*") if p.is_file()]
    assert {"model.safetensors", "config.json", "task.tsv"} <= {p.name for p in files}
    for path in files:
        again = folder / "killed" / path.relative_to(folder / "whole")
        assert again.read_bytes() == path.read_bytes(), (path, last)
    assert not list(work.iterdir())
    assert json.loads((folder / "killed.json").read_text())["epochs"] == EPOCHS


# One step on one batch, whose gradients the first process keeps.
STEP = """
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from mitfrnet.data.tensors import read_tensors
from mitfrnet.data.masked import FrozenText, fit_scaling
from mitfrnet.missing import read_masks
from mitfrnet.params import load_params
from mitfrnet.workers.params import RunParams
from mitfrnet.training import TrainParams, load_model_params
from mitfrnet.training.batching import Utterances
from mitfrnet.training.losses import EpochLosses
from mitfrnet.training.fit import Fit
from mitfrnet.training.loop import _build, _launched
from mitfrnet.trained.model import Network

splits = read_tensors(Path("tensors"), ["train", "valid"])
masks = read_masks(Path("masks.parquet"), {n: s.steps for n, s in splits.items()})
train = splits["train"]
scaling = fit_scaling(train, masks.observed["train"])
text = FrozenText(train.metadata["features"]["text"]["identity"])
utterances = Utterances(splits, masks, scaling, frozen=text, redrawn=None)
params = load_model_params("mitfrnet")
fabric = _launched(
    load_params(TrainParams, section="train"), load_params(RunParams, section="run")
)
torch.manual_seed(1)
network = Network(_build(train, scaling, params), None).train()
optimiser = params.optimiser.model_copy(update={"clip_value": None})
fit = Fit(fabric, network, optimiser, utterances, seed=1, name="mitfrnet")
losses = EpochLosses()
fit._step(fit._parts(utterances.train(1), np.arange(19)), losses, aux=True)
means = fit._means(losses, "", "train", utterances.train(1), [np.arange(19)])
if fabric.is_global_zero:
    found = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    found |= {n: torch.tensor(v) for n, v in means.items()}
    found |= {n: b for n, b in network.named_buffers() if b.is_floating_point()}
    save_file(found, sys.argv[1])
"""


@pytest.mark.parametrize(
    ("norm", "runs"),  # a run: processes, and batch_size
    [
        ("layer", [(1, 19), (1, 8), (2, 8)]),
        ("batch", [(1, 19), (2, 19)]),
        ("batch", [(1, 8), (2, 8)]),
    ],
)
def test_two_processes_take_the_step_of_one(corpus, tmp_path, norm, runs):
    """19 utterances as one batch, whole or in three parts, which BatchNorm would tell apart."""
    found = []
    for devices, size in runs:
        folder = tmp_path / f"{devices}-{size}"
        shutil.copytree(corpus, folder)
        write_params(
            folder,
            run__devices=devices,
            model__mitfrnet__optimiser__batch_size=size,
            model__mitfrnet__network__classifier_norm=norm,
            **{f"model__mitfrnet__network__{k}": v for k, v in NO_DROPOUT.items()},
        )
        (folder / "step.py").write_text(STEP)
        finish(start(folder, "step.py", "found.safetensors"))
        found.append(load_file(folder / "found.safetensors"))
    one, *more = found
    assert len([n for n in one if n.startswith("model.")]) > 100
    assert max(float(g.abs().max()) for g in one.values()) > 0.1
    for other in more:
        assert one.keys() == other.keys()
        for name in one:
            torch.testing.assert_close(other[name], one[name], atol=1e-5, rtol=1e-5, msg=name)


def test_processes_that_train_together_write_one_model(corpus, tmp_path):
    """The first alone, after the epochs of a single one."""
    losses = []
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        shutil.copytree(corpus, folder)
        write_params(
            folder,
            run__devices=devices,
            run__strategy="ddp" if devices == 2 else "auto",
            train__max_epochs=2,
            model__mitfrnet__optimiser__batch_size=8,
            **{f"model__mitfrnet__network__{k}": v for k, v in NO_DROPOUT.items()},
        )
        finish(start(folder, *stage("out")))
        names = {p.name for p in (folder / "out").iterdir()}
        assert names == {"model.safetensors", "scaling.safetensors", "config.json", "curves"}
        config = json.loads((folder / "out/config.json").read_text())
        assert config["training"]["devices"] == devices
        curve = folder / "out" / "curves" / "plots" / "metrics" / "valid" / "task.tsv"
        losses.append([float(line.split()[1]) for line in curve.read_text().splitlines()[1:]])
        assert not list((folder / "work" / "training").iterdir())
    assert len(losses[0]) == 2
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_more_processes_than_utterances_in_a_batch_are_refused(corpus, tmp_path):
    """20 utterances in batches of one: none is left for the second process."""
    folder = tmp_path / "run"
    shutil.copytree(corpus, folder)
    write_params(folder, run__devices=2, model__mitfrnet__optimiser__batch_size=1)
    process = start(folder, *stage("out"))
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 1
    assert "error: params.yaml: run: 2 devices (expected at most 1, the utterances of" in output
    assert "Traceback" not in output
