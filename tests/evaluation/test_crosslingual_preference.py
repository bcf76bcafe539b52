"""Same-language preference against shares counted in plain Python."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.core.errors import DataError
from mimo_plugin.evaluation.language import same_language_preference
from mimo_plugin.evaluation.runs import Run
from mimo_plugin.evaluation.topics import make_topics

LANGS = ("de", "en", "fi")
DOC_LANGS = {f"{language}:{number}": language for language in LANGS for number in range(6)}
DOCIDS = sorted(DOC_LANGS)


def falling(*docids: str) -> dict[str, float]:
    """Hits in this order."""
    return {docid: float(-rank) for rank, docid in enumerate(docids)}


def share(docids: list[str], language: str) -> float:
    return sum(DOC_LANGS[docid] == language for docid in docids) / len(docids)


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 12))
def test_observed_over_expected(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    queries = {f"{language}:{number}": language for language in LANGS for number in range(4)}
    qrels, hits = {}, {}
    shares: dict[str, list[tuple[float, float]]] = {}
    for query, language in queries.items():
        judged = rng.permutation(DOCIDS)[: int(rng.integers(1, 8))].tolist()
        qrels[query] = {docid: int(rng.integers(-1, 3)) for docid in judged}
        order = rng.permutation(DOCIDS)[: int(rng.integers(0, 12))].tolist()
        hits[query] = falling(*order)
        relevant = [docid for docid, relevance in qrels[query].items() if relevance > 0]
        if order and relevant and share(relevant, language):
            shares.setdefault(language, []).append((share(order[:k], language), share(relevant, language)))
    run, topics = Run.from_hits("r", hits), make_topics(qrels, queries)
    if not shares:
        with pytest.raises(DataError, match="none of 12 topics"):
            same_language_preference(run, topics, DOC_LANGS, k)
        return
    found = same_language_preference(run, topics, DOC_LANGS, k)
    everything = [pair for pairs in shares.values() for pair in pairs]
    assert found.mean == pytest.approx(sum(x for x, _ in everything) / sum(y for _, y in everything))
    assert found.per_language == pytest.approx(
        {name: sum(x for x, _ in pairs) / sum(y for _, y in pairs) for name, pairs in shares.items()}
    )
    assert (found.queries, found.left_out) == (len(everything), 12 - len(everything))
    assert found.mean >= 0


def test_by_hand() -> None:
    qrels = {
        "de:1": {"de:0": 1, "en:0": 1, "fi:0": 1, "fi:1": 2, "de:1": 0},
        "de:2": {"de:0": 1, "en:0": 1},
        "en:1": {"en:0": 1},
        "en:2": {"de:0": 1},
        "fi:1": {"fi:0": 0},
        "fi:2": {"fi:0": 1},
    }
    hits = {
        "de:1": falling("de:0", "de:5", "en:1", "fi:0", "fi:3"),
        "de:2": falling("de:0"),
        "en:1": falling("de:0", "en:0"),
        "en:2": falling("en:0"),
        "fi:1": falling("fi:0"),
    }
    topics = make_topics(qrels, {query: query[:2] for query in qrels})
    found = same_language_preference(Run.from_hits("r", hits), topics, DOC_LANGS, 4)
    # de: 2/4 and 1 observed, 1/4 and 1/2 expected; en: 1/2 for 1. Left out: nothing of its own language is
    # relevant (en:2), nothing at all (fi:1), no hit (fi:2).
    assert found.per_language == pytest.approx({"de": 2.0, "en": 0.5})
    assert found.mean == pytest.approx((0.5 + 1 + 0.5) / (0.25 + 0.5 + 1))
    assert (found.queries, found.left_out) == (3, 3)


def test_a_run_that_takes_relevant_documents_as_they_come_has_none() -> None:
    qrels = {f"{language}:q": dict.fromkeys(DOCIDS, 1) for language in LANGS}
    topics = make_topics(qrels, {query: query[:2] for query in qrels})
    run = Run.from_hits("r", {query: falling(*DOCIDS) for query in qrels})
    assert same_language_preference(run, topics, DOC_LANGS, len(DOCIDS)).mean == pytest.approx(1)
    # DOCIDS begins with German: at 6 German queries see three times their share, the others nothing.
    cut = same_language_preference(run, topics, DOC_LANGS, 6)
    assert cut.per_language == pytest.approx({"de": 3, "en": 0, "fi": 0})
    assert cut.mean == pytest.approx(1)


def test_languages_written_otherwise() -> None:
    topics = make_topics({"q": {"de:1": 1}}, {"q": "German"})
    with pytest.raises(
        DataError, match="none of 1 topics has a hit and a relevant document in its own language"
    ):
        same_language_preference(Run.from_hits("r", {"q": {"de:1": 1.0}}), topics, DOC_LANGS, 5)
    with pytest.raises(DataError, match="'xx:1' has no language among the 18 given"):
        same_language_preference(
            Run.from_hits("r", {"q": {"xx:1": 1.0}}),
            make_topics({"q": {"de:1": 1}}, {"q": "de"}),
            DOC_LANGS,
            5,
        )
