"""Records as an ir_datasets dataset: streamed from files, or given in memory."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

from ir_datasets import Dataset
from ir_datasets.formats import BaseDocs, BaseQrels, BaseQueries, TrecQrel
from ir_datasets.indices import Docstore

from mimo_plugin.collections.records import (
    Doc,
    Query,
    TitledDoc,
    check_id,
    common_language,
    text_of,
    usual_language,
)
from mimo_plugin.collections.rows import (
    Row,
    get_id,
    get_lang,
    get_optional,
    get_relevance,
    get_text,
    get_value,
    usual_names,
    usual_qrel_names,
)
from mimo_plugin.core.errors import DataError, Problems

# Prefix of names that `collection` gives; a fingerprint of the content follows.
MEMORY = "memory:"


class DocsIterator:
    """Documents in order, with slices as in ir_datasets: `docs_iter()[10:20]`."""

    def __init__(self, start: Callable[[], Iterator[Any]]) -> None:
        self._start = start
        self._iterator = start()

    def __iter__(self) -> "DocsIterator":
        return self

    def __next__(self) -> Any:
        return next(self._iterator)

    def __getitem__(self, key: int | slice) -> Any:
        if isinstance(key, slice):
            return islice(self._start(), key.start, key.stop, key.step)
        for doc in islice(self._start(), key, None):
            return doc
        raise IndexError(f"no document number {key}")


class StreamedDocstore(Docstore):
    """Looks documents up by reading the collection until all are found, without writing files."""

    def __init__(self, docs: "StreamedDocs") -> None:
        super().__init__(docs.docs_cls())
        self._docs = docs

    def get_many_iter(self, doc_ids: Iterable[str]) -> Iterator[Any]:
        wanted = set(doc_ids)
        for doc in self._docs.docs_iter() if wanted else ():
            if doc.doc_id in wanted:
                wanted.discard(doc.doc_id)
                yield doc
                if not wanted:
                    return


# Equality tells a pool that `path:DIR#dev` and `path:DIR#test` share documents.
@dataclass(frozen=True)
class Streamed:
    """Records that a function reads anew for each iteration.

    Attributes:
        read, args: the function and its arguments.
        lang: language of all records, if known.
    """

    read: Callable[..., Iterator[Any]]
    args: tuple[Any, ...] = ()
    lang: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class StreamedDocs(Streamed, BaseDocs):
    """A docs handler of ir_datasets; `cls` is the class of its documents."""

    cls: type[Any] = field(default=Doc, kw_only=True)

    def docs_iter(self) -> DocsIterator:
        return DocsIterator(lambda: self.read(*self.args))

    def docs_cls(self) -> type[Any]:
        return self.cls

    def docs_lang(self) -> str | None:
        return self.lang

    def docs_store(self, field: str = "doc_id", options: Any = None) -> Docstore:
        if field != "doc_id":
            raise ValueError(f"documents are looked up by doc_id, not by {field}")
        return StreamedDocstore(self)

    def docs_count(self) -> int | None:
        return None  # unknown before the collection has been read


@dataclass(frozen=True)
class StreamedQueries(Streamed, BaseQueries):
    """A queries handler of ir_datasets."""

    def queries_iter(self) -> Iterator[Any]:
        return self.read(*self.args)

    def queries_cls(self) -> type[Query]:
        return Query

    def queries_lang(self) -> str | None:
        return self.lang


@dataclass(frozen=True)
class StreamedQrels(Streamed, BaseQrels):
    """A qrels handler of ir_datasets.

    Attributes:
        defs: relevance -> meaning.
        problem: why they cannot be read, if that is known in advance.
    """

    defs: Mapping[int, str] = field(default_factory=dict, kw_only=True)
    problem: str = field(default="", kw_only=True)

    def qrels_iter(self) -> Iterator[Any]:
        if self.problem:
            raise DataError(self.problem)
        return self.read(*self.args)

    def qrels_cls(self) -> type[Any]:
        return TrecQrel  # type: ignore[no-any-return]

    def qrels_defs(self) -> dict[int, str]:
        return dict(self.defs)


def to_doc(row: Row, lang: str = "") -> Doc:
    """A document from the values `_id`, `text` and `lang`; the argument `lang` is the default."""
    where, record = row
    return Doc(get_id(record, "_id", where), get_text(record, "text", where), get_lang(record, where) or lang)


def to_titled_doc(row: Row, lang: str = "") -> TitledDoc:
    """As `to_doc`, also with the value `title`."""
    doc = to_doc(row, lang)
    return TitledDoc(doc.doc_id, get_optional(row[1], "title", row[0]), doc.text, doc.lang)


def to_query(row: Row, lang: str = "") -> Query:
    """A query from the values `_id`, `text` and `lang`."""
    return Query(*to_doc(row, lang))


def to_qrel(row: Row) -> Any:
    """A judgment from the values `query-id`, `corpus-id` and `score`."""
    where, record = row
    return TrecQrel(
        check_id(get_value(record, "query-id", where), f"{where}: query id"),
        check_id(get_value(record, "corpus-id", where), f"{where}: docid"),
        get_relevance(record, where),
        record.get("iteration", "0"),
    )


def read_rows(
    read: Callable[[Any, Problems], Iterator[Row]], source: Any, convert: Callable[..., Any], *options: Any
) -> Iterator[Any]:
    """Yields the valid records of a file, and raises the faults of all others at the end."""
    with Problems(stop=True) as faults:
        yield from faults.convert(read(source, faults), lambda row: convert(row, *options))


class Pool(Dataset):
    """Collections as one ir_datasets dataset of `Doc`, `Query` and `TrecQrel`.

    Args:
        parts: handlers of documents, queries and qrels.

    Attributes:
        specs: names of the collections, as `load` takes them.
        prefixes: see `pool_prefixes`; None if ids are the collections' own.
        fields: document fields that make up the text; None is the default text.
    """

    def __init__(
        self,
        *parts: Any,
        specs: tuple[str, ...],
        prefixes: dict[str, str] | None = None,
        fields: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(*parts)
        self.specs = specs
        self.prefixes = prefixes
        self.fields = fields


def collection(*, docs: Any = None, queries: Any = None, qrels: Any = None, lang: str = "") -> Pool:
    """Makes a collection from records in memory, for all functions that take the result of `load`.

    Its name is `memory:` and a fingerprint of its documents, or of its queries and judgments if it has no
    documents. An index of the collection is recognised by that, and refused after a document has changed. The
    command line cannot open such a name.

    >>> docs = {"d1": "Der See ist tief.", "d2": {"text": "Ziwa ni refu.", "lang": "sw"}}
    >>> lakes = collection(docs=docs, queries=["Wie tief?"], qrels={"0": {"d1": 1}}, lang="de")
    >>> [doc.lang for doc in lakes.docs_iter()]
    ['de', 'sw']

    Args:
        docs: texts, which get the ids "0", "1", ...; id -> text; id -> dict with `text`, and optionally
            `title` and `lang`; dicts, or rows of a pandas DataFrame or `datasets.Dataset`, with the id as
            `_id`, `id`, `doc_id` or `docid`; or an ir_datasets dataset. A generator is read into memory,
            anything else is read anew each time.
        queries: as `docs`, with the id as `_id`, `id`, `query_id` or `qid` in rows.
        qrels: query id -> docid -> relevance; triples of the three; or rows with `query-id` or `query_id`,
            `corpus-id`, `doc_id` or `docid`, `score` or `relevance`; or an ir_datasets dataset.
        lang: language of documents and queries without their own.

    Raises:
        DataError: with all invalid records; or nothing was given.
    """
    given = {"docs": docs, "queries": queries, "qrels": qrels}
    parts: dict[str, Any] = {}
    for part, records in given.items():
        if records is None:
            continue
        # An iterator can be read only once.
        kept = list(records) if isinstance(records, Iterator) else records
        if part == "qrels":
            parts[part] = StreamedQrels(partial(read_rows, _judgment_rows, kept, to_qrel))
        elif part == "queries":
            parts[part] = StreamedQueries(partial(read_rows, _text_rows, (part, kept), to_query, lang))
        else:
            parts[part] = StreamedDocs(partial(read_rows, _text_rows, (part, kept), _to_plain_doc, lang))
    if not parts:
        raise DataError("nothing was given for a collection, expected docs, queries or qrels")
    digest = hashlib.sha256()
    with Problems() as problems:
        for part, handler in parts.items():
            languages = set()
            with problems.collect():
                for record in getattr(handler, f"{part}_iter")():
                    languages.add(getattr(record, "lang", None))
                    if part == "docs" or docs is None:
                        digest.update(json.dumps(record).encode() + b"\n")
            parts[part] = replace(handler, lang=common_language(languages))
    return Pool(*parts.values(), specs=(f"{MEMORY}{digest.hexdigest()[:16]}",))


def _to_plain_doc(row: Row, lang: str) -> Doc:
    doc = to_titled_doc(row, lang)
    return Doc(doc.doc_id, doc.default_text(), doc.lang)


def _items(part: str, given: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yields (place, key, value) of given records; the keys are numbers unless a mapping was given."""
    if hasattr(given, f"{part}_iter"):
        given = getattr(given, f"{part}_iter")()
    elif type(given).__module__.partition(".")[0] == "pandas":
        given = given.astype(object).where(given.notna(), None).to_dict("records")
    for key, value in given.items() if isinstance(given, Mapping) else enumerate(given):
        yield f"{part}[{key!r}]", key, value


def _text_rows(source: tuple[str, Any], faults: Problems) -> Iterator[Row]:
    part, given = source
    keyed = isinstance(given, Mapping)
    lang = usual_language(getattr(given, f"{part}_lang")()) if hasattr(given, f"{part}_lang") else ""
    for where, key, value in _items(part, given):
        if isinstance(value, str):
            yield where, {"_id": str(key), "text": value}
        elif isinstance(value, Mapping):
            yield where, usual_names({**value, "_id": key} if keyed else value)
        elif hasattr(value, "_asdict"):
            own = usual_language(getattr(value, "lang", None)) or lang
            yield where, {"_id": value[0], "text": text_of(value, None, where), "lang": own}
        else:
            faults.add(
                f"{where}: of type {type(value).__name__}, expected a text, or a dict with '_id' and 'text'"
            )


def _judgment_rows(given: Any, faults: Problems) -> Iterator[Row]:
    for where, key, value in _items("qrels", given):
        if isinstance(given, Mapping) and isinstance(value, Mapping):
            for doc_id, relevance in value.items():
                yield where, usual_qrel_names({"qid": key, "docid": doc_id, "score": relevance})
        elif isinstance(value, Mapping):
            yield where, usual_qrel_names(value)
        elif hasattr(value, "_asdict"):
            yield where, usual_qrel_names(value._asdict())
        elif isinstance(value, tuple | list) and len(value) == 3:
            yield where, usual_qrel_names(dict(zip(("qid", "docid", "score"), value, strict=True)))
        else:
            faults.add(
                f"{where}: of type {type(value).__name__}, expected query id, docid and relevance, or a dict "
                "of query id -> docid -> relevance"
            )
