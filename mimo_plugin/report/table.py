"""A table of the report, before it is HTML, LaTeX or CSV."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mimo_plugin.evaluation.tables import MISSING

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
