"""Surveys a collection before it is used, and selects a subset of it."""

import hashlib
import heapq
import random
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, NamedTuple

from mimo_plugin.collections.dataset import StreamedDocs, StreamedQrels, StreamedQueries
from mimo_plugin.collections.records import ERROR, FIRST, Doc, Query
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import DataError, Problems, UsageError
from mimo_plugin.core.files import writing


@dataclass(frozen=True)
class Survey:
    """Contents of a collection.

    Attributes:
        documents: number of documents.
        empty: number of documents without text, which are encoded like any other.
        languages: language -> number of documents, in the order of first appearance.
        fingerprint: SHA-256 over ids, languages and texts in order.
        copies: number of records left out because an earlier one has their docid.
        repeated: docids of several records.
        sample: texts of documents, drawn uniformly, in no certain order; all of them if they are few.
    """

    documents: int
    empty: int
    languages: dict[str, int]
    fingerprint: str
    copies: int = 0
    repeated: frozenset[str] = frozenset()
    sample: tuple[str, ...] = ()

    def distinct(self, collection: Any) -> Any:
        """The surveyed collection, with only the first record of each docid."""
        return distinct(collection, self.repeated) if self.repeated else collection


# Most texts of `Survey.sample`.
_SAMPLE = 256


def copies_text(count: int) -> str:
    return f"{count} documents were left out: an earlier one has their docid"


def survey(
    collection: Any,
    *,
    duplicates: str = ERROR,
    identical: bool = True,
    progress: bool | None = None,
) -> Survey:
    """Surveys a collection by streaming its documents once, or three times if docids are repeated.

    Memory grows only with the number of repeated docids.

    Args:
        collection: an ir_datasets dataset of `Doc`s.
        duplicates: for documents with the same docid and different content, "first" takes the first.
        identical: whether documents with the same docid and content are taken once; False refuses them.

    Raises:
        DataError: there are no documents, or docids are repeated with different content.
    """
    with tempfile.TemporaryFile() as file:
        found = _count(bar(collection.docs_iter(), what="reading", unit="docs", enabled=progress), file)
        if not found.documents:
            raise DataError("the collection has no documents, expected at least one")
        hashes = repeated_hashes(file, found.documents)
    repeated = _repeated(collection, hashes, duplicates, identical) if hashes else frozenset()
    if not repeated:
        return found
    once = _count(distinct(collection, repeated).docs_iter())
    return replace(once, copies=found.documents - once.documents, repeated=repeated)


def distinct(collection: Any, repeated: Collection[str]) -> StreamedDocs:
    """The documents of a collection, with only the first record of each repeated docid."""

    def docs() -> Iterator[Any]:
        met = set()
        for doc in collection.docs_iter():
            if doc.doc_id in repeated:
                if doc.doc_id in met:
                    continue
                met.add(doc.doc_id)
            yield doc

    return StreamedDocs(docs)


def _count(docs: Iterable[Any], file: IO[bytes] | None = None) -> Survey:
    """Counts documents, and writes the hashes of their docids to the file."""
    digest = hashlib.sha256()
    languages: Counter[str] = Counter()
    empty = 0
    # The same documents give the same sample.
    draw, sample = random.Random(0), list[str]()
    for number, doc in enumerate(docs):
        text = doc.text.encode("utf-8", "surrogatepass")
        docid = doc.doc_id.encode("utf-8", "surrogatepass")
        digest.update(b"%d %d %s\n" % (len(docid), len(text), doc.lang.encode()))
        digest.update(docid)
        digest.update(text)
        languages[doc.lang] += 1
        empty += not text.strip()
        if number < _SAMPLE:
            sample.append(doc.text)
        elif (place := draw.randrange(number + 1)) < _SAMPLE:
            sample[place] = doc.text
        if file is not None:
            with writing(Path(tempfile.gettempdir())):
                file.write(docid_hash(docid))
    return Survey(languages.total(), empty, dict(languages), digest.hexdigest(), sample=tuple(sample))


def docid_hash(docid: bytes) -> bytes:
    """8 bytes that differ between docids, except for rare collisions."""
    return hashlib.blake2b(docid, digest_size=8).digest()


def repeated_hashes(file: IO[bytes], count: int) -> set[int]:
    """The repeated ones among `count` 8-byte hashes in a file, as little-endian numbers.

    Raises:
        EnvironmentProblem: there is no space for them.
    """
    import numpy as np

    with writing(Path(tempfile.gettempdir())):
        file.flush()
    # Sorted on disk, so that memory does not grow with the collection.
    hashes: np.ndarray = np.memmap(file, dtype="<u8", mode="r+", shape=(count,))
    hashes.sort()
    return set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())


def _repeated(collection: Any, hashes: set[int], duplicates: str, identical: bool) -> frozenset[str]:
    """The repeated docids; a second pass tells them from docids with equal hashes.

    Raises:
        DataError: with the docids that may not be repeated.
    """
    counts: Counter[str] = Counter()
    first: dict[str, bytes] = {}
    refused = set()
    for doc in collection.docs_iter():
        docid = doc.doc_id.encode("utf-8", "surrogatepass")
        if int.from_bytes(docid_hash(docid), "little") not in hashes:
            continue
        counts[doc.doc_id] += 1
        content = docid_hash(f"{doc.lang}\n{doc.text}".encode("utf-8", "surrogatepass"))
        same = first.setdefault(doc.doc_id, content) == content
        if counts[doc.doc_id] > 1 and not (same and identical) and duplicates != FIRST:
            refused.add(doc.doc_id)
    problems = Problems(DataError)
    differ = " with different content" if identical else ""
    advice = ", or take the first of each (--duplicates first)" if identical else ""
    for name, count in counts.items():
        if name in refused:
            problems.add(
                f"docid {name!r} occurs {count} times in the collection{differ}: docids must be unique; "
                f"remove or rename the copies{advice}"
            )
    problems.raise_any()
    return frozenset(docid for docid, count in counts.items() if count > 1)


_JUDGED = re.compile(r"judged\+([0-9]{1,9})")


class Selected(NamedTuple):
    """A subset of a collection.

    Attributes:
        docids: documents of the subset; None is all documents in the languages.
        judged: judged documents in the languages.
    """

    docids: frozenset[str] | None
    judged: frozenset[str]


def parse_docs(value: str) -> int:
    """The number of distractors per language in `judged+N`.

    Raises:
        UsageError: the value has another form.
    """
    found = _JUDGED.fullmatch(value)
    if found is None:
        raise UsageError(f"--docs {value!r}, expected judged+N, such as judged+1000: N others per language")
    return int(found[1])


def select(
    pool: Any,
    *,
    languages: frozenset[str] | None = None,
    distractors: int | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Selected:
    """Selects documents in one pass; memory holds the judged and the selected docids.

    Args:
        pool: an ir_datasets dataset of `Doc`, `Query` and qrels.
        languages: of documents; None is all.
        distractors: number of unjudged documents per language; None is all. They are drawn by a hash of seed
            and docid, independent of the collection's order and other documents.
    """
    judged = {qrel.doc_id for qrel in pool.qrels_iter()}
    there: set[str] = set()
    # The smallest hashes of each language: a heap of (-hash, docid), the largest hash first.
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
    return Selected(None if distractors is None else frozenset(there | others), frozenset(there))


def _hash(seed: int, docid: str) -> int:
    text = f"{seed} {docid}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


def selected_pool(
    pool: Any,
    doc_languages: frozenset[str] | None,
    query_languages: frozenset[str] | None,
    selected: Selected,
) -> Any:
    """The selected documents, the queries in the chosen languages, and their judgments.

    Judgments of documents in other languages are left out. If no languages are chosen, judgments of documents
    that are missing in the collection stay, so that these cost recall.
    """
    from ir_datasets import Dataset

    def docs() -> Iterator[Doc]:
        for doc in pool.docs_iter():
            if (doc_languages is None or doc.lang in doc_languages) and (
                selected.docids is None or doc.doc_id in selected.docids
            ):
                yield doc

    def queries() -> Iterator[Query]:
        return (q for q in pool.queries_iter() if query_languages is None or q.lang in query_languages)

    def qrels() -> Iterator[Any]:
        kept = {query.query_id for query in queries()}
        for qrel in pool.qrels_iter():
            if qrel.query_id in kept and qrel.doc_id in selected.judged:
                yield qrel

    return Dataset(
        StreamedDocs(docs, lang=pool.docs_lang()),
        StreamedQueries(queries, lang=pool.queries_lang()),
        pool.qrels_handler() if doc_languages is None else StreamedQrels(qrels, defs=pool.qrels_defs()),
    )


def binary(pool: Any) -> Any:
    """The pool with binary judgments, 0 and 1."""
    from ir_datasets import Dataset

    def qrels() -> Iterator[Any]:
        return (qrel._replace(relevance=min(qrel.relevance, 1)) for qrel in pool.qrels_iter())

    # ir_datasets takes each part from the first argument that has it.
    return Dataset(StreamedQrels(qrels), pool)
