"""The queries and qrels of a `path:` folder."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ir_datasets.formats import BaseQrels, BaseQueries, TrecQrel

from mimo_plugin.collections.jsonlines import get_id, get_lang, get_text, read_lines, read_objects
from mimo_plugin.collections.records import Query, check_id
from mimo_plugin.errors import DataError

_HEADER = ["query-id", "corpus-id", "score"]


class FolderQrels(BaseQrels):
    """Judgments with file and line in every error."""

    @abstractmethod
    def file(self) -> Path:
        """The file that is read; DataError where several are there and none was chosen."""

    @property
    def several(self) -> bool:
        """Whether the folder holds judgments for several splits of its queries."""
        return False

    def qrels_cls(self) -> type[Any]:
        return TrecQrel  # type: ignore[no-any-return]

    def qrels_path(self) -> str:
        return str(self.file())

    def qrels_defs(self) -> dict[int, str]:
        return {}


@dataclass(frozen=True)
class TsvQrels(FolderQrels):
    """Attributes:
    directory: the folder `qrels`.
    splits: names of the splits in it.
    split: the one that was asked for; None takes `test`, or the only one.
    """

    directory: Path
    splits: tuple[str, ...]
    split: str | None

    @property
    def several(self) -> bool:
        return len(self.splits) > 1

    def file(self) -> Path:
        split = self.split or ("test" if "test" in self.splits else None)
        if split is None and self.several:
            folder = self.directory.parent
            raise DataError(
                f"path:{folder}: qrels for the splits {', '.join(self.splits)} and no 'test', expected a "
                f"choice such as path:{folder}#{self.splits[0]}"
            )
        return self.directory / f"{split or self.splits[0]}.tsv"

    def qrels_iter(self) -> Iterator[Any]:
        path = self.file()
        lines = read_lines(path)
        number, header = next(lines, (1, ""))
        if header.split() != _HEADER:
            raise DataError(
                f"{path}:{number}: {header!r}, expected the header {' '.join(_HEADER)!r} in the first line"
            )
        for number, line in lines:
            columns = line.split("\t")
            if len(columns) != len(_HEADER):
                raise DataError(f"{path}:{number}: {len(columns)} columns, expected 3 with tabs between them")
            query_id = check_id(columns[0], f"{path}:{number}: query id")
            doc_id = check_id(columns[1], f"{path}:{number}: docid")
            try:
                relevance = int(columns[2])
            except ValueError:
                raise _not_an_integer(columns[2], f"{path}:{number}") from None
            yield TrecQrel(query_id, doc_id, relevance, "0")


@dataclass(frozen=True)
class PaperQrels(FolderQrels):
    """Attributes:
    path: `qrels.jsonl`, plain or gzipped, with objects `{query_id: {doc_id: relevance}}`.
    """

    path: Path

    def file(self) -> Path:
        return self.path

    def qrels_iter(self) -> Iterator[Any]:
        for number, record in read_objects(self.path):
            where = f"{self.path}:{number}"
            for query_id, judged in record.items():
                check_id(query_id, f"{where}: query id")
                if not isinstance(judged, dict):
                    raise DataError(
                        f"{where}: query id {query_id!r} has a value of type {type(judged).__name__}, "
                        "expected an object of docids with their relevance"
                    )
                for doc_id, relevance in judged.items():
                    check_id(doc_id, f"{where}: docid")
                    if type(relevance) is not int:
                        raise _not_an_integer(relevance, where)
                    yield TrecQrel(query_id, doc_id, relevance, "0")


@dataclass(frozen=True)
class FolderQueries(BaseQueries):
    """The folder's queries; where its qrels have several splits, those that the chosen split judges.

    Attributes:
        path: `queries.jsonl`, plain or gzipped.
        qrels: the folder's qrels, if it has any.
    """

    path: Path
    qrels: FolderQrels | None

    def queries_cls(self) -> type[Query]:
        return Query

    def queries_path(self) -> str:
        return str(self.path)

    def queries_iter(self) -> Iterator[Query]:
        judged = None
        if self.qrels is not None and self.qrels.several:
            # As in BEIR's own loader: queries.jsonl holds the queries of every split.
            judged = {qrel.query_id for qrel in self.qrels.qrels_iter()}
        for number, record in read_objects(self.path):
            where = f"{self.path}:{number}"
            query_id = get_id(record, "_id", where)
            query = Query(query_id, get_text(record, "text", where), get_lang(record, where))
            if judged is None or query_id in judged:
                yield query


def _not_an_integer(value: object, where: str) -> DataError:
    return DataError(f"{where}: relevance {value!r}, expected an integer (0 = not relevant)")
