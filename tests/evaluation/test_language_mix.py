"""The languages of the top k, and the run of the query's own language."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.core.errors import DataError
from mimo_plugin.evaluation.language import language_mix, same_language
from mimo_plugin.evaluation.measures import average, parse_measures, score_run
from mimo_plugin.evaluation.runs import Run
from mimo_plugin.evaluation.topics import make_topics

LANGS = ("de", "en", "fi")
DOC_LANGS = {f"{language}:{number}": language for language in LANGS for number in range(6)}


def falling(*docids: str) -> dict[str, float]:
    """Hits in this order."""
    return {docid: float(-rank) for rank, docid in enumerate(docids)}


def test_by_hand() -> None:
    hits = {
        "de:1": falling("de:1", "de:2", "en:1", "fi:1", "fi:2"),
        "de:2": falling("en:1", "fi:1"),
        "en:1": falling("en:1", "en:2", "en:3", "en:4", "de:1"),
        "sv:1": falling("de:1", "de:2", "fi:1"),
        "else": falling("not a document"),
    }
    queries = {query: query[:2] for query in (*list(hits)[:4], "fi:1", "fi:2")}
    mix = language_mix(Run.from_hits("r", hits), queries, DOC_LANGS, 4)
    assert (mix.query_languages, mix.doc_languages) == (("de", "en", "sv"), LANGS)
    assert (mix.queries, mix.without_hits) == (4, 2)
    assert mix.own == pytest.approx((2 / 4 + 0 + 1 + 0) / 4)
    assert [list(row) for row in mix.shares] == [
        pytest.approx([0.25, 0.375, 0.375]),
        [0, 1, 0],
        pytest.approx([2 / 3, 0, 1 / 3]),
    ]
    third = np.log(3)
    entropies = [1.5 * np.log(2) / third, np.log(2) / third, 0, (np.log(3) - 2 / 3 * np.log(2)) / third]
    assert mix.entropy == pytest.approx(sum(entropies) / 4)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 20))
def test_bounds_and_sums(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    docids = sorted(DOC_LANGS)
    queries = {f"{language}:{number}": language for language in LANGS for number in range(3)}
    hits = {
        query: {docid: rng.random() for docid in rng.permutation(docids)[: int(rng.integers(1, 12))]}
        for query in queries
    }
    mix = language_mix(Run.from_hits("r", hits), queries, DOC_LANGS, k)
    np.testing.assert_allclose(np.sum(mix.shares, axis=1), 1)
    # As many queries a language: the diagonal's mean is the share of the own language.
    assert mix.own == pytest.approx(np.trace(mix.shares) / len(LANGS))
    assert 0 <= mix.entropy <= 1 + 1e-12


def test_entropy_at_its_ends() -> None:
    even = Run.from_hits("even", {"q": falling(*DOC_LANGS)})
    assert language_mix(even, {"q": "de"}, DOC_LANGS, 18).entropy == pytest.approx(1)
    assert language_mix(even, {"q": "de"}, DOC_LANGS, 6).entropy == 0
    alone = language_mix(even, {"q": "de"}, dict.fromkeys(DOC_LANGS, "de"), 18)
    assert (alone.own, alone.entropy) == (1, 0)


def test_nothing_to_count() -> None:
    run = Run.from_hits("r", {"q": {"sv:9": 1.0}})
    with pytest.raises(DataError, match="run 'r' has no hit for any of 1 queries, expected the run of these"):
        language_mix(run, {"other": "de"}, DOC_LANGS, 5)
    with pytest.raises(DataError, match="'sv:9' has no language among the 18 given"):
        language_mix(run, {"q": "de"}, DOC_LANGS, 5)


def test_same_language_keeps_the_own_languages_part() -> None:
    qrels = {
        "de:1": {"de:1": 1, "de:2": 0, "en:1": 1},
        "en:1": {"de:1": 1, "en:1": 1},
        "fi:1": {"de:1": 1, "en:1": 1},
        "fi:2": {"fi:2": 1},
        "en:2": {"en:2": 0, "de:2": 1},
    }
    hits = {
        "de:1": falling("en:1", "en:2", "de:2", "fi:1", "de:1"),
        "en:1": falling("en:1", "de:1"),
        "fi:1": falling("de:1"),
        "fi:2": falling("de:1", "de:2"),
        "no topic": falling("de:1"),
    }
    topics = make_topics(qrels, {query: query[:2] for query in qrels if query != "fi:2"} | {"fi:2": "fi"})
    run, own = same_language(Run.from_hits("r", hits), topics, DOC_LANGS)
    assert own.query_ids == ("de:1", "en:1", "fi:2")
    assert own.counts == {"de": 1, "en": 1, "fi": 1}
    assert [judged.docids.tolist() for judged in own.judged] == [[b"de:1", b"de:2"], [b"en:1"], [b"fi:2"]]
    assert {query: ranking.docids.tolist() for query, ranking in run.queries.items()} == {
        "de:1": [b"de:2", b"de:1"],
        "en:1": [b"en:1"],
    }
    (ndcg,) = parse_measures("ndcg@20")
    scores = score_run(run, own, [ndcg]).per_topic[ndcg]
    assert scores.tolist() == pytest.approx([1 / np.log2(3), 1, 0])
    # de:1 and en:1 are versions of one query; that the filter gave them other documents does not part them.
    versions = dict(zip(topics.query_ids, topics.block_of.tolist(), strict=True))
    left = dict(zip(own.query_ids, own.block_of.tolist(), strict=True))
    assert (versions["de:1"] == versions["en:1"]) is (left["de:1"] == left["en:1"]) is True
    assert average(scores, own).per_language["fi"] == 0


def test_one_language_is_left_as_it_is() -> None:
    rng = np.random.default_rng(4)
    qrels = {f"q{number}": {f"de:{rng.integers(6)}": 1} for number in range(9)}
    hits = {query: {f"de:{number}": rng.random() for number in range(6)} for query in qrels}
    topics = make_topics(qrels, dict.fromkeys(qrels, "de"))
    whole = Run.from_hits("r", hits)
    run, own = same_language(whole, topics, DOC_LANGS)
    measures = parse_measures("ndcg@20")
    np.testing.assert_array_equal(
        score_run(run, own, measures).per_topic[measures[0]],
        score_run(whole, topics, measures).per_topic[measures[0]],
    )
    assert own.query_ids == topics.query_ids


def test_no_topic_in_its_own_language() -> None:
    topics = make_topics({"q": {"de:1": 1}}, {"q": "German"})
    with pytest.raises(DataError, match="none of 1 topics has a relevant document in its own language"):
        same_language(Run.from_hits("r", {"q": {"de:1": 1.0}}), topics, DOC_LANGS)
