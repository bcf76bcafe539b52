"""Does a run prefer the query's own language?"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mimo_plugin.errors import DataError
from mimo_plugin.evaluation.doc_languages import languages_of
from mimo_plugin.evaluation.runs import Run
from mimo_plugin.evaluation.topics import Topics


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
