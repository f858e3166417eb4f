"""A table, written once for the page, for LaTeX and for other programs."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One value as shown.

    Attributes:
        text: the value; `-` if it is not defined.
        small: a line below it in the page, such as its interval.
        flags: warnings, in words.
        bold: whether it is the best, or what the table's `bold_is` says.
    """

    text: str
    small: str = ""
    flags: tuple[str, ...] = ()
    bold: bool = False


@dataclass(frozen=True)
class Line:
    """One row of a table.

    Attributes:
        label: the first column.
        entries: the other columns.
        group: the heading above it, or an empty string.
        reference: whether its predictor has no neural network.
        flags: warnings about the whole row.
        model: key of its predictor, by which the page hides it; or an empty string.
    """

    label: str
    entries: Sequence[Entry]
    group: str = ""
    reference: bool = False
    flags: tuple[str, ...] = ()
    model: str = ""


@dataclass(frozen=True)
class Table:
    """The lines that a reader sees, and the records that a program reads.

    Attributes:
        name: the name of its files.
        caption: a sentence on what it shows.
        notes: sentences on how to read it.
        heads: the head of each column.
        lines: its rows.
        records: every number unrounded, one mapping per line of the CSV file.
        title: a short caption, if the page folds the table away.
        page_note: a note on what only the page shows.
        bold_is: what bold means, for readers who cannot see it.
    """

    name: str
    caption: str
    notes: tuple[str, ...]
    heads: tuple[str, ...]
    lines: tuple[Line, ...]
    records: tuple[Mapping[str, Any], ...]
    title: str = ""
    page_note: str = ""
    bold_is: str = "best"

    @property
    def grouped(self) -> list[tuple[str, list[Line]]]:
        """Return the headings and the lines under each."""
        groups: dict[str, list[Line]] = {}
        for line in self.lines:
            groups.setdefault(line.group, []).append(line)
        return list(groups.items())

    def csv(self) -> str:
        """Return the records as comma-separated text."""
        return delimited(self.records, delimiter=",")

    def latex(self) -> str:
        """Return a table for a document that loads `booktabs`."""
        columns = len(self.heads)
        flags = sorted(
            {f for line in self.lines for e in line.entries for f in e.flags}
            | {f for line in self.lines for f in line.flags}
        )
        marks = {flag: chr(ord("a") + i % 26) * (1 + i // 26) for i, flag in enumerate(flags)}
        notes = [*self.notes, *(f"{mark}: {flag}." for flag, mark in marks.items())]
        body = [_latex_line([latex(head) for head in self.heads]), r"\midrule"]
        for i, (heading, lines) in enumerate(self.grouped):
            if i:
                body.append(r"\midrule")
            if heading:
                body.append(rf"\multicolumn{{{columns}}}{{l}}{{{latex(heading)}}} \\")
            for line in lines:
                entries = [_latex_entry(entry, marks) for entry in line.entries]
                label = latex(line.label) + _latex_marks(line.flags, marks)
                body.append(_latex_line([label, *entries]))
        return "\n".join(
            [
                r"% needs \usepackage{booktabs}",
                r"\begin{table}",
                r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
                rf"\caption{{{latex(' '.join([self.caption, *notes]))}}}",
                rf"\label{{tab:{re.sub('[^a-z0-9]+', '-', self.name.lower())}}}",
                rf"\begin{{tabular}}{{l{'r' * (columns - 1)}}}",
                r"\toprule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
                "",
            ]
        )


_LATEX = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
} | {c: "\\" + c for c in "&%$#_{}"}


def latex(text: str) -> str:
    """Return text with the special characters of LaTeX escaped."""
    escaped = "".join(_LATEX.get(c, c) for c in " ".join(text.split()))
    return re.sub(r"(?<![\w-])-(?=[\d.])", "$-$", escaped)


def _latex_entry(entry: Entry, marks: Mapping[str, str]) -> str:
    text = "--" if entry.text == "-" else latex(entry.text)
    bold = rf"\textbf{{{text}}}" if entry.bold else text
    return bold + _latex_marks(entry.flags, marks)


def _latex_marks(flags: Sequence[str], marks: Mapping[str, str]) -> str:
    mark = ",".join(marks[flag] for flag in flags)
    return rf"$^{{\mathrm{{{mark}}}}}$" if mark else ""


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def delimited(rows: Iterable[Mapping[str, Any]], delimiter: str = "\t") -> str:
    """Return rows as delimited text, with all their keys as columns, in order of appearance."""
    rows = list(rows)
    text = io.StringIO()
    fields = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, fields, delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
