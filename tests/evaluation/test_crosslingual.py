"""The cross-lingual gap against nDCG in plain Python, on lists made by the definition."""

from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.core.errors import DataError
from mimo_plugin.evaluation.language import cross_lingual_gap
from mimo_plugin.evaluation.runs import Run
from mimo_plugin.evaluation.topics import make_topics

LANGS = ("de", "en", "fi")
DOC_LANGS = {f"{language}:{number}": language for language in LANGS for number in range(6)}
DOCIDS = sorted(DOC_LANGS)


def falling(*docids: str) -> dict[str, float]:
    """Hits in this order."""
    return {docid: float(-rank) for rank, docid in enumerate(docids)}


def ndcg(order: list[str], gains: dict[str, int], k: int) -> float:
    def dcg(values: list[int]) -> float:
        return sum(gain / log2(rank + 1) for rank, gain in enumerate(values[:k], start=1))

    return dcg([gains.get(docid, 0) for docid in order]) / dcg(sorted(gains.values(), reverse=True))


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 12))
def test_each_kind_without_the_other_kinds_relevant_documents(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    queries = {f"{language}:{number}": language for language in LANGS for number in range(4)}
    qrels, hits = {}, {}
    values: dict[str, list[tuple[float, float]]] = {}
    for query, language in queries.items():
        judged = rng.permutation(DOCIDS)[: int(rng.integers(1, 10))].tolist()
        qrels[query] = {docid: int(rng.integers(-1, 4)) for docid in judged}
        order = rng.permutation(DOCIDS)[: int(rng.integers(0, 18))].tolist()
        hits[query] = falling(*order)
        kinds: tuple[dict[str, int], dict[str, int]] = ({}, {})
        for docid, relevance in qrels[query].items():
            if relevance > 0:
                kinds[DOC_LANGS[docid] != language][docid] = relevance
        own, other = kinds
        if own and other:
            values.setdefault(language, []).append(
                (
                    ndcg([docid for docid in order if docid not in other], own, k),
                    ndcg([docid for docid in order if docid not in own], other, k),
                )
            )
    run, topics = Run.from_hits("r", hits), make_topics(qrels, queries)
    if not values:
        with pytest.raises(DataError, match="none of 12 topics has relevant documents both in"):
            cross_lingual_gap(run, topics, DOC_LANGS, k)
        return
    found = cross_lingual_gap(run, topics, DOC_LANGS, k)
    everything = [pair for pairs in values.values() for pair in pairs]
    assert str(found.measure) == f"ndcg@{k}"
    assert (found.queries, found.left_out) == (len(everything), 12 - len(everything))
    for gap, pairs in [
        (found, everything),
        *((found.per_language[name], values[name]) for name in values),
    ]:
        same, other_mean = (sum(side) / len(pairs) for side in zip(*pairs, strict=True))
        assert (gap.same, gap.other, gap.queries) == (
            pytest.approx(same),
            pytest.approx(other_mean),
            len(pairs),
        )
        assert gap.gap == pytest.approx(same - other_mean)
    assert found.per_language.keys() == values.keys()


def test_by_hand() -> None:
    topics = make_topics({"q": {"de:0": 1, "en:0": 1, "fi:0": 1, "de:1": 0}}, {"q": "de"})

    def gap(*order: str) -> tuple[float, float]:
        found = cross_lingual_gap(Run.from_hits("r", {"q": falling(*order)}), topics, DOC_LANGS, 20)
        return found.same, found.other

    # However the relevant documents lie among themselves, nothing is wrong with a run that puts them first.
    assert gap("en:0", "fi:0", "de:0") == gap("de:0", "en:0", "fi:0", "de:1") == (1, 1)
    # German first, whether right or wrong: the right ones of other languages come behind the wrong German.
    ideal = 1 + 1 / log2(3)
    assert gap("de:0", "de:1", "de:2", "en:0", "fi:0") == (
        1,
        pytest.approx((1 / log2(4) + 1 / log2(5)) / ideal),
    )
    # The other way round.
    assert gap("en:0", "fi:0", "en:1", "de:0") == (pytest.approx(1 / log2(3)), 1)
    assert gap("fi:1") == (0, 0)


def test_topics_with_one_kind_are_left_out() -> None:
    qrels = {
        "de:1": {"de:0": 1, "en:0": 1},
        "de:2": {"de:0": 1, "en:0": 0},
        "en:1": {"de:0": 1},
        "fi:1": {"fi:0": 0},
        "fi:2": {"fi:0": 1, "en:0": 1},
    }
    topics = make_topics(qrels, {query: query[:2] for query in qrels})
    run = Run.from_hits("r", {query: falling("de:0", "en:0") for query in list(qrels)[:4]})
    found = cross_lingual_gap(run, topics, DOC_LANGS, 10)
    assert (found.queries, found.left_out) == (2, 3)
    # fi:2 has no hit: 0 on both sides.
    assert {name: (gap.same, gap.other) for name, gap in found.per_language.items()} == {
        "de": (1, 1),
        "fi": (0, 0),
    }
    assert (found.same, found.gap) == (0.5, 0)


def test_judged_in_one_language_only() -> None:
    topics = make_topics({"q": {"de:0": 1}, "p": {"de:1": 1}}, {"q": "de", "p": "en"})
    with pytest.raises(
        DataError, match="none of 2 topics has relevant documents both in its own language and"
    ):
        cross_lingual_gap(Run.from_hits("r", {"q": falling("de:0")}), topics, DOC_LANGS, 10)
    with pytest.raises(DataError, match="'xx:0' has no language among the 18 given"):
        cross_lingual_gap(Run("r", {}), make_topics({"q": {"xx:0": 1}}, {"q": "de"}), DOC_LANGS, 10)
