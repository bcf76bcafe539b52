"""Tables as text, Markdown or LaTeX."""

import re
from collections.abc import Sequence

from mimo_plugin.evaluation.choices import TableFormat
from mimo_plugin.evaluation.escaping import escape_latex
from mimo_plugin.evaluation.tables import DAGGER, MISSING, Table


def render(tables: Sequence[Table], form: TableFormat) -> str:
    """Writes tables one below the other; LaTeX needs the package booktabs."""
    write = {TableFormat.TEXT: _text, TableFormat.MARKDOWN: _markdown, TableFormat.LATEX: _latex}[form]
    return "\n\n".join(write(table) for table in tables) + "\n"


def _tabulate(table: Table, rows: Sequence[Sequence[str]], tablefmt: str) -> str:
    from tabulate import tabulate

    right = len(table.headers) - table.left
    return tabulate(
        rows,
        headers=table.headers,
        tablefmt=tablefmt,
        colalign=["left"] * table.left + ["right"] * right,
        disable_numparse=True,
        preserve_whitespace=True,
    )


def _text(table: Table) -> str:
    # A space where other cells of the column have a dagger keeps the digits in line.
    marked = [any(row[column].endswith(DAGGER) for row in table.rows) for column in range(len(table.headers))]
    rows = [
        [
            cell + " " if wide and not cell.endswith(DAGGER) else cell
            for cell, wide in zip(row, marked, strict=True)
        ]
        for row in table.rows
    ]
    return "\n".join((table.title, "", _tabulate(table, rows, "simple"), *table.notes))


def _markdown(table: Table) -> str:
    escaped = table._replace(headers=[_escape_markdown(header) for header in table.headers])
    rows = [[_escape_markdown(cell) for cell in row] for row in table.rows]
    parts = [f"**{table.title}**", _tabulate(escaped, rows, "pipe")]
    return "\n\n".join((*parts, *(_escape_markdown(note) for note in table.notes)))


def _escape_markdown(text: str) -> str:
    return re.sub(r"([|*_`<])", r"\\\1", text)


def _latex(table: Table) -> str:
    notes = "".join(f"\\\\[2pt]\n\\footnotesize {_escape_latex(note)}\n" for note in table.notes)
    body = _latex_marks(_tabulate(table, table.rows, "latex_booktabs"))
    caption = _escape_latex(table.title)
    return f"\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n{body}\n{notes}\\end{{table}}"


def _escape_latex(text: str) -> str:
    return _latex_marks(escape_latex(text))


def _latex_marks(text: str) -> str:
    text = re.sub(r"(?<![\w.-])([-+])(?=\d)", r"$\1$", text)
    return text.replace(DAGGER, r"$^{\dagger}$").replace(MISSING, "--")
