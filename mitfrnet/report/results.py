"""Read what the other stages wrote about the cells of the grid.

Other cells are ignored: DVC keeps the files of cells that left the grid.
"""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mitfrnet.errors import FeatureError
from mitfrnet.grid import Condition, GridParams
from mitfrnet.labels import LabelScale, parse_scale
from mitfrnet.metrics import ScoresByMask


@dataclass(frozen=True)
class Corpus:
    """One corpus as ingested, extracted and masked.

    Attributes:
        name: as in the grid.
        quality: counts of clips, videos, hours and labels.
        features: steps, share of detected steps and naturally missing clips, by modality.
        masks: protocol, pattern, seed and realised rates, by condition.
    """

    name: str
    quality: Mapping[str, Any]
    features: Mapping[str, Any]
    masks: Mapping[Condition, Mapping[str, Any]]


@dataclass(frozen=True)
class Cell:
    """One trained model, its loss curves, and its predictions and scores on the test split.

    Attributes:
        corpus, model, condition, seed: its place in the grid; the condition is the missing rate
            or the protocol of its training.
        config: the configuration in its model folder.
        timings: seconds per epoch, epochs, parameters, memory and device of the training.
        losses: (epoch, value) of each epoch in which a term counts, by `train/<term>` and
            `valid/<term>`.
        scores: by missing rate and seed of the test masks.
        predictions: `utterance_id, missing_rate, mask_seed, label, prediction`, and a column per
            reference.
    """

    corpus: str
    model: str
    condition: Condition
    seed: int
    config: Mapping[str, Any]
    timings: Mapping[str, Any]
    losses: Mapping[str, list[tuple[int, float]]]
    scores: ScoresByMask
    predictions: pa.Table

    @cached_property
    def scale(self) -> LabelScale:
        """Return the label scale."""
        return parse_scale(self.config["scale"])

    @property
    def path(self) -> str:
        """Return the cell's folder below `metrics`, `predictions`, `models`, `timings`."""
        return f"{self.corpus}/{self.model}/{self.condition}/{self.seed}"

    def tested_at(self, rate: float, mask_seed: int | None = None) -> pa.Table:
        """Return the predictions under one test mask, by default that of the first mask seed."""
        seed = next(iter(self.scores[rate])) if mask_seed is None else mask_seed
        table = self.predictions
        rows = pc.and_(pc.equal(table["missing_rate"], rate), pc.equal(table["mask_seed"], seed))
        return table.filter(rows)


@dataclass(frozen=True)
class Results:
    """The corpora and cells of a grid; cells by corpus, condition, model and seed, in its order."""

    grid: GridParams
    corpora: list[Corpus]
    cells: list[Cell]

    def select(self, corpus: str, model: str, condition: Condition | None = None) -> list[Cell]:
        """Return the cells of one model on one corpus, under one condition or all."""
        return [
            cell
            for cell in self.cells
            if (cell.corpus, cell.model) == (corpus, model) and condition in (None, cell.condition)
        ]


def read_results(
    grid: GridParams, *, metrics: Path, predictions: Path, models: Path, timings: Path
) -> Results:
    """Return the results of the grid's cells.

    Args:
        grid: the corpora, models, conditions and seeds.
        metrics: folder of the scores, and of each corpus's quality, features and masks.
        predictions: folder of the predictions.
        models: folder of the model folders.
        timings: folder of the training times.

    Raises:
        FeatureError: a file of a cell or corpus is absent or cannot be read.
    """
    corpora = [
        Corpus(
            name=name,
            quality=read_json(metrics / name / "quality.json"),
            features=read_json(metrics / name / "features.json"),
            masks={
                condition: read_json(metrics / name / "masks" / f"{condition}.json")
                for condition in grid.missing_rates
            },
        )
        for name in grid.corpora
    ]
    cells = read_cells(
        grid, metrics=metrics, predictions=predictions, models=models, timings=timings
    )
    return Results(grid, corpora, cells)


def read_cells(
    grid: GridParams, *, metrics: Path, predictions: Path, models: Path, timings: Path | None
) -> list[Cell]:
    """Return the cells of the grid as `read_results` does, without `timings` if that is None."""
    cells = []
    for corpus, condition, model, seed in product(
        grid.corpora, grid.missing_rates, grid.models, grid.seeds
    ):
        place = Path(corpus, model, str(condition))
        folder = models / place / str(seed)
        table = _read_parquet(predictions / place / f"{seed}.parquet")
        first_mask = (table["missing_rate"][0].as_py(), table["mask_seed"][0].as_py())
        cells.append(
            Cell(
                corpus=corpus,
                model=model,
                condition=condition,
                seed=seed,
                config=read_json(folder / "config.json"),
                timings=read_json(timings / place / f"{seed}.json") if timings else {},
                losses=_read_losses(folder / "curves" / "plots" / "metrics"),
                scores=read_scores(metrics / place / f"{seed}.json", *first_mask),
                predictions=table,
            )
        )
    return cells


def read_scores(path: Path, rate: float, mask_seed: int) -> ScoresByMask:
    """Return what stage `evaluate` wrote about one cell.

    Args:
        path: the file.
        rate: missing rate of the test mask, for a file with the scores of a single mask.
        mask_seed: seed of that mask.

    Raises:
        FeatureError: the file is absent or holds no scores.
    """
    scores = read_json(path)
    try:
        single_mask = {rate: {"by_mask_seed": {mask_seed: scores}}}
        by_mask: ScoresByMask = {
            float(tested): {int(seed): run for seed, run in at_rate["by_mask_seed"].items()}
            for tested, at_rate in scores.get("by_rate", single_mask).items()
        }
        runs = [run for by_seed in by_mask.values() for run in by_seed.values()]
        valid = all(isinstance(run["constant_prediction"], bool) for run in runs)
    except (AttributeError, KeyError, TypeError, ValueError):
        valid = False
    if not valid:
        raise FeatureError(f"{path}: not the scores of a run (expected what `evaluate` writes)")
    return by_mask


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        FeatureError: the file is absent or not valid JSON.
    """
    _must_exist(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FeatureError(f"{path}: not valid JSON ({error})") from error


def _read_parquet(path: Path) -> pa.Table:
    _must_exist(path)
    try:
        return pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise FeatureError(f"{path}: not valid Parquet ({error})") from error


def _read_losses(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return DVCLive's curves as (epoch, value), epochs counted from 1.

    Each row is an epoch; its `step` does not count epochs. The validation loss has a row for every
    epoch. A term that starts later has rows for the last epochs only.
    """
    validation = folder / "valid" / "task.tsv"
    _must_exist(validation)
    curves = {path: _read_values(path) for path in sorted(folder.glob("*/*.tsv"))}
    epochs = len(curves[validation])
    return {
        f"{path.parent.name}/{path.stem}": list(enumerate(values, 1 + epochs - len(values)))
        for path, values in curves.items()
    }


def _read_values(path: Path) -> list[float]:
    with path.open(encoding="utf-8", newline="") as file:
        return [float(row[path.stem]) for row in csv.DictReader(file, delimiter="\t")]


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise FeatureError(f"{path}: absent, though the grid asks for it (run `dvc repro`)")
