"""Tables as text, Markdown, LaTeX, CSV and HTML, and the format of numbers in cells."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

MISSING = "–"
DAGGER = "†"
MINUS = "−"


class Cell(NamedTuple):
    """text: as shown. exact: value; None if undefined. best: in bold. marked: with a dagger. bound: an upper
    bound."""

    text: str
    exact: float | int | str | None = None
    best: bool = False
    marked: bool = False
    bound: bool = False

    @property
    def is_number(self) -> bool:
        return isinstance(self.exact, int | float)

    @property
    def plain(self) -> str:
        """Text for a terminal, with a dagger if marked."""
        text = self.text.replace(MINUS, "-") if self.is_number else self.text
        return text + DAGGER * self.marked


def words(text: str, exact: str | None = None) -> Cell:
    """A cell of text. exact: the value for CSV, if it differs."""
    return Cell(text, text if exact is None else exact)


def number(value: float | None, form: str = ".4f") -> Cell:
    """A cell of a number."""
    return Cell(MISSING) if value is None else Cell(format(value, form).replace("-", MINUS), value)


def count(value: int | None) -> Cell:
    """A whole number: 1234 -> "1,234"."""
    return Cell(MISSING) if value is None else Cell(f"{value:,}", value)


def probability(value: float | None, bound: bool = False) -> Cell:
    """A cell of a p-value. bound: it is an upper bound."""
    if value is None:
        return Cell(MISSING)
    text = f"{value:.4f}" if value >= 0.001 else f"{value:.1e}"
    return Cell(f"<{text}" if bound else text, value, bound=bound)


def in_bold(cells: Sequence[Cell]) -> list[Cell]:
    """The cells with the highest in bold, and all cells with the same text; a single value is never bold."""
    values = [cell.exact for cell in cells if isinstance(cell.exact, int | float)]
    if len(values) < 2:
        return list(cells)
    highest = max(values)
    shown = {cell.text for cell in cells if cell.exact == highest}
    return [cell._replace(best=cell.text in shown) for cell in cells]


UP, DOWN, TO_0, TO_1 = "↑", "↓", "→0", "→1"
BETTER = {UP: "higher is better", DOWN: "lower is better", TO_0: "0 is best", TO_1: "1 is best"}


class Column(NamedTuple):
    """name: header. group: header over neighbouring columns of the group. apart: with space before it. text:
    aligned to the left. better: which values are, a key of `BETTER`; shown on pages."""

    name: str
    group: str = ""
    apart: bool = False
    text: bool = False
    better: str = ""


class Note(NamedTuple):
    """A line below a table. link: a URL after it. repeated: a page shows it below another table."""

    text: str
    link: str = ""
    repeated: bool = False


class Rows(NamedTuple):
    """A group of rows, with an optional heading."""

    rows: Sequence[Sequence[Cell]]
    heading: str = ""


class Table(NamedTuple):
    """A table to be rendered.

    Attributes:
        columns: the first is the rows' header.
        name: of its files.
        labels: texts that must accompany every number.
    """

    title: str
    columns: Sequence[Column]
    parts: Sequence[Rows]
    notes: Sequence[Note] = ()
    name: str = ""
    labels: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        title: str,
        columns: Iterable[Column | str],
        rows: Iterable[Sequence[Cell | str]],
        notes: Iterable[Note | str] = (),
        *,
        name: str = "",
        labels: Sequence[str] = (),
    ) -> "Table":
        """A table with one group of rows; columns, cells and notes may be plain text."""
        return cls(
            title,
            [Column(column) if isinstance(column, str) else column for column in columns],
            [Rows([[words(cell) if isinstance(cell, str) else cell for cell in row] for row in rows])],
            [Note(note) if isinstance(note, str) else note for note in notes],
            name,
            labels,
        )

    @property
    def headers(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def rows(self) -> list[list[str]]:
        """All rows, as text for a terminal."""
        return [[cell.plain for cell in row] for part in self.parts for row in part.rows]

    @property
    def grouped(self) -> bool:
        return any(column.group for column in self.columns)

    def groups(self) -> list[tuple[str, int]]:
        """Headers over columns, and the number of columns below each."""
        found: list[tuple[str, int]] = []
        for column in self.columns:
            if found and found[-1][0] == column.group:
                found[-1] = column.group, found[-1][1] + 1
            else:
                found.append((column.group, 1))
        return found

    def to_left(self, place: int) -> bool:
        """Whether a column is aligned to the left: if it holds text, or is the first with any text."""
        if place or self.columns[place].text:
            return self.columns[place].text
        return not all(row[place].is_number for part in self.parts for row in part.rows)


def render(tables: Sequence[Table], form: str, *, bold: bool = False) -> str:
    """The tables one below the other, as "text", "markdown" or "latex".

    Args:
        bold: in text, best and marked cells are bold, by the codes of terminals.
    """
    if form == "latex":
        return to_latex(tables)
    return (
        "\n\n".join(_markdown(table) if form == "markdown" else _text(table, bold) for table in tables) + "\n"
    )


def to_html(table: Table) -> str:
    """A table element with its caption, and its notes below it."""
    from html import escape

    notes = "".join(f"<p><small>{escape(note.text)}</small></p>" for note in table.notes)
    body = _tabulate(table, table.headers, table.rows, "html")
    return body.replace("<table>", f"<table>\n<caption>{escape(table.title)}</caption>", 1) + notes


def _tabulate(table: Table, headers: Sequence[str], rows: Sequence[Sequence[str]], form: str) -> str:
    from tabulate import tabulate

    return tabulate(
        rows,
        headers=headers,
        tablefmt=form,
        colalign=["left" if table.to_left(place) else "right" for place in range(len(headers))],
        disable_numparse=True,
        preserve_whitespace=True,
    )


_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


def _text(table: Table, bold: bool) -> str:
    # A space in place of other cells' daggers keeps the digits aligned.
    marked = [any(cell.endswith(DAGGER) for cell in column) for column in zip(*table.rows, strict=True)]
    rows = [
        [
            f"{cell} " if wide and not cell.endswith(DAGGER) else cell
            for cell, wide in zip(row, marked, strict=True)
        ]
        for row in table.rows
    ]
    if bold:
        cells = (row for part in table.parts for row in part.rows)
        rows = [
            [
                f"{_BOLD}{text}{_PLAIN}" if cell.best or cell.marked else text
                for text, cell in zip(texts, row, strict=True)
            ]
            for texts, row in zip(rows, cells, strict=True)
        ]
    body = _tabulate(table, table.headers, rows, "simple")
    return "\n".join((table.title, "", body, *(note.text for note in table.notes)))


def _markdown(table: Table) -> str:
    def escape(text: str) -> str:
        return re.sub(r"([|*_`<])", r"\\\1", text)

    rows = [list(map(escape, row)) for row in table.rows]
    body = _tabulate(table, list(map(escape, table.headers)), rows, "pipe")
    return "\n\n".join((f"**{table.title}**", body, *(escape(note.text) for note in table.notes)))


_ESCAPES = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "|": r"\ensuremath{|}",
    '"': r"\textquotedbl{}",
    "[": "{[}",
    "]": "{]}",
    MINUS: r"\ensuremath{-}",
    MISSING: "--",
    "→": r"\ensuremath{\rightarrow}",
    "²": r"\ensuremath{^2}",
    DAGGER: r"\ensuremath{^{\dagger}}",
}
_SIGN = re.compile(rf"(?<![\w.-])[-+{MINUS}](?=\d)")
_HEAD = r"% Needs \usepackage[T1]{fontenc} and \usepackage{booktabs}; XeLaTeX or LuaLaTeX for other scripts."


def escape_latex(text: str) -> str:
    r"""Escapes text: 100 % -> 100 \%. Signs of numbers are set in math mode; quotation marks need T1."""
    signs = {match.start() for match in _SIGN.finditer(text)}
    return "".join(
        f"${character.replace(MINUS, '-')}$" if place in signs else _ESCAPES.get(character, character)
        for place, character in enumerate(text)
    )


def to_latex(tables: Sequence[Table]) -> str:
    """A table environment per table; needs booktabs, and the T1 encoding for quotation marks."""
    return "\n".join([_HEAD, *map(_latex, tables)])


def _latex(table: Table) -> str:
    alignment = "".join("l" if table.to_left(place) else "r" for place in range(len(table.columns)))
    caption = " ".join(f"{escape_latex(text).rstrip('.')}." for text in (table.title, *table.labels))
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        *([rf"\label{{tab:{table.name}}}"] if table.name else []),
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        *_latex_groups(table),
        _latex_line(map(escape_latex, table.headers)),
    ]
    for part in table.parts:
        lines.append(r"\midrule")
        if part.heading:
            heading = rf"\textit{{{escape_latex(part.heading)}}}"
            lines.append(rf"\multicolumn{{{len(table.columns)}}}{{l}}{{{heading}}} \\")
        lines += [_latex_line(map(_latex_cell, row)) for row in part.rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    for note in table.notes:
        text = escape_latex(f"{note.text} {note.link}".strip())
        lines.append(rf"\par\smallskip{{\footnotesize {text}\par}}")
    return "\n".join([*lines, r"\end{table}", ""])


def _latex_groups(table: Table) -> list[str]:
    """Headers over columns, with a rule below each."""
    if not table.grouped:
        return []
    cells, rules, column = [], [], 1
    for name, width in table.groups():
        if name:
            cells.append(rf"\multicolumn{{{width}}}{{c}}{{{escape_latex(name)}}}")
            rules.append(rf"\cmidrule(lr){{{column}-{column + width - 1}}}")
        else:
            cells.append(" & ".join([""] * width))
        column += width
    return [_latex_line(cells), "".join(rules)]


def _latex_cell(cell: Cell) -> str:
    shown = escape_latex(cell.text)
    if cell.best:
        shown = rf"\textbf{{{shown}}}"
    return shown + r"$^{\dagger}$" * cell.marked


def _latex_line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def to_csv(table: Table) -> str:
    """A header, and a line per row. Undefined values are empty.

    Headers over columns become part of the columns' names; headings over rows become a column `part`. Labels
    are in the last column, `label`, of every row. A column with a dagger or an upper bound is followed by a
    column `... is` with "significant" or "upper bound".
    """
    all_rows = [(part.heading, row) for part in table.parts for row in part.rows]
    marked = {place for _, row in all_rows for place, cell in enumerate(row) if cell.marked or cell.bound}
    parts = any(part.heading for part in table.parts)
    header = ["part"] if parts else []
    for place, column in enumerate(table.columns):
        name = f"{column.group} {column.name}".strip()
        header += [name, f"{name} is"] if place in marked else [name]
    label = " ".join(table.labels)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*header, "label"] if label else header)
    for heading, row in all_rows:
        line: list[object] = [heading] if parts else []
        for place, cell in enumerate(row):
            line.append("" if cell.exact is None else cell.exact)
            if place in marked:
                line.append(", ".join(["significant"] * cell.marked + ["upper bound"] * cell.bound))
        writer.writerow([*line, label] if label else line)
    return buffer.getvalue()
