"""The topics of an evaluation: which are judged, in which language, and what a run may hold."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.errors import DataError, Problems, UsageError
from mimo_plugin.evaluation.choices import split_names
from mimo_plugin.evaluation.runs import Run

Judgments = Mapping[str, Mapping[str, int]]

UNKNOWN_LANGUAGE = "unknown"
_NAMED = 3
_CONTRADICTIONS = 5


class Judged(NamedTuple):
    """The judged documents of one topic.

    docids: (m,) bytes, UTF-8, ascending. relevance: (m,) float64, aligned.
    """

    docids: NDArray[np.bytes_]
    relevance: NDArray[np.float64]


@dataclass(frozen=True)
class Topics:
    """Every judged topic, in the order of `query_ids`, which all score arrays share.

    language_of: (n,) positions in `languages`. block_of: (n,) topics with the same number are language
    versions of one topic; `parallel` says whether there are any. all_ids: judged or not. unlisted:
    judged, but not among the collection's queries.
    """

    query_ids: tuple[str, ...]
    judged: tuple[Judged, ...]
    languages: tuple[str, ...]
    language_of: NDArray[np.intp]
    block_of: NDArray[np.intp]
    all_ids: frozenset[str]
    unlisted: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Judged topics a language."""
        numbers = np.bincount(self.language_of, minlength=len(self.languages)).tolist()
        return dict(zip(self.languages, numbers, strict=True))

    @property
    def query_languages(self) -> dict[str, str]:
        """Query id -> language, of the judged topics."""
        names = (self.languages[position] for position in self.language_of.tolist())
        return dict(zip(self.query_ids, names, strict=True))

    @property
    def blocks(self) -> int:
        return int(self.block_of.max()) + 1

    @property
    def parallel(self) -> bool:
        return self.blocks < len(self.query_ids)


def make_topics(judgments: Judgments, languages: Mapping[str, str]) -> Topics:
    """Prepares judgments; `languages` gives every topic's language, judged or not.

    Topics with the same relevant documents in two languages or more are taken for versions of one topic,
    as in a parallel collection, where every version of the gold passage is relevant to every version of
    the query. Raises `DataError` when nothing is judged.
    """
    query_ids = tuple(sorted(query_id for query_id, documents in judgments.items() if documents))
    if not query_ids:
        raise DataError(
            "the qrels are empty, expected at least one judged topic: name a collection with judgments"
        )
    names = [languages.get(query_id) or UNKNOWN_LANGUAGE for query_id in query_ids]
    known = tuple(sorted(set(names)))
    return Topics(
        query_ids=query_ids,
        judged=tuple(_judged(judgments[query_id]) for query_id in query_ids),
        languages=known,
        language_of=np.array([known.index(name) for name in names], dtype=np.intp),
        block_of=_blocks([judgments[query_id] for query_id in query_ids], names),
        all_ids=frozenset(languages) | frozenset(query_ids),
        unlisted=tuple(query_id for query_id in query_ids if query_id not in languages),
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
        if relevant and len({languages[position] for position in positions}) > 1:
            label[positions] = positions[0]
    return np.unique(label, return_inverse=True)[1].astype(np.intp)


def open_pool(
    collections: Sequence[str],
    pooled: bool | None = None,
    *,
    shared_topics: bool = False,
    topic_field: str | None = None,
    topic_lang: str | None = None,
) -> Any:
    """One ir_datasets dataset over collections that have topics and judgments; nothing is read yet.

    Arguments as for `load_pool`.

    Raises `DataError` with every collection that has none, and the problems that `load_pool` finds.
    """
    from mimo_plugin.collections import load_pool, require

    require(collections, queries=True, qrels=True)
    return load_pool(
        collections,
        pooled=pooled,
        shared_topics=shared_topics,
        topic_field=topic_field,
        topic_lang=topic_lang,
    )


def load_topics(pool: Any, only: str | Sequence[str] = ()) -> Topics:
    """Reads the topics and judgments of a dataset from `open_pool`.

    only: languages to evaluate on, `"de,en"` or several such; none means all. The other languages' topics
    stay known, unjudged.

    Raises `DataError` with every document that a topic judges in two ways, `UsageError` with every
    language that no judged topic has.
    """
    languages = {query.query_id: query.lang for query in pool.queries_iter()}
    judgments: dict[str, dict[str, int]] = {}
    problems = Problems(DataError, limit=_CONTRADICTIONS)
    for qrel in pool.qrels_iter():
        judged = judgments.setdefault(qrel.query_id, {})
        before = judged.setdefault(qrel.doc_id, qrel.relevance)
        if before != qrel.relevance:
            problems.add(
                f"qrels: query {qrel.query_id!r}, document {qrel.doc_id!r} is judged {before} and "
                f"{qrel.relevance}, expected one relevance: keep one of the two judgments"
            )
    problems.raise_any()
    return make_topics(_only(judgments, languages, split_names(only)) if only else judgments, languages)


def _only(judgments: Judgments, languages: Mapping[str, str], only: Sequence[str]) -> Judgments:
    language_of = {query_id: languages.get(query_id) or UNKNOWN_LANGUAGE for query_id in judgments}
    known = sorted(set(language_of.values()))
    problems = Problems(UsageError)
    for name in only:
        if name not in known:
            near = get_close_matches(name, known, n=3)
            meant = f"; near: {', '.join(near)}" if near else ""
            problems.add(
                f"unknown language {name!r}{meant}; expected one of the judged topics' {', '.join(known)}"
            )
    problems.raise_any()
    return {query_id: judged for query_id, judged in judgments.items() if language_of[query_id] in only}


def check_queries(run: Run, topics: Topics, ignore_unknown: bool = False) -> list[str]:
    """What is wrong with the queries of a run: none judged, or some that are no topics at all."""
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
    """A warning where none of a run's hits, at any depth and in any topic, is judged."""
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
    """What may follow the prefix, which is a language or a collection's name and can hold colons
    itself."""
    parts = query_id.split(":")
    return [":".join(parts[cut:]) for cut in range(1, len(parts))]
