"""A part of a collection, as a collection: some languages of it, or its judged documents and some others."""

import hashlib
import heapq
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from ir_datasets.formats import BaseQrels, BaseQueries, TrecQrel

from mimo_plugin.collections.records import Doc, Query
from mimo_plugin.collections.streaming import StreamedDocs
from mimo_plugin.errors import UsageError
from mimo_plugin.progress import bar

_JUDGED = re.compile(r"judged\+([0-9]{1,9})")


class Selected(NamedTuple):
    """Attributes:
    docids: documents of the subset; None is all of the languages.
    judged: docids with a judgment, of the languages.
    judged_count, distractors: documents of the subset that are judged, and those that are not.
    """

    docids: frozenset[str] | None
    judged: frozenset[str]
    judged_count: int
    distractors: int


def parse_docs(value: str) -> int:
    """The number of distractors a language in `judged+N`.

    Raises:
        UsageError: it says something else.
    """
    found = _JUDGED.fullmatch(value)
    if found is None:
        raise UsageError(f"--docs {value!r}, expected judged+N, such as judged+1000: N others a language")
    return int(found[1])


def select(
    pool: Any,
    *,
    languages: frozenset[str] | None = None,
    distractors: int | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Selected:
    """Chooses documents in one pass; memory holds the judged docids and those that are chosen.

    Args:
        pool: an ir_datasets dataset of `Doc`, `Query` and qrels.
        languages: of documents; None is all.
        distractors: documents without a judgment a language, drawn by a hash of seed and docid, so that the
            order of the collection and what else is in it play no part; None is all.
    """
    judged = {qrel.doc_id for qrel in pool.qrels_iter()}
    there: set[str] = set()
    # Of each language, the smallest hashes so far: a heap of (-hash, docid), the largest of them first.
    drawn: dict[str, list[tuple[int, str]]] = {}
    for doc in bar(pool.docs_iter(), what="choosing", unit="docs", enabled=progress):
        if languages is not None and doc.lang not in languages:
            continue
        if doc.doc_id in judged:
            there.add(doc.doc_id)
        elif distractors:
            heap = drawn.setdefault(doc.lang, [])
            entry = (-_hash(seed, doc.doc_id), doc.doc_id)
            if len(heap) < distractors:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)
    others = {docid for heap in drawn.values() for _, docid in heap}
    return Selected(
        None if distractors is None else frozenset(there | others), frozenset(there), len(there), len(others)
    )


def _hash(seed: int, docid: str) -> int:
    text = f"{seed} {docid}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


def selected_pool(
    pool: Any,
    doc_languages: frozenset[str] | None,
    query_languages: frozenset[str] | None,
    selected: Selected,
) -> Any:
    """The documents chosen, the queries in their languages, and the judgments of both.

    Judgments of documents in other languages go with them; those of documents that the collection does not
    have stay where no languages are chosen: a judged document that is missing costs recall, as it should.
    """
    from ir_datasets import Dataset

    queries = SelectedQueries(pool.queries_handler(), query_languages)
    return Dataset(
        SelectedDocs(pool.docs_handler(), doc_languages, selected.docids),
        queries,
        pool.qrels_handler()
        if doc_languages is None
        else SelectedQrels(pool.qrels_handler(), queries, selected.judged),
    )


def binary(pool: Any) -> Any:
    """The pool with judgments of 0 and 1: what is relevant at all counts the same."""
    from ir_datasets import Dataset

    # ir_datasets takes each part from the first that has it.
    return Dataset(BinaryQrels(pool.qrels_handler()), pool)


@dataclass(frozen=True)
class BinaryQrels(BaseQrels):
    """Attributes:
    source: a qrels handler.
    """

    source: Any

    def qrels_iter(self) -> Iterator[Any]:
        for qrel in self.source.qrels_iter():
            yield qrel._replace(relevance=min(qrel.relevance, 1))

    def qrels_cls(self) -> type[Any]:
        return TrecQrel  # type: ignore[no-any-return]

    def qrels_defs(self) -> dict[int, str]:
        return {}


@dataclass(frozen=True)
class SelectedDocs(StreamedDocs):
    """Attributes:
    source: a docs handler of `Doc`s.
    languages, docids: what to keep; None is all.
    """

    source: Any
    languages: frozenset[str] | None
    docids: frozenset[str] | None

    def stream(self) -> Iterator[Doc]:
        for doc in self.source.docs_iter():
            if (self.languages is None or doc.lang in self.languages) and (
                self.docids is None or doc.doc_id in self.docids
            ):
                yield doc

    def docs_lang(self) -> str | None:
        lang: str | None = self.source.docs_lang()
        return lang


@dataclass(frozen=True)
class SelectedQueries(BaseQueries):
    """Attributes:
    source: a queries handler of `Query`s.
    languages: None is all.
    """

    source: Any
    languages: frozenset[str] | None

    def queries_iter(self) -> Iterator[Query]:
        for query in self.source.queries_iter():
            if self.languages is None or query.lang in self.languages:
                yield query

    def queries_cls(self) -> type[Query]:
        return Query

    def queries_lang(self) -> str | None:
        lang: str | None = self.source.queries_lang()
        return lang


@dataclass(frozen=True)
class SelectedQrels(BaseQrels):
    """Attributes:
    source: a qrels handler.
    queries: those to keep.
    docids: the judged documents to keep.
    """

    source: Any
    queries: SelectedQueries
    docids: frozenset[str]

    def qrels_iter(self) -> Iterator[Any]:
        kept = {query.query_id for query in self.queries.queries_iter()}
        for qrel in self.source.qrels_iter():
            if qrel.query_id in kept and qrel.doc_id in self.docids:
                yield qrel

    def qrels_cls(self) -> type[Any]:
        return TrecQrel  # type: ignore[no-any-return]

    def qrels_defs(self) -> dict[int, str]:
        defs: dict[int, str] = self.source.qrels_defs()
        return defs
