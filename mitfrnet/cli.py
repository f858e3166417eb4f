"""The command `mitfrnet`: everything that is not a stage of the pipeline."""

import os
import sys
from enum import Enum
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from mitfrnet.doctor.findings import FREE_GIB
from mitfrnet.errors import DEBUG_VARIABLE, reporting_errors

# Each command imports what it needs when it runs, so that `--help` does not load torch.

app = typer.Typer(
    help="Multimodal sentiment with text, sound or face missing. `dvc repro` runs the pipeline; "
    "these commands work on its inputs and outputs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]


class PublishedCorpus(str, Enum):
    """A corpus with published scores."""

    mosi = "mosi"
    sims = "sims"


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    with reporting_errors():
        app(argv)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"mitfrnet {version('mitfrnet')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"
    # Set before torch loads, as in the stages (benchmarks/NOTES.md, Threads that spin).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@app.command()
def compare(
    corpus: Annotated[str, typer.Argument(help="A corpus in grid.corpora of params.yaml.")],
    published: Annotated[
        PublishedCorpus, typer.Option("--with", help="The published corpus to compare with.")
    ],
    metrics: Annotated[
        Path, typer.Option(metavar="FOLDER", help="The folder of the pipeline's scores.")
    ] = Path("metrics"),
    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Also write all rows there, unrounded."),
    ] = None,
    table: Annotated[
        int | None, typer.Option(min=4, max=7, help="Show only this table of the paper.")
    ] = None,
    same_corpus: Annotated[
        bool, typer.Option("--same-corpus", help="State that CORPUS is the published corpus.")
    ] = False,
) -> None:
    """Compare the scores of the grid with those in the paper, and list caveats.

    Example: mitfrnet compare sample --with mosi --table 4
    """
    from rich.console import Console

    from mitfrnet.files import replacing
    from mitfrnet.report import compare as comparing

    comparison = comparing.compare(
        corpus, published.value, metrics, table=table, same_corpus=same_corpus
    )
    if csv is not None:
        with replacing(csv) as temporary:
            temporary.write_text(comparing.comparison_csv(comparison), encoding="utf-8")
    console = Console(width=100, highlight=False)
    for part in comparing.render(comparison):
        console.print(part)


@app.command()
def preset(
    name: Annotated[
        str,
        typer.Argument(
            help="mosi or sims: the published settings of all models; "
            "study: the grid of the paper's comparison."
        ),
    ],
    write: Annotated[
        bool, typer.Option("--write", help="Set its values in params.yaml, and list the changes.")
    ] = False,
) -> None:
    """Print a preset, or write its values to params.yaml.

    Example: mitfrnet preset study --write
    """
    from mitfrnet.params import PARAMS_FILE
    from mitfrnet.presets import read_preset, write_preset

    if not write:
        print(read_preset(name), end="")
        return
    changes = write_preset(name)
    for change in changes:
        print(f"{change.key}: {change.before} -> {change.after}")
    print(f"{PARAMS_FILE}: {len(changes)} value{'s' * (len(changes) != 1)} changed")
    if changes:
        print(
            f"The comments did not change: `mitfrnet preset {name}` shows the source of each value."
        )


@app.command()
def validate(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A corpus, such as raw/mine.")],
    corpus: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Its block in params.yaml. Default: the folder's name."),
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Open every clip, or read only the table.")
    ] = True,
    problems: Annotated[
        int, typer.Option(min=0, metavar="N", help="List at most N problems, the worst first.")
    ] = 10,
    as_json: AsJson = False,
) -> None:
    """Describe a corpus and list its problems, before anything is extracted.

    The exit status is 1 if stage `ingest` would stop, 0 if there are only warnings.

    Example: mitfrnet validate raw/mine --problems 50
    """
    from rich.console import Console

    from mitfrnet.corpus.ingest import IngestParams
    from mitfrnet.params import load_params
    from mitfrnet.validate.block import load_block
    from mitfrnet.validate.report import check_corpus, to_json
    from mitfrnet.validate.terminal import render
    from mitfrnet.workers.params import RunParams

    block = load_block(folder, corpus)
    ingest = load_params(IngestParams, section="ingest")
    run = load_params(RunParams, section="run")
    report = check_corpus(folder, block, ingest, run if probe else None)
    if as_json:
        print(to_json(report))
    else:
        if isinstance(sys.stdout, TextIOWrapper):  # it may not be able to show every transcript
            sys.stdout.reconfigure(errors="backslashreplace")
        console = Console(highlight=False)
        for part in render(report, problems):
            console.print(part)
    if report.errors:
        raise typer.Exit(1)


@app.command("import-mmsa")
def import_mmsa(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A feature file, e.g. unaligned_50.pkl.")
    ],
    corpus: Annotated[str, typer.Option(metavar="NAME", help="Write the corpus to raw/NAME.")],
    language: Annotated[
        str, typer.Option(help="Language of the transcripts, an ISO 639 code.")
    ] = "en",
    scale: Annotated[
        str, typer.Option(help="Scale of the labels: mosi ([-3, 3]) or sims ([-1, 1]).")
    ] = "mosi",
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="Names of class labels, by index: negative,neutral,positive."
        ),
    ] = None,
    text_encoder: Annotated[
        str | None,
        typer.Option(
            metavar="ENCODER",
            help="The encoder that the token ids are for. Default: bert-base-uncased for en, "
            "bert-base-chinese for zh; embedded has the vocabulary of bert-base-uncased.",
        ),
    ] = None,
) -> None:
    """Import a feature file of MMSA or MMSA-FET as a corpus; no video is needed.

    The pickle is read as data: no code in it runs. Put the printed block into params.yaml and NAME
    into grid.corpora; then run `dvc repro`.

    Example: mitfrnet import-mmsa unaligned_39.pkl --corpus sims --language zh --scale sims
    """
    from mitfrnet.corpus.params import CorpusParams
    from mitfrnet.mmsa import import_corpus
    from mitfrnet.params import check_name, parse_params

    block: dict[str, object] = {"layout": "features", "language": language}
    if classes is None:
        block["scale"] = scale
    else:
        names = [name.strip() for name in classes.split(",")]
        block |= {"task": "classification", "classes": names}
    parsed = parse_params(CorpusParams, block, where="import-mmsa")
    assert parsed.resolved_scale is not None  # the layout has labels
    name = check_name(corpus, "--corpus")
    summary = import_corpus(
        file,
        Path("raw") / name,
        language=language,
        scale=parsed.resolved_scale,
        text_encoder=text_encoder,
    )
    print(*summary.lines(), sep="\n")


@app.command("export-mmsa")
def export_mmsa(
    corpus: Annotated[str, typer.Argument(metavar="CORPUS", help="A corpus with tensors.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The pickle to write.")],
) -> None:
    """Export the features of a corpus as a file that MMSA can train on.

    The features are aligned if the tensors are (`tensors.align`).

    Example: mitfrnet export-mmsa sample sample.pkl
    """
    from mitfrnet.mmsa import write
    from mitfrnet.params import check_name

    write(Path("data") / check_name(corpus, "CORPUS"), file)
    print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB, set it as MMSA's featurePath")


@app.command()
def predict(
    clips: Annotated[
        list[str],
        typer.Argument(metavar="CLIP...", help="Media files, folders of media files, or patterns."),
    ],
    model: Annotated[
        str, typer.Option(metavar="FOLDER", help="A trained model, or OWNER/NAME on the hub.")
    ],
    text: Annotated[
        str | None,
        typer.Option(help="The transcript. Default: from a text file beside the clip."),
    ] = None,
    asr: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A Whisper model that transcribes clips without text."),
    ] = None,
    as_json: AsJson = False,
    parquet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write everything there.")
    ] = None,
    max_seconds: Annotated[
        float, typer.Option(min=0.1, metavar="S", help="Do not read clips longer than this.")
    ] = 600,
    other_versions: Annotated[
        bool,
        typer.Option(
            "--other-versions", help="Accept other library versions than those of training."
        ),
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, metavar="N", help="Number of decoding processes; 0: one per core.")
    ] = 0,
) -> None:
    """Score clips with a trained model, even if text, sound or face is missing.

    The exit status is 1 if a clip cannot be read; the other clips are still scored.

    Example: mitfrnet predict talk.mp4 --model models/sample/mitfrnet/0.3/1 --text "I liked it."
    """
    import json

    from rich.console import Console

    from mitfrnet.predict import output
    from mitfrnet.predict.clips import find_clips
    from mitfrnet.predict.extraction import LIMITS
    from mitfrnet.predict.hub import model_folder
    from mitfrnet.predict.scoring import score_clips
    from mitfrnet.trained.folder import read_config
    from mitfrnet.workers.params import available_cores

    paths = find_clips(clips)
    if parquet is not None and parquet.is_dir():
        raise typer.BadParameter(f"{parquet} is a folder (expected a file)")
    if text is not None and len(paths) > 1:
        raise typer.BadParameter(f"--text needs exactly one clip (found: {len(paths)})")
    folder = model_folder(model)
    scored = score_clips(
        folder,
        paths,
        {} if text is None else {paths[0]: text},
        asr=asr,
        limits=LIMITS.model_copy(update={"max_duration_s": max_seconds}),
        other_versions=other_versions,
        workers=workers or len(available_cores()),
    )
    records = [output.record(clip, prediction) for clip, prediction in scored]
    if parquet is not None:
        output.write_predictions(records, parquet)
    if as_json:
        print(json.dumps(records, indent=2, ensure_ascii=False))
    else:
        # Lines are not wrapped for a pipe.
        console = Console(highlight=False, width=None if sys.stdout.isatty() else 1000)
        console.print(output.render(scored, read_config(folder)["scale"]))
    for line in output.remarks(scored):
        print(line, file=sys.stderr)
    if any(record["error"] for record in records):
        raise typer.Exit(1)


@app.command()
def inspect(
    target: Annotated[
        str,
        typer.Argument(
            metavar="CLIP|UTTERANCE",
            help="A media file, or <corpus>/<video_id>/<clip_id> of an extracted corpus.",
        ),
    ],
    corpus: Annotated[
        str | None, typer.Option(metavar="NAME", help="The corpus, if UTTERANCE lacks it.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER",
            help="A trained model, or OWNER/NAME on the hub; may be repeated. Default for an "
            "utterance: the models of the grid.",
        ),
    ] = None,
    text: Annotated[
        str, typer.Option(help="The transcript of CLIP. Default: from a text file beside it.")
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="The page. Default: ./<name>.html."),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Write a picture of the tracks there."),
    ] = None,
) -> None:
    """Write a page about one clip: its face, sound, words, missing parts and predictions.

    The page works offline. With --png and without --out, only the picture is written.

    Example: mitfrnet inspect sample/speaker01_a/0005 --png tracks.png --out page.html
    """
    from mitfrnet.inspection.inspect import default_page
    from mitfrnet.inspection.inspect import inspect as view_of
    from mitfrnet.inspection.page import write_page
    from mitfrnet.inspection.picture import write_picture

    view = view_of(target, corpus=corpus, models=model or [], transcript=text)
    if out is not None or png is None:
        page = out or default_page(view)
        write_page(view, page)
        print(page)
    if png is not None:
        write_picture(view, png)
        print(png)


@app.command()
def check() -> None:
    """Check the whole of params.yaml: every section, and each against the others.

    Every mistake is one line, and the exit status is then 1. `dvc repro` does the same before
    anything runs.

    Example: mitfrnet check
    """
    from mitfrnet.errors import ParamsError
    from mitfrnet.plan.check import check_params

    if problems := check_params():
        raise ParamsError(*problems)
    typer.echo("params.yaml: all sections are valid")


@app.command()
def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="For bug reports: no user name, home folder or tokens.")
    ] = False,
    free_gib: Annotated[
        float,
        typer.Option("--free", min=0, metavar="GIB", help="Free space that each disk must have."),
    ] = FREE_GIB,
) -> None:
    """Check that `dvc repro` can run on this machine, and say how to fix what is wrong.

    The exit status is 1 if `dvc repro` would stop, 0 if there are only remarks. Nothing is
    downloaded. If this command does not start, run `python -m mitfrnet.doctor` in the project's
    folder.

    Example: mitfrnet doctor --json
    """
    from mitfrnet.doctor.__main__ import diagnose

    raise typer.Exit(diagnose(as_json=as_json, free_gib=free_gib))


if __name__ == "__main__":
    main()
