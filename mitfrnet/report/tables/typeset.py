"""A table once, for the page, for LaTeX and for programs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mitfrnet.report.tables.plain import delimited


@dataclass(frozen=True)
class Entry:
    """One value as shown.

    Attributes:
        text: the value; `-` where it is not defined.
        small: what stands below it in the page, such as its interval.
        flags: warnings, in words.
        bold: as the best, or as the table's `bold_is` says.
    """

    text: str
    small: str = ""
    flags: tuple[str, ...] = ()
    bold: bool = False


@dataclass(frozen=True)
class Line:
    """One row of a table.

    Attributes:
        label: in the first column.
        entries: in the others.
        group: the heading it stands under, or nothing.
        reference: a predictor without a neural network.
        flags: warnings about the whole row.
        model: key of the predictor whose row it is, for a page that shows some of them.
    """

    label: str
    entries: Sequence[Entry]
    group: str = ""
    reference: bool = False
    flags: tuple[str, ...] = ()
    model: str = ""


@dataclass(frozen=True)
class Table:
    """What a reader sees, and what a program reads.

    Attributes:
        name: of its files.
        caption: what it shows.
        notes: how to read it, a sentence each.
        heads: of all columns.
        lines: its rows.
        records: every number unrounded, one mapping per line of the CSV file.
        title: short, where the table is folded away.
        page_note: about what only the page shows.
        bold_is: what bold says of a value, for readers who do not see it.
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
        """Return the lines under their headings."""
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
    """Return text with everything escaped that LaTeX would take for a command."""
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
