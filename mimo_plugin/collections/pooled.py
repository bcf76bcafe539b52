"""The documents, topics and qrels of a pool, whose topics may be shared."""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ir_datasets.formats import BaseQrels, BaseQueries, TrecQrel
from ir_datasets.indices import Docstore

from mimo_plugin.collections.jsonlines import StreamedDocs
from mimo_plugin.collections.reading import read
from mimo_plugin.collections.records import (
    ERROR,
    FIRST,
    Doc,
    Query,
    check_id,
    check_text,
    default_text,
    fields_text,
    pooled_id,
    usual_language,
)
from mimo_plugin.core.errors import DataError, Problems


@dataclass(frozen=True)
class Member:
    """One collection of a pool.

    Attributes:
        spec: its name.
        dataset: the ir_datasets dataset.
        prefix: what stands before the colon of its ids; "" without a colon.
        lang: of queries whose source does not say.
        file: it is a file of topics or qrels, whose ids may have the prefix already.
    """

    spec: str
    dataset: Any
    prefix: str
    lang: str = ""
    file: bool = False

    def pooled(self, identifier: str) -> str:
        """What an id of its is called in the pool."""
        named = self.file and identifier.startswith(f"{self.prefix}:")
        return identifier if named else pooled_id(self.prefix, identifier)


@dataclass(frozen=True)
class PooledDocs(StreamedDocs):
    """Attributes:
    members: collections with documents, each document in one of them only.
    fields: what makes the text; None is the source's default text.
    """

    members: tuple[Member, ...]
    fields: tuple[str, ...] | None

    def stream(self) -> Iterator[Doc]:
        with Problems(stop=True) as faults:
            for member in self.members:
                convert = partial(self._numbered, member, usual_language(member.dataset.docs_lang()))
                yield from faults.convert(
                    enumerate(read(member.dataset, "docs", member.spec), start=1), convert
                )

    def _numbered(self, member: Member, lang: str, numbered: tuple[int, Any]) -> Doc:
        number, record = numbered
        check_id(record.doc_id, f"{member.spec}: document number {number}: docid")
        return self.convert(record, member, lang)

    def convert(self, record: Any, member: Member, lang: str) -> Doc:
        where = f"{member.spec}: document {record.doc_id}"
        text = default_text(record, where) if self.fields is None else fields_text(record, self.fields, where)
        return Doc(
            pooled_id(member.prefix, record.doc_id),
            check_text(text, where),
            getattr(record, "lang", None) or lang,
        )

    def docs_lang(self) -> str | None:
        return common_language([member.dataset.docs_lang() for member in self.members])

    def docs_store(self, field: str = "doc_id", options: Any = None) -> Docstore:
        if field != "doc_id":
            raise ValueError(f"documents are looked up by doc_id, not by {field}")
        return PooledDocstore(self)


class PooledDocstore(Docstore):
    """Looks documents up in the stores of a pool's collections, which ir_datasets builds on first use."""

    def __init__(self, docs: PooledDocs) -> None:
        super().__init__(Doc)
        self._docs = docs

    def get_many_iter(self, doc_ids: Iterable[str]) -> Iterator[Doc]:
        wanted = list(doc_ids)
        for member in self._docs.members:
            start = pooled_id(member.prefix, "")
            own = [doc_id.removeprefix(start) for doc_id in wanted if doc_id.startswith(start)]
            if own:
                lang = usual_language(member.dataset.docs_lang())
                for record in member.dataset.docs_store().get_many(own).values():
                    yield self._docs.convert(record, member, lang)


@dataclass(frozen=True)
class PooledQueries(BaseQueries):
    """Attributes:
    members: collections with queries.
    duplicates: of queries with one id and another text, "error" or "first".
    copies: ids that the last reading has found once more, and left out.
    """

    members: tuple[Member, ...]
    duplicates: str = ERROR
    copies: list[str] = field(default_factory=list, compare=False)

    def queries_iter(self) -> Iterator[Query]:
        owner: dict[str, tuple[Query, str]] = {}
        self.copies.clear()
        with Problems(stop=True) as faults:
            for member in self.members:
                lang = usual_language(member.dataset.queries_lang()) or member.lang
                convert = partial(self._query, owner, member, lang)
                records = enumerate(read(member.dataset, "queries", member.spec), start=1)
                yield from (query for query in faults.convert(records, convert) if query is not None)

    def _query(
        self, owner: dict[str, tuple[Query, str]], member: Member, lang: str, numbered: tuple[int, Any]
    ) -> Query | None:
        """The query; None for one more of the same."""
        number, record = numbered
        check_id(record.query_id, f"{member.spec}: query number {number}: query id")
        query_id = member.pooled(record.query_id)
        where = f"{member.spec}: query {record.query_id}"
        text = check_text(default_text(record, where), where)
        own = member.lang if member.file and member.lang else getattr(record, "lang", None) or lang
        query = Query(query_id, text, own)
        if query_id not in owner:
            owner[query_id] = query, member.spec
            return query
        first, spec = owner[query_id]
        if first != query and self.duplicates != FIRST:
            names = " and in ".join(dict.fromkeys((spec, member.spec)))
            differ = "text" if first.text != query.text else "language"
            raise DataError(
                f"query id {query_id} occurs twice, in {names}, with another {differ}: expected each once, "
                "leave one out, or take the first (--duplicates first)"
            )
        self.copies.append(query_id)
        return None

    def queries_cls(self) -> type[Query]:
        return Query

    def queries_lang(self) -> str | None:
        return common_language([member.dataset.queries_lang() for member in self.members])


@dataclass(frozen=True)
class PooledQrels(BaseQrels):
    """Attributes:
    members: collections with qrels.
    shared_topics: query ids stay as they are; of one query, the judgments of all members are there.
    """

    members: tuple[Member, ...]
    shared_topics: bool = False

    def qrels_iter(self) -> Iterator[Any]:
        with Problems(stop=True) as faults:
            for member in self.members:
                if "subtopic_id" in member.dataset.qrels_cls()._fields:
                    faults.add(
                        f"{member.spec}: judged by subtopic, expected one relevance a query and document"
                    )
                    continue
                yield from faults.convert(
                    enumerate(read(member.dataset, "qrels", member.spec), start=1),
                    partial(self._qrel, member),
                )

    def _qrel(self, member: Member, numbered: tuple[int, Any]) -> Any:
        number, record = numbered
        where = f"{member.spec}: judgment number {number}"
        query_id = check_id(record.query_id, f"{where}: query id")
        doc_id = check_id(record.doc_id, f"{where}: docid")
        return TrecQrel(
            query_id if self.shared_topics else member.pooled(query_id),
            member.pooled(doc_id),
            _integer(record.relevance, f"{member.spec}: query {query_id}, document {doc_id}"),
            getattr(record, "iteration", "0"),
        )

    def qrels_cls(self) -> type[Any]:
        return TrecQrel  # type: ignore[no-any-return]

    def qrels_defs(self) -> dict[int, str]:
        merged: dict[int, str] = {}
        for member in self.members:
            merged |= member.dataset.qrels_defs()
        return merged


def _integer(relevance: Any, where: str) -> int:
    if type(relevance) is not int:
        raise DataError(f"{where}: relevance {relevance!r}, expected an integer")
    return relevance


def common_language(languages: list[str | None]) -> str | None:
    """The language of all; None where there are several, or one that nothing tells."""
    usual = {usual_language(language) for language in languages}
    return next(iter(usual)) or None if len(usual) == 1 else None


# Not text, whatever else a query class holds.
_NOT_TEXT = ("query_id", "lang")


@dataclass(frozen=True)
class SharedQueries(BaseQueries):
    """The queries of all members under their own ids, each once; one may be in some of the members only.

    Attributes:
        members: collections with queries.
        field: of a query that is its text; None is the source's default text.
        lang: of queries whose source does not say; "" where nothing is known.
        duplicates, copies: see `PooledQueries`.
    """

    members: tuple[Member, ...]
    field: str | None
    lang: str
    duplicates: str = ERROR
    copies: list[str] = dataclasses.field(default_factory=list, compare=False)

    def queries_iter(self) -> Iterator[Query]:
        seen: dict[str, tuple[Query, set[str]]] = {}
        self.copies.clear()
        with Problems(stop=True) as faults:
            for member in self.members:
                lang = usual_language(member.dataset.queries_lang()) or member.lang or self.lang
                records = enumerate(read(member.dataset, "queries", member.spec), start=1)
                for query in faults.convert(records, partial(self._query, seen, member, lang)):
                    if query is not None:
                        yield query

    def _query(
        self, seen: dict[str, tuple[Query, set[str]]], member: Member, lang: str, numbered: tuple[int, Any]
    ) -> Query | None:
        """The query; None where another collection has brought it already."""
        number, record = numbered
        check_id(record.query_id, f"{member.spec}: query number {number}: query id")
        where = f"{member.spec}: query {record.query_id}"
        text = default_text(record, where) if self.field is None else getattr(record, self.field)
        own = getattr(record, "lang", None) or lang
        query = Query(record.query_id, check_text(text, where), own)
        if query.query_id not in seen:
            seen[query.query_id] = (query, {member.spec})
            return query
        first, specs = seen[query.query_id]
        if member.spec in specs:
            if first != query and self.duplicates != FIRST:
                raise DataError(
                    f"{where} occurs twice, with another text: expected each once, leave one out, or take "
                    "the first (--duplicates first)"
                )
            self.copies.append(query.query_id)
            return None
        if first != query:
            other = next(iter(specs))
            differ = "text" if first.text != query.text else "language"
            raise DataError(
                f"query id {query.query_id} has another {differ} in {member.spec} than in {other}, expected "
                "the same query where topics are shared: pool the collections without shared topics"
            )
        specs.add(member.spec)
        return None

    def queries_cls(self) -> type[Query]:
        return Query

    def queries_lang(self) -> str | None:
        return common_language([member.dataset.queries_lang() or self.lang for member in self.members])


def check_topic_field(field: str, member: Member) -> None:
    """Raises a DataError that lists the fields when a collection's queries lack the one asked for."""
    if not member.dataset.has_queries():
        return
    known = [name for name in member.dataset.queries_cls()._fields if name not in _NOT_TEXT]
    if field not in known:
        raise DataError(f"{member.spec}: no field {field!r}, its queries have {', '.join(known)}")
