"""Is each language shown as much as it should be? Attention-weighted rank fairness."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import fsum, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.errors import DataError
from mimo_plugin.evaluation.doc_languages import languages_of
from mimo_plugin.evaluation.runs import Run
from mimo_plugin.evaluation.scoring import Scores
from mimo_plugin.evaluation.topics import Topics

Shares = NDArray[np.float64]


class Target(StrEnum):
    """The shares of attention that languages should have.

    RELEVANT: those of the topic's relevant documents. COLLECTION: those of the collection's documents.
    UNIFORM: the same for each of the collection's languages.
    """

    RELEVANT = "relevant"
    COLLECTION = "collection"
    UNIFORM = "uniform"


@dataclass(frozen=True)
class Awrf:
    """AWRF of a run.

    per_topic: (n,) in the order of the topics, NaN for those left out. mean: over the topics that are not.
    per_language: query language -> the mean over its topics. queries: how many that are.
    """

    per_topic: Scores
    mean: float
    per_language: Mapping[str, float]
    target: Target
    queries: int


def awrf(
    run: Run,
    topics: Topics,
    doc_langs: Mapping[str, str],
    k: int,
    target: Target = Target.RELEVANT,
    collection: Mapping[str, int] | None = None,
) -> Awrf:
    """1 where the languages of the first k hits get the attention that the target gives them, else less.

    The hit at rank i has the attention 1 / log2(max(i, 2)), and a language the sum of its hits', over that of
    all hits: its exposure. AWRF is 1 less the Jensen-Shannon divergence (natural logarithm, not its root, the
    distance) of exposure and target, so that it lies between 1 - ln 2 = 0.307, where they share no language,
    and 1. Attention and divergence are those of the TREC Fair Ranking Track 2021 and 2022 (its `wptrec`
    program), where the target was another: the mean of the relevant documents' and the world's shares. The
    idea is Sapiezynski et al.'s, Quantifying the Impact of User Attention on Fair Group Representation in
    Ranked Lists (WWW 2019), compared with others by Raj and Ekstrand, Measuring Fairness in Ranked Results
    (SIGIR 2022).

    Whether the hits are relevant plays no part. Topics without a hit show nothing and are left out, for the
    target `relevant` those without a relevant document, too. A topic with fewer relevant documents than
    languages can only be fair in a ranking as short: with one relevant document, all other hits count as the
    wrong language unless they share its own.

    Args:
        doc_langs: docid -> language, of the hits and the relevant documents.
        collection: language -> number of documents; None counts `doc_langs`, which then holds them all. Only
            the targets `collection` and `uniform` need it.

    Raises `DataError` where no topic is left, or for a document without a language.
    """
    counts = Counter(doc_langs.values()) if collection is None else collection
    languages = {name: code for code, name in enumerate(sorted({*doc_langs.values(), *counts}))}
    positions, exposures, targets = [], [], []
    for position, (query_id, judged) in enumerate(zip(topics.query_ids, topics.judged, strict=True)):
        ranking = run.queries.get(query_id)
        relevant = judged.docids[judged.relevance > 0]
        if ranking is None or not len(ranking.docids) or (target is Target.RELEVANT and not len(relevant)):
            continue
        codes = [languages[name] for name in languages_of(ranking.docids[:k], doc_langs)]
        attention = 1 / np.log2(np.maximum(np.arange(1, len(codes) + 1), 2))
        positions.append(position)
        exposures.append(np.bincount(codes, attention, len(languages)))
        if target is Target.RELEVANT:
            codes = [languages[name] for name in languages_of(relevant, doc_langs)]
            targets.append(np.bincount(codes, minlength=len(languages)))
    if not positions:
        needed = "a hit and a relevant document" if target is Target.RELEVANT else "a hit"
        raise DataError(f"none of {len(topics.query_ids):,} topics has {needed}, which AWRF needs")
    if target is not Target.RELEVANT:
        sizes = [counts.get(name, 0) for name in languages]
        targets = [np.sign(sizes) if target is Target.UNIFORM else np.array(sizes)]
    values = np.full(len(topics.query_ids), np.nan)
    values[positions] = 1 - _divergences(_shares(exposures), _shares(targets))
    return _averaged(values, topics, target)


def _shares(rows: Sequence[NDArray[Any]]) -> Shares:
    """Each row over its sum."""
    amounts = np.array(rows, dtype=np.float64)
    shares: Shares = amounts / amounts.sum(axis=1, keepdims=True)
    return shares


def _divergences(x: Shares, y: Shares) -> Shares:
    """Jensen-Shannon divergence of the rows, in nats. (n, m) and (n or 1, m) -> (n,)"""
    from scipy.special import rel_entr

    middle = (x + y) / 2
    halves = np.sum(rel_entr(x, middle), axis=1) + np.sum(rel_entr(y, middle), axis=1)
    # Rounding alone goes beyond.
    divergences: Shares = np.clip(halves / 2, 0, log(2))
    return divergences


def _averaged(values: Scores, topics: Topics, target: Target) -> Awrf:
    there = ~np.isnan(values)
    per_language = {}
    for code, name in enumerate(topics.languages):
        part = values[there & (topics.language_of == code)]
        if len(part):
            per_language[name] = fsum(part) / len(part)
    counted = values[there]
    return Awrf(values, fsum(counted) / len(counted), per_language, target, len(counted))
