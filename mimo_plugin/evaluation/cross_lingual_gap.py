"""Are relevant documents in the query's own language found better than those in others?"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.errors import DataError
from mimo_plugin.evaluation.averages import Averages, average
from mimo_plugin.evaluation.doc_languages import languages_of
from mimo_plugin.evaluation.measures import Measure, MeasureKind
from mimo_plugin.evaluation.runs import Ranking, Run
from mimo_plugin.evaluation.same_language import restricted
from mimo_plugin.evaluation.scoring import score_run
from mimo_plugin.evaluation.topics import Judged, Topics


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
