"""In which languages the documents are that a run puts first."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import fsum, log

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.errors import DataError
from mimo_plugin.evaluation.doc_languages import languages_of
from mimo_plugin.evaluation.runs import Run


@dataclass(frozen=True)
class LanguageMix:
    """The languages of the top k.

    own: mean share of hits in the query's own language. entropy: mean entropy of a query's hits over the
    collection's languages, divided by its largest value: 0 where all hits of each query share a language, 1
    where all languages have the same share. shares: (query languages, document languages), the mean over a
    language's queries of the share of their hits; rows add up to 1. queries: those that all this is about;
    without_hits: those that it leaves out.
    """

    own: float
    entropy: float
    query_languages: tuple[str, ...]
    doc_languages: tuple[str, ...]
    shares: NDArray[np.float64]
    queries: int
    without_hits: int


def language_mix(
    run: Run,
    query_langs: Mapping[str, str],
    doc_langs: Mapping[str, str],
    k: int,
    collection_languages: Iterable[str] = (),
) -> LanguageMix:
    """The language mix of the first k hits, of those that there are where they are fewer.

    Every query with a hit counts the same. query_langs: query id -> language, the queries to look at.
    doc_langs: docid -> language, of the whole collection, or of the hits: then `collection_languages` names
    the languages that the collection has, for those without a hit.

    Raises `DataError` where no query has a hit, or a hit's language is not known.
    """
    doc_languages = tuple(sorted({*doc_langs.values(), *collection_languages}))
    code = {language: position for position, language in enumerate(doc_languages)}
    languages = []
    counted = []
    for query_id, language in query_langs.items():
        ranking = run.queries.get(query_id)
        if ranking is not None and len(ranking.docids):
            codes = [code[name] for name in languages_of(ranking.docids[:k], doc_langs)]
            languages.append(language)
            counted.append(np.bincount(codes, minlength=len(doc_languages)) / len(codes))
    if not counted:
        raise DataError(
            f"run {run.name!r} has no hit for any of {len(query_langs):,} queries, expected the "
            "run of these queries"
        )
    shares = np.array(counted)  # (queries, document languages)
    own = [
        row[code[language]] if language in code else 0.0
        for row, language in zip(shares, languages, strict=True)
    ]
    query_languages = tuple(sorted(set(languages)))
    names = np.array(languages)
    return LanguageMix(
        own=fsum(own) / len(own),
        entropy=fsum(_entropies(shares)) / len(shares),
        query_languages=query_languages,
        doc_languages=doc_languages,
        shares=np.array([shares[names == language].mean(axis=0) for language in query_languages]),
        queries=len(shares),
        without_hits=len(query_langs) - len(shares),
    )


def _entropies(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy of each row over its largest possible value; 0 where there is one language. (n, m) -> (n,)"""
    if shares.shape[1] == 1:
        return np.zeros(len(shares))
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    entropies: NDArray[np.float64] = np.abs(np.sum(shares * logs, axis=1)) / log(shares.shape[1])
    return entropies
