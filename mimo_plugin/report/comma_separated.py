"""Tables for programs: CSV with every digit."""

import csv
import io

from mimo_plugin.report.table import Cell, Table

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
