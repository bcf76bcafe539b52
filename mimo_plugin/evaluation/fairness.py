"""Language fairness of rankings: PEER, MRC, AWRF."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from math import fsum, log
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.core.errors import DataError
from mimo_plugin.evaluation.measures import Scores
from mimo_plugin.evaluation.results import AwrfResult, MrcResult, PeerResult
from mimo_plugin.evaluation.runs import Ranking, Run
from mimo_plugin.evaluation.topics import Topics, languages_of, topic_versions

Matrix = NDArray[np.float64]
Scorer = Callable[[NDArray[np.bytes_]], NDArray[np.float32]]


class Correlations(NamedTuple):
    """matrix: (v, v), 0 on the diagonal. compared: number of scores. missing: how many are unknown."""

    matrix: Matrix
    compared: int
    missing: int


def correlate(rankings: Sequence[Ranking], k: int, scorers: Sequence[Scorer] = ()) -> Correlations:
    """Spearman's correlation of each two of v rankings over the union of their first k documents.

    If a ranking lacks a document at every depth, its scorer gives the score, docids (m,) -> (m,). Without
    scorers, all missing documents are tied below the ranking's last. The correlation is 1 if the scores of
    both sides are constant, and 0 if those of one side are.
    """
    tops = [ranking.docids[:k] for ranking in rankings]
    docids, columns = np.unique(np.concatenate(tops), return_inverse=True)
    sizes = np.array([len(top) for top in tops])
    present = np.arange(sizes.max()) < sizes[:, None]
    top = np.zeros(present.shape, dtype=np.intp)
    top[present] = columns  # (v, k) columns of `scores`, where present
    scores = np.full((len(rankings), len(docids)), -np.inf)
    in_top = np.zeros(scores.shape, dtype=bool)
    for row, ranking in enumerate(rankings):
        places = np.minimum(np.searchsorted(docids, ranking.docids), len(docids) - 1)
        found = docids[places] == ranking.docids
        scores[row, places[found]] = ranking.scores[found]
        in_top[row, top[row, : sizes[row]]] = True
    for row, scorer in enumerate(scorers):
        unknown = np.isneginf(scores[row])
        scores[row, unknown] = scorer(docids[unknown])
    first, second = np.triu_indices(len(rankings), 1)
    # (pairs, 2 k): the first's documents, then the second's; common documents count once.
    union = np.hstack((top[first], top[second]))
    counted = np.hstack((present[first], present[second] & ~in_top[first[:, None], top[second]]))
    values = scores[first[:, None], union], scores[second[:, None], union]
    matrix = np.zeros((len(rankings), len(rankings)))
    matrix[first, second] = matrix[second, first] = _spearman(*values, counted)
    missing = sum(int(np.count_nonzero(counted & np.isneginf(side))) for side in values)
    return Correlations(matrix, 2 * int(np.count_nonzero(counted)), missing)


def _spearman(x: Matrix, y: Matrix, counted: NDArray[np.bool_]) -> Matrix:
    """Spearman's correlation of each row of x with that of y, over counted cells. (p, m) each -> (p,)"""
    from scipy.stats import rankdata

    middle = (counted.sum(axis=1, keepdims=True) + 1) / 2

    def centred(values: Matrix) -> Matrix:
        # Cells that are not counted rank last, so they change no other rank.
        ranks = rankdata(np.where(counted, values, np.inf), axis=1)
        return np.where(counted, ranks - middle, 0.0)

    a, b = centred(x), centred(y)
    spread_a, spread_b = np.sum(a * a, axis=1), np.sum(b * b, axis=1)
    product = np.sqrt(spread_a * spread_b)
    result = np.where((spread_a == 0) & (spread_b == 0), 1.0, 0.0)
    np.divide(np.sum(a * b, axis=1), product, out=result, where=product > 0)
    return result


# (query id, docids (m,)) -> (m,)
Similarity = Callable[[str, NDArray[np.bytes_]], NDArray[np.float32]]


class PeerTopics(NamedTuple):
    """PEER@k of each topic.

    Attributes:
        values: (n,) in the order of the topics.
        compared: topics with relevant documents in two languages or more (`peer_raw`: of one relevance
            level). All other topics have 1, whatever the run.
        sensitive: compared topics with two documents or more in one language. In the others, PEER does not
            depend on the order of the documents found, see `peer`.
    """

    values: Scores
    compared: int
    sensitive: int

    def result(self, topics: Topics) -> PeerResult:
        """Means over all topics and per query language."""
        return PeerResult(
            mean=fsum(self.values) / len(self.values),
            per_language=topics.means(self.values),
            sensitive=self.sensitive,
            topics=len(self.values),
        )


class MrcTopics(NamedTuple):
    """MRC@k of each topic, times 100.

    Attributes:
        values: (n,) in the order of the topics, NaN without a version in another language.
        per_pair: (language, language), in alphabetical order -> mean over the topics in both.
        missing: topics without a hit.
        unscored: share of the compared documents without a score; 0 where MRC is exact.
    """

    values: Scores
    per_pair: Mapping[tuple[str, str], float]
    missing: int
    unscored: float


def peer(run: Run, topics: Topics, doc_langs: Mapping[str, str], k: int) -> PeerResult:
    """Probability of Equal Expected Rank: 1 where relevant documents rank alike whatever their language.

    A topic's value is the p of the Kruskal-Wallis test on the ranks of its relevant documents (relevance of 1
    or more), grouped by language. A document below rank k has rank k + 1. A topic with relevant documents in
    one language only, or with equal ranks, has 1. Source: Yang et al., Language Fairness in Multilingual
    Information Retrieval, SIGIR 2024.

    Two caveats. A run that finds nothing has 1. With one relevant document per language, as in a parallel
    collection, the statistic is always the number of languages less one. PEER then is a constant if anything
    relevant is found, and 1 if nothing is, so a better run has a lower PEER. `PeerResult.sensitive` counts
    the topics for which PEER depends on the order.

    Args:
        doc_langs: docid -> language, of every relevant document.

    Raises:
        DataError: a relevant document has no language.
    """
    return peer_topics(run, topics, doc_langs, k).result(topics)


def peer_raw(run: Run, topics: Topics, doc_langs: Mapping[str, str], k: int) -> PeerResult:
    """PEER as its authors compute it: on the run's own ranks, one relevance level at a time.

    For the N documents of one relevance level, 1 or more, in G languages,

        H = (N - 1) * sum over languages of n_g * (m_g - m)^2 / sum over documents of (r_d - m)^2

    where r_d is the document's rank in the run, m_g the mean rank of a language's n_g documents and m the
    mean of all. The level's p is the probability of a larger H under chi-square with G - 1 degrees of
    freedom; 1 if G is 1 or all ranks are the same. A topic's value is the mean p of its levels; 1 if nothing
    is relevant. Source: the paper of `peer` and its program (`peer_measure` 0.0.1), levels weighted equally
    as in its example.

    Three differences from `peer`: documents are not ranked again among themselves, so the distance between
    ranks counts; levels are separate; the n documents of a level below rank k have the mean of the ranks
    k + 1 to k + n instead of k + 1.

    The values equal the program's if all relevant documents are among the first k and a topic has all
    weighted levels. Otherwise the program differs in two ways. A condition that is never true makes it count
    from N instead of k, so missing documents can precede found ones. A level that a topic lacks adds 0; here
    the other levels share its weight.

    Args:
        doc_langs: docid -> language, of every relevant document.

    Raises:
        DataError: a relevant document has no language.
    """
    return peer_topics(run, topics, doc_langs, k, raw=True).result(topics)


def peer_topics(
    run: Run, topics: Topics, doc_langs: Mapping[str, str], k: int, raw: bool = False
) -> PeerTopics:
    """PEER of each topic, as `peer` or `peer_raw` defines it."""
    from scipy.stats import rankdata

    values = np.ones(len(topics.query_ids))
    compared = sensitive = 0
    for position, (query_id, judged) in enumerate(zip(topics.query_ids, topics.judged, strict=True)):
        above = judged.relevance > 0
        if not above.any():
            continue
        relevant, relevance = judged.docids[above], judged.relevance[above]
        languages = np.unique(languages_of(relevant, doc_langs), return_inverse=True)[1]
        ranks = _ranks(run.queries.get(query_id), relevant, k)
        levels = [relevance == level for level in np.unique(relevance)] if raw else [relevance > 0]
        values[position] = fsum(
            _equal_rank_p(_behind(ranks[one], k) if raw else rankdata(ranks), languages[one])
            for one in levels
        ) / len(levels)
        sizes = [np.unique(languages[one], return_counts=True)[1] for one in levels]
        compared += any(len(counts) > 1 for counts in sizes)
        sensitive += any(1 < len(counts) < counts.sum() for counts in sizes)
    return PeerTopics(values, compared, sensitive)


def _ranks(ranking: Ranking | None, relevant: NDArray[np.bytes_], k: int) -> NDArray[np.intp]:
    """The ranks of documents; k + 1 below the first k. (m,) -> (m,)"""
    first = [] if ranking is None else ranking.docids[:k].tolist()
    rank_of = {docid: rank for rank, docid in enumerate(first, start=1)}
    return np.array([rank_of.get(docid, k + 1) for docid in relevant.tolist()], dtype=np.intp)


def _behind(ranks: NDArray[np.intp], k: int) -> NDArray[np.float64]:
    """Replaces the n ranks of k + 1 by the mean of k + 1 to k + n. (m,) -> (m,)"""
    missing = ranks > k
    return np.where(missing, k + (np.count_nonzero(missing) + 1) / 2, ranks)


def _equal_rank_p(ranks: NDArray[np.float64], languages: NDArray[np.intp]) -> float:
    """The p of H in `peer_raw`, corrected for ties: of ranks among the documents, the Kruskal-Wallis test.

    scipy's `kruskal` takes five times as long.

    Args:
        ranks: (m,).
        languages: (m,) numbers from 0, possibly with gaps.
    """
    if np.all(languages == languages[0]) or np.all(ranks == ranks[0]):
        return 1.0
    from scipy.special import chdtrc

    centred = ranks - ranks.mean()
    sizes = np.bincount(languages)
    there = sizes > 0
    between = np.sum(np.bincount(languages, centred)[there] ** 2 / sizes[there])
    statistic = (len(ranks) - 1) * between / np.sum(centred**2)
    return float(chdtrc(np.count_nonzero(there) - 1, statistic))


def mrc(run: Run, topics: Topics, k: int, similarity: Similarity | None = None) -> MrcResult:
    """Mean rank correlation: 100 if a query finds the same documents in the same order in every language.

    For two language versions of a query: Spearman's correlation of their scores over the union of their first
    k documents. Mean over the other languages, over the queries, over the languages. Source: Yang, Jiang and
    Baldwin, Language Bias in Information Retrieval (arXiv 2509.06195), with the union and the cutoff of the
    MIMO paper (arXiv 2605.31171).

    A document may be among the first k of only one version. It then takes its score in the other version's
    ranking, at any depth, or else its `similarity` with the other version, on the scale of the run's scores.
    Without either, it is tied with all missing documents below the ranking's last. Rankings then look more
    different than they are, and the value depends on the run's depth. `MrcResult.unscored` is the share of
    missing scores; compare only runs of one depth. Two rankings of the same single document have 1; a version
    without hits has 0 with every other.

    Versions of one query have the same relevant documents and the same id after the language (`de:7`,
    `fi:7`). Both are needed: ids of some pools agree by chance, and a passage may have several questions.

    Raises:
        DataError: no topic has versions in two languages.
    """
    found = mrc_topics(run, topics, k, similarity)
    per_language = topics.means(found.values)
    if not per_language:
        raise DataError(
            f"none of {len(found.values):,} topics has versions in two languages, expected parallel queries, "
            "such as de:7 and fi:7 with the same relevant documents: MRC compares them"
        )
    return MrcResult(
        mean=fsum(per_language.values()) / len(per_language),
        per_language=per_language,
        per_pair=tuple((*pair, value) for pair, value in found.per_pair.items()),
        topics=int(np.count_nonzero(~np.isnan(found.values))),
        missing=found.missing,
        unscored=found.unscored,
    )


def mrc_topics(run: Run, topics: Topics, k: int, similarity: Similarity | None = None) -> MrcTopics:
    """MRC of each topic, as `mrc` defines it."""
    total, count = np.zeros((2, len(topics.languages), len(topics.languages)))
    values = np.full(len(topics.query_ids), np.nan)
    missing = compared = unscored = 0
    for positions in topic_versions(topics):
        query_ids = [topics.query_ids[position] for position in positions]
        there = [row for row, query_id in enumerate(query_ids) if query_id in run.queries]
        missing += len(positions) - len(there)
        matrix = np.zeros((len(positions), len(positions)))
        if len(there) > 1:
            found = correlate(
                [run.queries[query_ids[row]] for row in there],
                k,
                [partial(similarity, query_ids[row]) for row in there] if similarity else (),
            )
            matrix[np.ix_(there, there)] = found.matrix
            compared += found.compared
            unscored += found.missing
        values[positions] = 100 * matrix.sum(axis=1) / (len(positions) - 1)
        languages = topics.language_of[positions]
        total[np.ix_(languages, languages)] += 100 * matrix
        count[np.ix_(languages, languages)] += 1
    return MrcTopics(
        values,
        per_pair={
            (topics.languages[a], topics.languages[b]): float(total[a, b] / count[a, b])
            for a, b in np.argwhere(np.triu(count, 1)).tolist()
        },
        missing=missing,
        unscored=unscored / compared if compared else 0.0,
    )


Shares = NDArray[np.float64]


class Target(StrEnum):
    """The shares of attention that languages should have.

    RELEVANT: those of the topic's relevant documents. COLLECTION: those of the collection's documents.
    UNIFORM: the same for each of the collection's languages.
    """

    RELEVANT = "relevant"
    COLLECTION = "collection"
    UNIFORM = "uniform"


def awrf(
    run: Run,
    topics: Topics,
    doc_langs: Mapping[str, str],
    k: int,
    target: Target = Target.RELEVANT,
    collection: Mapping[str, int] | None = None,
) -> AwrfResult:
    """1 if the languages of the first k hits get the attention of the target, else less.

    The hit at rank i has the attention 1 / log2(max(i, 2)). A language's exposure is the sum of its hits'
    over that of all hits. AWRF is 1 minus the Jensen-Shannon divergence (natural logarithm, not its root) of
    exposure and target: from 1 - ln 2 = 0.307, if they share no language, to 1. Attention and divergence are
    those of the TREC Fair Ranking Track 2021 and 2022 (`wptrec`), which had another target. Sources:
    Sapiezynski et al., Quantifying the Impact of User Attention on Fair Group Representation in Ranked Lists,
    WWW 2019; Raj and Ekstrand, Measuring Fairness in Ranked Results, SIGIR 2022.

    Relevance of the hits plays no part. Topics without a hit are left out; for the target `relevant`, also
    topics without a relevant document. A topic with fewer relevant documents than languages reaches 1 only in
    a ranking as short.

    Args:
        doc_langs: docid -> language, of the hits and the relevant documents.
        collection: language -> number of documents, for the targets `collection` and `uniform`; None counts
            `doc_langs`, which must then hold the whole collection.

    Raises:
        DataError: a document has no language, or no topic is left.
    """
    values = awrf_topics(run, topics, doc_langs, k, target, collection)
    counted = values[~np.isnan(values)]
    if not len(counted):
        needed = "a hit and a relevant document" if target is Target.RELEVANT else "a hit"
        raise DataError(f"none of {len(values):,} topics has {needed}, which AWRF needs")
    return AwrfResult(
        mean=fsum(counted) / len(counted),
        per_language=topics.means(values),
        target=target,
        queries=len(counted),
    )


def awrf_topics(
    run: Run,
    topics: Topics,
    doc_langs: Mapping[str, str],
    k: int,
    target: Target = Target.RELEVANT,
    collection: Mapping[str, int] | None = None,
) -> Scores:
    """AWRF of each topic, as `awrf` defines it; NaN if left out. (n,) in the order of the topics."""
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
    values = np.full(len(topics.query_ids), np.nan)
    if not positions:
        return values
    if target is not Target.RELEVANT:
        sizes = [counts.get(name, 0) for name in languages]
        targets = [np.sign(sizes) if target is Target.UNIFORM else np.array(sizes)]
    values[positions] = 1 - _divergences(_shares(exposures), _shares(targets))
    return values


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
    # Rounding can exceed the limits.
    divergences: Shares = np.clip(halves / 2, 0, log(2))
    return divergences
