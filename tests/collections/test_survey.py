"""A part of a collection: which documents, queries and judgments it has."""

from pathlib import Path

import pytest
from helpers.beir import write_folder
from hypothesis import given
from hypothesis import strategies as st

from mimo_plugin.collections.pool import load
from mimo_plugin.collections.records import Doc, Query
from mimo_plugin.collections.survey import parse_docs, select, selected_pool
from mimo_plugin.core.errors import UsageError

LANGUAGES = ("de", "fi", "ja")


class Pool:
    """Documents d0.., each judged or not."""

    def __init__(self, docs: list[Doc], judged: set[str]) -> None:
        self._docs = docs
        self._judged = judged

    def docs_iter(self) -> list[Doc]:
        return self._docs

    def qrels_iter(self) -> list[object]:
        from ir_datasets.formats import TrecQrel

        return [TrecQrel("q", docid, 0, "0") for docid in sorted(self._judged)]


@given(
    count=st.integers(1, 60),
    judged=st.sets(st.integers(0, 59), max_size=20),
    distractors=st.integers(0, 12),
    seed=st.integers(0, 5),
    order=st.randoms(use_true_random=False),
)
def test_all_judged_and_so_many_others_a_language_whatever_the_order(
    count: int, judged: set[int], distractors: int, seed: int, order: object
) -> None:
    docs = [Doc(f"d{number}", "text", LANGUAGES[number % 3]) for number in range(count)]
    names = {f"d{number}" for number in judged}
    found = select(Pool(docs, names), distractors=distractors, seed=seed, progress=False)
    there = {doc.doc_id for doc in docs} & names
    assert found.judged == there
    assert found.docids is not None
    assert there <= found.docids
    for language in LANGUAGES:
        others = [doc for doc in docs if doc.lang == language and doc.doc_id not in names]
        assert sum(doc.doc_id in found.docids for doc in others) == min(distractors, len(others))
    shuffled = list(docs)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert select(Pool(shuffled, names), distractors=distractors, seed=seed, progress=False) == found


def test_the_seed_decides_the_others() -> None:
    docs = [Doc(f"d{number}", "text", "de") for number in range(200)]
    drawn = {select(Pool(docs, set()), distractors=20, seed=seed, progress=False).docids for seed in range(5)}
    assert len(drawn) == 5


def test_languages_take_their_queries_and_judgments_with_them(tmp_path: Path) -> None:
    docs = [
        {"_id": f"{lang}:{number}", "text": f"text {number}", "lang": lang}
        for lang in LANGUAGES
        for number in range(3)
    ]
    queries = [{"_id": f"{lang}:q", "text": "text", "lang": lang} for lang in LANGUAGES]
    qrels = {f"{lang}:q": {f"{other}:1": 1 for other in LANGUAGES} for lang in LANGUAGES}
    pool = load(write_folder(tmp_path / "folder", docs, queries, qrels))
    chosen = frozenset({"de", "fi"})
    part = selected_pool(pool, chosen, chosen, select(pool, languages=chosen, progress=False))
    assert {doc.lang for doc in part.docs_iter()} == chosen
    assert len(list(part.docs_iter())) == 6
    assert [query.query_id for query in part.queries_iter()] == ["de:q", "fi:q"]
    assert {(qrel.query_id, qrel.doc_id) for qrel in part.qrels_iter()} == {
        (f"{query}:q", f"{doc}:1") for query in chosen for doc in chosen
    }
    # Queries in a language of their own, as in CLIR, are all kept.
    clir = selected_pool(pool, chosen, None, select(pool, languages=chosen, progress=False))
    assert all(isinstance(query, Query) for query in clir.queries_iter())
    assert len(list(clir.queries_iter())) == 3
    assert {qrel.doc_id for qrel in clir.qrels_iter()} == {"de:1", "fi:1"}


@pytest.mark.parametrize("value", ["judged", "judged+", "all", "judged+-1", "judged+1.5", "100"])
def test_what_is_no_subset(value: str) -> None:
    with pytest.raises(UsageError, match=r"expected judged\+N"):
        parse_docs(value)


def test_a_subset() -> None:
    assert parse_docs("judged+1000") == 1000
