"""Reads a report's page as a program would: its tables, its addresses, its ids."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"meta", "link", "br", "img", "hr", "input"}


@dataclass
class ReadCell:
    """text: without what is only for screen readers. value: the exact number."""

    text: str = ""
    value: float | None = None
    best: bool = False
    marked: bool = False


@dataclass
class ReadTable:
    caption: str = ""
    rows: list[list[ReadCell]] = field(default_factory=list)

    def row(self, name: str) -> list[ReadCell]:
        (found,) = [row for row in self.rows if row and row[0].text == name]
        return found

    def column(self, name: str, header: int = 0) -> int:
        return [cell.text for cell in self.rows[header]].index(name)


class Page(HTMLParser):
    """Attributes:
    tables: id -> table.
    links: addresses of anchors. loaded: addresses of all else that a browser would fetch.
    ids: all of them. script: the text of all scripts.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, ReadTable] = {}
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.referred: list[str] = []
        self.ids: list[str] = []
        self.elements: list[str] = []
        self.wrong: list[str] = []
        self.text: list[str] = []
        self.script = ""
        self._open: list[tuple[str, str]] = []
        self._table: ReadTable | None = None
        self._cell: ReadCell | None = None
        self._name = ""
        self.feed(html)
        self.close()
        self.wrong += [tag for tag, _ in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag not in _VOID:
            self._open.append((tag, values.get("class", "")))
        self._look(tag, values)
        if tag == "div" and values.get("class") == "table":
            self._name = values["id"]
        if tag == "table":
            self._table = self.tables[self._name] = ReadTable()
        if self._table is None:
            return
        if tag == "tr":
            self._table.rows.append([])
        if tag in ("td", "th"):
            self._cell = ReadCell()
            self._table.rows[-1].append(self._cell)
        if tag == "data" and self._cell is not None:
            self._cell.value = float(values["value"])
            self._cell.best = "best" in values.get("class", "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._look(tag, {name: value or "" for name, value in attrs})

    def _look(self, tag: str, values: dict[str, str]) -> None:
        self.elements.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        for name, value in values.items():
            if name.startswith("on"):
                self.wrong.append(f"{tag} {name}")
            if name in ("href", "xlink:href", "src", "srcset", "action", "data", "poster"):
                (self.links if tag == "a" else self.loaded).append(value)
            if name in ("aria-labelledby", "aria-describedby"):
                self.referred += value.split()
            if "url(" in value:
                self.loaded += [part.split(")")[0].strip("'\"") for part in value.split("url(")[1:]]

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1][0] != tag:
            self.wrong.append(f"/{tag}")
            return
        self._open.pop()
        if tag == "table":
            self._table = None
        if tag in ("td", "th"):
            self._cell = None

    def handle_data(self, data: str) -> None:
        inside = [tag for tag, _ in self._open]
        if "script" in inside:
            self.script += data
        elif "style" not in inside:
            self.text.append(data)
        if self._table is None:
            return
        if "caption" in inside:
            self._table.caption += data
        elif self._cell is not None and inside[-1] == "sup":
            self._cell.marked = True
        elif self._cell is not None and not {"aside", "better"} & {name for _, name in self._open}:
            self._cell.text += data.strip("\n")
