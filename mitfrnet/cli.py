"""The command `mitfrnet`: what is done beside the pipeline."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from mitfrnet.errors import reporting_errors

# Each command imports what it needs when it runs: `--help` is answered without torch.

app = typer.Typer(
    help="Multimodal sentiment with text, sound or face missing. The pipeline itself is run by "
    "`dvc repro`; these commands work on what it reads and writes.",
    no_args_is_help=True,
    add_completion=False,
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
) -> None:
    pass


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
    """Put the scores of the grid beside those the paper prints, and say what is wrong with them."""
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
    """Print a preset, or put it into params.yaml."""
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


if __name__ == "__main__":
    main()
