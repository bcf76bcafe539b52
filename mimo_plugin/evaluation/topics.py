"""The topics of an evaluation: which are judged, in which language, and what a run may hold."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.errors import DataError, Problems
from mimo_plugin.evaluation.runs import Run

Judgments = Mapping[str, Mapping[str, int]]

UNKNOWN_LANGUAGE = "unknown"
_NAMED = 3


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
    versions of one topic; `parallel` says whether there are any. all_ids: judged or not.
    """

    query_ids: tuple[str, ...]
    judged: tuple[Judged, ...]
    languages: tuple[str, ...]
    language_of: NDArray[np.intp]
    block_of: NDArray[np.intp]
    all_ids: frozenset[str]

    @property
    def counts(self) -> dict[str, int]:
        """Judged topics a language."""
        numbers = np.bincount(self.language_of, minlength=len(self.languages)).tolist()
        return dict(zip(self.languages, numbers, strict=True))

    @property
    def blocks(self) -> int:
        return int(self.block_of.max()) + 1

    @property
    def parallel(self) -> bool:
        return self.blocks < len(self.query_ids)


def make_topics(judgments: Judgments, languages: Mapping[str, str]) -> Topics:
    """Prepares judgments; `languages` gives every topic's language, judged or not.

    Topics with the same relevant documents in two languages or more are taken for versions of one topic, as
    in a parallel collection, where every version of the gold passage is relevant to every version of the query.
    Raises `DataError` when nothing is judged.
    """
    query_ids = tuple(sorted(query_id for query_id, documents in judgments.items() if documents))
    if not query_ids:
        raise DataError("the qrels are empty, expected at least one judged topic: name a collection with judgments")
    names = [languages.get(query_id) or UNKNOWN_LANGUAGE for query_id in query_ids]
    known = tuple(sorted(set(names)))
    return Topics(
        query_ids=query_ids,
        judged=tuple(_judged(judgments[query_id]) for query_id in query_ids),
        languages=known,
        language_of=np.array([known.index(name) for name in names], dtype=np.intp),
        block_of=_blocks([judgments[query_id] for query_id in query_ids], names),
        all_ids=frozenset(languages) | frozenset(query_ids),
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


def load_topics(collections: Sequence[str], pooled: bool | None = None) -> Topics:
    """Reads the topics and judgments of one collection or of a pool of several.

    Raises `DataError` with every collection that has no judgments or no topics.
    """
    from mimo_plugin.collections import load, load_pool

    problems = Problems(DataError)
    for spec in collections:
        source = load(spec)
        if not source.has_qrels():
            problems.add(f"{spec}: has no qrels, expected judgments: name a split that has some")
        if not source.has_queries():
            problems.add(f"{spec}: has no queries, expected topics: name a split that has some")
    problems.raise_any()
    pool = load_pool(collections, pooled=pooled)
    languages = {query.query_id: query.lang for query in pool.queries_iter()}
    judgments: dict[str, dict[str, int]] = {}
    for qrel in pool.qrels_iter():
        judgments.setdefault(qrel.query_id, {})[qrel.doc_id] = qrel.relevance
    return make_topics(judgments, languages)


def check_queries(run: Run, topics: Topics, ignore_unknown: bool = False) -> list[str]:
    """What is wrong with the queries of a run: none judged, or some that are no topics at all."""
    problems = []
    unknown = sorted(run.queries.keys() - topics.all_ids)
    if unknown and not ignore_unknown:
        names = ", ".join(islice(unknown, _NAMED)) + (", ..." if len(unknown) > _NAMED else "")
        problems.append(
            f"run {run.name!r}: {len(unknown)} of its {len(run.queries)} queries are not topics of the collection "
            f"({names}); expected ids such as {topics.query_ids[0]!r}{_prefix_hint(unknown, topics.all_ids)}"
        )
    elif not any(query_id in run.queries for query_id in topics.query_ids):
        problems.append(
            f"run {run.name!r} has no query in common with the qrels, expected ids such as {topics.query_ids[0]!r}: "
            "is it the run of another collection or split?"
        )
    return problems


def _prefix_hint(unknown: Iterable[str], topics: frozenset[str]) -> str:
    if any(query_id.partition(":")[2] in topics for query_id in unknown):
        return ": the run's ids have the prefix of a pool, evaluate it with --pooled"
    without = {topic.partition(":")[2] for topic in topics}
    if any(query_id in without for query_id in unknown):
        return ": the run's ids lack the prefix of a pool, evaluate it against its own collection without --pooled"
    return ": name the run's own collection, or leave them out with --ignore-unknown-queries"
