"""Results as the other stages write them, with predictions that a test chooses."""

import zlib
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mitfrnet.files import write_json
from mitfrnet.grid import GridParams
from mitfrnet.labels import Scale, parse_scale
from mitfrnet.metrics import score
from mitfrnet.modalities import MODALITIES
from mitfrnet.report.over_rates import blocks
from mitfrnet.report.params import ReportParams
from mitfrnet.report.results import read_results
from mitfrnet.report.scores import score_groups

TITLE = "A made-up study"
REPORT = ReportParams(
    title=TITLE,
    bootstrap={"resamples": 50, "seed": 1, "level": 0.95},
    paired_test={"scores": "mae", "classes": "accuracy", "exchanges": 50},
    worst={"clips": 10, "pages": True},
)
SPLITS = {"train": 30, "valid": 6, "test": 12}


def write_results(
    folder,
    corpora=None,
    models=("mitfrnet",),
    rates=(0.3,),
    seeds=(1,),
    tested=None,
    mask_seeds=(1,),
    clips=12,
    ids=None,
    label=None,
    predict=None,
    epochs=20,
):
    """Write params.yaml, metrics/, predictions/, models/ and timings/ of a whole grid.

    Args:
        folder: the folder to write to.
        corpora: scale by corpus name: a name, or a scale as it is stored.
        models: of the grid; no_<part> in a name switches the part off.
        rates: of the grid; an entry can be the name of a protocol.
        seeds: of the grid.
        tested: rates of the test masks, if they differ from those of training.
        mask_seeds: seeds of the test masks.
        clips: number of test clips.
        ids: utterance ids.
        label: (clips,).
        predict: (model, rate, seed, label) -> (clips,).
        epochs: number of epochs of each training.

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
    params = {"grid": grid, "report": REPORT.model_dump()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    for corpus, scale in corpora.items():
        write_corpus(folder / "metrics" / corpus, rates, parse_scale(scale))
    for (corpus, stored), model, rate, seed in product(corpora.items(), models, rates, seeds):
        place = Path(corpus, model, str(rate))
        scale = parse_scale(stored)
        true = made_label(scale, clips) if label is None else np.asarray(label)
        true = true.astype(np.float32)
        names = ids or [f"video_{i // 3}/{i % 3}" for i in range(clips)]
        by_rate, tables = {}, []
        for test_rate, mask_seed in product(tested or [rate], mask_seeds):
            draw = predict or (noisy if isinstance(scale, Scale) else noisy_classes)
            predicted = draw(model, test_rate, seed + 100 * (mask_seed - 1), true)
            predicted = predicted.astype(np.float32)
            by_mask_seed = by_rate.setdefault(str(test_rate), {"by_mask_seed": {}})["by_mask_seed"]
            by_mask_seed[str(mask_seed)] = score(predicted, true, scale)
            columns = {
                "utterance_id": pa.array(names, pa.string()),
                "missing_rate": pa.array([test_rate] * len(true), pa.float64()),
                "mask_seed": pa.array([mask_seed] * len(true), pa.int64()),
                "label": true,
                "prediction": predicted,
                **made_references(scale, true, test_rate),
            }
            tables.append(pa.table(columns))
        path = folder / "predictions" / place / f"{seed}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.concat_tables(tables), path)
        flat = tested is None and len(mask_seeds) == 1
        (scored, *_) = by_rate[str((tested or [rate])[0])]["by_mask_seed"].values()
        write_json(
            scored if flat else {"by_rate": by_rate},
            folder / "metrics" / place / f"{seed}.json",
        )
        write_model(folder / "models" / place / str(seed), model, rate, seed, scale, epochs)
        write_timings(folder / "timings" / place / f"{seed}.json", model, seed, epochs)
    return GridParams(**grid)


def read(folder, grid):
    """Return the results of a grid that `write_results` wrote."""
    folders = {name: folder / name for name in ("metrics", "predictions", "models", "timings")}
    return read_results(grid, **folders)


def make_results(folder, **study):
    """Write results with the arguments of `write_results`, and return them."""
    return read(folder, write_results(folder, **study))


def make_block(folder, **study):
    """Return the results of a study that has one block, and the block with its intervals."""
    results = make_results(folder, **study)
    (block,) = blocks(score_groups(results, REPORT.bootstrap))
    return results, block


def made_label(scale, clips):
    """Return labels spread evenly over the scale or its classes."""
    if isinstance(scale, Scale):
        return np.linspace(scale.low, scale.high, clips)
    return np.arange(clips) % len(scale.classes)


def made_references(scale, label, rate):
    """Return the predictions of the references."""
    if not isinstance(scale, Scale):
        classes = len(scale.classes)
        off = np.where(np.arange(len(label)) % 4 < 4 * rate, 1, 0)
        return {
            "majority": np.zeros(len(label), np.int64),
            "text_logistic": ((label + off) % classes).astype(np.int64),
        }
    middle, half = (scale.low + scale.high) / 2, (scale.high - scale.low) / 2
    return {
        "majority": np.full(len(label), middle + half / 2, np.float32),
        "train_mean": np.full(len(label), middle + half / 6, np.float32),
        "text_ridge": (label * (1 - rate) / 2 + half / 10).astype(np.float32),
    }


def noisy(model, rate, seed, label):
    """Return predictions that get worse as more is missing."""
    rng = np.random.default_rng([zlib.crc32(model.encode()), seed])
    return label * (1 - 0.7 * rate) + rng.normal(0, 0.5, len(label)) * np.abs(label).max() / 3


def noisy_classes(model, rate, seed, label):
    """Return classes that are wrong more often as more is missing."""
    rng = np.random.default_rng([zlib.crc32(model.encode()), seed])
    wrong = rng.random(len(label)) < 0.15 + 0.6 * rate
    return np.where(wrong, (label + 1) % (label.max() + 1), label)


def write_corpus(folder, rates, scale):
    """Write quality, features and realised rates."""
    labels = {"mean": 0.125, "negative": 20, "positive": 24, "zero": 4}
    if not isinstance(scale, Scale):
        labels = {"classes": {name: 48 // len(scale.classes) for name in scale.classes}}
    write_json(
        {
            "clips": 48,
            "hours": 0.25,
            "label": labels,
            "naturally_missing": {"text": {}, "acoustic": {"no_audio_stream": 2}, "visual": {}},
            "splits": SPLITS,
            "transcripts": {"srt": 3, "table": 44},
            "videos": 16,
            "videos_on_two_sides": 0,
            "with_word_times": 5,
        },
        folder / "quality.json",
    )
    shares = {"mean": 0.9375, "p05": 0.5, "p50": 1.0}
    reasons = {"text": {}, "acoustic": {"no_audio_stream": 2}, "visual": {"no_face": 3}}
    features = {
        m: {"clips": 48, "detected_share": shares, "missing": reasons[m], "steps": 1234}
        for m in MODALITIES
    }
    features["text"] |= {"truncated": 2, "unknown_tokens": 0.015625}
    features["aligned_by"] = {"words": 5, "characters": 0, "segments": 43}
    write_json(features, folder / "features.json")
    for rate in rates:
        hidden = 0.5 if isinstance(rate, str) else rate
        realised = {
            "asked": hidden,
            "hidden_of_maskable": hidden,
            "missing_of_valid": min(1.0, hidden + 0.0625),
            "clips_without": 3,
        }
        write_json(
            {
                "protocol": rate if isinstance(rate, str) else "matched",
                "pattern": "random",
                "rate": None if isinstance(rate, str) else rate,
                "seed": 1,
                "params": {"scale_factors": {"text": 1.0, "acoustic": 1.0, "visual": 1.0}},
                "realised": {split: dict.fromkeys(MODALITIES, realised) for split in SPLITS},
            },
            folder / "masks" / f"{rate}.json",
        )


def write_timings(path, model, seed, epochs):
    """Write the timings of a training."""
    write_json(
        {
            "seconds_per_epoch": 1.5 + 0.25 * seed + len(model) / 8,
            "epochs": epochs,
            "parameters": 1549249,
            "peak_memory_mb": 512.0,
            "device": "cpu",
            "threads": 1,
        },
        path,
    )


def write_model(folder, model, rate, seed, scale, epochs):
    """Write a configuration and loss curves; auxiliary losses start at the second epoch."""
    own = model.startswith("mitfrnet")
    rate = 0.5 if isinstance(rate, str) else rate
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
    aux = [None, *falling[1:]]
    write_json(
        {
            "dims": {"text": 384, "acoustic": 33, "visual": 168},
            "features": features,
            "language": "en",
            "model": model,
            "architecture": "mitfrnet" if own else model,
            "scale": scale.model_dump(mode="json"),
            "settings": {
                "aux_start_epoch": 2,
                "mmr": "no_mmr" not in model,
                "mitr": "no_mitr" not in model,
                "kernels": {"text": 1, "visual": 3},
            },
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
    if own:
        curves["train/invariance"] = [v and 3 * v for v in aux]
    if own and rate > 0:  # at rate 0 there is nothing to reconstruct
        for i, m in enumerate(MODALITIES):
            curves[f"train/reconstruction_{m}"] = [v and v / (i + 1) for v in aux]
    for name, values in curves.items():
        path = folder / "curves" / "plots" / "metrics" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Lightning does not fill DVCLive's steps with epochs.
        rows = [f"{1 + e % 2}\t{v}" for e, v in enumerate(values) if v is not None]
        rows.insert(0, f"step\t{path.stem}")
        path.write_text("\n".join(rows) + "\n")
