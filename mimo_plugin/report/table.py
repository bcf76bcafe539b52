"""A table of a report, as text, CSV and LaTeX."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mimo_plugin.evaluation.tables import MISSING, escape_latex

MINUS = "−"

Exact = float | int | str | None


class Cell(NamedTuple):
    """text: as shown. exact: what it stands for; None where it is not defined. best, marked: in bold, with a
    dagger. bound: the value is an upper bound."""

    text: str
    exact: Exact = None
    best: bool = False
    marked: bool = False
    bound: bool = False

    @property
    def is_number(self) -> bool:
        return isinstance(self.exact, int | float)


class Column(NamedTuple):
    """name: its header. group: a header over neighbouring columns of the same group. apart: set apart from
    the columns before. text: to be set to the left."""

    name: str
    group: str = ""
    apart: bool = False
    text: bool = False


class Note(NamedTuple):
    """A line below a table. link: an address that follows it. repeated: a page has it below another table."""

    text: str
    link: str = ""
    repeated: bool = False


class Part(NamedTuple):
    """Rows that belong together, with a heading where they are set apart."""

    rows: Sequence[Sequence[Cell]]
    heading: str = ""


@dataclass(frozen=True)
class Table:
    """Attributes:
    name: of its files.
    columns: the first is the rows' header.
    labels: what has to stand beside every number.
    """

    name: str
    title: str
    columns: Sequence[Column]
    parts: Sequence[Part]
    notes: Sequence[Note] = ()
    labels: Sequence[str] = ()

    @property
    def grouped(self) -> bool:
        return any(column.group for column in self.columns)

    def groups(self) -> list[tuple[str, int]]:
        """Headers over columns, and over how many columns each is."""
        found: list[tuple[str, int]] = []
        for column in self.columns:
            if found and found[-1][0] == column.group:
                found[-1] = column.group, found[-1][1] + 1
            else:
                found.append((column.group, 1))
        return found


def words(text: str, exact: str | None = None) -> Cell:
    """exact: what a machine should read instead."""
    return Cell(text, text if exact is None else exact)


def number(value: float | None, form: str = ".4f") -> Cell:
    """A number as it is shown, and exactly."""
    return Cell(MISSING) if value is None else Cell(format(value, form).replace("-", MINUS), value)


def count(value: int | None) -> Cell:
    return Cell(MISSING) if value is None else Cell(f"{value:,}", value)


def probability(value: float | None, bound: bool) -> Cell:
    """bound: it is an upper bound only."""
    if value is None:
        return Cell(MISSING)
    text = f"{value:.4f}" if value >= 0.001 else f"{value:.1e}"
    return Cell(f"<{text}" if bound else text, value, bound=bound)


def in_bold(cells: Sequence[Cell]) -> list[Cell]:
    """The cells with the best of them in bold: the highest, and those that look the same to a reader.

    One value alone is not the best of anything.
    """
    values = [cell.exact for cell in cells if isinstance(cell.exact, int | float)]
    if len(values) < 2:
        return list(cells)
    highest = max(values)
    shown = {cell.text for cell in cells if cell.exact == highest}
    return [cell._replace(best=cell.text in shown) for cell in cells]


_HEAD = r"% Needs \usepackage[T1]{fontenc} and \usepackage{booktabs}; XeLaTeX or LuaLaTeX for other scripts."


def to_latex(table: Table) -> str:
    """A table environment; needs booktabs, and the T1 encoding for quotation marks."""
    alignment = "".join(
        "l" if place == 0 or column.text else "r" for place, column in enumerate(table.columns)
    )
    caption = " ".join(f"{escape_latex(text).rstrip('.')}." for text in (table.title, *table.labels))
    lines = [
        _HEAD,
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        *_groups(table),
        _line(escape_latex(column.name) for column in table.columns),
    ]
    for part in table.parts:
        lines.append(r"\midrule")
        lines += _part(part, table.columns)
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip{{\footnotesize {_note(note)}\par}}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}", ""])


def _groups(table: Table) -> list[str]:
    """Headers over columns, with a rule below each."""
    if not table.grouped:
        return []
    cells, rules, column = [], [], 1
    for name, width in table.groups():
        cells.append(
            rf"\multicolumn{{{width}}}{{c}}{{{escape_latex(name)}}}" if name else " & ".join([""] * width)
        )
        if name:
            rules.append(rf"\cmidrule(lr){{{column}-{column + width - 1}}}")
        column += width
    return [_line(cells), "".join(rules)]


def _part(part: Part, columns: Sequence[Column]) -> list[str]:
    heading = (
        [rf"\multicolumn{{{len(columns)}}}{{l}}{{\textit{{{escape_latex(part.heading)}}}}} \\"]
        if part.heading
        else []
    )
    return heading + [
        _line(_cell(cell, place == 0 or columns[place].text) for place, cell in enumerate(row))
        for row in part.rows
    ]


def _cell(cell: Cell, text: bool) -> str:
    shown = escape_latex(cell.text) if text or not cell.is_number else _number(cell.text)
    if cell.best:
        shown = rf"\textbf{{{shown}}}"
    return shown + (r"$^{\dagger}$" if cell.marked else "")


def _number(text: str) -> str:
    """A sign is set as one of mathematics."""
    sign, digits = text[:1], escape_latex(text[1:])
    return {MINUS: f"$-${digits}", "+": f"$+${digits}"}.get(sign, escape_latex(text))


def _note(note: Note) -> str:
    return escape_latex(f"{note.text} {note.link}".strip())


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


_PART = "part"
_LABEL = "label"


def to_csv(table: Table) -> str:
    """A header and a line a row. What is not defined is empty.

    Headings over columns are part of the columns' names, headings over rows are a column of their own. Where
    something has to stand beside every number it is in the last column, `label`, of every row. Where a column
    has a dagger or an upper bound, a column `... is` follows that says so.
    """
    marked = {
        place
        for part in table.parts
        for row in part.rows
        for place, cell in enumerate(row)
        if cell.marked or cell.bound
    }
    parts = any(part.heading for part in table.parts)
    header = [_PART] if parts else []
    for place, column in enumerate(table.columns):
        name = f"{column.group} {column.name}".strip()
        header += [name, f"{name} is"] if place in marked else [name]
    label = " ".join(table.labels)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*header, _LABEL] if label else header)
    for part in table.parts:
        for row in part.rows:
            line: list[object] = [part.heading] if parts else []
            for place, cell in enumerate(row):
                line.append("" if cell.exact is None else cell.exact)
                if place in marked:
                    line.append(_remark(cell))
            writer.writerow([*line, label] if label else line)
    return buffer.getvalue()


def _remark(cell: Cell) -> str:
    remarks = ["significant"] * cell.marked + ["upper bound"] * cell.bound
    return ", ".join(remarks)
