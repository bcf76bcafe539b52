"""Topics that several collections share, as in NeuCLIR: one query, judged in each of them."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from ir_datasets.formats import BaseQueries

from mimo_plugin.collections.faults import Faults
from mimo_plugin.collections.languages import usual_language
from mimo_plugin.collections.pooled import Member, common_language
from mimo_plugin.collections.reading import read
from mimo_plugin.collections.records import ERROR, FIRST, Query, check_id, check_text
from mimo_plugin.collections.texts import default_text
from mimo_plugin.errors import DataError

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
        with Faults() as faults:
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
