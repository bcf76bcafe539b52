"""The part of a multilingual run that is in the query's own language, to be scored as any run is."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.errors import DataError
from mimo_plugin.evaluation.doc_languages import languages_of
from mimo_plugin.evaluation.runs import Ranking, Run
from mimo_plugin.evaluation.topics import Judged, Topics


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
