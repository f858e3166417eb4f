"""What the other stages wrote about the cells of the grid, and no others: DVC keeps stale files."""

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
from mitfrnet.metrics import Score

Run = tuple[int, int]  # seed of the training, seed of the test masks


@dataclass(frozen=True)
class Corpus:
    """One corpus as ingested, extracted and masked.

    Attributes:
        name: as in the grid.
        quality: counts of clips, videos, hours and labels.
        features: steps, shares detected and what is naturally missing, per modality.
        masks: protocol, pattern, seed and realised rates, per condition of the grid.
    """

    name: str
    quality: Mapping[str, Any]
    features: Mapping[str, Any]
    masks: Mapping[Condition, Mapping[str, Any]]


@dataclass(frozen=True)
class Cell:
    """One trained model, its curves and what it made of the test split.

    Attributes:
        corpus, model, condition, seed: its place in the grid; the condition is what it was
            trained under: a missing rate, or a protocol.
        config: of the model folder.
        timings: what training took.
        losses: (epoch, value), of the epochs in which a term counts; keys are `train/<term>` and
            `valid/<term>`.
        scores: per missing rate of the test masks and their seed.
        predictions: `utterance_id, missing_rate, mask_seed, label, prediction`, references.
    """

    corpus: str
    model: str
    condition: Condition
    seed: int
    config: Mapping[str, Any]
    timings: Mapping[str, Any]
    losses: Mapping[str, list[tuple[int, float]]]
    scores: Mapping[float, Mapping[int, Mapping[str, Score]]]
    predictions: pa.Table

    @cached_property
    def scale(self) -> LabelScale:
        """Return the label scale, or the classes."""
        return parse_scale(self.config["scale"])

    @property
    def path(self) -> str:
        """Return the cell's folder below `metrics`, `predictions`, `models`, `timings`."""
        return f"{self.corpus}/{self.model}/{self.condition}/{self.seed}"

    def tested_at(self, rate: float, mask_seed: int | None = None) -> pa.Table:
        """Return the predictions under the test masks of `rate`, of their first seed or another."""
        seed = next(iter(self.scores[rate])) if mask_seed is None else mask_seed
        table = self.predictions
        rows = pc.and_(pc.equal(table["missing_rate"], rate), pc.equal(table["mask_seed"], seed))
        return table.filter(rows)


@dataclass(frozen=True)
class Results:
    """All of the grid: cells by corpus, condition, model and seed, in the grid's order."""

    grid: GridParams
    corpora: list[Corpus]
    cells: list[Cell]

    def select(self, corpus: str, model: str, condition: Condition | None = None) -> list[Cell]:
        """Return the cells of one model on one corpus, of all conditions or of one."""
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
        grid: which corpora, models, conditions and seeds.
        metrics: folder of quality, features, masks and scores.
        predictions: folder of predictions.
        models: folder of models.
        timings: folder of what trainings took.

    Raises:
        FeatureError: a file that the grid calls for is absent or cannot be read.
    """
    corpora = [
        Corpus(
            name=name,
            quality=_read_json(metrics / name / "quality.json"),
            features=_read_json(metrics / name / "features.json"),
            masks={
                condition: _read_json(metrics / name / "masks" / f"{condition}.json")
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
        cells.append(
            Cell(
                corpus=corpus,
                model=model,
                condition=condition,
                seed=seed,
                config=_read_json(folder / "config.json"),
                timings=_read_json(timings / place / f"{seed}.json") if timings else {},
                losses=_read_losses(folder / "curves" / "plots" / "metrics"),
                scores=_by_rate(_read_json(metrics / place / f"{seed}.json"), table),
                predictions=table,
            )
        )
    return cells


def _by_rate(
    scores: Mapping[str, Any], predictions: pa.Table
) -> dict[float, dict[int, Mapping[str, Score]]]:
    """Return scores by test rate and mask seed; a flat file has one of each."""
    if "by_rate" not in scores:
        rate, mask_seed = (predictions[c][0].as_py() for c in ("missing_rate", "mask_seed"))
        return {rate: {mask_seed: scores}}
    return {
        float(rate): {int(seed): found for seed, found in at_rate["by_mask_seed"].items()}
        for rate, at_rate in scores["by_rate"].items()
    }


def _read_json(path: Path) -> Any:
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

    A row is an epoch, whatever its `step` says. The validation loss has all of them; a term that
    starts later has the last ones.
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
