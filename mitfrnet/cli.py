"""The command `mitfrnet`: what is done beside the pipeline."""

import os
import sys
from enum import Enum
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from mitfrnet.doctor.findings import FREE_GIB
from mitfrnet.errors import DEBUG_VARIABLE, reporting_errors

# Each command imports what it needs when it runs: `--help` is answered without torch.

app = typer.Typer(
    help="Multimodal sentiment with text, sound or face missing. The pipeline itself is run by "
    "`dvc repro`; these commands work on what it reads and writes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class PublishedCorpus(str, Enum):
    """A corpus that the paper reports on."""

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
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where in the code an error comes from.")
    ] = False,
) -> None:
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"
    # As the stages do, before torch loads (benchmarks/NOTES.md, Threads that spin).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@app.command()
def compare(
    corpus: Annotated[str, typer.Argument(help="A corpus of the grid in params.yaml.")],
    published: Annotated[
        PublishedCorpus, typer.Option("--with", help="The corpus of the published scores.")
    ],
    metrics: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where the pipeline wrote its scores.")
    ] = Path("metrics"),
    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Write every row there too, unrounded."),
    ] = None,
    table: Annotated[
        int | None, typer.Option(min=4, max=7, help="One table of the paper instead of all.")
    ] = None,
    same_corpus: Annotated[
        bool, typer.Option("--same-corpus", help="CORPUS is the published one, not another.")
    ] = False,
) -> None:
    """Put the scores of the grid beside those the paper prints, and say what is wrong with them.

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
            help="mosi, sims: the published settings of all models. "
            "study: the grid of the whole comparison."
        ),
    ],
    write: Annotated[
        bool, typer.Option("--write", help="Set its values in params.yaml, and show which changed.")
    ] = False,
) -> None:
    """Print a preset, or put it into params.yaml.

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
            f"Comments are still those of the file: `mitfrnet preset {name}` shows where each "
            "value comes from."
        )


@app.command()
def validate(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A corpus, such as raw/mine.")],
    corpus: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Its block in params.yaml, if not called as the folder."),
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Open each clip, or only read the table.")
    ] = True,
    problems: Annotated[
        int, typer.Option(min=0, metavar="N", help="How many problems to list, the worst first.")
    ] = 10,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything for other programs.")
    ] = False,
) -> None:
    """Say what a corpus holds and what is wrong with it, before anything is extracted.

    Ends with status 1 if the stage `ingest` would stop; warnings alone are 0.

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
        if isinstance(sys.stdout, TextIOWrapper):  # whose encoding may lack what a corpus has
            sys.stdout.reconfigure(errors="backslashreplace")
        console = Console(highlight=False)
        for part in render(report, problems):
            console.print(part)
    if report.errors:
        raise typer.Exit(1)


@app.command("import-mmsa")
def import_mmsa(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Such as unaligned_50.pkl.")],
    corpus: Annotated[str, typer.Option(metavar="NAME", help="It becomes the corpus raw/NAME.")],
    language: Annotated[str, typer.Option(help="Of the transcripts, an ISO 639 code.")] = "en",
    scale: Annotated[
        str, typer.Option(help="Of the labels: mosi ([-3, 3]) or sims ([-1, 1]).")
    ] = "mosi",
    classes: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Of class labels, by index: negative,neutral,positive."),
    ] = None,
    text_encoder: Annotated[
        str | None,
        typer.Option(
            metavar="ENCODER",
            help="Whose vocabulary the token ids are from. Default: bert-base-uncased for en, "
            "bert-base-chinese for zh; embedded has the vocabulary of the former.",
        ),
    ] = None,
) -> None:
    """Make a corpus of a feature file of MMSA or MMSA-FET, without any video.

    What the pickle holds is read as data: nothing in it is run. `dvc repro` then goes on as for
    clips, once the printed block stands in params.yaml and NAME in its grid.

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
    corpus: Annotated[str, typer.Argument(metavar="CORPUS", help="One whose tensors are made.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The pickle to write.")],
) -> None:
    """Write the features of a corpus as the file that MMSA trains on.

    Aligned if the tensors are (`tensors.align`), else unaligned.

    Example: mitfrnet export-mmsa sample sample.pkl
    """
    from mitfrnet.mmsa import write
    from mitfrnet.params import check_name

    write(Path("data") / check_name(corpus, "CORPUS"), file)
    print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB, for MMSA's featurePath")


@app.command()
def predict(
    clips: Annotated[
        list[str],
        typer.Argument(metavar="CLIP...", help="Media files, folders of them, or patterns."),
    ],
    model: Annotated[
        str, typer.Option(metavar="FOLDER", help="A trained model; or OWNER/NAME on the hub.")
    ],
    text: Annotated[
        str | None,
        typer.Option(help="What is said; by default what a file beside the clip holds."),
    ] = None,
    asr: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Transcribes clips without text: a Whisper model."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything for other programs.")
    ] = False,
    parquet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write everything there too.")
    ] = None,
    max_seconds: Annotated[
        float, typer.Option(min=0.1, metavar="S", help="Longer clips are not read.")
    ] = 600,
    other_versions: Annotated[
        bool,
        typer.Option(
            "--other-versions", help="Score although libraries differ from those of training."
        ),
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, metavar="N", help="Processes that decode; 0: one per core.")
    ] = 0,
) -> None:
    """Score clips with a trained model, whatever parts of them are missing.

    Ends with status 1 if a clip cannot be read at all; the others are scored all the same.

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

    found = find_clips(clips)
    if parquet is not None and parquet.is_dir():
        raise typer.BadParameter(f"{parquet} is a folder (expected a file)")
    if text is not None and len(found) > 1:
        raise typer.BadParameter(f"--text is about one clip, and there are {len(found)}")
    folder = model_folder(model)
    scored = score_clips(
        folder,
        found,
        {} if text is None else {found[0]: text},
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
        # Piped, lines are as long as they need to be.
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
            help="A media file, or <corpus>/<video_id>/<clip_id> of a corpus that was extracted.",
        ),
    ],
    corpus: Annotated[
        str | None, typer.Option(metavar="NAME", help="The corpus, if UTTERANCE does not name it.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER",
            help="A trained model, or OWNER/NAME on the hub; may be repeated. Default for an "
            "utterance: those of the grid.",
        ),
    ] = None,
    text: Annotated[
        str, typer.Option(help="What is said in CLIP; by default what a file beside it holds.")
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="The page. Default: <name>.html, here."),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Write the tracks as a picture there."),
    ] = None,
) -> None:
    """Show one clip on a page: face, sound, words, what is missing, and what models make of it.

    The page works offline. With --png alone only the picture is written.

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
def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="For bug reports: without names, home and tokens.")
    ] = False,
    free_gib: Annotated[
        float, typer.Option("--free", min=0, metavar="GIB", help="Space that each disk must have.")
    ] = FREE_GIB,
) -> None:
    """Say what is there for `dvc repro` to run on, and what to do about what is not.

    Ends with status 1 if `dvc repro` would stop; remarks alone are 0. Nothing is downloaded.
    Where this command does not start: python -m mitfrnet.doctor, in the project's folder.

    Example: mitfrnet doctor --json
    """
    from mitfrnet.doctor.__main__ import diagnose

    raise typer.Exit(diagnose(as_json=as_json, free_gib=free_gib))


if __name__ == "__main__":
    main()
