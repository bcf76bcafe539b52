"""Same-language preference and the gap between same-language and cross-lingual retrieval."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.core.errors import DataError
from mimo_plugin.evaluation.measures import Averages, Measure, MeasureKind, average, score_run
from mimo_plugin.evaluation.runs import Ranking, Run
from mimo_plugin.evaluation.topics import Judged, Topics, languages_of


class SameLanguage(NamedTuple):
    """A run and its topics without the documents of other languages. left_out: topics with nothing relevant
    in their own language, which cannot be answered there."""

    run: Run
    topics: Topics
    left_out: int


def same_language(run: Run, topics: Topics, doc_langs: Mapping[str, str]) -> SameLanguage:
    """Keeps of rankings and judgments the documents in the query's own language.

    Scored by `score_run`, that is monolingual retrieval out of the mixed index: it tells a model that is bad
    in a language from one that prefers other languages. It equals a search of that language's documents only
    as deep as the run goes: a mixed run of 100 hits over 14 languages holds about 7 in each, so nDCG@20 needs
    a deep one. Unjudged queries are not in the run that is returned, and a topic whose hits are all in other
    languages scores 0 there.

    doc_langs: docid -> language, for every document of the run and of the judgments.

    Raises `DataError` for a document without a language, and where no topic is left.
    """
    rankings = {}
    judged = {}
    for position, query_id in enumerate(topics.query_ids):
        language = topics.language(position)
        documents = _own_judgments(topics.judged[position], language, doc_langs)
        if not np.any(documents.relevance > 0):
            continue
        judged[position] = documents
        ranking = run.queries.get(query_id)
        if ranking is not None:
            own = _is_own(ranking.docids, language, doc_langs)
            if own.any():
                rankings[query_id] = Ranking(ranking.docids[own], ranking.scores[own])
    if not judged:
        raise DataError(
            f"none of {len(topics.query_ids):,} topics has a relevant document in its own language, expected "
            "some: are the languages of queries and documents written alike?"
        )
    return SameLanguage(
        Run(run.name, rankings), restricted(topics, judged), len(topics.query_ids) - len(judged)
    )


def _is_own(docids: NDArray[np.bytes_], language: str, doc_langs: Mapping[str, str]) -> NDArray[np.bool_]:
    return np.array([name == language for name in languages_of(docids, doc_langs)], dtype=bool)


def _own_judgments(judged: Judged, language: str, doc_langs: Mapping[str, str]) -> Judged:
    own = _is_own(judged.docids, language, doc_langs)
    return Judged(judged.docids[own], judged.relevance[own])


def restricted(topics: Topics, judged: Mapping[int, Judged]) -> Topics:
    """Some of the topics, with other judgments; versions of one topic stay one block.

    judged: position -> its judgments, one at least.
    """
    kept = np.array(list(judged), dtype=np.intp)
    languages, language_of = np.unique(topics.language_of[kept], return_inverse=True)
    query_ids = tuple(topics.query_ids[position] for position in kept)
    return replace(
        topics,
        query_ids=query_ids,
        judged=tuple(judged.values()),
        languages=tuple(topics.languages[language] for language in languages),
        language_of=language_of.astype(np.intp),
        block_of=np.unique(topics.block_of[kept], return_inverse=True)[1].astype(np.intp),
        unlisted=tuple(query_id for query_id in topics.unlisted if query_id in set(query_ids)),
    )


@dataclass(frozen=True)
class Gap:
    """same, other: nDCG for the relevant documents in the query's language, and in others, the mean over
    topics. queries: how many these are."""

    same: float
    other: float
    queries: int

    @property
    def gap(self) -> float:
        """Above 0 where documents in the query's language are found better."""
        return self.same - self.other


@dataclass(frozen=True)
class CrossLingualGap:
    """overall: over all topics that count. per_language: over a query language's. left_out: topics that do
    not count."""

    measure: Measure
    overall: Gap
    per_language: Mapping[str, Gap]
    left_out: int


def cross_lingual_gap(run: Run, topics: Topics, doc_langs: Mapping[str, str], k: int) -> CrossLingualGap:
    """nDCG@k for the same-language relevant documents alone, against that for the others alone.

    Either time the relevant documents of the other kind are taken out, of judgments and ranking both, and all
    else stays: documents that are not relevant, in any language. So both kinds compete with the same wrong
    documents, and a run that puts all relevant documents first has 1 and 1. Were they left in as not
    relevant, they would stand in each other's way, the few of one kind behind the many of the other, and a
    perfect run would have a gap. Without all documents of other languages, as `same_language` has it, the
    preference would be gone that this is to show: either kind would meet the wrong documents of its own only.

    Documents move up where others are taken out: of a run with no more than k hits the places at the end stay
    empty. Search deeper than k by the number of relevant documents a topic.

    Topics without relevant documents of both kinds are left out; of the others, one without a hit has 0.

    doc_langs: docid -> language, of the relevant documents. Raises `DataError` where no topic is left, or for
    a document without a language.
    """
    measure = Measure(MeasureKind.NDCG, k)
    own, other = _Side(run, topics), _Side(run, topics)
    for position, judged in enumerate(topics.judged):
        relevant = judged.relevance > 0
        language = topics.language(position)
        same = np.zeros(len(relevant), dtype=bool)
        same[relevant] = [name == language for name in languages_of(judged.docids[relevant], doc_langs)]
        if same.any() and (relevant & ~same).any():
            own.add(position, relevant & ~same)
            other.add(position, same)
    total = len(topics.query_ids)
    if not own.judged:
        raise DataError(
            f"none of {total:,} topics has relevant documents both in its own language and in others, which "
            "are compared: that takes judgments across languages"
        )
    left = restricted(topics, own.judged)
    same_scores, other_scores = own.averages(measure), other.averages(measure)
    return CrossLingualGap(
        measure=measure,
        overall=Gap(same_scores.mean, other_scores.mean, len(left.query_ids)),
        per_language={
            language: Gap(same_scores.per_language[language], other_scores.per_language[language], count)
            for language, count in left.counts.items()
        },
        left_out=total - len(left.query_ids),
    )


class _Side:
    """A run and its topics without the relevant documents of one kind."""

    def __init__(self, run: Run, topics: Topics) -> None:
        self._run = run
        self._topics = topics
        self._rankings: dict[str, Ranking] = {}
        self.judged: dict[int, Judged] = {}

    def add(self, position: int, out: NDArray[np.bool_]) -> None:
        """Adds a topic. out: (m,), which of its judged documents are taken out."""
        judged = self._topics.judged[position]
        self.judged[position] = Judged(judged.docids[~out], judged.relevance[~out])
        query_id = self._topics.query_ids[position]
        ranking = self._run.queries.get(query_id)
        if ranking is not None:
            kept = ~np.isin(ranking.docids, judged.docids[out])
            self._rankings[query_id] = Ranking(ranking.docids[kept], ranking.scores[kept])

    def averages(self, measure: Measure) -> Averages:
        topics = restricted(self._topics, self.judged)
        scores = score_run(Run(self._run.name, self._rankings), topics, [measure])
        return average(scores.per_topic[measure], topics)


@dataclass(frozen=True)
class Preference:
    """Same-language preference; 1 is none, 2 twice as many same-language hits as there should be.

    mean: over all topics that count. per_language: over a query language's. queries: how many count.
    left_out: how many do not.
    """

    mean: float
    per_language: Mapping[str, float]
    queries: int
    left_out: int


def same_language_preference(run: Run, topics: Topics, doc_langs: Mapping[str, str], k: int) -> Preference:
    """The share of same-language documents among the first k hits over their share among the relevant ones.

    Both shares are averaged over topics before they are divided: observed over expected. A mean of the
    topics' own quotients would be in the hands of a few: where one relevant document of 50 is in the query's
    language the quotient reaches 50, where all are it cannot leave 1.

    Hits count whether they are relevant or not, and where there are fewer than k, those that there are. So
    what fills the first k behind the relevant documents counts as well: a run that finds all relevant
    documents and then goes on in the query's language has a preference, at a k above their number. A random
    run has 1 only where the query's language is as common in the collection as among the relevant documents.
    Where these are all in the query's language, as where each language has been judged alone, the value is 1
    at most and says nothing of preference.

    Topics without a hit, without a relevant document or without one in their own language are left out.

    doc_langs: docid -> language, of the hits and the relevant documents. Raises `DataError` where no topic is
    left, or for a document without a language.
    """
    observed, expected = np.zeros((2, len(topics.languages)))
    counted = 0
    for position, (query_id, judged) in enumerate(zip(topics.query_ids, topics.judged, strict=True)):
        ranking = run.queries.get(query_id)
        relevant = languages_of(judged.docids[judged.relevance > 0], doc_langs)
        code = topics.language_of[position]
        own = relevant.count(topics.language(position))
        if ranking is not None and len(ranking.docids) and own:
            found = languages_of(ranking.docids[:k], doc_langs)
            observed[code] += found.count(topics.languages[code]) / len(found)
            expected[code] += own / len(relevant)
            counted += 1
    total = len(topics.query_ids)
    if not counted:
        raise DataError(
            f"none of {total:,} topics has a hit and a relevant document in its own language, expected some: "
            "are the languages of queries and documents written alike?"
        )
    return Preference(
        mean=float(observed.sum() / expected.sum()),
        per_language={
            name: float(observed[code] / expected[code])
            for code, name in enumerate(topics.languages)
            if expected[code]
        },
        queries=counted,
        left_out=total - counted,
    )
