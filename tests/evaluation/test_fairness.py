"""PEER against its tests written out, MRC against scipy's correlation pair by pair."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2, kruskal, rankdata, spearmanr

from mimo_plugin.core.errors import DataError
from mimo_plugin.evaluation.fairness import mrc, mrc_topics, peer, peer_raw, peer_topics
from mimo_plugin.evaluation.results import MrcResult
from mimo_plugin.evaluation.runs import Ranking, Run
from mimo_plugin.evaluation.topics import Topics, make_topics

LANGS = ("de", "en", "fi", "ja")
DOC_LANGS = {f"{language}:{number:02}": language for language in LANGS for number in range(12)}
DOCIDS = sorted(DOC_LANGS)


def falling(*docids: str) -> dict[str, float]:
    """Hits in this order."""
    return {docid: float(-rank) for rank, docid in enumerate(docids)}


def one_topic(*relevant: str) -> Topics:
    return make_topics({"q": dict.fromkeys(relevant, 1) | {"de:11": 0}}, {"q": "de"})


def kruskal_wallis(groups: list[list[int]]) -> float:
    """The p-value by its textbook formula, ties corrected."""
    pooled = np.array([rank for group in groups for rank in group], dtype=np.float64)
    if len(groups) < 2 or len(set(pooled)) == 1:
        return 1.0
    ranks = rankdata(pooled)
    size = len(pooled)
    sums = np.split(ranks, np.cumsum([len(group) for group in groups])[:-1])
    h = 12 / (size * (size + 1)) * sum(part.sum() ** 2 / len(part) for part in sums) - 3 * (size + 1)
    ties = np.unique(pooled, return_counts=True)[1].astype(np.float64)
    return float(chi2.sf(h / (1 - np.sum(ties**3 - ties) / (size**3 - size)), len(groups) - 1))


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 50))
def test_peer_is_the_p_of_the_test_on_the_relevant_documents_ranks(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    judged = rng.permutation(DOCIDS)[: int(rng.integers(1, 40))].tolist()
    qrels = {docid: int(rng.integers(0, 3)) for docid in judged}
    found = rng.permutation(DOCIDS)[: int(rng.integers(1, 40))].tolist()
    groups: dict[str, list[int]] = {}
    for docid in (docid for docid, relevance in qrels.items() if relevance):
        rank = found.index(docid) + 1 if docid in found[:k] else k + 1
        groups.setdefault(DOC_LANGS[docid], []).append(rank)
    run, topics = Run.from_hits("r", {"q": falling(*found)}), make_topics({"q": qrels}, {"q": "de"})
    values, compared, sensitive = peer_topics(run, topics, DOC_LANGS, k)
    result = peer(run, topics, DOC_LANGS, k)
    assert values.tolist() == [pytest.approx(kruskal_wallis(list(groups.values())), abs=1e-9)]
    assert 0 <= result.mean <= 1
    if result.mean < 1:
        assert result.mean == pytest.approx(kruskal(*groups.values()).pvalue, abs=1e-12)
    assert compared == (len(groups) > 1)
    assert result.sensitive == sensitive == (len(groups) > 1 and max(map(len, groups.values())) > 1)


def test_peer_of_mixed_and_of_parted_languages() -> None:
    de, en = [f"de:{number:02}" for number in range(8)], [f"en:{number:02}" for number in range(8)]
    topics = one_topic(*de, *en)

    def value(*order: str, k: int = 16) -> float:
        return peer(Run.from_hits("r", {"q": falling(*order)}), topics, DOC_LANGS, k).mean

    # de en en de de en en de ...: the rank sums are equal.
    mixed = [docid for pair in zip(de, en, strict=True) for docid in pair]
    mixed = [
        docid for at in range(0, 16, 4) for docid in (mixed[at], mixed[at + 1], mixed[at + 3], mixed[at + 2])
    ]
    assert value(*mixed) == pytest.approx(1)
    parted = value(*de, *en)
    assert parted < 0.001
    assert parted == pytest.approx(value(*en, *de))
    assert parted < value(*de[:6], *en, *de[6:]) < 1
    # One language fills the top: of the other all ranks are k + 1.
    assert value(*de, k=8) < 0.001
    assert value("fi:00", "fi:01", *de, k=2) == 1


def test_peer_is_one_where_there_is_nothing_to_compare() -> None:
    run = Run.from_hits("r", {"q": falling("de:00", "en:00")})
    for topics in (one_topic("de:00", "de:01"), one_topic("fi:00", "en:01", "en:02"), one_topic()):
        assert peer_topics(run, topics, DOC_LANGS, 10).values.tolist() == [1]
    missing = make_topics({"p": {"de:00": 1, "en:00": 1}, "q": {"de:00": 1}}, {})
    assert peer_topics(run, missing, DOC_LANGS, 10).values.tolist() == [1, 1]


def test_peer_with_one_relevant_document_a_language_depends_on_no_order() -> None:
    topics = one_topic("de:00", "en:00", "fi:00")
    for order in (["de:00", "en:00", "fi:00"], ["de:01", "fi:00"], ["en:00", *DOCIDS[13:40], "de:00"]):
        result = peer(Run.from_hits("r", {"q": falling(*order)}), topics, DOC_LANGS, 20)
        assert (result.mean, result.sensitive) == (pytest.approx(chi2.sf(2, 2)), 0)


def test_peer_needs_the_languages_of_relevant_documents() -> None:
    run = Run.from_hits("r", {"q": falling("xx:00")})
    with pytest.raises(DataError, match="'xx:00' has no language among the 48 given"):
        peer(run, one_topic("xx:00", "de:00"), DOC_LANGS, 5)


def raw_rank_p(ranks: dict[str, list[int | None]], k: int) -> float:
    """The p of one relevance level by the formula: language -> its documents' ranks, None if not found."""
    missing = sum(rank is None for group in ranks.values() for rank in group)
    behind = sum(range(k + 1, k + missing + 1)) / missing if missing else 0
    groups = [[behind if rank is None else rank for rank in group] for group in ranks.values()]
    everything = [rank for group in groups for rank in group]
    mean = sum(everything) / len(everything)
    spread = sum((rank - mean) ** 2 for rank in everything)
    if len(groups) == 1 or spread == 0:
        return 1.0
    between = sum(len(group) * (sum(group) / len(group) - mean) ** 2 for group in groups)
    return float(chi2.sf((len(everything) - 1) * between / spread, len(groups) - 1))


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 50))
def test_raw_peer_is_the_mean_over_levels_of_the_p_of_raw_ranks(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    judged = rng.permutation(DOCIDS)[: int(rng.integers(1, 40))].tolist()
    qrels = {docid: int(rng.integers(-1, 4)) for docid in judged}
    found = rng.permutation(DOCIDS)[: int(rng.integers(1, 40))].tolist()
    levels: dict[int, dict[str, list[int | None]]] = {}
    for docid, relevance in qrels.items():
        if relevance > 0:
            rank = found.index(docid) + 1 if docid in found[:k] else None
            levels.setdefault(relevance, {}).setdefault(DOC_LANGS[docid], []).append(rank)
    expected = [raw_rank_p(groups, k) for groups in levels.values()] or [1.0]
    run, topics = Run.from_hits("r", {"q": falling(*found)}), make_topics({"q": qrels}, {"q": "de"})
    values, compared, sensitive = peer_topics(run, topics, DOC_LANGS, k, raw=True)
    result = peer_raw(run, topics, DOC_LANGS, k)
    assert values.tolist() == [pytest.approx(sum(expected) / len(expected), abs=1e-9)]
    assert result.mean == values[0]
    assert compared == any(len(groups) > 1 for groups in levels.values())
    assert (
        result.sensitive
        == sensitive
        == any(len(groups) > 1 and max(map(len, groups.values())) > 1 for groups in levels.values())
    )


def test_raw_ranks_by_hand() -> None:
    topics = one_topic("de:00", "de:01", "en:00", "en:01")
    near = Run.from_hits("r", {"q": falling("de:00", "de:01", "en:00", "en:01")})
    # Ranks 1 2 | 3 4: between 4, in all 5.
    assert peer_raw(near, topics, DOC_LANGS, 20).mean == pytest.approx(chi2.sf(3 * 4 / 5, 1))
    fillers = [f"fi:{number:02}" for number in range(12)] + [f"ja:{number:02}" for number in range(4)]
    far = Run.from_hits("r", {"q": falling("de:00", "de:01", "en:00", *fillers, "en:01")})
    # Ranks 1 2 | 3 20: between 100, in all 245. To the test proper they are 1 2 | 3 4 again.
    assert peer_raw(far, topics, DOC_LANGS, 20).mean == pytest.approx(chi2.sf(3 * 100 / 245, 1))
    assert peer(far, topics, DOC_LANGS, 20).mean == peer(near, topics, DOC_LANGS, 20).mean
    # At 10, the one that is missing has rank 11.
    assert peer_raw(far, topics, DOC_LANGS, 10).mean == pytest.approx(chi2.sf(3 * 30.25 / 62.75, 1))
    # At 2, the two that are missing have rank 3.5 both.
    assert peer_raw(far, topics, DOC_LANGS, 2).mean == pytest.approx(chi2.sf(3 * 4 / 4.5, 1))


def test_raw_peer_takes_each_relevance_level_by_itself() -> None:
    order = ["de:00", "de:01", "en:00", "en:01"]
    run = Run.from_hits("r", {"q": falling(*order)})
    apart = make_topics({"q": {"de:00": 2, "en:00": 2, "de:01": 1, "en:01": 1}}, {"q": "de"})
    # One document a language and level: H is 1 whatever the order.
    found = peer_raw(run, apart, DOC_LANGS, 20)
    assert found.mean == pytest.approx(chi2.sf(1, 1))
    assert found.sensitive == 0
    assert peer_topics(run, apart, DOC_LANGS, 20, raw=True).compared == 1
    mixed = make_topics({"q": {"de:00": 1, "de:01": 1, "en:00": 1, "en:01": 3}}, {"q": "de"})
    # Level 1 has ranks 1 2 | 3: between 1.5, in all 2. Level 3 has one language: 1.
    assert peer_raw(run, mixed, DOC_LANGS, 20).mean == pytest.approx((chi2.sf(2 * 1.5 / 2, 1) + 1) / 2)
    by_level = make_topics({"q": {"de:00": 1, "en:00": 2}}, {"q": "de"})
    assert peer_topics(run, by_level, DOC_LANGS, 20, raw=True).compared == 0
    assert peer_topics(run, by_level, DOC_LANGS, 20).compared == 1


def test_raw_peer_is_one_where_there_is_nothing_to_compare() -> None:
    run = Run.from_hits("r", {"q": falling("fi:00")})
    for topics in (one_topic("de:00", "de:01"), one_topic("de:00", "en:00", "en:01"), one_topic()):
        assert peer_topics(run, topics, DOC_LANGS, 10, raw=True).values.tolist() == [1]
    with pytest.raises(DataError, match="'xx:00' has no language among the 48 given"):
        peer_raw(run, one_topic("xx:00", "de:00"), DOC_LANGS, 5)


def parallel(hits: dict[str, dict[str, float]], extra: tuple[str, ...] = ()) -> tuple[Run, Topics]:
    """Queries LANG:TEXT; all versions of a text have the same relevant documents."""
    ids = (*hits, *extra)
    qrels = {query: {f"{language}:{query[3:]}": 1 for language in LANGS} for query in ids}
    return Run.from_hits("r", hits), make_topics(qrels, {query: query[:2] for query in ids})


def expected_mrc(run: Run, k: int) -> dict[str, float]:
    """Per query, by scipy; the means over languages are taken by the test."""
    orders = {query: [d.decode() for d in ranking.docids] for query, ranking in run.queries.items()}
    scores = {query: dict(zip(orders[query], run.queries[query].scores, strict=True)) for query in orders}
    lowest = -1e9
    values: dict[str, list[float]] = {query: [] for query in orders}
    for a, b in combinations(orders, 2):
        if a[3:] == b[3:]:
            union = sorted(set(orders[a][:k]) | set(orders[b][:k]))
            x, y = ([float(scores[q].get(docid, lowest)) for docid in union] for q in (a, b))
            if len(set(x)) > 1 and len(set(y)) > 1:
                rho = float(spearmanr(x, y).statistic)
            else:
                rho = float(len(set(x)) == len(set(y)))
            values[a].append(rho)
            values[b].append(rho)
    return {query: 100 * sum(found) / len(found) for query, found in values.items() if found}


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 12), ties=st.booleans())
def test_mrc_is_the_mean_of_spearmans_correlations(seed: int, k: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    hits = {}
    for text in range(3):
        for language in rng.permutation(LANGS)[: int(rng.integers(2, 5))]:
            found = rng.permutation(DOCIDS[:20])[: int(rng.integers(1, 20))]
            hits[f"{language}:{text:02}"] = {
                str(docid): float(rng.integers(0, 5) if ties else rng.random()) for docid in found
            }
    run, topics = parallel(hits)
    result = mrc(run, topics, k)
    expected = expected_mrc(run, k)
    values = mrc_topics(run, topics, k).values
    assert dict(zip(topics.query_ids, values, strict=True)) == pytest.approx(expected, abs=1e-9)
    per_language = {
        language: np.mean([value for query, value in expected.items() if query[:2] == language])
        for language in topics.languages
    }
    assert result.per_language == pytest.approx(per_language)
    assert result.mean == pytest.approx(np.mean(list(per_language.values())))
    assert -100 <= result.mean <= 100
    assert (result.topics, result.missing) == (len(hits), 0)


def test_mrc_of_identical_and_of_opposite_rankings() -> None:
    same = mrc(*parallel({f"{language}:00": falling(*DOCIDS[:30]) for language in LANGS}), 20)
    assert same.mean == same.per_language["ja"] == 100
    assert {value for _, _, value in same.per_pair} == {100}
    assert len(same.per_pair) == 6
    assert same.unscored == 0
    run, topics = parallel({"de:00": falling(*DOCIDS[:20]), "en:00": falling(*reversed(DOCIDS[:20]))})
    assert mrc(run, topics, 20).mean == -100
    swapped = parallel({"de:00": falling(*reversed(DOCIDS[:20])), "en:00": falling(*DOCIDS[:20])})
    assert mrc(*swapped, 20).mean == -100


def test_mrc_uses_scores_below_the_cutoff() -> None:
    deep = parallel({"de:00": falling("a", "b", "c", "d"), "en:00": falling("c", "a", "b", "d")})
    # Union at 2: a, b, c. Ranks 1 2 3 against 2 3 1.
    found = mrc(*deep, 2)
    assert found.mean == pytest.approx(100 * (1 - 6 * (1 + 1 + 4) / (3 * 8)))
    assert found.unscored == 0
    # Cut at 2 each side lacks one: scores 2 1 0 against 1 0 2.
    cut = mrc(*parallel({"de:00": falling("a", "b"), "en:00": falling("c", "a")}), 2)
    assert cut.mean == pytest.approx(100 * -0.5)
    assert cut.unscored == pytest.approx(2 / 6)
    # Nothing in common: 4 3 1.5 1.5 against 1.5 1.5 4 3, that is 1.5 .5 -1 -1 and -1 -1 1.5 .5 from the mean.
    apart = mrc(*parallel({"de:00": falling("b", "a"), "en:00": falling("d", "c")}), 2)
    assert apart.mean == pytest.approx(-100 * 4 / 4.5)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 8))
def test_similarities_make_a_shallow_run_as_good_as_a_deep_one(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    scores = {
        f"{language}:{text:02}": dict(zip(DOCIDS, rng.permutation(len(DOCIDS)).tolist(), strict=True))
        for language in LANGS
        for text in range(2)
    }
    run, topics = parallel(scores)
    deep = mrc(run, topics, k)
    cut = Run(
        "cut", {query: Ranking(hits.docids[:k], hits.scores[:k]) for query, hits in run.queries.items()}
    )

    def similarity(query: str, ids: NDArray[np.bytes_]) -> NDArray[np.float32]:
        return np.float32([scores[query][one.decode()] for one in ids])

    exact = mrc(cut, topics, k, similarity)
    np.testing.assert_array_equal(
        mrc_topics(cut, topics, k, similarity).values, mrc_topics(run, topics, k).values
    )
    assert deep.unscored == exact.unscored == 0 < mrc(cut, topics, k).unscored


def value_of(**hits: dict[str, float]) -> MrcResult:
    return mrc(*parallel({f"{language}:00": docs for language, docs in hits.items()}, ("de:00", "en:00")), 5)


def test_mrc_where_spearman_is_not_defined() -> None:
    assert value_of(de=falling("a"), en=falling("a")).mean == 100
    assert value_of(de={"a": 1.0, "b": 1.0}, en={"a": 2.0, "b": 1.0}).mean == 0
    nothing = value_of(de=falling("a", "b"))
    assert (nothing.mean, nothing.topics, nothing.missing) == (0, 2, 1)
    assert value_of(de={}, en={}).missing == 2


def test_versions_of_a_query_have_its_id_and_its_relevant_documents() -> None:
    """Ids that agree by chance (MIRACL's) and two questions on one passage are no versions."""
    passage = {"de:01": 1, "en:01": 1}
    qrels = {
        "de:1": passage,
        "en:1": passage,
        "de:2": passage,
        "en:2": passage,
        "de:3": {"de:05": 1},
        "en:3": {"en:06": 1},
    }
    hits = {query: falling("a", "b", "c") for query in qrels}
    hits["de:2"] = hits["en:2"] = falling("c", "b", "a")
    topics = make_topics(qrels, {query: query[:2] for query in qrels})
    run = Run.from_hits("r", hits)
    found = mrc(run, topics, 3)
    per_topic = dict(zip(topics.query_ids, mrc_topics(run, topics, 3).values.tolist(), strict=True))
    assert np.isnan([per_topic.pop("de:3"), per_topic.pop("en:3")]).all()
    assert set(per_topic.values()) == {100}
    assert found.topics == 4
    alone = make_topics({"de:3": {"de:05": 1}, "en:3": {"en:06": 1}}, {"de:3": "de", "en:3": "en"})
    with pytest.raises(DataError, match="none of 2 topics has versions in two languages, expected parallel"):
        mrc(Run.from_hits("r", hits), alone, 3)


def test_languages_weigh_the_same_however_many_queries_they_have() -> None:
    forward, backward = falling("a", "b", "c"), falling("c", "b", "a")
    hits = {f"{language}:{text:02}": forward for language in ("de", "en") for text in range(3)}
    hits["fi:00"] = backward
    found = mrc(*parallel(hits), 3)
    # Text 0: de and en have (100 - 100) / 2, fi has -100; texts 1 and 2 have 100.
    assert found.per_language == pytest.approx({"de": 200 / 3, "en": 200 / 3, "fi": -100})
    assert found.mean == pytest.approx(100 / 9)
    assert found.per_pair == (("de", "en", 100), ("de", "fi", -100), ("en", "fi", -100))
