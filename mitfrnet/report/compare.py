"""A run beside the scores that the paper prints, cell by cell.

`published.csv` holds Tables 4 to 7 of Li et al. 2024, MIT-FRNet, in full. Much of what they print
cannot be reached, or should not be: `CAVEATS` says what is wrong, and the column `caveats` of the
file says where.
"""

import csv
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mitfrnet.errors import CorpusError, FeatureError, ParamsError
from mitfrnet.grid import GridParams
from mitfrnet.labels import SCALES, Scale
from mitfrnet.models.registry import MODELS
from mitfrnet.params import PARAMS_FILE, load_params, parse_params, read_section
from mitfrnet.report.tables.plain import delimited

CORPORA = {"mosi": "CMU-MOSI", "sims": "CH-SIMS"}

_MODEL_NAMES = {name: entry.label for name, entry in MODELS.items()} | {
    f"mitfrnet_no_{part}": f"{MODELS['mitfrnet'].label} without {part.upper()}"
    for part in ("mmr", "mitr")
}

# What is wrong with a published number, or with one of ours.
CAVEATS = {
    "swapped": "F1 was published with its arguments swapped, so that predicted shares weigh the "
    "classes; ours beside it is swapped too, and is not the F1 of the report.",
    "majority": "Exactly what one constant prediction gets on the test split: the share of a "
    "class, and no skill.",
    "undefined": "Printed as a dash: a run with a constant prediction has no correlation (the "
    "paper blames sparse features).",
    "not_best": "Another model of the same table is better here, whatever the paper claims of its "
    "own.",
    "arrow": "The paper's arrow for better or worse disagrees with its own Table 4.",
    "duplicate": "To the last digit the number of the full model in Table 4.",
    "bert": "The authors' code reads Chinese with bert-base-uncased, the English BERT: no target "
    "for a model that reads it right.",
    "unit": "The paper does not say of what these are the seconds, nor on which machine; some are "
    "0. Ours are not set beside them.",
    "constant": "In at least one of our runs the prediction is the same for every clip.",
}


@dataclass(frozen=True)
class Published:
    """One number that the paper prints.

    Attributes:
        table: 4, 5, 6 or 7.
        corpus: a key of `CORPORA`.
        metric: our key of the same score; `running_time_s` has none.
        model: as in the grid.
        missing_rate: of training and test.
        value: a fraction, an error in units of the label, or seconds; None: a dash.
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
    """A published number and the runs of the same cell.

    Attributes:
        published: the number.
        runs: scores of each run; empty where the cell was not run.
    """

    published: Published
    runs: tuple[Mapping[str, Any], ...]

    @property
    def values(self) -> list[float]:
        """Return our scores, of the runs for which the metric is defined."""
        found = (run.get(self.published.metric) for run in self.runs)
        return [float(value) for value in found if value is not None]

    @property
    def mean(self) -> float | None:
        """Return the mean over `values`."""
        return mean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Return the sample standard deviation over `values`; None with fewer than two."""
        return stdev(self.values) if len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        """Return ours minus the published one; None where either is not defined."""
        if self.mean is None or self.published.value is None:
            return None
        return self.mean - self.published.value

    @property
    def caveats(self) -> tuple[str, ...]:
        """Return what is wrong with either number."""
        constant = any(run["constant_prediction"] for run in self.runs)
        own = ("constant",) if constant and self.values else ()
        return (*self.published.caveats, *own)


@dataclass(frozen=True)
class Comparison:
    """All published numbers of some tables, and what a run has of them.

    Attributes:
        corpus: of the run.
        rows: in the order of the paper.
        models: of the grid, in its order.
        notes: sentences without which the numbers would mislead.
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
    """Return the grid's runs on `corpus` beside the published numbers.

    Args:
        corpus: one of `grid.corpora`.
        published_corpus: a key of `CORPORA`.
        metrics: folder of the scores.
        table: of the paper; None: all tables of the published corpus.
        same_corpus: whether the user says that the two corpora are the same.

    Raises:
        ParamsError: `params.yaml` has no such corpus or no right scale of it, the paper has no
            such table of it, or the grid nothing of the tables.
        CorpusError: the labels of `corpus` are classes, which the paper does not score.
        FeatureError: no cell has scores, or a file of them cannot be read.
    """
    grid = load_params(GridParams, section="grid")
    if corpus not in grid.corpora:
        names = ", ".join(grid.corpora)
        raise ParamsError(f"{PARAMS_FILE}: grid.corpora: has no {corpus} (found: {names})")
    printed = [p for p in read_published() if p.corpus == published_corpus]
    tables = sorted({p.table for p in printed})
    if table is not None and table not in tables:
        known = _listed(tables)
        raise ParamsError(f"Table {table} is not of {CORPORA[published_corpus]} (its own: {known})")
    of_scales = _scale_notes(corpus, published_corpus)
    printed = [p for p in printed if table in (None, p.table)]

    rates = dict.fromkeys(p.missing_rate for p in printed)
    models = dict.fromkeys(p.model for p in printed)
    conditions = {c: rate for c in grid.missing_rates if (rate := _rate(c)) in rates}
    shared = [m for m in grid.models if m in models]
    if not shared or not conditions:
        what, there = ("missing rate", rates) if shared else ("model", models)
        tables = sorted({p.table for p in printed})
        raise ParamsError(
            f"{PARAMS_FILE}: grid: shares no {what} with Table{'s' * (len(tables) > 1)} "
            f"{_listed(tables)} of the paper (expected one of: {', '.join(map(str, there))})"
        )
    runs: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    absent = 0
    cells = list(product(shared, conditions, grid.seeds))
    for model, condition, seed in cells:
        found = _scores(metrics / corpus / model / str(condition) / f"{seed}.json", condition)
        runs.setdefault((model, conditions[condition]), []).extend(found)
        absent += not found
    if absent == len(cells):
        raise FeatureError(
            f"{metrics / corpus}: scores of none of the {absent} cells that the grid shares with "
            "the paper (run `dvc repro`)"
        )
    rows = tuple(PublishedRow(p, tuple(runs.get((p.model, p.missing_rate), ()))) for p in printed)
    notes = [] if same_corpus else [_other_corpus(corpus, published_corpus)]
    notes += of_scales
    if absent:
        notes.append(f"{absent} of {len(cells)} cells of the grid have no scores: left out.")
    if left := [*(m for m in grid.models if m not in models)]:
        notes.append(f"Not in the paper, and left out: {', '.join(left)}.")
    if left := [str(c) for c in grid.missing_rates if c not in conditions]:
        notes.append(f"No missing rate of the paper, and left out: {', '.join(left)}.")
    beside = sum(row.difference is not None for row in rows)
    notes.append(f"{beside} of {len(rows)} published numbers have one of this run beside them.")
    return Comparison(corpus, rows, tuple(shared), tuple(notes))


def _listed(tables: Sequence[int]) -> str:
    return " and ".join(filter(None, [", ".join(map(str, tables[:-1])), str(tables[-1])]))


def _rate(condition: float | str) -> float | None:
    """Return an entry of `grid.missing_rates` as a number; None: it is a protocol."""
    try:
        return round(float(condition), 6)
    except ValueError:
        return None


def _scores(path: Path, condition: float | str) -> list[Mapping[str, Any]]:
    """Return the scores at the rate of training, one set per seed of the test masks."""
    if not path.is_file():
        return []
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FeatureError(f"{path}: not valid JSON ({error})") from error
    try:
        runs: list[Mapping[str, Any]] = [scores]
        if "by_rate" in scores:
            at_rates = scores["by_rate"].items()
            tested = [found for rate, found in at_rates if _rate(rate) == _rate(condition)]
            runs = [run for found in tested for run in found["by_mask_seed"].values()]
        whole = all(isinstance(run["constant_prediction"], bool) for run in runs)
    except (AttributeError, KeyError, TypeError):
        whole = False
    if not whole:
        raise FeatureError(f"{path}: not the scores of a run (expected what `evaluate` writes)")
    return runs


def _other_corpus(corpus: str, published_corpus: str) -> str:
    name = CORPORA[published_corpus]
    return (
        f"For all this command knows, {corpus} is not {name}: a difference is then one of corpora "
        f"and says nothing of the models (--same-corpus, if it is {name})."
    )


def _scale_notes(corpus: str, published_corpus: str) -> list[str]:
    """Return what differs between the label scales.

    Raises:
        ParamsError: the corpus has no scale, or a wrong one.
        CorpusError: its labels are classes.
    """
    where = f"{PARAMS_FILE}: corpora.{corpus}"
    block = read_section(f"corpora.{corpus}")
    if not isinstance(block, dict):
        raise ParamsError(f"{where}: is no mapping (found: {block!r})")
    if block.get("classes") is not None:
        raise CorpusError(f"{where}: its labels are classes (expected scores, as in the paper)")
    found = block.get("scale")
    if found is None or (isinstance(found, str) and found not in SCALES):
        known = ", ".join(SCALES)
        raise ParamsError(f"{where}.scale: {found!r} (expected {known}, or a scale of its own)")
    if isinstance(found, str):
        scale = SCALES[found]
    else:
        scale = parse_params(Scale, found, where=f"{where}.scale")
    if scale.family == published_corpus:
        return []
    own = f"scale {scale.family}" if scale.family else f"one from {scale.low:g} to {scale.high:g}"
    return [
        f"The labels of {corpus} are on {own}, those of {CORPORA[published_corpus]} on scale "
        f"{published_corpus}: mae is in other units, classes are cut elsewhere, and a score that "
        "only one of the two has stands alone."
    ]


def comparison_csv(comparison: Comparison) -> str:
    """Return every row, unrounded, also those that were not run."""
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
    """Yield what the terminal shows, 100 columns wide: tables, legend, notes."""
    marks: dict[str, str] = {}
    for table in dict.fromkeys(row.published.table for row in comparison.rows):
        printed = [row for row in comparison.rows if row.published.table == table]
        for model in comparison.models:
            rows = [row for row in printed if row.published.model == model and row.runs]
            if rows:
                yield from _model_table(rows, printed, marks)
                yield ""
    yield "Shares in percent; mae in units of the label; after ±, the deviation over our runs."
    for code, mark in marks.items():
        yield Text(f"{mark}: {CAVEATS[code]}")
    yield ""
    for note in comparison.notes:
        yield Text(note)


def _model_table(
    rows: Sequence[PublishedRow], printed: Sequence[PublishedRow], marks: dict[str, str]
) -> Iterator[RenderableType]:
    """Yield a title, and one model's numbers with a column per missing rate.

    What holds for all of a table, or of a metric, is marked once, beside its name.

    Args:
        rows: of one model and one table of the paper, that were run.
        printed: all rows of that table.
        marks: the letter of each caveat, added to.
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
        of_all = _shared_caveats(row for row in printed if row.published.metric == metric)
        table.add_row(_marked(metric, of_all - shared, marks), style="bold")
        for name, cells in _lines(metric, of_metric, of_all, marks):
            table.add_row(f"  {name}", *cells)
    yield table


def _shared_caveats(rows: Iterable[PublishedRow]) -> frozenset[str]:
    return frozenset.intersection(*(frozenset(row.published.caveats) for row in rows))


def _marked(text: str, codes: Collection[str], marks: dict[str, str]) -> str:
    """Return `text` and the letters of its caveats; a new caveat gets the next letter."""
    letters = [marks.setdefault(c, chr(ord("a") + len(marks))) for c in CAVEATS if c in codes]
    return " ".join([text, "".join(letters)]) if letters else text


def _lines(
    metric: str, rows: Sequence[PublishedRow], shared: frozenset[str], marks: dict[str, str]
) -> Iterator[tuple[str, list[str]]]:
    """Yield the lines of one metric: their name, and a cell per row.

    Args:
        metric: its key.
        rows: one per missing rate, rising.
        shared: caveats that are marked elsewhere.
        marks: the letter of each caveat, added to.
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
    """Return a number as printed: percent with two decimals, as the paper; others with three."""
    if value is None:
        return "-"
    if metric == "running_time_s":
        return f"{value:.0f}"
    shown = f"{value:.3f}" if metric in ("mae", "corr") else f"{100 * value:.2f}"
    if float(shown) == 0:
        return shown.removeprefix("-")
    return shown if value < 0 else sign + shown
