"""The report as one page that loads nothing, and as small files for other programs."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mitfrnet.files import replacing
from mitfrnet.modalities import MODALITIES
from mitfrnet.params import StageParams
from mitfrnet.report import figures, tables
from mitfrnet.report.figures import INK, MUTED, SERIES, Line
from mitfrnet.report.results import Cell, Results
from mitfrnet.report.tables import Group

SPLITS = ("train", "valid", "test")


class ReportParams(StageParams):
    """Section `report`."""

    title: str


@dataclass(frozen=True)
class Chart:
    """A drawing and the line above it."""

    title: str
    svg: Markup


@dataclass(frozen=True)
class LossCharts:
    """The losses of one model on one corpus, with one seed."""

    corpus: str
    model: str
    seed: int
    by_rate: bool
    charts: Sequence[Chart]


@dataclass(frozen=True)
class Agreement:
    """Predictions of one cell against the labels, under one test mask.

    Attributes:
        group: corpus and missing rates.
        model: as shown.
        seed: of the training.
        chart: the scatter.
        thinned: whether it leaves clips out.
        signs: those that occur, in order.
        confusion: clips by sign of the label, then of the prediction.
        furthest: the five clips with the largest error: id, label, prediction.
    """

    group: Group
    model: str
    seed: int
    chart: Chart
    thinned: bool
    signs: Sequence[str]
    confusion: Mapping[str, Mapping[str, int]]
    furthest: Sequence[tuple[str, float, float]]


def write_report(results: Results, params: ReportParams, out: Path) -> None:
    """Write `index.html`, `scores.txt`, `scores.csv` and `plots/` into `out`.

    The same results give the same bytes.
    """
    groups = tables.score_groups(results)
    _write(out / "index.html", render_page(results, groups, params))
    _write(out / "scores.txt", tables.scores_text(params.title, groups))
    _write(out / "scores.csv", tables.scores_csv(groups))

    shutil.rmtree(out / "plots", ignore_errors=True)  # cells that left the grid
    plots = out / "plots"
    for cell in results.cells:
        _write(plots / "losses" / f"{cell.path}.tsv", tables.loss_table(cell))
        _write(plots / "predictions" / f"{cell.path}.tsv", tables.prediction_table(cell))
        _write(plots / "signs" / f"{cell.path}.tsv", tables.sign_table(cell))
    for corpus in results.grid.corpora:
        own = [g for g in groups if g.corpus == corpus]
        for curve, table in tables.rate_tables(own).items():
            _write(plots / "scores" / corpus / f"{curve}.tsv", table)


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def render_page(results: Results, groups: Sequence[Group], params: ReportParams) -> str:
    """Return the page as HTML; whatever comes from data is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "words": words, "listed": listed}
    return environment.get_template("page.html.jinja").render(
        title=params.title,
        summary=summarise(results, groups),
        results=results,
        groups_by_corpus={
            corpus: [g for g in groups if g.corpus == corpus] for corpus in results.grid.corpora
        },
        averages=tables.averages(groups),
        rate_charts={
            corpus: charts
            for corpus in results.grid.corpora
            if (charts := rate_charts([g for g in groups if g.corpus == corpus]))
        },
        losses=[
            loss_charts(results, corpus, model)
            for corpus in results.grid.corpora
            for model in results.grid.models
        ],
        agreements=[
            agreement(results.select(group.corpus, model, group.trained)[0], group)
            for corpus in results.grid.corpora
            for model in results.grid.models
            for group in _spread([g for g in groups if g.corpus == corpus])
        ],
        settings=_settings(results),
        versions=_versions(results),
        inputs=_inputs(results),
        modalities=MODALITIES,
        splits=SPLITS,
        model_name=tables.model_name,
        max_dots=figures.MAX_DOTS,
    )


def percent(share: float | None) -> str:
    """Return a share in percent, a dash for none."""
    return "\N{EN DASH}" if share is None else f"{100 * share:.1f} %"


def words(key: str) -> str:
    """Return a key of a file as words."""
    return key.replace("_", " ")


def listed(things: Sequence[object]) -> str:
    """Return `a`, `a and b`, or `a, b and c`."""
    *firsts, last = map(str, things)
    return f"{', '.join(firsts)} and {last}" if firsts else last


def summarise(results: Results, groups: Sequence[Group]) -> str:
    """Return in one sentence what was run."""
    grid = results.grid
    models = listed([tables.model_name(m) for m in grid.models])
    rates, seeds = grid.missing_rates, grid.seeds
    runs = len(results.cells)
    clips = {g.corpus: g.n for g in groups}
    tested = listed([f"{n} test clips of the corpus {corpus}" for corpus, n in clips.items()])
    return (
        f"{models} trained with missing rate{'s' * (len(rates) > 1)} {listed(rates)} and "
        f"seed{'s' * (len(seeds) > 1)} {listed(seeds)} ({runs} training run{'s' * (runs > 1)}), "
        f"scored on {tested}."
    )


def rate_charts(groups: Sequence[Group]) -> list[Chart]:
    """Return one chart per headline score of a corpus over test rates; none for a single rate."""
    if len({g.tested for g in groups}) < 2:
        return []
    # Matched rates make one curve of many models; else every trained model has its own.
    matched = all(g.trained == g.tested for g in groups)
    trained = list(dict.fromkeys(g.trained for g in groups))
    charts = []
    for column in groups[0].columns:
        constant = "train_mean" if column.key == "mae" else "majority"
        references = {"text_ridge": INK, constant: MUTED}
        lines = []
        models = [row.key for row in groups[0].rows if row.key not in tables.REFERENCES]
        for i, rate in enumerate(trained[:1] if matched else trained):
            own = [g for g in groups if matched or g.trained == rate]
            own.sort(key=lambda group: group.tested)
            suffix = f" at {rate}" if len(trained) > 1 and not matched else ""
            for j, model in enumerate(models):
                colour = SERIES[j % len(SERIES)]
                if suffix and len(models) == 1:
                    colour = figures.shade(i, len(trained))
                lines.append(_score_line(own, model, column, colour, suffix))
            if i == 0:
                for reference, colour in references.items():
                    lines.append(_score_line(own, reference, column, colour, "", dashed=True))
        lines = [line for line in lines if line.points]
        charts.append(
            Chart(
                f"{column.head}, {'higher' if column.higher_is_better else 'lower'} is better",
                figures.line_chart(
                    lines,
                    name=f"rates-{groups[0].corpus}-{column.key}",
                    described=f"{column.name} over missing rates. {_describe(lines)}",
                    x_label="missing rate of the test split",
                ),
            )
        )
    return charts


def _score_line(
    groups: Sequence[Group],
    key: str,
    column: tables.Column,
    colour: str,
    suffix: str,
    dashed: bool = False,
) -> Line:
    factor = 100 if column.share else 1
    points, spread = [], []
    name = key
    for group in groups:
        row = next(row for row in group.rows if row.key == key)
        name = row.name
        value, deviation = row.mean(column.key), row.deviation(column.key)
        if value is not None:
            points.append((group.tested, factor * value))
            spread.append(None if deviation is None else factor * deviation)
    return Line(name + suffix, points, colour, dashed, spread)


def loss_charts(results: Results, corpus: str, model: str) -> LossCharts:
    """Return the losses of the first seed: of one rate by part, of several by rate."""
    seed = results.grid.seeds[0]
    cells = [cell for cell in results.select(corpus, model) if cell.seed == seed]
    by_rate = len(cells) > 1
    terms = {name.split("/")[1] for cell in cells for name in cell.losses} - {"task"}
    rebuilt = [f"reconstruction_{m}" for m in MODALITIES if f"reconstruction_{m}" in terms]
    panels: dict[str, list[Line]] = {"Task loss": _task_lines(cells)}
    if rebuilt:
        panels["Reconstruction loss"] = _term_lines(cells, rebuilt)
    for term in sorted(terms - set(rebuilt)):
        panels[f"{words(term).capitalize()} loss"] = _term_lines(cells, [term])
    best = None if by_rate else cells[0].config["training"]["best_epoch"]
    charts = [
        Chart(
            title,
            figures.line_chart(
                lines,
                name=f"losses-{corpus}-{model}-{title}",
                described=f"{title} over epochs. {_describe(lines)}",
                x_label="epoch",
                marked_x=best,
            ),
        )
        for title, lines in panels.items()
    ]
    return LossCharts(corpus, tables.model_name(model), seed, by_rate, charts)


def _task_lines(cells: Sequence[Cell]) -> list[Line]:
    lines = []
    for i, cell in enumerate(cells):
        curves = tables.loss_curves(cell)
        if len(cells) == 1:
            lines.append(Line("training", curves["train/task"], SERIES[1], dashed=True))
            lines.append(Line("validation", curves["valid/task"], SERIES[0]))
        else:
            colour = figures.shade(i, len(cells))
            trained = f"training at {cell.rate}"
            lines.append(Line(trained, curves["train/task"], colour, True, in_legend=False))
            lines.append(Line(str(cell.rate), curves["valid/task"], colour))
    return lines


def _term_lines(cells: Sequence[Cell], terms: Sequence[str]) -> list[Line]:
    """Return the training loss of each term for one cell, their sum for each of several."""
    lines = []
    for i, cell in enumerate(cells):
        # A term that had nothing to score, as reconstruction at rate 0, has no curve.
        known = tables.loss_curves(cell)
        found = {term: known[f"train/{term}"] for term in terms if f"train/{term}" in known}
        curves = list(found.values())
        if not curves:
            continue
        if len(cells) > 1:
            total = [
                (points[0][0], sum(v for _, v in points)) for points in zip(*curves, strict=True)
            ]
            lines.append(Line(str(cell.rate), total, figures.shade(i, len(cells))))
        elif len(terms) > 1:
            names = [words(term.removeprefix("reconstruction_")) for term in found]
            lines += map(Line, names, curves, SERIES)
        else:
            lines.append(Line(words(terms[0]), curves[0], SERIES[0], in_legend=False))
    return lines


def _describe(lines: Sequence[Line]) -> str:
    """Return first, lowest, highest and last point of each line in words."""
    described = []
    for line in lines:
        if not line.points:
            continue
        ys = {y: x for x, y in reversed(line.points)}
        (first_x, first), (last_x, last) = line.points[0], line.points[-1]
        low, high = min(ys), max(ys)
        described.append(
            f"{line.label}: {first:.3g} at {first_x}, {last:.3g} at {last_x}, "
            f"lowest {low:.3g} at {ys[low]}, highest {high:.3g} at {ys[high]}"
        )
    return "; ".join(described) + "."


def _spread(groups: Sequence[Group]) -> list[Group]:
    """Return the first, the middle and the last."""
    last = len(groups) - 1
    return [groups[i] for i in sorted({0, last // 2, last})]


def agreement(cell: Cell, group: Group) -> Agreement:
    """Return how the predictions of `cell` compare with the labels under the masks of `group`."""
    rows = cell.tested_at(group.tested)
    ids = rows["utterance_id"].to_pylist()
    label, prediction = (rows[c].to_numpy() for c in ("label", "prediction"))
    pairs = zip(label.tolist(), prediction.tolist(), strict=True)
    counts = {a: dict.fromkeys(tables.SIGNS, 0) for a in tables.SIGNS}
    for true, predicted in pairs:
        counts[tables.sign(true)][tables.sign(predicted)] += 1
    # Zero is shown only where a label or a prediction is exactly that.
    signs = [s for s in tables.SIGNS if s != "zero" or 0 in label or 0 in prediction]
    error = np.abs(prediction - label)
    order = sorted(range(len(ids)), key=lambda i: (-error[i], ids[i]))
    same_side = sum(counts[s][s] for s in tables.SIGNS)
    name = tables.model_name(cell.model)
    chart = figures.scatter_chart(
        label,
        prediction,
        cell.scale,
        name=f"scatter-{cell.path}-{group.tested}",
        described=(
            f"Predictions of {name} against labels of {len(ids)} test clips of {cell.corpus}. "
            f"Labels from {label.min():.2f} to {label.max():.2f}, predictions from "
            f"{prediction.min():.2f} to {prediction.max():.2f}; {same_side} have the sign of "
            "their label."
        ),
    )
    return Agreement(
        group=group,
        model=name,
        seed=cell.seed,
        chart=Chart(f"{name} on {cell.corpus}, {group.condition}, seed {cell.seed}", chart),
        thinned=len(ids) > figures.MAX_DOTS,
        signs=signs,
        confusion=counts,
        furthest=[(ids[i], float(label[i]), float(prediction[i])) for i in order[:5]],
    )


def _settings(results: Results) -> dict[str, dict[str, dict[str, str]]]:
    """Return settings by model and part; they are those of `params.yaml` in all its cells."""
    by_model = {}
    for model in results.grid.models:
        config = results.select(results.grid.corpora[0], model)[0].config
        masks = config["training"]["masks"]
        by_model[tables.model_name(model)] = {
            "Network": flatten(config["settings"]),
            "Optimiser": flatten(config["training"]["optimiser"]),
            "Training": flatten(config["training"]["train"]),
            "Mask": flatten({key: masks[key] for key in ("pattern", "seed")}),
        }
    return by_model


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested values as text under dotted keys; true and false as in YAML."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            flat[prefix + key] = ", ".join(map(str, value))
        else:
            plain = str(value).lower() if isinstance(value, bool) else value
            flat[prefix + key] = "none" if plain is None else str(plain)
    return flat


def _versions(results: Results) -> dict[str, str]:
    """Return the libraries that trained and extracted; several versions where cells differ."""
    found: dict[str, set[str]] = {}
    for cell in results.cells:
        for library, version in cell.config["versions"].items():
            found.setdefault(library, set()).add(version)
        for features in cell.config["features"].values():
            for library, version in features["identity"].get("libraries", {}).items():
                found.setdefault(library, set()).add(version)
    return {library: ", ".join(sorted(found[library])) for library in sorted(found)}


def _inputs(results: Results) -> list[dict[str, Any]]:
    """Return the features that models were trained on, each once."""
    found = {}
    for cell in results.cells:
        for modality in MODALITIES:
            features = cell.config["features"][modality]
            place = (cell.corpus, MODALITIES.index(modality), features["digest"])
            found[place] = {
                "corpus": cell.corpus,
                "modality": modality,
                "dim": cell.config["dims"][modality],
                "version": features["version"],
                "digest": features["digest"],
                "identity": flatten(features["identity"]),
            }
    return [found[place] for place in sorted(found)]
