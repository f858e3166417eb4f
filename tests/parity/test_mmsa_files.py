"""MMSA 2.2.1 trains on our files for one epoch, with its own runner, loader, models and scores.

Two things are replaced. The scheduler drops `verbose`, which this PyTorch no longer accepts, and
TFR-Net's text encoder is a BERT with one random layer instead of a download.
"""

import functools
import importlib
import math

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers import AutoTokenizer, BertConfig, BertModel

from mitfrnet.features.text_encoder import encoder_folder
from mitfrnet.mmsa import write
from tests.helpers.mmsa_files import write_corpus

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

MMSA = pytest.importorskip("MMSA", reason="needs MMSA 2.2.1 (make parity)")

UTTERANCES = 20  # per split


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """Return a folder with a small BERT of the width that MMSA expects."""
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder("embedded"))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=768, num_hidden_layers=1)
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return an unaligned and an aligned export; some clips lack text, sound or face."""
    folder = tmp_path_factory.mktemp("export")
    for name in ("unaligned", "aligned"):
        write_corpus(folder / name, aligned=name == "aligned", count=UTTERANCES)
        write(folder / name, folder / f"{name}.pkl")
    return folder


def scheduler(*arguments, verbose=None, **options):
    return ReduceLROnPlateau(*arguments, **options)


@pytest.mark.parametrize(
    ("model", "form"),
    [("tfn", "unaligned"), ("mult", "unaligned"), ("mult", "aligned"), ("tfr_net", "unaligned")],
)
def test_mmsa_trains_on_our_export(
    model, form, files, bert, tmp_path, monkeypatch, record_property
):
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)  # there is only the CPU
    for trainer in ("singleTask.MULT", "missingTask.TFR_NET"):
        module = importlib.import_module(f"MMSA.trains.{trainer}")
        monkeypatch.setattr(module, "ReduceLROnPlateau", scheduler)
    theirs = importlib.import_module("MMSA.models.missingTask.TFR_NET.model")
    encoder = functools.partial(theirs.BertTextEncoder, pretrained=str(bert))
    monkeypatch.setattr(theirs, "BertTextEncoder", encoder)
    results = []
    runner = importlib.import_module("MMSA.run")
    run = runner._run
    monkeypatch.setattr(runner, "_run", lambda *a, **k: results.append(run(*a, **k)) or results[-1])

    settings = {
        "featurePath": str(files / f"{form}.pkl"),
        "need_data_aligned": form == "aligned",
        "early_stop": 0,  # after the first epoch
        "batch_size": 8,
        "num_temporal_head": 1,  # 25 would have to divide every length
        "pretrained": str(bert),
    }
    MMSA.MMSA_run(
        model,
        "mosi",
        config=settings,
        seeds=[1],
        gpu_ids=[],
        num_workers=0,
        model_save_dir=tmp_path / "models",
        res_save_dir=tmp_path / "results",
        log_dir=tmp_path / "logs",
    )
    (scores,) = results
    record_property("scores", scores)
    assert {"MAE", "Corr", "Non0_acc_2", "Mult_acc_7"} <= scores.keys()
    assert all(math.isfinite(value) for value in scores.values())
    log = (tmp_path / "logs" / f"{model}-mosi.log").read_text()
    assert f"train samples: ({UTTERANCES},)" in log
    assert log.count("TRAIN-(") == 1
