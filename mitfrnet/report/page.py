"""The report: one page that loads nothing, and files for other programs."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mitfrnet.files import replacing
from mitfrnet.labels import LabelScale
from mitfrnet.modalities import MODALITIES
from mitfrnet.report.charts import figures
from mitfrnet.report.charts.agreement import Agreement, agreement
from mitfrnet.report.charts.drawing import Chart
from mitfrnet.report.charts.losses import MAX_SEEDS, loss_charts
from mitfrnet.report.charts.scores import average_charts, bars_in_words, rate_charts
from mitfrnet.report.over_rates import Block, blocks
from mitfrnet.report.params import ReportParams
from mitfrnet.report.results import Corpus, Results
from mitfrnet.report.scores import Group, model_names, score_groups
from mitfrnet.report.tables import plain
from mitfrnet.report.tables.ablation import ablation_table
from mitfrnet.report.tables.averages import average_table, headline_average_table
from mitfrnet.report.tables.masks import SPLITS, mask_table
from mitfrnet.report.tables.paired import paired_table
from mitfrnet.report.tables.scores import headline_table, score_tables
from mitfrnet.report.tables.table import Table
from mitfrnet.report.tables.trainings import timing_table, training_table
from mitfrnet.report.template import page_environment
from mitfrnet.report.words import (
    flatten,
    in_words,
    labels_in_words,
    listed,
    percent,
    scale_in_words,
    shortened,
)
from mitfrnet.report.worst import WorstClip


@dataclass(frozen=True)
class BlockView:
    """The tables and charts of one corpus over test rates.

    Attributes:
        block: the scores.
        headline: a few scores, averaged if there are several rates.
        curves, averages: charts.
        tables: all scores.
        ablation, paired: further tables; None if the grid has no models for them.
        folded: whether the page folds it away and shows its curves only.
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
    """The tables and charts of one corpus.

    Attributes:
        corpus: its quality, features and masks.
        groups: its scores.
        scores: the first table; None if there are too many groups for it.
        blocks: its scores over test rates.
        losses: charts by model.
        timings, trainings, masks: tables.
        agreements: by model, at the lowest, middle and highest rate.
        worst: the clips that the first model gets most wrong at the lowest rate.
    """

    corpus: Corpus
    groups: Sequence[Group]
    scores: Table | None
    blocks: Sequence[BlockView]
    losses: Mapping[str, Sequence[Chart]]
    timings: Table
    trainings: Table
    masks: Table
    agreements: Mapping[str, Sequence[Agreement]]
    worst: Sequence[WorstClip]

    @property
    def scale(self) -> LabelScale:
        """Return the scale of the labels."""
        return self.groups[0].scale

    @property
    def tables(self) -> list[Table]:
        """Return every table that becomes a file."""
        tables = [self.scores, self.timings, self.trainings, self.masks]
        tables += [t for b in self.blocks for t in (*b.tables, b.ablation, b.paired)]
        return [table for table in tables if table]

    @property
    def figures(self) -> list[Chart]:
        """Return every chart that becomes a file."""
        figures = [chart for b in self.blocks for chart in (*b.curves, *b.averages)]
        for charts in self.losses.values():
            figures += [chart for chart in charts if chart.wide] or charts
        return figures


def write_report(
    results: Results,
    params: ReportParams,
    out: Path,
    worst: Mapping[str, Sequence[WorstClip]] | None = None,
) -> None:
    """Write `index.html`, `scores.*`, `tables/`, `figures/` and `plots/` into `out`.

    The same results give the same bytes.

    Args:
        results: the cells of the grid.
        params: settings of the report.
        out: folder of the report.
        worst: by corpus, the clips that the first model gets most wrong, each with `page` as a
            link from `index.html`.

    Raises:
        FeatureError: two cells were scored on different clips or rates.
        ParamsError: the report shows no score with the name in `params.paired_test`.
    """
    groups = score_groups(results, params.bootstrap)
    views = [
        _corpus_view(results, corpus, groups, params, (worst or {}).get(corpus.name, ()))
        for corpus in results.corpora
    ]
    _write(out / "index.html", _render(results, views, params))
    _write(out / "scores.txt", plain.scores_text(params.title, groups))
    _write(out / "scores.csv", plain.scores_csv(groups))

    for folder in ("tables", "figures", "plots"):  # they may hold cells that left the grid
        shutil.rmtree(out / folder, ignore_errors=True)
    for view in views:
        for table in view.tables:
            _write(out / "tables" / f"{table.name}.csv", table.csv())
            _write(out / "tables" / f"{table.name}.tex", table.latex())
        for chart in view.figures:
            chart.save(out / "figures")
    plots = out / "plots"
    for cell in results.cells:
        _write(plots / "losses" / f"{cell.path}.tsv", plain.loss_table(cell))
        _write(plots / "predictions" / f"{cell.path}.tsv", plain.prediction_table(cell))
        _write(plots / "signs" / f"{cell.path}.tsv", plain.sign_table(cell))
    for view in views:
        for curve, lines in plain.rate_tables(view.groups).items():
            _write(plots / "scores" / view.corpus.name / f"{curve}.tsv", lines)


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _corpus_view(
    results: Results,
    corpus: Corpus,
    groups: Sequence[Group],
    params: ReportParams,
    worst: Sequence[WorstClip],
) -> CorpusView:
    names = model_names(results)
    groups = [group for group in groups if group.corpus == corpus.name]
    few = len(groups) <= plain.FEW_GROUPS
    all_blocks = blocks(groups)
    # Models trained at one rate and tested at others are folded away, unless there are no others.
    shown = [block for block in all_blocks if isinstance(block.trained, str)] or all_blocks[:1]
    return CorpusView(
        corpus=corpus,
        groups=groups,
        scores=headline_table(groups, params.bootstrap) if few else None,
        blocks=[_block_view(results, b, params, folded=b not in shown) for b in all_blocks],
        losses={m: loss_charts(results, corpus.name, m, names[m]) for m in results.grid.models},
        timings=timing_table(results, corpus.name, names),
        trainings=training_table(results, corpus.name, names),
        masks=mask_table(corpus),
        agreements={
            m: [
                agreement(results.select(corpus.name, m, group.trained)[0], group, names[m])
                for group in _spread(all_blocks[0].groups)
            ]
            for m in results.grid.models
        },
        worst=worst,
    )


def _block_view(results: Results, block: Block, params: ReportParams, *, folded: bool) -> BlockView:
    several = len(block.groups) > 1
    compared = len(block.models) > 1
    tables = score_tables(block, params.bootstrap)
    return BlockView(
        block=block,
        headline=(
            headline_average_table(block)
            if several
            else headline_table(block.groups, params.bootstrap)
        ),
        curves=rate_charts(block),
        averages=average_charts(block),
        tables=[average_table(block), *tables] if several else tables,
        ablation=ablation_table(results, block),
        paired=paired_table(block, params.paired_test, params.bootstrap) if compared else None,
        folded=folded,
    )


def _spread(groups: Sequence[Group]) -> list[Group]:
    """Return the first, the middle and the last group."""
    last = len(groups) - 1
    return [groups[i] for i in sorted({0, last // 2, last})]


def _render(results: Results, views: Sequence[CorpusView], params: ReportParams) -> str:
    """Return the page as HTML, with all data escaped."""
    environment = page_environment(Path(__file__).parent, "page.js")
    environment.filters |= {"percent": percent, "words": in_words, "shortened": shortened}
    return environment.get_template("page.html.jinja").render(
        title=params.title,
        summary=_summary(results, views),
        results=results,
        views=views,
        settings=_settings(results),
        versions=_versions(results),
        inputs=_inputs(results),
        names={row.key: row.name for v in views for row in v.groups[0].rows},
        modalities=MODALITIES,
        splits=SPLITS,
        max_dots=figures.MAX_DOTS,
        max_seeds=MAX_SEEDS,
        over_rates=any(b.curves for v in views for b in v.blocks),
        compared=any(b.paired or b.ablation for v in views for b in v.blocks),
        several=any(len(v.groups) > 1 for v in views),
        bars=bars_in_words(views[0].blocks[0].block, params.bootstrap.level),
        labels_in_words=labels_in_words,
        scale_in_words=scale_in_words,
    )


def _summary(results: Results, views: Sequence[CorpusView]) -> str:
    """Return one sentence on the models, rates, seeds and clips."""
    grid = results.grid
    models = listed(model_names(results).values())
    rates = [c for c in grid.missing_rates if not isinstance(c, str)]
    protocols = [in_words(c) for c in grid.missing_rates if isinstance(c, str)]
    trained = [f"with missing rate{'s' * (len(rates) > 1)} {listed(rates)}"] if rates else []
    trained += [f"by protocol {listed(protocols)}"] if protocols else []
    seeds, cells = grid.seeds, len(results.cells)
    clips = [f"{v.groups[0].clips} test clips of the corpus {v.corpus.name}" for v in views]
    return (
        f"{models} trained {listed(trained)}, "
        f"seed{'s' * (len(seeds) > 1)} {listed(seeds)} ({cells} training run{'s' * (cells > 1)}), "
        f"scored on {listed(clips)}."
    )


def _settings(results: Results) -> dict[str, dict[str, dict[str, str]]]:
    """Return the settings of each model by part; all cells of a model have the same ones."""
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


def _versions(results: Results) -> dict[str, str]:
    """Return the versions of each library that trained or extracted; cells may differ."""
    versions: dict[str, set[str]] = {}
    for cell in results.cells:
        features = cell.config["features"].values()
        libraries = [f["identity"].get("libraries", {}) for f in features]
        for used in (cell.config["versions"], *libraries):
            for library, version in used.items():
                versions.setdefault(library, set()).add(version)
    return {library: ", ".join(sorted(versions[library])) for library in sorted(versions)}


def _inputs(results: Results) -> list[dict[str, Any]]:
    """Return each set of features that models were trained on."""
    inputs = {}
    for cell in results.cells:
        for modality in MODALITIES:
            features = cell.config["features"][modality]
            place = (cell.corpus, MODALITIES.index(modality), features["digest"])
            inputs[place] = {
                "corpus": cell.corpus,
                "modality": modality,
                "dim": cell.config["dims"][modality],
                "version": features["version"],
                "digest": features["digest"],
                "identity": flatten(features["identity"]),
            }
    return [inputs[place] for place in sorted(inputs)]
