"""Training in processes of its own: one that is killed and run again, or several together."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from mitfrnet.data.tensors import write_tensors
from mitfrnet.missing import write_masks
from tests.helpers.paths import ROOT
from tests.helpers.running import write_params
from tests.helpers.splits import make_split, mask_splits

pytestmark = pytest.mark.slow

EPOCHS = 6
# Each process draws its own dropout.
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
    splits = {
        "train": make_split(19, seed=0, without=[3], video="train"),
        "valid": make_split(6, seed=1, video="valid"),
    }
    steps = {name: split.steps for name, split in splits.items()}
    write_tensors(splits, folder / "tensors")
    write_masks(mask_splits(splits), steps, folder / "masks.parquet")
    write_params(folder, train__max_epochs=EPOCHS, model__mitfrnet__optimiser__batch_size=8)
    write_plan(folder)
    return folder


def write_plan(folder):
    """Write the plan of a training with the settings of params.yaml, as stage `plan` does."""
    model = yaml.safe_load((folder / "params.yaml").read_text())["model"]["mitfrnet"]
    (folder / "plan.json").write_text(json.dumps({"model": model}))


def stage(out):
    return [
        "-m", "pipeline.train", "--plan", "plan.json", "--tensors", "tensors",
        "--masks", "masks.parquet", "--model", "mitfrnet", "--seed", "1", "--work", "work",
        "--out", out, "--timings", f"{out}.json",
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
    """Return how many epochs the checkpoint holds; 0 if there is none yet."""
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


# Train for one step, and keep its gradients, its losses and the statistics of BatchNorm.
STEP = """
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from mitfrnet.data.tensors import read_tensors
from mitfrnet.missing import read_masks
from mitfrnet.params import load_params
from mitfrnet.training.loop import train
from mitfrnet.training.load import load_model_params
from mitfrnet.training.settings import TrainParams
from mitfrnet.workers.params import RunParams

steps = []
adam_step = torch.optim.Adam.step


def step(optimiser, *args):
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    steps.append({f"gradient/{i}": p.grad.clone() for i, p in enumerate(parameters)})
    return adam_step(optimiser, *args)


torch.optim.Adam.step = step
splits = read_tensors(Path("tensors"), ["train", "valid"])
masks = read_masks(Path("masks.parquet"), {n: s.steps for n, s in splits.items()})
result = train(
    splits,
    masks,
    name="mitfrnet",
    model_params=load_model_params("mitfrnet"),
    params=load_params(TrainParams, section="train"),
    seed=1,
    curves=Path("curves"),
    run=load_params(RunParams, section="run"),
)
if result.first:
    (tensors,) = steps
    for path in Path("curves").rglob("train/*.tsv"):
        value = float(path.read_text().split()[-1])
        tensors[f"loss/{path.stem}"] = torch.tensor(value)
    for name, buffer in result.model.network.named_buffers():
        if buffer.is_floating_point():
            tensors[f"buffer/{name}"] = buffer
    save_file(tensors, sys.argv[1])
"""


@pytest.mark.parametrize(
    ("norm", "runs"),  # a run: processes, batch_size and accumulate
    [
        ("layer", [(1, 19, 1), (1, 8, 3), (2, 8, 3)]),
        ("batch", [(1, 19, 1), (2, 19, 1)]),
        ("batch", [(1, 8, 3), (2, 8, 3)]),
    ],
)
def test_two_processes_take_the_step_of_one(corpus, tmp_path, norm, runs):
    """19 utterances as one batch, whole or in three parts, which BatchNorm would tell apart."""
    results = []
    for devices, size, accumulate in runs:
        folder = tmp_path / f"{devices}-{size}"
        shutil.copytree(corpus, folder)
        write_params(
            folder,
            run__devices=devices,
            train__max_epochs=1,
            model__mitfrnet__optimiser__batch_size=size,
            model__mitfrnet__optimiser__accumulate=accumulate,
            model__mitfrnet__optimiser__clip_value=None,
            model__mitfrnet__network__classifier_norm=norm,
            model__mitfrnet__network__aux_start_epoch=1,
            **{f"model__mitfrnet__network__{k}": v for k, v in NO_DROPOUT.items()},
        )
        (folder / "step.py").write_text(STEP)
        finish(start(folder, "step.py", "step.safetensors"))
        results.append(load_file(folder / "step.safetensors"))
    one, *others = results
    gradients = [tensor for name, tensor in one.items() if name.startswith("gradient/")]
    assert len(gradients) > 100
    assert max(float(gradient.abs().max()) for gradient in gradients) > 0.1
    assert {"loss/task", "loss/invariance"} <= one.keys()
    for other in others:
        assert one.keys() == other.keys()
        for name in one:
            torch.testing.assert_close(other[name], one[name], atol=1e-5, rtol=1e-5, msg=name)


def test_processes_that_train_together_write_one_model(corpus, tmp_path):
    """The first one writes it, after the same epochs as a single process."""
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
        write_plan(folder)
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
    """In a batch of one utterance there is none for the second process."""
    folder = tmp_path / "run"
    shutil.copytree(corpus, folder)
    write_params(folder, run__devices=2, model__mitfrnet__optimiser__batch_size=1)
    write_plan(folder)
    process = start(folder, *stage("out"))
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 1
    assert "error: params.yaml: run: 2 devices (expected at most 1, the utterances of" in output
    assert "Traceback" not in output
