"""Shows the report of `mitfrnet validate` in a terminal."""

from collections.abc import Iterator, Mapping

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mitfrnet import errors
from mitfrnet.validate import figures
from mitfrnet.validate.report import Report

_LINE_LENGTH = 400
_NAME_LENGTH = 30
_STYLES = {"error": "bold red", "warning": "yellow"}


def printable(text: str, length: int = _LINE_LENGTH) -> str:
    """Return text from data without control characters, shortened to about `length`.

    The middle is cut: the start says where, and the end what would be right.
    """
    if len(text) > length:
        text = f"{text[: 2 * length // 3]} … {text[-length // 3 :]}"
    return errors.printable(text)


def render(report: Report, shown: int = 10) -> Iterator[RenderableType]:
    """Yield the parts of the report, from top to bottom.

    Args:
        report: of the corpus.
        shown: number of problems to list.
    """
    yield _heading(printable(report.folder))
    yield f"layout {report.layout}, task {report.task}, language {report.language}"
    yield ""
    if report.clips:
        yield _facts(report)
        yield ""
        if report.labels:
            yield _heading("Labels")
            yield _bars(report.labels)
            yield ""
        yield _heading("Splits")
        yield _splits(report)
        yield f"videos in more than one split: {report.videos_on_two_sides:,}"
        yield ""
        yield _heading("Missing")
        yield _missing(report)
        yield ""
    yield from _problems(report, shown)


def _heading(text: str) -> Text:
    return Text(text, style="bold")


def _facts(report: Report) -> Table:
    lengths = report.transcript_lengths
    unknown = "none" if report.probed else "not probed"
    table = Table.grid(padding=(0, 2))
    table.add_row(
        "clips",
        f"{report.clips:,} of {_number(report.videos, 'video')}, {_time(report.hours)}, "
        f"{report.bytes / 2**20:,.1f} MiB",
    )
    table.add_row("picture", _listed(report.pictures) or unknown)
    table.add_row("sound", _listed(report.sounds) or unknown)
    table.add_row("transcripts", _listed(report.transcripts))
    if lengths:
        shortest, middle, longest = (f"{lengths[name]:,g}" for name in ("min", "median", "max"))
        table.add_row("", f"{shortest} to {longest} characters, median {middle}")
        table.add_row("letters", _listed(report.scripts))
    table.add_row("word times", _number(report.word_times, "clip"))
    return table


def _time(hours: float | None) -> str:
    if hours is None:
        return "length unknown"
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def _listed(counts: Mapping[str, int], most: int = 6) -> Text:
    """Return names with their counts; beyond `most`, the rest is summed up."""
    items = [f"{printable(name)}: {n:,}" for name, n in counts.items()]
    if len(items) > most:
        others = list(counts.values())[most - 1 :]
        items[most - 1 :] = [f"{len(others)} others: {sum(others):,}"]
    return Text("; ".join(items))


def _bars(counts: Mapping[str, int]) -> Table:
    total, largest = max(1, sum(counts.values())), max(1, *counts.values())
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right")
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    for label, n in counts.items():
        bar = ProgressBar(
            total=largest, completed=n, width=30, complete_style="cyan", finished_style="cyan"
        )
        table.add_row(Text(printable(label, _NAME_LENGTH)), bar, f"{n:,}", f"{n / total:.1%}")
    return table


def _splits(report: Report) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="")
    table.add_column("")
    for name in ("clips", "share", "videos", "mean label"):
        if name != "mean label" or report.task == "regression":
            table.add_column(name, justify="right")
    if report.labels:
        table.add_column("labels")
    for name, split in report.splits.items():
        row = [name, f"{split.clips:,}", f"{split.clips / report.clips:.1%}", f"{split.videos:,}"]
        if report.task == "regression":
            row.append("-" if split.mean_label is None else f"{split.mean_label:+.2f}")
        total = max(1, sum(split.kinds.values()))
        shares = [
            f"{printable(kind, _NAME_LENGTH)} {n / total:.0%}" for kind, n in split.kinds.items()
        ]
        table.add_row(*row, *([Text(", ".join(shares))] if report.labels else []))
    return table


def _missing(report: Report) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    for modality, reasons in report.missing.items():
        known = report.probed or modality == "text"
        why = {reason.replace("_", " "): n for reason, n in reasons.items()}
        unknown = "" if known else "; others unknown, as clips were not probed"
        table.add_row(modality, f"{sum(reasons.values()):,}", _listed(why).append(unknown))
    return table


def _problems(report: Report, shown: int) -> Iterator[RenderableType]:
    if not report.problems:
        yield Text("No problems found", style="bold green")
        return
    yield _heading(f"{_number(report.errors, 'error')}, {_number(report.warnings, 'warning')}")
    table = Table.grid(padding=(0, 2))
    for problem in report.problems[:shown]:
        level = Text(problem.level, style=_STYLES[problem.level])
        table.add_row(level, Text(printable(problem.line), overflow="fold"))
    yield table
    if rest := report.problems[shown:]:
        kinds = figures.counts(p.kind.replace("_", " ") for p in rest)
        text = Text(f"and {len(rest):,} more: ").append(_listed(kinds, most=20))
        yield text.append(f" (--problems {len(report.problems)} lists all)")


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"
