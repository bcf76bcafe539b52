"""Language bias of a run: language mix, same-language preference, cross-lingual gap, and all measures."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import fsum, log
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.core.errors import DataError, Problems, UsageError
from mimo_plugin.evaluation.fairness import PeerTopics, Similarity, Target, awrf, mrc, peer_topics
from mimo_plugin.evaluation.measures import Averages, Measure, MeasureKind, average, score_run
from mimo_plugin.evaluation.results import (
    BiasResult,
    GapResult,
    LanguageGapResult,
    LanguageMixResult,
    PeerResult,
    PreferenceResult,
)
from mimo_plugin.evaluation.runs import Ranking, Run
from mimo_plugin.evaluation.topics import Judged, Topics, documents_of, languages_of

CUTOFF = 20
PEER, PEER_RAW, MRC, AWRF = "peer", "peer_raw", "mrc", "awrf"
PREFERENCE, GAP = "same_language_preference", "cross_lingual_gap"

T = TypeVar("T")


def language_mix(
    run: Run,
    query_langs: Mapping[str, str],
    doc_langs: Mapping[str, str],
    k: int,
    collection_languages: Iterable[str] = (),
) -> LanguageMixResult:
    """The languages of the first k hits. Every query with a hit has the same weight.

    `shares`: the share of hits in each document language, averaged over a query language's queries. `own`:
    the mean share of hits in the query's own language. `entropy`: of a query's hits over the collection's
    languages, averaged and divided by its largest possible value. It is 0 if each query's hits are in one
    language, and 1 if all languages have the same share.

    Args:
        query_langs: query id -> language; other queries are ignored.
        doc_langs: docid -> language, of the whole collection or of the hits alone.
        collection_languages: the languages of the collection, if `doc_langs` holds only the hits.

    Raises:
        DataError: no query has a hit, or the language of a hit is unknown.
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
    return LanguageMixResult(
        own=fsum(own) / len(own),
        entropy=fsum(_entropies(shares)) / len(shares),
        query_languages=query_languages,
        doc_languages=doc_languages,
        shares=tuple(tuple(shares[names == language].mean(axis=0).tolist()) for language in query_languages),
        queries=len(shares),
        without_hits=len(query_langs) - len(shares),
    )


def _entropies(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy of each row over its largest possible value; 0 with a single language. (n, m) -> (n,)"""
    if shares.shape[1] == 1:
        return np.zeros(len(shares))
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    entropies: NDArray[np.float64] = np.abs(np.sum(shares * logs, axis=1)) / log(shares.shape[1])
    return entropies


def same_language(run: Run, topics: Topics, doc_langs: Mapping[str, str]) -> tuple[Run, Topics]:
    """Keeps only documents in the query's own language, in rankings and judgments.

    Scored by `score_run`, this is monolingual retrieval from the mixed index. It separates a model that is
    weak in a language from a model that prefers other languages. It equals a search of that language's
    documents only down to the run's depth. 100 hits over 14 languages hold about 7 in each, so nDCG@20 needs
    a deeper run. Unjudged queries are dropped, and topics with nothing relevant in their language. A topic
    whose hits are all in other languages scores 0.

    Args:
        doc_langs: docid -> language, of every document of the run and of the judgments.

    Raises:
        DataError: a document has no language, or no topic is left.
    """
    kept = _Kept(run, topics)
    for position, documents in enumerate(topics.judged):
        language = topics.language(position)
        own = _is_own(documents.docids, language, doc_langs)
        if np.any(documents.relevance[own] > 0):
            kept.add(position, own, partial(_is_own, language=language, doc_langs=doc_langs))
    if not kept.judged:
        raise DataError(
            f"none of {len(topics.query_ids):,} topics has a relevant document in its own language, expected "
            "some: are the languages of queries and documents written alike?"
        )
    return kept.run, topics.restricted(kept.judged)


def _is_own(docids: NDArray[np.bytes_], language: str, doc_langs: Mapping[str, str]) -> NDArray[np.bool_]:
    return np.array([name == language for name in languages_of(docids, doc_langs)], dtype=bool)


class _Kept:
    """Some of the documents of a run and its judgments."""

    def __init__(self, run: Run, topics: Topics) -> None:
        self._all = run
        self._topics = topics
        self._rankings: dict[str, Ranking] = {}
        self.judged: dict[int, Judged] = {}
        self.run = Run(run.name, self._rankings)

    def add(
        self,
        position: int,
        judged: NDArray[np.bool_],
        hits: Callable[[NDArray[np.bytes_]], NDArray[np.bool_]],
    ) -> None:
        """Adds a topic. judged: (m,), judged documents to keep. hits: docids (n,) -> (n,), hits to keep."""
        documents = self._topics.judged[position]
        self.judged[position] = Judged(documents.docids[judged], documents.relevance[judged])
        query_id = self._topics.query_ids[position]
        ranking = self._all.queries.get(query_id)
        if ranking is not None and (kept := hits(ranking.docids)).any():
            self._rankings[query_id] = Ranking(ranking.docids[kept], ranking.scores[kept])

    def without(self, position: int, out: NDArray[np.bool_]) -> None:
        """Adds a topic without some of its judged documents. out: (m,)"""
        gone = self._topics.judged[position].docids[out]
        self.add(position, ~out, lambda docids: ~np.isin(docids, gone))

    def averages(self, measure: Measure) -> Averages:
        topics = self._topics.restricted(self.judged)
        return average(score_run(self.run, topics, [measure]).per_topic[measure], topics)


def cross_lingual_gap(run: Run, topics: Topics, doc_langs: Mapping[str, str], k: int) -> GapResult:
    """nDCG@k for relevant documents in the query's language, minus nDCG@k for those in other languages.

    For each of the two, the relevant documents of the other kind are removed from judgments and ranking.
    Documents that are not relevant stay, in every language. So both kinds compete with the same wrong
    documents, and a perfect run has 1 and 1. If the other kind stayed and counted as not relevant, the larger
    kind would push the smaller one down, and a perfect run would have a gap. If all documents of other
    languages were removed, as in `same_language`, the preference itself would be gone.

    Removing documents moves the others up, so a run should be deeper than k by a topic's number of relevant
    documents. Topics without relevant documents of both kinds are left out; a topic without a hit has 0.

    Args:
        doc_langs: docid -> language, of the relevant documents.

    Raises:
        DataError: a document has no language, or no topic is left.
    """
    measure = Measure(MeasureKind.NDCG, k)
    own, other = _Kept(run, topics), _Kept(run, topics)
    for position, judged in enumerate(topics.judged):
        relevant = judged.relevance > 0
        language = topics.language(position)
        same = np.zeros(len(relevant), dtype=bool)
        same[relevant] = [name == language for name in languages_of(judged.docids[relevant], doc_langs)]
        if same.any() and (relevant & ~same).any():
            own.without(position, relevant & ~same)
            other.without(position, same)
    total = len(topics.query_ids)
    if not own.judged:
        raise DataError(
            f"none of {total:,} topics has relevant documents both in its own language and in others, which "
            "are compared: that takes judgments across languages"
        )
    left = topics.restricted(own.judged)
    same_scores, other_scores = own.averages(measure), other.averages(measure)

    def parts(same: float, other: float, queries: int) -> dict[str, Any]:
        return {"same": same, "other": other, "gap": same - other, "queries": queries}

    return GapResult(
        measure=str(measure),
        **parts(same_scores.mean, other_scores.mean, len(left.query_ids)),
        per_language={
            language: LanguageGapResult(
                **parts(same_scores.per_language[language], other_scores.per_language[language], count)
            )
            for language, count in left.counts.items()
        },
        left_out=total - len(left.query_ids),
    )


def same_language_preference(
    run: Run, topics: Topics, doc_langs: Mapping[str, str], k: int
) -> PreferenceResult:
    """Share of same-language documents among the first k hits, over their share among the relevant documents.

    1 is no preference, 2 is twice as many same-language hits as expected. Both shares are averaged over
    topics before the division; a mean of the topics' quotients would depend on a few topics.

    All hits count, relevant or not. If a run finds all relevant documents and continues in the query's
    language, it has a preference at a k above their number. A random run has 1 only if the query's language
    is as frequent in the collection as among the relevant documents. If each language was judged alone, the
    value is at most 1 and says nothing about preference. Topics without a hit, or without a relevant document
    in their own language, are left out.

    Args:
        doc_langs: docid -> language, of the hits and the relevant documents.

    Raises:
        DataError: a document has no language, or no topic is left.
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
    return PreferenceResult(
        mean=float(observed.sum() / expected.sum()),
        per_language={
            name: float(observed[code] / expected[code])
            for code, name in enumerate(topics.languages)
            if expected[code]
        },
        queries=counted,
        left_out=total - counted,
    )


@dataclass(frozen=True)
class Cutoffs:
    """Further cutoffs of PEER and MRC, beside the cutoff of all measures."""

    peer: tuple[int, ...] = ()
    mrc: tuple[int, ...] = ()

    def deepest(self, cutoff: int) -> int:
        """The deepest of these cutoffs and the given one."""
        return max((cutoff, *self.peer, *self.mrc))


def parse_cutoffs(texts: Sequence[str]) -> Cutoffs:
    """Reads `MRC@5,10,20,PEER@20,100`: a number without a name belongs to the name before it.

    Raises:
        UsageError: with every invalid item.
    """
    found: dict[str, list[int]] = {PEER: [], MRC: []}
    problems = Problems(UsageError)
    name = None
    for item in filter(None, (part.strip() for text in texts for part in text.split(","))):
        matched = re.fullmatch(r"(?:(peer|mrc)@)?([1-9][0-9]{0,8})", item.casefold(), re.ASCII)
        name = (matched and matched[1]) or name
        if matched is None or name is None:
            problems.add(f"--fairness: found {item!r}, expected such as MRC@5,10,20 PEER@20,100")
        else:
            found[name].append(int(matched[2]))
    problems.raise_any()
    return Cutoffs(*(tuple(dict.fromkeys(found[name])) for name in (PEER, MRC)))


def language_bias(
    run: Run,
    topics: Topics,
    doc_langs: Mapping[str, str],
    *,
    k: int = CUTOFF,
    target: str = Target.RELEVANT,
    collection: Mapping[str, int] | None = None,
    similarity: Similarity | None = None,
    further: Cutoffs = Cutoffs(),
) -> BiasResult:
    """Measures the language bias of a run, as far as its topics and their judgments allow.

    A part that cannot be computed is None, and `skipped` says why; for PEER, the mean is None.

    Args:
        doc_langs: docid -> language, of the whole collection, or of `documents_of(run, topics, k)` with the
            deepest cutoff.
        target: of AWRF, see `Target`.
        collection: language -> number of documents, as in an index's manifest. None counts `doc_langs`, which
            must then hold the whole collection. Documents without a language do not count.
        similarity: of a query and documents missing from its ranking, see `mrc`.
        further: further cutoffs of PEER and MRC.

    Raises:
        UsageError: an unknown target, or a cutoff below 1.
        DataError: a document has no language, or a language that the collection lacks; no topic has a hit.
    """
    chosen = _check(k, target)
    sizes = _sizes(collection, doc_langs, documents_of(run, topics, k))
    topics = topics.listed()
    mix = language_mix(run, topics.query_languages, doc_langs, k, sizes)
    skipped = {}
    if len(sizes) == 1:
        reason = f"all documents are in one language, {min(sizes)!r}, expected two or more to compare"
        skipped = dict.fromkeys((PEER, PEER_RAW, AWRF, PREFERENCE, GAP), reason)

    def attempt(name: str, measure: Callable[[], T]) -> T | None:
        if name in skipped:
            return None
        try:
            return measure()
        except DataError as error:
            skipped[name] = str(error)
            return None

    def compared(name: str, found: PeerTopics, where: str) -> PeerResult:
        if found.compared:
            return found.result(topics)
        skipped.setdefault(name, f"no topic has relevant documents {where}two languages, which PEER compares")
        return PeerResult(mean=None, sensitive=found.sensitive, topics=len(found.values))

    peers = {at: compared(PEER, peer_topics(run, topics, doc_langs, at), "in ") for at in (k, *further.peer)}
    raw = peer_topics(run, topics, doc_langs, k, raw=True)
    correlations = {at: attempt(MRC, partial(mrc, run, topics, at, similarity)) for at in (k, *further.mrc)}
    return BiasResult(
        cutoff=k,
        peer=peers[k],
        peer_raw=compared(PEER_RAW, raw, "of one relevance level in "),
        mrc=correlations[k],
        awrf=attempt(AWRF, lambda: awrf(run, topics, doc_langs, k, chosen, sizes)),
        language_mix=mix,
        same_language_preference=attempt(
            PREFERENCE, lambda: same_language_preference(run, topics, doc_langs, k)
        ),
        cross_lingual_gap=attempt(GAP, lambda: cross_lingual_gap(run, topics, doc_langs, k)),
        skipped=skipped,
        peer_at={at: peers[at] for at in further.peer},
        mrc_at={at: found for at in further.mrc if (found := correlations[at]) is not None},
    )


def _check(k: int, target: str) -> Target:
    problems = Problems(UsageError)
    if k < 1:
        problems.add(f"cutoff {k} of the language bias, expected 1 or more")
    if target not in list(Target):
        problems.add(f"unknown target {target!r} of AWRF, expected one of {', '.join(Target)}")
    problems.raise_any()
    return Target(target)


def _sizes(
    collection: Mapping[str, int] | None, doc_langs: Mapping[str, str], needed: set[str]
) -> Mapping[str, int]:
    """Language -> number of documents of the collection. needed: docids of run and qrels."""
    docids = sorted(needed)
    found = languages_of(np.array([docid.encode() for docid in docids], dtype=np.bytes_), doc_langs)
    if "" in found:
        raise DataError(
            f"{found.count('')} of {len(found):,} documents of run and qrels have no language, for example "
            f"{docids[found.index('')]!r}, expected one for each: give the collection's documents a `lang`"
        )
    counts = Counter(doc_langs.values()) if collection is None else collection
    sizes = {name: size for name, size in counts.items() if name and size}
    strange = sorted(set(found) - sizes.keys())
    if strange:
        raise DataError(
            f"run and qrels have documents in {', '.join(strange)}, the collection has none in these but in "
            f"{', '.join(sorted(sizes))}: expected the languages of the collection that was searched"
        )
    return sizes
