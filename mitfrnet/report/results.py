"""What the other stages wrote about the cells of the grid, and no others: DVC keeps stale files."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, field_validator

from mitfrnet.errors import FeatureError
from mitfrnet.metrics import Scale, Score
from mitfrnet.params import StageParams


class GridParams(StageParams):
    """Section `grid`: the axes of the study."""

    corpora: list[str] = Field(min_length=1)
    models: list[str] = Field(min_length=1)
    missing_rates: list[int | float] = Field(min_length=1)  # 1 and 1.0 name two folders
    seeds: list[int] = Field(min_length=1)

    @field_validator("corpora", "models", "missing_rates", "seeds")
    @classmethod
    def _each_once(cls, values: list[Any]) -> list[Any]:
        if len(set(values)) < len(values):
            raise ValueError("a value stands there twice")
        return values


@dataclass(frozen=True)
class Corpus:
    """One corpus as ingested, extracted and masked.

    Attributes:
        name: as in the grid.
        quality: counts of clips, videos, hours and labels.
        features: steps, shares detected and what is naturally missing, per modality.
        masks: pattern, seed and realised rates, per missing rate of the grid.
    """

    name: str
    quality: Mapping[str, Any]
    features: Mapping[str, Any]
    masks: Mapping[float, Mapping[str, Any]]


@dataclass(frozen=True)
class Cell:
    """One trained model, its curves and what it made of the test split.

    Attributes:
        corpus, model, rate, seed: its place in the grid; the rate is that of training.
        config: of the model folder.
        losses: one value per epoch; keys are `train/<term>` and `valid/<term>`.
        scores: per missing rate of the test masks.
        predictions: `utterance_id, missing_rate, label, prediction` and the references.
    """

    corpus: str
    model: str
    rate: float
    seed: int
    config: Mapping[str, Any]
    losses: Mapping[str, list[float]]
    scores: Mapping[float, Mapping[str, Score]]
    predictions: pa.Table

    @cached_property
    def scale(self) -> Scale:
        """Return the label scale."""
        return Scale(**self.config["scale"])

    @property
    def path(self) -> str:
        """Return the cell's folder below `metrics`, `predictions`, `models`."""
        return f"{self.corpus}/{self.model}/{self.rate}/{self.seed}"

    def tested_at(self, rate: float) -> pa.Table:
        """Return the predictions under test masks of `rate`."""
        return self.predictions.filter(pc.equal(self.predictions["missing_rate"], rate))


@dataclass(frozen=True)
class Results:
    """All of the grid: cells by corpus, missing rate, model and seed, in the grid's order."""

    grid: GridParams
    corpora: list[Corpus]
    cells: list[Cell]

    def select(self, corpus: str, model: str, rate: float | None = None) -> list[Cell]:
        """Return the cells of one model on one corpus, of all rates or of one."""
        return [
            cell
            for cell in self.cells
            if (cell.corpus, cell.model) == (corpus, model) and rate in (None, cell.rate)
        ]


def read_results(grid: GridParams, metrics: Path, predictions: Path, models: Path) -> Results:
    """Return the results of the grid's cells.

    Args:
        grid: which corpora, models, missing rates and seeds.
        metrics: folder of quality, features, masks and scores.
        predictions: folder of predictions.
        models: folder of models.

    Raises:
        FeatureError: a file that the grid calls for is absent or cannot be read.
    """
    corpora = [
        Corpus(
            name=name,
            quality=_read_json(metrics / name / "quality.json"),
            features=_read_json(metrics / name / "features.json"),
            masks={
                rate: _read_json(metrics / name / "masks" / f"{rate}.json")
                for rate in grid.missing_rates
            },
        )
        for name in grid.corpora
    ]
    cells = []
    for corpus in grid.corpora:
        for rate in grid.missing_rates:
            for model in grid.models:
                for seed in grid.seeds:
                    place = Path(corpus, model, str(rate))
                    scores = _read_json(metrics / place / f"{seed}.json")
                    by_rate = scores.get("by_rate", {rate: scores})
                    folder = models / place / str(seed)
                    cells.append(
                        Cell(
                            corpus=corpus,
                            model=model,
                            rate=rate,
                            seed=seed,
                            config=_read_json(folder / "config.json"),
                            losses=_read_losses(folder / "curves" / "plots" / "metrics"),
                            scores={float(r): s for r, s in by_rate.items()},
                            predictions=_read_parquet(predictions / place / f"{seed}.parquet"),
                        )
                    )
    return Results(grid, corpora, cells)


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


def _read_losses(folder: Path) -> dict[str, list[float]]:
    """Return DVCLive's curves; the i-th row is the i-th epoch, whatever its `step` says."""
    _must_exist(folder / "valid" / "task.tsv")
    losses = {}
    for path in sorted(folder.glob("*/*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        losses[f"{path.parent.name}/{path.stem}"] = [float(row[path.stem]) for row in rows]
    return losses


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise FeatureError(f"{path}: absent, though the grid asks for it (run `dvc repro`)")
