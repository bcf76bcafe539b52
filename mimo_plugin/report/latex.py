"""Tables for papers: LaTeX with booktabs."""

from collections.abc import Iterable, Sequence

from mimo_plugin.evaluation.escaping import escape_latex
from mimo_plugin.report.table import MINUS, Cell, Column, Note, Part, Table

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
