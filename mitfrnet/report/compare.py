"""Scores of the grid beside those that the paper prints.

`published.csv` holds Tables 4 to 7 of Li et al. 2024, MIT-FRNet, in full. Many of these numbers
cannot or should not be reproduced. `CAVEATS` says what is wrong, and the column `caveats` of the
file says with which numbers.
"""

import csv
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mitfrnet.corpus.params import CorpusParams
from mitfrnet.errors import CorpusError, FeatureError, ParamsError
from mitfrnet.grid import Condition, GridParams
from mitfrnet.labels import Scale
from mitfrnet.metrics import Score
from mitfrnet.models.registry import MODELS
from mitfrnet.params import PARAMS_FILE, load_params
from mitfrnet.report.results import read_scores
from mitfrnet.report.runs import defined, deviation_of, mean_of
from mitfrnet.report.tables.table import delimited
from mitfrnet.report.words import listed

CORPORA = {"mosi": "CMU-MOSI", "sims": "CH-SIMS"}

_MODEL_NAMES = {name: entry.label for name, entry in MODELS.items()} | {
    f"mitfrnet_no_{part}": f"{MODELS['mitfrnet'].label} without {part.upper()}"
    for part in ("mmr", "mitr")
}

# What is wrong with a published number, or with one of ours.
CAVEATS = {
    "swapped": "F1 was published with its arguments swapped, so that classes are weighted by "
    "their predicted shares. Ours is swapped too, and is not the F1 of the report.",
    "majority": "Exactly the score of one constant prediction on the test split: the share of a "
    "class, and no skill.",
    "undefined": "Printed as a dash: a run with a constant prediction has no correlation (the "
    "paper blames sparse features).",
    "not_best": "Another model of the same table is better here, although the paper says that its "
    "own is the best.",
    "arrow": "The paper's arrow for better or worse contradicts its own Table 4.",
    "duplicate": "Equal to the number of the full model in Table 4, to the last digit.",
    "bert": "The authors' code reads Chinese with bert-base-uncased, the English BERT: not a "
    "target for a model with a Chinese one.",
    "unit": "The paper does not say what these seconds measure, nor on which machine; some are 0. "
    "Ours are not shown.",
    "constant": "At least one of our runs predicts the same value for every clip.",
}


@dataclass(frozen=True)
class Published:
    """One number that the paper prints.

    Attributes:
        table: 4, 5, 6 or 7.
        corpus: a key of `CORPORA`.
        metric: our key of the score; `running_time_s` is no score of ours.
        model: as in the grid.
        missing_rate: of training and test.
        value: a fraction, an error in units of the label, or seconds; None for a dash.
        caveats: keys of `CAVEATS`.
    """

    table: int
    corpus: str
    metric: str
    model: str
    missing_rate: float
    value: float | None
    caveats: tuple[str, ...]


@dataclass(frozen=True)
class PublishedRow:
    """A published number and our runs of the same cell.

    Attributes:
        published: the number.
        runs: scores of each run; empty if the cell was not run.
    """

    published: Published
    runs: tuple[Mapping[str, Score], ...]

    @property
    def values(self) -> list[float]:
        """Return the score of each run that defines it."""
        return defined(self.runs, self.published.metric)

    @property
    def mean(self) -> float | None:
        """Return the mean over `values`."""
        return mean_of(self.values)

    @property
    def deviation(self) -> float | None:
        """Return the standard deviation over `values`."""
        return deviation_of(self.values)

    @property
    def difference(self) -> float | None:
        """Return ours minus the published number; None if either is not defined."""
        if self.mean is None or self.published.value is None:
            return None
        return self.mean - self.published.value

    @property
    def caveats(self) -> tuple[str, ...]:
        """Return the caveats of both numbers."""
        constant = any(run["constant_prediction"] for run in self.runs)
        ours = ("constant",) if constant and self.values else ()
        return (*self.published.caveats, *ours)


@dataclass(frozen=True)
class Comparison:
    """All published numbers of some tables, and our runs of the same cells.

    Attributes:
        corpus: the corpus of our runs.
        rows: in the order of the paper.
        models: the models of the grid that the paper has, in the grid's order.
        notes: caveats of the whole comparison, a sentence each.
    """

    corpus: str
    rows: tuple[PublishedRow, ...]
    models: tuple[str, ...]
    notes: tuple[str, ...]


def read_published() -> list[Published]:
    """Return every number of Tables 4 to 7."""
    path = Path(__file__).with_name("published.csv")
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Published(
                table=int(row["table"]),
                corpus=row["corpus"],
                metric=row["metric"],
                model=row["model"],
                missing_rate=float(row["missing_rate"]),
                value=float(row["value"]) if row["value"] else None,
                caveats=tuple(row["caveats"].split()),
            )
            for row in csv.DictReader(file)
        ]


def compare(
    corpus: str,
    published_corpus: str,
    metrics: Path,
    *,
    table: int | None = None,
    same_corpus: bool = False,
) -> Comparison:
    """Return the published numbers beside the grid's runs on `corpus`.

    Args:
        corpus: one of `grid.corpora`.
        published_corpus: a key of `CORPORA`.
        metrics: folder of the scores.
        table: a table of the paper; None for all tables of the published corpus.
        same_corpus: whether the user says that the two corpora are the same.

    Raises:
        ParamsError: `params.yaml` lacks the corpus or is wrong about it, the paper lacks the
            table, or the grid shares no cell with it.
        CorpusError: the labels of `corpus` are not scores.
        FeatureError: no cell has scores, or a file of scores cannot be read.
    """
    grid = load_params(GridParams, section="grid")
    if corpus not in grid.corpora:
        names = ", ".join(grid.corpora)
        raise ParamsError(
            f"{PARAMS_FILE}: grid.corpora: has no {corpus} (expected one of: {names})"
        )
    printed = [p for p in read_published() if p.corpus == published_corpus]
    tables = sorted({p.table for p in printed})
    if table is not None and table not in tables:
        raise ParamsError(
            f"Table {table} has no scores on {CORPORA[published_corpus]} "
            f"(expected {listed(tables, 'or')})"
        )
    scale_notes = _scale_notes(corpus, published_corpus)
    printed = [p for p in printed if table in (None, p.table)]

    rates = dict.fromkeys(p.missing_rate for p in printed)
    models = dict.fromkeys(p.model for p in printed)
    conditions = {c: rate for c in grid.missing_rates if (rate := _rate(c)) in rates}
    shared = [m for m in grid.models if m in models]
    if not shared or not conditions:
        axis, expected = ("missing rate", rates) if shared else ("model", models)
        tables = sorted({p.table for p in printed})
        raise ParamsError(
            f"{PARAMS_FILE}: grid: shares no {axis} with Table{'s' * (len(tables) > 1)} "
            f"{listed(tables)} of the paper (expected one of: {', '.join(map(str, expected))})"
        )
    runs: dict[tuple[str, float], list[Mapping[str, Score]]] = {}
    absent = 0
    cells = list(product(shared, conditions.items(), grid.seeds))
    for model, (condition, rate), seed in cells:
        path = metrics / corpus / model / str(condition) / f"{seed}.json"
        cell_runs = _runs_tested_at(rate, path)
        runs.setdefault((model, rate), []).extend(cell_runs)
        absent += not cell_runs
    if absent == len(cells):
        raise FeatureError(
            f"{metrics / corpus}: no scores of the {absent} cells that the grid shares with the "
            "paper (run `dvc repro`)"
        )
    rows = tuple(PublishedRow(p, tuple(runs.get((p.model, p.missing_rate), ()))) for p in printed)
    notes = [] if same_corpus else [_other_corpus(corpus, published_corpus)]
    notes += scale_notes
    if absent:
        notes.append(f"{absent} of {len(cells)} cells of the grid have no scores and are left out.")
    if left := [*(m for m in grid.models if m not in models)]:
        notes.append(f"Models that are not in the paper and are left out: {', '.join(left)}.")
    if left := [str(c) for c in grid.missing_rates if c not in conditions]:
        notes.append(
            f"Missing rates that are not in the paper and are left out: {', '.join(left)}."
        )
    compared = sum(row.difference is not None for row in rows)
    notes.append(f"{compared} of {len(rows)} published numbers have one of ours beside them.")
    return Comparison(corpus, rows, tuple(shared), tuple(notes))


def _rate(condition: Condition) -> float | None:
    """Return a condition as a number; None if it is a protocol."""
    try:
        return round(float(condition), 6)
    except ValueError:
        return None


def _runs_tested_at(rate: float, path: Path) -> list[Mapping[str, Score]]:
    """Return the scores at one rate in a file, a set per mask seed; none if the file is absent."""
    if not path.is_file():
        return []
    by_mask = read_scores(path, rate, mask_seed=1)
    return [run for tested in by_mask if _rate(tested) == rate for run in by_mask[tested].values()]


def _other_corpus(corpus: str, published_corpus: str) -> str:
    name = CORPORA[published_corpus]
    return (
        f"{corpus} may not be {name}, and a difference may come from the corpus rather than the "
        f"model (pass --same-corpus if it is {name})."
    )


def _scale_notes(corpus: str, published_corpus: str) -> list[str]:
    """Return a note if the label scales differ.

    Raises:
        ParamsError: the parameters of the corpus are wrong.
        CorpusError: its labels are not scores.
    """
    section = f"corpora.{corpus}"
    scale = load_params(CorpusParams, section=section).resolved_scale
    if not isinstance(scale, Scale):
        raise CorpusError(f"{PARAMS_FILE}: {section}: labels are not scores, as in the paper")
    if scale.family == published_corpus:
        return []
    ours = scale.family or f"from {scale.low:g} to {scale.high:g}"
    return [
        f"The labels of {corpus} are on the scale {ours}, those of {CORPORA[published_corpus]} on "
        f"the scale {published_corpus}: mae has other units, classes are cut elsewhere, and a "
        "score that only one scale has cannot be compared."
    ]


def comparison_csv(comparison: Comparison) -> str:
    """Return every row, unrounded, including those that were not run."""
    return delimited(
        (
            {
                "table": row.published.table,
                "published_corpus": row.published.corpus,
                "corpus": comparison.corpus,
                "metric": row.published.metric,
                "model": row.published.model,
                "missing_rate": row.published.missing_rate,
                "published": row.published.value,
                "ours": row.mean,
                "deviation": row.deviation,
                "runs": len(row.values),
                "difference": row.difference,
                "caveats": " ".join(row.caveats),
            }
            for row in comparison.rows
        ),
        delimiter=",",
    )


def render(comparison: Comparison) -> Iterator[RenderableType]:
    """Yield the tables, legend and notes for a terminal 100 columns wide."""
    marks: dict[str, str] = {}
    for table in dict.fromkeys(row.published.table for row in comparison.rows):
        printed = [row for row in comparison.rows if row.published.table == table]
        for model in comparison.models:
            rows = [row for row in printed if row.published.model == model and row.runs]
            if rows:
                yield from _model_table(rows, printed, marks)
                yield ""
    yield "Shares in percent; mae in units of the label; ±: the standard deviation over our runs."
    for code, mark in marks.items():
        yield Text(f"{mark}: {CAVEATS[code]}")
    yield ""
    for note in comparison.notes:
        yield Text(note)


def _model_table(
    rows: Sequence[PublishedRow], printed: Sequence[PublishedRow], marks: dict[str, str]
) -> Iterator[RenderableType]:
    """Yield a title, and one model's numbers with a column per missing rate.

    A caveat of a whole table or metric is marked once, beside its name.

    Args:
        rows: the rows of one model and one table of the paper that were run.
        printed: all rows of that table.
        marks: the letter of each caveat; new ones are added.
    """
    first = rows[0].published
    rates = sorted({row.published.missing_rate for row in rows})
    low, high = (choose(len(row.runs) for row in rows) for choose in (min, max))
    runs = f"{low} to {high} runs" if low < high else f"{low} run{'s' * (low != 1)}"
    shared = _shared_caveats(printed)
    head = f"{_MODEL_NAMES[first.model]} beside Table {first.table} of the paper"
    yield Text(f"{_marked(head, shared, marks)}; per missing rate {runs} of ours", style="bold")
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("missing rate", no_wrap=True)
    for rate in rates:
        table.add_column(f"{rate:.1f}", justify="right", no_wrap=True)
    for metric in dict.fromkeys(row.published.metric for row in rows):
        of_metric = [row for row in rows if row.published.metric == metric]
        on_head = _shared_caveats(row for row in printed if row.published.metric == metric)
        table.add_row(_marked(metric, on_head - shared, marks), style="bold")
        for name, cells in _lines(metric, of_metric, on_head, marks):
            table.add_row(f"  {name}", *cells)
    yield table


def _shared_caveats(rows: Iterable[PublishedRow]) -> frozenset[str]:
    return frozenset.intersection(*(frozenset(row.published.caveats) for row in rows))


def _marked(text: str, codes: Collection[str], marks: dict[str, str]) -> str:
    """Return `text` with the letters of its caveats; a new caveat gets the next letter."""
    letters = [marks.setdefault(c, chr(ord("a") + len(marks))) for c in CAVEATS if c in codes]
    return " ".join([text, "".join(letters)]) if letters else text


def _lines(
    metric: str, rows: Sequence[PublishedRow], shared: frozenset[str], marks: dict[str, str]
) -> Iterator[tuple[str, list[str]]]:
    """Yield the lines of one metric: a name, and a cell per row.

    Args:
        metric: its key.
        rows: one per missing rate, rising.
        shared: caveats that are marked elsewhere.
        marks: the letter of each caveat; new ones are added.
    """

    def cell(value: float | None, caveats: Iterable[str]) -> str:
        return _marked(_show(metric, value), set(caveats) - shared, marks).replace(" ", "")

    yield "paper", [cell(row.published.value, row.published.caveats) for row in rows]
    if all(row.mean is None for row in rows):
        return
    yield "ours", [cell(row.mean, {"constant"} & set(row.caveats)) for row in rows]
    if any(row.deviation is not None for row in rows):
        yield "±", [_show(metric, row.deviation) for row in rows]
    yield "difference", [_show(metric, row.difference, sign="+") for row in rows]


def _show(metric: str, value: float | None, sign: str = "") -> str:
    """Return a number as printed: percent with two decimals as in the paper, others with three."""
    if value is None:
        return "-"
    if metric == "running_time_s":
        return f"{value:.0f}"
    shown = f"{value:.3f}" if metric in ("mae", "corr") else f"{100 * value:.2f}"
    if float(shown) == 0:
        return shown.removeprefix("-")
    return shown if value < 0 else sign + shown
