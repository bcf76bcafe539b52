"""Single queries and what is found for them, with languages and texts, for people to read."""

import json
import logging
import shutil
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from mimo_plugin.core.errors import MimoError
from mimo_plugin.core.table import Cell, Column, Table, number, render
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.indexing.open import AnyIndex
from mimo_plugin.indexing.search import find_searched, open_searched, search
from mimo_plugin.indexing.settings import SearchOptions, ShowOptions

logger = logging.getLogger(__name__)


class Hit(NamedTuple):
    """A document found. rank: from 1. lang: "" if unknown. text: None if it is not at hand."""

    rank: int
    score: float
    lang: str
    docid: str
    text: str | None


class Searcher:
    """Searches single queries; indexes and encoder are loaded once.

    Args: as of `search`.

    Attributes:
        options: may be replaced between searches.
    """

    def __init__(
        self,
        index: AnyIndex | Path | str | Sequence[Path | str],
        options: SearchOptions,
        encoder_options: EncoderOptions | None = None,
    ) -> None:
        self.indexes = find_searched(index, options)
        encoder = open_searched(self.indexes, options, encoder_options)
        self._encoder_options = encoder_options
        self.options = replace(options, encoder=encoder, progress=False)

    def search(self, queries: Sequence[str]) -> list[list[Hit]]:
        """The hits of each query. Where texts are missing, a warning is logged; raises as `search`."""
        texts = {str(place): query for place, query in enumerate(queries)}
        run = search(self.indexes, texts, self.options, self._encoder_options)
        found = [run.get(query, {}) for query in texts]
        docids = list(dict.fromkeys(docid for hits in found for docid in hits))
        langs: dict[str, str] = {}
        shown: dict[str, str] = {}
        for index in self.indexes:
            langs |= index.languages_of(docids)
            try:
                shown |= index.texts(docids)
            except MimoError as error:
                logger.warning(
                    "no texts of %s are shown: %s; `mimo index ... --texts` keeps them beside an index",
                    index.name,
                    error,
                )
        return [
            [
                Hit(rank, score, langs.get(docid, ""), docid, shown.get(docid))
                for rank, (docid, score) in enumerate(hits.items(), start=1)
            ]
            for hits in found
        ]


@dataclass(frozen=True)
class Session:
    """A conversation: a line in, the answer out."""

    searcher: Searcher
    show: ShowOptions

    def answers(self, line: str) -> Iterator[str]:
        """The answer to a line: a query, or `:lang de,fr`, which chooses languages from now on.

        Raises: as `search`.
        """
        command, _, rest = line.strip().partition(" ")
        if command == ":lang":
            before = self.searcher.options
            self.searcher.options = replace(before, lang=rest)
            try:
                find_searched(self.searcher.indexes, self.searcher.options)
            except MimoError:
                self.searcher.options = before
                raise
            yield f"languages: {', '.join(self.searcher.options.languages) or 'all'}"
        elif command.startswith(":"):
            yield f"{command}: unknown, expected a query, or :lang de,fr (:lang alone: all languages)"
        elif line.strip():
            yield from shown([line.strip()], self.searcher.search([line.strip()]), self.show)


def shown(queries: Sequence[str], found: Sequence[Sequence[Hit]], show: ShowOptions) -> Iterator[str]:
    """A text for each query and its hits: a table as wide as the terminal, all texts, or a line of JSON."""
    width = shutil.get_terminal_size().columns
    for query, hits in zip((" ".join(query.split()) for query in queries), found, strict=True):
        if show.json:
            yield json.dumps({"query": query, "hits": [hit._asdict() for hit in hits]}, ensure_ascii=False)
        elif show.full:
            yield f"{query}\n\n" + "\n".join(_block(hit, width) for hit in hits)
        else:
            yield _table(query, hits, width)


def _block(hit: Hit, width: int) -> str:
    """A hit with all of its text."""
    head = "  ".join(filter(None, (f"{hit.rank:>3}", f"{hit.score:.4f}", hit.lang, hit.docid)))
    text = textwrap.fill(
        " ".join((hit.text or "").split()), max(width, 40), initial_indent=" " * 5, subsequent_indent=" " * 5
    )
    return f"{head}\n{text}\n" if text else f"{head}\n"


# Columns of a text, even on a narrow terminal.
_LEAST = 20


def _table(query: str, hits: Sequence[Hit], width: int) -> str:
    texts = [" ".join((hit.text or "").split()) for hit in hits]
    names = [Column("rank"), Column("score"), Column("lang", text=True), Column("docid", text=True)]
    columns = [*names, Column("text", text=True)] if any(texts) else names
    cells: list[list[Cell | str]]
    cells = [[number(hit.rank, "d"), number(hit.score), hit.lang, hit.docid] for hit in hits]
    if any(texts):
        # What two spaces and the other columns leave.
        bare = render([Table.of(query, names, cells)], "text").splitlines()[3]
        room = max(width - len(bare) - 2, _LEAST)
        cells = [[*row, shortened(text, room)] for row, text in zip(cells, texts, strict=True)]
    return render([Table.of(query, columns, cells)], "text")


def shortened(text: str, width: int) -> str:
    """As much of a text as fits into `width` columns of a terminal; an ellipsis stands for the rest.

    >>> shortened("gioco di strategia", 10), shortened("検索言語", 7)
    ('gioco di …', '検索言…')
    """
    used = fits = 0
    for place, character in enumerate(text, start=1):
        used += _columns(character)
        if used > width:
            return f"{text[:fits]}…"
        if used < width:
            fits = place
    return text


def _columns(character: str) -> int:
    """The columns that a character takes."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
