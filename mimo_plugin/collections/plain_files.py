"""Topics and qrels in plain files, as TREC, MIRACL and anserini-tools hand them out.

Topics are lines `id<tab>text`, qrels lines `query-id iteration docid relevance` with tabs or spaces between;
either may be gzipped. A folder's files, `queries.jsonl`, `qrels.jsonl` and `qrels/SPLIT.tsv`, work by
themselves as well. Which of these a file is shows in its first line.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ir_datasets import Dataset
from ir_datasets.formats import BaseQueries, TrecQrel

from mimo_plugin.collections.faults import Faults
from mimo_plugin.collections.folder_topics import (
    HEADER,
    FolderQrels,
    FolderQueries,
    PaperQrels,
    TsvQrels,
    to_relevance,
)
from mimo_plugin.collections.jsonlines import read_lines
from mimo_plugin.collections.records import Query, check_id
from mimo_plugin.errors import DataError

_ITERATION = re.compile(r"[Qq]?[0-9]+")
_LANGUAGE = re.compile(r"([a-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*):.")


def plain_file(spec: str) -> Path | None:
    """The file that a collection's name is the path of; None where it is no file's."""
    try:
        path = Path(spec).expanduser()
        return path if spec and path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # no right to look, too long for a path, ~nobody, a NUL
        return None


def load_file(path: Path) -> Any:
    """A file of topics or of qrels as an ir_datasets dataset with that part; only its first line is read.

    One of qrels has queries, too: the ids that it judges, without text.

    Raises:
        DataError: it cannot be read, is empty, or begins with neither.
    """
    with Faults() as faults:
        _, first = next(read_lines(path, faults), (1, ""))
    if not first:
        raise DataError(f"{path}: holds no line, expected topics (id, tab, text) or qrels")
    made = _of_kind(path, first)
    return (
        Dataset(None, JudgedIds(made), made) if isinstance(made, FolderQrels) else Dataset(None, made, None)
    )


def _of_kind(path: Path, first: str) -> Any:
    words, tabs = first.split(), first.count("\t")
    if first.startswith("{"):
        try:
            record = json.loads(first)
        except ValueError:
            record = {"_id": None}  # whoever reads it says what is wrong
        return FolderQueries(path, None) if "_id" in record else PaperQrels(path)
    if words == HEADER:
        return TsvQrels(path.parent, ((path.name, path),), path.name)
    if first.startswith("<"):
        raise DataError(
            f"{path}: begins with a tag, {first!r:.40}, expected topics as lines of id, tab and text: write "
            "them so"
        )
    # A run and a file with a column too many or too few are taken for qrels as well: then that is said.
    looks_judged = len(words) > 2 and _ITERATION.fullmatch(words[1]) and len(words) in (3, 4, 5, 6)
    return FileQrels(path) if tabs > 1 or (tabs == 0 and looks_judged) else FileQueries(path)


def language_of_id(identifier: str) -> str:
    """The language that an id as `sw:17` begins with; "" where it does not."""
    match = _LANGUAGE.match(identifier)
    return match[1] if match else ""


@dataclass(frozen=True)
class FileQueries(BaseQueries):
    """Attributes:
    path: plain or .gz.
    """

    path: Path

    def queries_cls(self) -> type[Query]:
        return Query

    def queries_path(self) -> str:
        return str(self.path)

    def queries_lang(self) -> None:
        return None

    def queries_iter(self) -> Iterator[Query]:
        with Faults() as faults:
            yield from faults.convert(read_lines(self.path, faults), self._query)

    def _query(self, numbered: tuple[int, str]) -> Query:
        number, line = numbered
        where = f"{self.path}:{number}"
        # Without a tab, the first white space ends the id.
        columns = line.split("\t") if "\t" in line else line.split(None, 1)
        if len(columns) != 2:
            raise DataError(f"{where}: {len(columns)} columns, expected 2 with a tab between them: id, text")
        query_id = check_id(columns[0], f"{where}: query id")
        return Query(query_id, columns[1].strip(), language_of_id(query_id))


@dataclass(frozen=True)
class FileQrels(FolderQrels):
    """Attributes:
    path: plain or .gz.
    """

    path: Path

    def file(self) -> Path:
        return self.path

    def qrels_iter(self) -> Iterator[Any]:
        with Faults() as faults:
            yield from faults.convert(read_lines(self.path, faults), partial(self._qrel, self.path))

    def _qrel(self, path: Path, numbered: tuple[int, str]) -> Any:
        number, line = numbered
        where = f"{path}:{number}"
        columns = line.split()
        if len(columns) != 4:
            raise DataError(
                f"{where}: {len(columns)} columns, expected 4 with tabs or spaces between them: query id, "
                "iteration, docid, relevance"
            )
        query_id, iteration, doc_id, relevance = columns
        check_id(query_id, f"{where}: query id")
        return TrecQrel(
            query_id, check_id(doc_id, f"{where}: docid"), to_relevance(relevance, where), iteration
        )


@dataclass(frozen=True)
class JudgedIds(BaseQueries):
    """The queries that qrels judge, each once, without text: to evaluate a run, not to search.

    Attributes:
        qrels: of a file.
    """

    qrels: FolderQrels

    def queries_cls(self) -> type[Query]:
        return Query

    def queries_lang(self) -> None:
        return None

    def queries_iter(self) -> Iterator[Query]:
        for query_id in dict.fromkeys(qrel.query_id for qrel in self.qrels.qrels_iter()):
            yield Query(query_id, "", language_of_id(query_id))
