"""The report as one page that loads nothing, and as small files for other programs."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mitfrnet.files import replacing
from mitfrnet.labels import ClassScale, LabelScale
from mitfrnet.modalities import MODALITIES
from mitfrnet.params import StageParams
from mitfrnet.report.charts import figures
from mitfrnet.report.charts.agreement import Agreement, agreement
from mitfrnet.report.charts.drawing import Chart
from mitfrnet.report.charts.results import (
    MAX_SEEDS,
    LossCharts,
    average_charts,
    bars_in_words,
    loss_charts,
    rate_charts,
)
from mitfrnet.report.results import Corpus, Results
from mitfrnet.report.tables import plain, runs, study
from mitfrnet.report.tables.averages import Block, blocks
from mitfrnet.report.tables.paired import PairedParams, comparisons, paired_column
from mitfrnet.report.tables.scores import BootstrapParams, Group, model_names, score_groups
from mitfrnet.report.tables.typeset import Table
from mitfrnet.report.template import page_environment
from mitfrnet.report.worst import WorstClip, WorstParams

_SAID = 160  # characters of a transcript in a table


class ReportParams(StageParams):
    """Section `report`."""

    title: str
    bootstrap: BootstrapParams
    paired_test: PairedParams
    worst: WorstParams  # of the inspect stage


@dataclass(frozen=True)
class BlockView:
    """What is shown of one corpus and way of training, over test rates.

    Attributes:
        block: the groups.
        headline: a few scores, averaged where there are several rates.
        curves, averages: charts.
        tables: of all scores.
        ablation, paired: further tables; None where the grid has no such models.
        folded: trained at one rate and tested at others, of which the page shows no tables.
    """

    block: Block
    headline: Table
    curves: Sequence[Chart]
    averages: Sequence[Chart]
    tables: Sequence[Table]
    ablation: Table | None
    paired: Table | None
    folded: bool


@dataclass(frozen=True)
class CorpusView:
    """What is shown of one corpus.

    Attributes:
        corpus: as ingested, extracted and masked.
        groups: its scores.
        scores: the first table; None where there are too many groups for it.
        blocks: over test rates.
        losses: per model.
        timings, trainings, masks: tables.
        agreements: per model, of the lowest, middle and highest rate.
        worst: clips that the first model gets most wrong at the lowest rate.
    """

    corpus: Corpus
    groups: Sequence[Group]
    scores: Table | None
    blocks: Sequence[BlockView]
    losses: Sequence[LossCharts]
    timings: Table
    trainings: Table
    masks: Table
    agreements: Sequence[Sequence[Agreement]]
    worst: Sequence[WorstClip]

    @property
    def scale(self) -> LabelScale:
        """Return the scale of the labels."""
        return self.groups[0].scale

    @property
    def tables(self) -> list[Table]:
        """Return every table that becomes a file."""
        own = [t for b in self.blocks for t in (*b.tables, b.ablation, b.paired)]
        all_tables = [self.scores, *own, self.timings, self.trainings, self.masks]
        return [table for table in all_tables if table]

    @property
    def figures(self) -> list[Chart]:
        """Return every chart that becomes a file."""
        over_rates = [c for b in self.blocks for c in (*b.curves, *b.averages)]
        losses = [[own.convergence] if own.convergence else own.charts for own in self.losses]
        return over_rates + [chart for charts in losses for chart in charts]


def write_report(
    results: Results,
    params: ReportParams,
    out: Path,
    worst: Mapping[str, Sequence[WorstClip]] | None = None,
) -> None:
    """Write `index.html`, `scores.*`, `tables/`, `figures/` and `plots/` into `out`.

    The same results give the same bytes.

    Args:
        results: of the grid.
        params: of the report.
        out: the folder.
        worst: by corpus, the clips that the first model gets most wrong, `page` as a link in
            `index.html`.
    """
    groups = score_groups(results, params.bootstrap)
    views = [
        view(results, corpus, groups, params, (worst or {}).get(corpus.name, ()))
        for corpus in results.corpora
    ]
    _write(out / "index.html", render_page(results, views, params))
    _write(out / "scores.txt", plain.scores_text(params.title, groups))
    _write(out / "scores.csv", plain.scores_csv(groups))

    for folder in ("tables", "figures", "plots"):  # of cells that left the grid
        shutil.rmtree(out / folder, ignore_errors=True)
    for shown in views:
        for table in shown.tables:
            _write(out / "tables" / f"{table.name}.csv", table.csv())
            _write(out / "tables" / f"{table.name}.tex", table.latex())
        for chart in shown.figures:
            chart.save(out / "figures")
    plots = out / "plots"
    for cell in results.cells:
        _write(plots / "losses" / f"{cell.path}.tsv", plain.loss_table(cell))
        _write(plots / "predictions" / f"{cell.path}.tsv", plain.prediction_table(cell))
        _write(plots / "signs" / f"{cell.path}.tsv", plain.sign_table(cell))
    for shown in views:
        for curve, lines in plain.rate_tables(shown.groups).items():
            _write(plots / "scores" / shown.corpus.name / f"{curve}.tsv", lines)


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def view(
    results: Results,
    corpus: Corpus,
    groups: Sequence[Group],
    params: ReportParams,
    worst: Sequence[WorstClip],
) -> CorpusView:
    """Return what is shown of one corpus."""
    names = model_names(results)
    own = [g for g in groups if g.corpus == corpus.name]
    few = len(own) <= plain.FEW_GROUPS
    found = blocks(own)
    main = [b for b in found if b.trained == "matched" or isinstance(b.trained, str)] or found[:1]
    return CorpusView(
        corpus=corpus,
        groups=own,
        scores=study.headline_table(own, params.bootstrap) if few else None,
        blocks=[_block_view(results, b, params, folded=b not in main) for b in found],
        losses=[loss_charts(results, corpus.name, m, names[m]) for m in results.grid.models],
        timings=runs.timing_table(results, corpus.name, names),
        trainings=runs.training_table(results, corpus.name, names),
        masks=runs.mask_table(corpus),
        agreements=[
            [
                agreement(results.select(corpus.name, m, group.trained)[0], group, names[m])
                for group in _spread(found[0].groups)
            ]
            for m in results.grid.models
        ],
        worst=worst,
    )


def _block_view(results: Results, block: Block, params: ReportParams, *, folded: bool) -> BlockView:
    several = len(block.groups) > 1
    tables = study.score_tables(block, params.bootstrap)
    paired = None
    if len(block.models) > 1:
        column = paired_column(block, params.paired_test)
        found = comparisons(block, column.key, params.paired_test.exchanges, params.bootstrap)
        paired = study.paired_table(
            block, column, found, params.paired_test.exchanges, params.bootstrap.level
        )
    return BlockView(
        block=block,
        headline=(
            study.headline_average_table(block)
            if several
            else study.headline_table(block.groups, params.bootstrap)
        ),
        curves=rate_charts(block),
        averages=average_charts(block),
        tables=[study.average_table(block), *tables] if several else tables,
        ablation=study.ablation_table(results, block),
        paired=paired,
        folded=folded,
    )


def _spread(groups: Sequence[Group]) -> list[Group]:
    """Return the first, the middle and the last."""
    last = len(groups) - 1
    return [groups[i] for i in sorted({0, last // 2, last})]


def render_page(results: Results, views: Sequence[CorpusView], params: ReportParams) -> str:
    """Return the page as HTML; whatever comes from data is escaped."""
    here = Path(__file__).parent
    environment = page_environment(here, "page.js")
    environment.filters |= {"percent": percent, "words": words, "shortened": shortened}
    return environment.get_template("page.html.jinja").render(
        title=params.title,
        summary=summarise(results, views),
        results=results,
        views=views,
        settings=_settings(results),
        versions=_versions(results),
        inputs=_inputs(results),
        predictors={row.key: row.name for v in views for row in v.groups[0].rows},
        modalities=MODALITIES,
        splits=runs.SPLITS,
        max_dots=figures.MAX_DOTS,
        max_seeds=MAX_SEEDS,
        over_rates=any(b.curves for v in views for b in v.blocks),
        compared=any(b.paired or b.ablation for v in views for b in v.blocks),
        several=any(len(v.groups) > 1 for v in views),
        bars=bars_in_words(views[0].blocks[0].block, params.bootstrap.level),
        labels_in_words=labels_in_words,
        scale_in_words=scale_in_words,
    )


def labels_in_words(label: Mapping[str, Any]) -> str:
    """Return how many clips have which labels."""
    counts = label.get("classes") or {
        "negative": label["negative"],
        "neutral": label["zero"],
        "positive": label["positive"],
    }
    shown = ", ".join(f"{n} {name}" for name, n in counts.items())
    return f"{shown}; mean {label['mean']:.3f}" if "mean" in label else shown


def scale_in_words(scale: LabelScale) -> str:
    """Return what a label can be."""
    if isinstance(scale, ClassScale):
        return f"{len(scale.classes)} classes"
    family = f" ({scale.family})" if scale.family else f", neutral at {scale.neutral_point:g}"
    return f"{scale.low:g} to {scale.high:g}{family}"


def percent(share: float | None) -> str:
    """Return a share in percent, a dash for none."""
    return "\N{EN DASH}" if share is None else f"{100 * share:.1f} %"


def words(key: str) -> str:
    """Return a key of a file as words."""
    return key.replace("_", " ")


def shortened(text: str) -> str:
    """Return a transcript on one line of a table, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _SAID else line[: _SAID - 1].rstrip() + "…"


def listed(things: Sequence[object]) -> str:
    """Return `a`, `a and b`, or `a, b and c`."""
    *firsts, last = map(str, things)
    return f"{', '.join(firsts)} and {last}" if firsts else last


def summarise(results: Results, views: Sequence[CorpusView]) -> str:
    """Return in one sentence what was run."""
    grid = results.grid
    models = listed(list(model_names(results).values()))
    rates = [c for c in grid.missing_rates if not isinstance(c, str)]
    protocols = [words(c) for c in grid.missing_rates if isinstance(c, str)]
    trained = [f"with missing rate{'s' * (len(rates) > 1)} {listed(rates)}"] if rates else []
    trained += [f"by protocol {listed(protocols)}"] if protocols else []
    seeds, runs = grid.seeds, len(results.cells)
    clips = [f"{v.groups[0].n} test clips of the corpus {v.corpus.name}" for v in views]
    return (
        f"{models} trained {listed(trained)}, "
        f"seed{'s' * (len(seeds) > 1)} {listed(seeds)} ({runs} training run{'s' * (runs > 1)}), "
        f"scored on {listed(clips)}."
    )


def _settings(results: Results) -> dict[str, dict[str, dict[str, str]]]:
    """Return settings by model and part; they are those of `params.yaml` in all its cells."""
    by_model = {}
    for model, name in model_names(results).items():
        config = results.select(results.grid.corpora[0], model)[0].config
        masks = config["training"]["masks"]
        by_model[name] = {
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
