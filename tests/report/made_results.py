"""Folders as the other stages leave them, with predictions that a test chooses."""

import zlib
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mitfrnet.files import write_json
from mitfrnet.metrics import SCALES, score
from mitfrnet.modalities import MODALITIES
from mitfrnet.report.results import GridParams, read_results

TITLE = "A made-up study"
SPLITS = {"train": 30, "valid": 6, "test": 12}


def write_results(
    folder,
    corpora=None,
    models=("mitfrnet",),
    rates=(0.3,),
    seeds=(1,),
    tested=None,
    clips=12,
    ids=None,
    label=None,
    predict=None,
):
    """Write params.yaml, metrics/, predictions/ and models/ of a whole grid.

    Args:
        folder: where.
        corpora: scale by corpus name.
        models: of the grid.
        rates: of the grid.
        seeds: of the grid.
        tested: rates of the test masks, where they are not those of training.
        clips: how many the test split has.
        ids: utterance ids.
        label: (clips,).
        predict: (model, rate, seed, label) -> (clips,).

    Returns:
        The grid.
    """
    corpora = corpora or {"one": "mosi"}
    grid = {
        "corpora": list(corpora),
        "models": list(models),
        "missing_rates": list(rates),
        "seeds": list(seeds),
    }
    params = {"grid": grid, "report": {"title": TITLE}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    for corpus in corpora:
        write_corpus(folder / "metrics" / corpus, rates)
    for (corpus, scale), model, rate, seed in product(corpora.items(), models, rates, seeds):
        place = Path(corpus, model, str(rate))
        high = SCALES[scale].high
        true = np.linspace(-high, high, clips) if label is None else np.asarray(label)
        true = true.astype(np.float32)
        names = ids or [f"video_{i // 3}/{i % 3}" for i in range(clips)]
        by_rate, tables = {}, []
        for test_rate in tested or [rate]:
            predicted = (predict or noisy)(model, test_rate, seed, true).astype(np.float32)
            by_rate[str(test_rate)] = score(predicted, true, scale)
            columns = {
                "utterance_id": pa.array(names, pa.string()),
                "missing_rate": pa.array([test_rate] * len(true), pa.float64()),
                "label": true,
                "prediction": predicted,
                "majority": np.full(len(true), high / 2, np.float32),
                "train_mean": np.full(len(true), high / 6, np.float32),
                "text_ridge": (true * (1 - test_rate) / 2 + high / 10).astype(np.float32),
            }
            tables.append(pa.table(columns))
        path = folder / "predictions" / place / f"{seed}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.concat_tables(tables), path)
        write_json(
            {"by_rate": by_rate} if tested else by_rate[str(rate)],
            folder / "metrics" / place / f"{seed}.json",
        )
        write_model(folder / "models" / place / str(seed), model, rate, seed, scale)
    return GridParams(**grid)


def read(folder, grid):
    """Return what was written."""
    return read_results(grid, folder / "metrics", folder / "predictions", folder / "models")


def noisy(model, rate, seed, label):
    """Return predictions that are worse where more is missing."""
    rng = np.random.default_rng([zlib.crc32(model.encode()), seed])
    return label * (1 - 0.7 * rate) + rng.normal(0, 0.5, len(label)) * np.abs(label).max() / 3


def write_corpus(folder, rates):
    """Write quality, features and realised rates."""
    write_json(
        {
            "clips": 48,
            "hours": 0.25,
            "label": {"mean": 0.125, "negative": 20, "positive": 24, "zero": 4},
            "naturally_missing": {"text": {}, "acoustic": {"no_audio_stream": 2}, "visual": {}},
            "splits": SPLITS,
            "videos": 16,
            "videos_on_two_sides": 0,
        },
        folder / "quality.json",
    )
    found = {"mean": 0.9375, "p05": 0.5, "p50": 1.0}
    reasons = {"text": {}, "acoustic": {"no_audio_stream": 2}, "visual": {"no_face": 3}}
    write_json(
        {
            m: {"clips": 48, "detected_share": found, "missing": reasons[m], "steps": 1234}
            for m in MODALITIES
        },
        folder / "features.json",
    )
    for rate in rates:
        realised = {
            "hidden_of_maskable": rate,
            "missing_of_valid": min(1.0, rate + 0.0625),
            "clips_without": 3,
        }
        write_json(
            {
                "pattern": "random",
                "rate": rate,
                "seed": 1,
                "realised": {split: dict.fromkeys(MODALITIES, realised) for split in SPLITS},
            },
            folder / "masks" / f"{rate}.json",
        )


def write_model(folder, model, rate, seed, scale, epochs=20):
    """Write a configuration and loss curves, the auxiliary ones from the second epoch."""
    features = {
        m: {
            "digest": f"{i}" * 32,
            "version": "1",
            "identity": {"libraries": {"av": "18.1.0"}, "settings": {"some_hz": 16000 + i}},
        }
        for i, m in enumerate(MODALITIES)
    }
    falling = [0.8 * 0.9**e + 0.2 + 0.2 * rate + 0.01 * seed for e in range(epochs)]
    valid = [v + 0.02 * abs(e - 12) for e, v in enumerate(falling)]
    aux = [0.0, *falling[1:]]
    write_json(
        {
            "dims": {"text": 384, "acoustic": 33, "visual": 168},
            "features": features,
            "language": "en",
            "model": model,
            "scale": SCALES[scale].model_dump(),
            "settings": {"aux_start_epoch": 2, "mmr": True, "kernels": {"text": 1, "visual": 3}},
            "text": "frozen",
            "training": {
                "best_epoch": valid.index(min(valid)) + 1,
                "best_valid_task_loss": min(valid),
                "clips": {"train": SPLITS["train"], "valid": SPLITS["valid"]},
                "masks": {"pattern": "random", "rate": rate, "seed": 1},
                "optimiser": {"learning_rate": 0.002, "batch_size": 24},
                "parameters": 1549249,
                "seed": seed,
                "train": {"text": "frozen", "max_epochs": 100},
            },
            "versions": {"torch": "2.13.0", "lightning": "2.6.6"},
        },
        folder / "config.json",
    )
    curves = {"train/task": falling, "valid/task": valid}
    if model == "mitfrnet":
        curves["train/invariance"] = [3 * v for v in aux]
    if model == "mitfrnet" and rate > 0:  # at rate 0 there is nothing to reconstruct
        for i, m in enumerate(MODALITIES):
            curves[f"train/reconstruction_{m}"] = [v / (i + 1) for v in aux]
    for name, values in curves.items():
        path = folder / "curves" / "plots" / "metrics" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        # DVCLive's own steps, which Lightning fills with anything but the epoch.
        rows = [f"step\t{path.stem}", *(f"{1 + e % 2}\t{v}" for e, v in enumerate(values))]
        path.write_text("\n".join(rows) + "\n")
