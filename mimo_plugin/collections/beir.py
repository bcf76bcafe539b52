"""Documents, topics and qrels in BEIR's layout and in that of the MIMO paper's benchmark files."""

import re
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ir_datasets.formats import BaseQrels, BaseQueries, TrecQrel

from mimo_plugin.collections.jsonlines import (
    StreamedDocs,
    get_id,
    get_lang,
    get_optional,
    get_text,
    read_lines,
    read_objects,
)
from mimo_plugin.collections.records import Doc, Query, check_id
from mimo_plugin.core.errors import DataError, Problems


class BeirDoc(NamedTuple):
    """A document of a BEIR folder; `title` and `lang` are "" where the record has none."""

    doc_id: str
    title: str
    text: str
    lang: str

    def default_text(self) -> str:
        """Title and text, joined as ir_datasets joins those of BEIR; the text alone without a title."""
        return f"{self.title} {self.text}" if self.title else self.text


# Two loads of one corpus are equal: a pool sees that `path:DIR#dev` and `path:DIR#test` share documents.
@dataclass(frozen=True)
class BeirDocs(StreamedDocs):
    """Attributes:
    corpus: `corpus.jsonl`, plain or gzipped.
    """

    corpus: Path

    def docs_cls(self) -> type[BeirDoc]:
        return BeirDoc

    def docs_path(self, force: bool = True) -> str:
        return str(self.corpus)

    def stream(self) -> Iterator[BeirDoc]:
        with Problems(stop=True) as faults:
            yield from faults.convert(read_objects(self.corpus, faults), self._doc)

    def _doc(self, numbered: tuple[int, dict[str, Any]]) -> BeirDoc:
        number, record = numbered
        where = f"{self.corpus}:{number}"
        return BeirDoc(
            get_id(record, "_id", where),
            get_optional(record, "title", where),
            get_text(record, "text", where),
            get_lang(record, where),
        )


@dataclass(frozen=True)
class PaperDocs(StreamedDocs):
    """Attributes:
    corpus: `corpus.jsonl`, plain or gzipped, with objects `{doc_id: {"text", "lang"}}`.
    """

    corpus: Path

    def docs_path(self, force: bool = True) -> str:
        return str(self.corpus)

    def stream(self) -> Iterator[Doc]:
        with Problems(stop=True) as faults:
            items = (
                (f"{self.corpus}:{number}", doc_id, fields)
                for number, record in read_objects(self.corpus, faults)
                for doc_id, fields in record.items()
            )
            yield from faults.convert(items, self._doc)

    def _doc(self, item: tuple[str, str, Any]) -> Doc:
        where, doc_id, fields = item
        check_id(doc_id, f"{where}: docid")
        if not isinstance(fields, dict):
            raise DataError(
                f"{where}: docid {doc_id!r} has a value of type {type(fields).__name__}, expected an "
                "object with 'text' and 'lang'"
            )
        return Doc(doc_id, get_text(fields, "text", where), get_lang(fields, where))


HEADER = ["query-id", "corpus-id", "score"]
# trec_eval's own are smaller still; Python's integers have no end, and take 1_0 for ten.
_RELEVANCE = re.compile(r"[+-]?[0-9]{1,9}")


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
    splits: (name, file) of the splits in it.
    split: the one that was asked for; None takes `test`, or the only one.
    """

    directory: Path
    splits: tuple[tuple[str, Path], ...]
    split: str | None

    @property
    def several(self) -> bool:
        return len(self.splits) > 1

    def file(self) -> Path:
        files = dict(self.splits)
        split = self.split or ("test" if "test" in files else None)
        if split is None and self.several:
            folder = self.directory.parent
            raise DataError(
                f"path:{folder}: qrels for the splits {', '.join(files)} and no 'test', expected a "
                f"choice such as path:{folder}#{self.splits[0][0]}"
            )
        return files[split or self.splits[0][0]]

    def qrels_iter(self) -> Iterator[Any]:
        path = self.file()
        with Problems(stop=True) as faults:
            lines = read_lines(path, faults)
            number, header = next(lines, (1, ""))
            if faults:  # the header itself cannot be read
                return
            if header.split() != HEADER:
                # Not a BEIR file, so nothing is to be said about its other lines.
                faults.add(
                    f"{path}:{number}: {header!r:.100}, expected the header {' '.join(HEADER)!r} in the "
                    "first line"
                )
                return
            yield from faults.convert(lines, partial(self._qrel, path))

    def _qrel(self, path: Path, numbered: tuple[int, str]) -> Any:
        number, line = numbered
        where = f"{path}:{number}"
        columns = line.split("\t")
        if len(columns) != len(HEADER):
            raise DataError(f"{where}: {len(columns)} columns, expected 3 with tabs between them")
        query_id = check_id(columns[0], f"{where}: query id")
        doc_id = check_id(columns[1], f"{where}: docid")
        return TrecQrel(query_id, doc_id, to_relevance(columns[2], where), "0")


@dataclass(frozen=True)
class PaperQrels(FolderQrels):
    """Attributes:
    path: `qrels.jsonl`, plain or gzipped, with objects `{query_id: {doc_id: relevance}}`.
    """

    path: Path

    def file(self) -> Path:
        return self.path

    def qrels_iter(self) -> Iterator[Any]:
        with Problems(stop=True) as faults:
            items = (
                (f"{self.path}:{number}", query_id, judged)
                for number, record in read_objects(self.path, faults)
                for query_id, judged in record.items()
            )
            for where, query_id, judged in faults.convert(items, self._judged):
                judgments = ((where, query_id, doc_id, relevance) for doc_id, relevance in judged.items())
                yield from faults.convert(judgments, self._qrel)

    def _judged(self, item: tuple[str, str, Any]) -> tuple[str, str, dict[str, Any]]:
        where, query_id, judged = item
        check_id(query_id, f"{where}: query id")
        if not isinstance(judged, dict):
            raise DataError(
                f"{where}: query id {query_id!r} has a value of type {type(judged).__name__}, "
                "expected an object of docids with their relevance"
            )
        return where, query_id, judged

    def _qrel(self, item: tuple[str, str, str, Any]) -> Any:
        where, query_id, doc_id, relevance = item
        check_id(doc_id, f"{where}: docid")
        if type(relevance) is not int or not _RELEVANCE.fullmatch(f"{relevance:d}"):
            raise _not_an_integer(relevance, where)
        return TrecQrel(query_id, doc_id, relevance, "0")


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
        with Problems(stop=True) as faults:
            for query in faults.convert(read_objects(self.path, faults), self._query):
                if judged is None or query.query_id in judged:
                    yield query

    def _query(self, numbered: tuple[int, dict[str, Any]]) -> Query:
        number, record = numbered
        where = f"{self.path}:{number}"
        return Query(get_id(record, "_id", where), get_text(record, "text", where), get_lang(record, where))


def to_relevance(text: str, where: str) -> int:
    """The integer in a column; DataError where there is none."""
    if not _RELEVANCE.fullmatch(text.strip()):
        raise _not_an_integer(text, where)
    return int(text)


def _not_an_integer(value: object, where: str) -> DataError:
    return DataError(f"{where}: relevance {value!r:.40}, expected an integer (0 = not relevant)")
