"""AWRF against its formula in plain Python."""

from collections import Counter
from math import log, log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.core.errors import DataError
from mimo_plugin.evaluation.fairness import Target, awrf, awrf_topics
from mimo_plugin.evaluation.runs import Run
from mimo_plugin.evaluation.topics import make_topics

LANGS = ("de", "en", "fi")
DOC_LANGS = {f"{language}:{number}": language for language in LANGS for number in range(6)}
DOCIDS = sorted(DOC_LANGS)


def falling(*docids: str) -> dict[str, float]:
    """Hits in this order."""
    return {docid: float(-rank) for rank, docid in enumerate(docids)}


def divergence(x: dict[str, float], y: dict[str, float]) -> float:
    total = 0.0
    for name in x.keys() | y.keys():
        a, b = x.get(name, 0.0) / sum(x.values()), y.get(name, 0.0) / sum(y.values())
        total += sum(share * log(2 * share / (a + b)) for share in (a, b) if share) / 2
    return total


def expected(order: list[str], target: dict[str, float]) -> float:
    exposure: dict[str, float] = {}
    for rank, docid in enumerate(order, start=1):
        attention = 1.0 if rank == 1 else 1 / log2(rank)
        exposure[DOC_LANGS[docid]] = exposure.get(DOC_LANGS[docid], 0.0) + attention
    return 1 - divergence(exposure, target)


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 20), target=st.sampled_from(Target))
def test_one_less_the_divergence_of_exposure_and_target(seed: int, k: int, target: Target) -> None:
    rng = np.random.default_rng(seed)
    sizes = dict(zip(LANGS, rng.integers(1, 100, 3).tolist(), strict=True))
    queries = {f"{language}:{number}": language for language in LANGS for number in range(3)}
    qrels, hits, values = {}, {}, {}
    for query in queries:
        judged = rng.permutation(DOCIDS)[: int(rng.integers(1, 12))].tolist()
        qrels[query] = {docid: int(rng.integers(-1, 3)) for docid in judged}
        order = rng.permutation(DOCIDS)[: int(rng.integers(0, 12))].tolist()
        hits[query] = falling(*order)
        relevant = [DOC_LANGS[docid] for docid, relevance in qrels[query].items() if relevance > 0]
        wanted = {
            Target.RELEVANT: dict(Counter(relevant)),
            Target.COLLECTION: sizes,
            Target.UNIFORM: dict.fromkeys(LANGS, 1),
        }[target]
        if order and wanted:
            values[query] = expected(order[:k], wanted)
    topics = make_topics(qrels, queries)
    run = Run.from_hits("r", hits)
    if not values:
        with pytest.raises(DataError, match="none of 9 topics has a hit"):
            awrf(run, topics, DOC_LANGS, k, target, sizes)
        return
    found = awrf(run, topics, DOC_LANGS, k, target, sizes)
    by_topic = awrf_topics(run, topics, DOC_LANGS, k, target, sizes).tolist()
    per_topic = dict(zip(topics.query_ids, by_topic, strict=True))
    assert {query: value for query, value in per_topic.items() if value == value} == pytest.approx(
        values, abs=1e-12
    )
    assert (found.queries, found.target) == (len(values), target)
    assert found.mean == pytest.approx(sum(values.values()) / len(values))
    by_language = {name: [values[query] for query in values if query[:2] == name] for name in LANGS}
    assert found.per_language == pytest.approx(
        {name: sum(part) / len(part) for name, part in by_language.items() if part}
    )
    assert 1 - log(2) - 1e-12 <= min(values.values()) <= max(values.values()) <= 1 + 1e-12


def value(order: list[str], relevant: list[str], k: int = 20, **options: object) -> float:
    topics = make_topics({"q": dict.fromkeys(relevant, 1)}, {"q": "de"})
    return awrf(Run.from_hits("r", {"q": falling(*order)}), topics, DOC_LANGS, k, **options).mean


def test_by_hand() -> None:
    # The first two ranks have the same attention, the third log(2) / log(3) of it.
    assert value(["de:0", "en:0"], ["de:5", "en:5"]) == 1
    assert value(["en:0", "de:0", "fi:0"], ["de:5", "en:5"], k=2) == 1
    assert value(["de:0", "de:1"], ["en:5"]) == pytest.approx(1 - log(2)) == pytest.approx(0.30685, abs=1e-5)
    third = log(2) / log(3)
    fi = third / (2 + third)
    quarter = (fi + 0) / 2
    wanted = 1 - (fi * log(fi / quarter) + (1 - fi) * log((1 - fi) / (1 - quarter)) - log(1 - quarter)) / 2
    assert value(["de:0", "de:1", "fi:0"], ["de:5"]) == pytest.approx(wanted)


def test_the_targets_are_different_questions() -> None:
    german = ["de:0", "de:1", "de:2"]
    assert value(german, ["de:3"], target=Target.RELEVANT) == 1
    assert value(german, ["de:3"], target=Target.UNIFORM) < 0.7
    skewed = {"de": 98, "en": 1, "fi": 1}
    assert 0.98 < value(german, ["de:3"], target=Target.COLLECTION, collection=skewed) < 1
    # The languages of the collection count, not those that happen to be in run and qrels.
    two, fourteen = {"de": 5, "en": 5}, dict.fromkeys(("de", "en", *map(str, range(12))), 5)
    assert value(german, ["de:3"], target=Target.UNIFORM, collection=two) > value(
        german, ["de:3"], target=Target.UNIFORM, collection=fourteen
    )
    assert value(german, ["de:3"], target=Target.COLLECTION) == value(
        german, ["de:3"], target=Target.COLLECTION, collection=dict.fromkeys(LANGS, 6)
    )


def test_topics_that_show_or_ask_nothing_are_left_out() -> None:
    qrels = {"de:1": {"de:0": 1}, "de:2": {"de:0": 0}, "en:1": {"de:0": 1}}
    topics = make_topics(qrels, {query: query[:2] for query in qrels})
    run = Run.from_hits("r", {"de:1": falling("de:1"), "de:2": falling("en:1")})
    found = awrf(run, topics, DOC_LANGS, 5)
    assert (found.mean, found.queries, found.per_language) == (1, 1, {"de": 1})
    assert np.isnan(awrf_topics(run, topics, DOC_LANGS, 5)).tolist() == [False, True, True]
    assert awrf(run, topics, DOC_LANGS, 5, Target.UNIFORM).queries == 2
    nothing = make_topics({"q": {"de:0": 0}}, {"q": "de"})
    hit = Run.from_hits("r", {"q": falling("de:0")})
    with pytest.raises(
        DataError, match="none of 1 topics has a hit and a relevant document, which AWRF needs"
    ):
        awrf(hit, nothing, DOC_LANGS, 5)
    with pytest.raises(DataError, match="none of 3 topics has a hit, which AWRF needs"):
        awrf(Run("r", {}), topics, DOC_LANGS, 5, Target.UNIFORM)


def test_a_document_without_a_language() -> None:
    topics = make_topics({"q": {"de:0": 1}}, {"q": "de"})
    with pytest.raises(DataError, match="'xx:0' has no language among the 18 given"):
        awrf(Run.from_hits("r", {"q": falling("xx:0")}), topics, DOC_LANGS, 5)
