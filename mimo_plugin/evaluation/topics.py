"""Topics and qrels as arrays, the language versions of a topic, the languages of documents."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import fsum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.collections.records import ERROR, FIRST, usual_language
from mimo_plugin.core.errors import DataError, Problems, UsageError, near
from mimo_plugin.evaluation.options import EvaluationOptions, split_names
from mimo_plugin.evaluation.runs import Ranking, Run, nested

Judgments = Mapping[str, Mapping[str, int]]

UNKNOWN_LANGUAGE = "unknown"
_NAMED = 3
_CONTRADICTIONS = 5
# One in this many queries may have the id of its first hit by chance.
_CHANCE = 10


class Judged(NamedTuple):
    """The judged documents of one topic. docids: (m,) bytes, UTF-8, ascending. relevance: (m,) float64."""

    docids: NDArray[np.bytes_]
    relevance: NDArray[np.float64]


@dataclass(frozen=True)
class Topics:
    """Every judged topic, in the order of `query_ids`, which all score arrays share.

    Attributes:
        language_of: (n,) positions in `languages`.
        block_of: (n,) numbers, equal for language versions of one topic. `parallel` says whether there are
            such versions.
        all_ids: of all topics, judged or not.
        unlisted: judged topics that are not among the collection's queries. They count in means over topics
            and in no language.
        copies: number of repeated queries and judgments.
    """

    query_ids: tuple[str, ...]
    judged: tuple[Judged, ...]
    languages: tuple[str, ...]
    language_of: NDArray[np.intp]
    block_of: NDArray[np.intp]
    all_ids: frozenset[str]
    unlisted: tuple[str, ...]
    copies: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Judged topics per language."""
        numbers = np.bincount(self.language_of, minlength=len(self.languages)).tolist()
        return dict(zip(self.languages, numbers, strict=False))

    def language(self, position: int) -> str:
        """A topic's language; "" for an unlisted one."""
        code = int(self.language_of[position])
        return self.languages[code] if code < len(self.languages) else ""

    def listed(self) -> "Topics":
        """The topics, without unlisted ones."""
        kept = np.flatnonzero(self.in_languages).tolist()
        if len(kept) == len(self.query_ids):
            return self
        return self.restricted({position: self.judged[position] for position in kept})

    def restricted(self, judged: Mapping[int, Judged]) -> "Topics":
        """A part of the listed topics, with other judgments.

        Args:
            judged: position -> its judgments, at least one topic.
        """
        kept = np.array(list(judged), dtype=np.intp)
        languages, language_of = np.unique(self.language_of[kept], return_inverse=True)
        return replace(
            self,
            query_ids=tuple(self.query_ids[position] for position in kept),
            judged=tuple(judged.values()),
            languages=tuple(self.languages[language] for language in languages),
            language_of=language_of.astype(np.intp),
            block_of=np.unique(self.block_of[kept], return_inverse=True)[1].astype(np.intp),
            unlisted=(),
        )

    @property
    def in_languages(self) -> NDArray[np.bool_]:
        """Whether a topic is listed, and so has a language. (n,)"""
        return np.asarray(self.language_of < len(self.languages))

    @property
    def query_languages(self) -> dict[str, str]:
        """Query id -> language, of listed topics."""
        listed = self.listed()
        names = (self.languages[position] for position in listed.language_of.tolist())
        return dict(zip(listed.query_ids, names, strict=True))

    def is_in(self, language: str) -> NDArray[np.bool_]:
        """Which topics are in a language. (n,)"""
        return np.asarray(self.language_of == self.languages.index(language))

    def means(self, values: NDArray[np.float64]) -> dict[str, float]:
        """Language -> mean of its topics' values, summed exactly, without NaN. values: (n,)"""
        per_language = {}
        for code, language in enumerate(self.languages):
            part = values[(self.language_of == code) & ~np.isnan(values)]
            if len(part):
                per_language[language] = fsum(part) / len(part)
        return per_language

    @property
    def blocks(self) -> int:
        return int(self.block_of.max()) + 1

    @property
    def parallel(self) -> bool:
        return self.blocks < len(self.query_ids)


def make_topics(judgments: Judgments, languages: Mapping[str, str]) -> Topics:
    """Makes topics from judgments.

    Topics with the same relevant documents in two languages or more are versions of one topic, as in a
    parallel collection. If `languages` has some of the judged ids, the others are unlisted. If it has none,
    all topics are in one unknown language.

    Args:
        languages: topic -> language, judged or not.

    Raises:
        DataError: nothing is judged.
    """
    query_ids = tuple(sorted(query_id for query_id, documents in judgments.items() if documents))
    if not query_ids:
        raise DataError(
            "the qrels are empty, expected at least one judged topic: name a collection with judgments"
        )
    unlisted = tuple(query_id for query_id in query_ids if query_id not in languages)
    strays = set(unlisted) if len(unlisted) < len(query_ids) else set()
    names = [
        "" if query_id in strays else languages.get(query_id) or UNKNOWN_LANGUAGE for query_id in query_ids
    ]
    known = tuple(sorted(set(names) - {""}))
    codes = {name: code for code, name in enumerate((*known, ""))}
    return Topics(
        query_ids=query_ids,
        judged=tuple(_judged(judgments[query_id]) for query_id in query_ids),
        languages=known,
        language_of=np.array([codes[name] for name in names], dtype=np.intp),
        block_of=_blocks([judgments[query_id] for query_id in query_ids], names),
        all_ids=frozenset(languages) | frozenset(query_ids),
        unlisted=unlisted,
    )


def _judged(documents: Mapping[str, int]) -> Judged:
    docids = np.array([docid.encode() for docid in documents], dtype=np.bytes_)
    order = np.argsort(docids)
    return Judged(docids[order], np.array(list(documents.values()), dtype=np.float64)[order])


def _blocks(judgments: Sequence[Mapping[str, int]], languages: Sequence[str]) -> NDArray[np.intp]:
    together: dict[frozenset[str], list[int]] = {}
    for position, documents in enumerate(judgments):
        relevant = frozenset(docid for docid, relevance in documents.items() if relevance > 0)
        together.setdefault(relevant, []).append(position)
    label = np.arange(len(judgments))
    for relevant, positions in together.items():
        versions = [position for position in positions if languages[position]]
        if relevant and len({languages[position] for position in versions}) > 1:
            label[versions] = versions[0]
    return np.unique(label, return_inverse=True)[1].astype(np.intp)


def open_qrels(qrels: Any, options: EvaluationOptions) -> tuple[Any, Sequence[str]]:
    """Opens topics and judgments for `load_topics`, without reading them.

    Args:
        qrels: one name or several, see `open_pool`; an ir_datasets dataset; or query id -> docid ->
            relevance, as a mapping, a DataFrame or ranx's qrels.

    Returns:
        The opened judgments, and the names of collections.
    """
    from mimo_plugin.collections.dataset import collection
    from mimo_plugin.collections.pool import topic_languages

    if hasattr(qrels, "qrels_iter"):
        return qrels, ()
    named = [qrels] if isinstance(qrels, str | Path) else qrels
    if not isinstance(named, Sequence):
        return collection(qrels=nested(qrels, "relevance")), ()
    specs = [str(name) for name in named]
    pool = open_pool(
        specs,
        options.pooled or None,
        topics=options.topics,
        shared_topics=options.shared_topics,
        topic_field=options.topic_field,
        **topic_languages(options.topic_lang, options.shared_topics, [*specs, *options.topics]),
        duplicates=options.duplicates,
    )
    return pool, specs


def open_pool(
    collections: Sequence[str],
    pooled: bool | None = None,
    *,
    topics: Sequence[str] = (),
    lang: Sequence[str] = (),
    **how: Any,
) -> Any:
    """Opens collections or files with topics and judgments as one ir_datasets dataset, without reading them.

    Args:
        topics: collections or files with the topics. The default is the topics of the collections, and the
            judged ids of files.
        lang: of the files among the collections, then of the files among the topics.
        how: further arguments of `load`.

    Raises:
        DataError: with every collection without topics or judgments, and the problems of `load`.
    """
    from ir_datasets import Dataset

    from mimo_plugin.collections.loading import require
    from mimo_plugin.collections.pool import is_file, load, pool_prefixes

    problems = Problems()
    sources = [spec for spec in collections if not is_file(spec)]
    with problems.collect():
        require(sources, queries=not topics, qrels=True)
    with problems.collect():
        require([spec for spec in collections if spec not in sources], qrels=True)
    with problems.collect():
        require(topics, queries=True)
    if lang and len(sources) == len(collections) and not any(map(is_file, topics)):
        problems.add(
            "--topic-lang is the language of a file of topics or qrels, and none was given", UsageError
        )
    problems.raise_any()
    how["pooled"] = len(collections) > 1 if pooled is None else pooled
    pool = load(*collections, lang=lang if len(sources) < len(collections) else (), **how)
    if not topics:
        return pool
    prefixes = pool_prefixes(sources) if how["pooled"] and sources else None
    asked = load(*topics, prefixes=prefixes, lang=lang if any(map(is_file, topics)) else (), **how)
    docs = pool.docs_handler() if pool.has_docs() else None
    return Dataset(docs, asked.queries_handler(), pool.qrels_handler())


def load_topics(pool: Any, only: str | Sequence[str] = ()) -> Topics:
    """Reads the topics and judgments of a dataset.

    Args:
        pool: without queries, a topic's language is before the colon of its id.
        only: languages to evaluate on, `"de,en"` or several such; empty is all. Topics in other languages
            stay known, without judgments.

    Raises:
        DataError: with every contradictory judgment, unless the pool takes the first.
        UsageError: with every language that no judged topic has.
    """
    from mimo_plugin.collections.rows import language_of_id

    judgments: dict[str, dict[str, int]] = {}
    problems = Problems(DataError, limit=_CONTRADICTIONS)
    queries = pool.queries_handler() if pool.has_queries() else None
    first = getattr(queries, "duplicates", ERROR) == FIRST
    languages = {}
    if queries is not None:
        common = usual_language(pool.queries_lang())
        languages = {query.query_id: getattr(query, "lang", common) for query in pool.queries_iter()}
    copies = len(getattr(queries, "copies", ()))
    for qrel in pool.qrels_iter():
        judged = judgments.setdefault(qrel.query_id, {})
        if qrel.doc_id not in judged:
            judged[qrel.doc_id] = qrel.relevance
            continue
        copies += 1
        before = judged[qrel.doc_id]
        if before != qrel.relevance and not first:
            problems.add(
                f"qrels: query {qrel.query_id!r}, document {qrel.doc_id!r} is judged {before} and "
                f"{qrel.relevance}, expected one relevance: keep one of the two judgments"
            )
    problems.raise_any()
    if queries is None:
        languages = {query_id: language_of_id(query_id) for query_id in judgments}
    chosen = _only(judgments, languages, split_names(only)) if only else judgments
    return replace(make_topics(chosen, languages), copies=copies)


def _only(judgments: Judgments, languages: Mapping[str, str], only: Sequence[str]) -> Judgments:
    language_of = {query_id: languages.get(query_id, "") or UNKNOWN_LANGUAGE for query_id in judgments}
    if any(query_id in languages for query_id in judgments):
        language_of |= {query_id: "" for query_id in judgments if query_id not in languages}
    known = sorted(set(language_of.values()) - {""})
    problems = Problems(UsageError)
    for name in only:
        if name not in known:
            problems.add(
                f"unknown language {name!r}{near(name, known)}; "
                f"expected one of the judged topics' {', '.join(known)}"
            )
    problems.raise_any()
    return {query_id: judged for query_id, judged in judgments.items() if language_of[query_id] in only}


def check_queries(run: Run, topics: Topics, ignore_unknown: bool = False) -> list[str]:
    """Problems with the queries of a run: unknown queries, or no judged query."""
    problems = []
    unknown = sorted(run.queries.keys() - topics.all_ids)
    if unknown and not ignore_unknown:
        names = ", ".join(islice(unknown, _NAMED)) + (", ..." if len(unknown) > _NAMED else "")
        hint = _prefix_hint(unknown, topics.all_ids)
        problems.append(
            f"run {run.name!r}: {len(unknown)} of its {len(run.queries)} queries are not topics of the "
            f"collection ({names}); expected ids such as {topics.query_ids[0]!r}{hint}"
        )
    elif not any(query_id in run.queries for query_id in topics.query_ids):
        problems.append(
            f"run {run.name!r} has no query in common with the qrels, expected ids such as "
            f"{topics.query_ids[0]!r}: is it the run of another collection or split?"
        )
    return problems


def check_docids(run: Run, topics: Topics) -> list[str]:
    """A warning if no hit of a run is judged in any topic."""
    example: tuple[bytes, bytes] | None = None
    for query_id, judged in zip(topics.query_ids, topics.judged, strict=True):
        ranking = run.queries.get(query_id)
        if ranking is None:
            continue
        if np.isin(ranking.docids, judged.docids).any():
            return []
        example = example or (ranking.docids[0], judged.docids[0])
    if example is None:
        return []
    found, expected = (docid.decode() for docid in example)
    return [
        f"run {run.name!r}: none of its hits is judged in any topic; its docids look like {found!r}, those "
        f"of the qrels like {expected!r}: is it the run of another pool or collection, with other prefixes?"
    ]


def without_queries(run: Run) -> Run:
    """The run without hits whose docid is the query's id."""
    kept = {query_id: ranking.docids != query_id.encode() for query_id, ranking in run.queries.items()}
    return Run(
        run.name,
        {
            query_id: Ranking(ranking.docids[kept[query_id]], ranking.scores[kept[query_id]])
            for query_id, ranking in run.queries.items()
            if kept[query_id].any()
        },
    )


def check_own(run: Run, topics: Topics) -> list[str]:
    """A warning if the first hits of many topics are the queries themselves, and not judged relevant."""
    first = 0
    for query_id, judged in zip(topics.query_ids, topics.judged, strict=True):
        ranking = run.queries.get(query_id)
        own = query_id.encode()
        if ranking is not None and ranking.docids[0] == own:
            first += own not in judged.docids[judged.relevance > 0]
    return [f"run {run.name!r}: {warning}" for warning in own_warning(first, len(run.queries))]


def own_warning(first: int, queries: int) -> list[str]:
    """A warning if more first hits are the queries themselves than chance explains."""
    if first * _CHANCE < max(queries, 1):
        return []
    return [
        f"the first hit of {first} of {queries} queries has the query's own id: where queries are documents "
        "of the collection (ArguAna, Quora), leave them out of the hits with --remove-query"
    ]


def _prefix_hint(unknown: Iterable[str], topics: frozenset[str]) -> str:
    if any(rest in topics for query_id in unknown for rest in _without_prefix(query_id)):
        return ": the run's ids have the prefix of a pool, evaluate it with --pooled"
    rests = {rest for topic in topics for rest in _without_prefix(topic)}
    if any(query_id in rests for query_id in unknown):
        return (
            ": the run's ids lack the prefix of a pool, evaluate it with its own collection without --pooled"
        )
    return ": name the run's own collection, or leave them out with --ignore-unknown-queries"


def _without_prefix(query_id: str) -> list[str]:
    """All possible rests of an id after a prefix, which may hold colons itself."""
    parts = query_id.split(":")
    return [":".join(parts[cut:]) for cut in range(1, len(parts))]


def version_groups(docids: Sequence[str], languages: Sequence[str], topics: Topics) -> list[str]:
    """A name for each document, the same for the language versions of one text.

    Versions have the same id after their language: `de:7`, `fi:7`. Ids of unrelated collections can agree by
    chance, so the judgments must confirm them: a topic must have two versions of a text among its relevant
    documents. Without such a topic, no document is a version of another.

    Args:
        docids, languages: (n,) all documents of the collection.
    """
    groups = [_without_language(*document) for document in zip(docids, languages, strict=True)]
    group_of = dict(zip(docids, groups, strict=True))
    for judged in topics.judged:
        relevant = [docid.decode() for docid in judged.docids[judged.relevance > 0].tolist()]
        if len({group_of.get(docid, docid) for docid in relevant}) < len(relevant):
            return groups
    return list(docids)


def _without_language(docid: str, language: str) -> str:
    prefix, colon, rest = docid.partition(":")
    return rest if colon and prefix == language else docid


def topic_versions(topics: Topics) -> list[list[int]]:
    """The positions of each topic's versions, if there are two or more.

    Versions have the same relevant documents and the same id after the language. Both are needed: ids of some
    pools agree by chance, and a passage may have several questions.
    """
    together: dict[tuple[int, str], list[int]] = {}
    for position, query_id in enumerate(topics.query_ids):
        language = topics.language(position)
        if language and query_id.startswith(language):
            key = int(topics.block_of[position]), query_id.removeprefix(language)
            together.setdefault(key, []).append(position)
    return [positions for positions in together.values() if len(positions) > 1]


def languages_of(docids: NDArray[np.bytes_], doc_langs: Mapping[str, str]) -> list[str]:
    """The language of each document.

    Args:
        docids: (n,) UTF-8.
        doc_langs: docid -> language.

    Raises:
        DataError: with the first document without a language.
    """
    try:
        return [doc_langs[docid.decode()] for docid in docids.tolist()]
    except KeyError as error:
        raise DataError(
            f"document {error.args[0]!r} has no language among the {len(doc_langs):,} given, expected one "
            "for each document of run and qrels: take the languages from the collection that was searched"
        ) from error


def documents_of(run: Run, topics: Topics, k: int) -> set[str]:
    """The docids with a language needed by `language_bias`: relevant documents and first k hits of topics."""
    docids: set[bytes] = set()
    for query_id, judged in zip(topics.query_ids, topics.judged, strict=True):
        docids.update(judged.docids[judged.relevance > 0].tolist())
        ranking = run.queries.get(query_id)
        if ranking is not None:
            docids.update(ranking.docids[:k].tolist())
    return {docid.decode() for docid in docids}


def pool_doc_languages(pool: Any, wanted: Iterable[str]) -> dict[str, str]:
    """Docid -> language, of the wanted documents with a known language.

    Args:
        pool: see `load`; its documents are streamed until all wanted documents are found.
        wanted: docids.

    Raises:
        DataError: a record read is invalid.
    """
    missing = set(wanted)
    found: dict[str, str] = {}
    for doc in pool.docs_iter() if missing else ():
        if doc.doc_id in missing:
            missing.discard(doc.doc_id)
            if doc.lang:
                found[doc.doc_id] = doc.lang
            if not missing:
                break
    return found
