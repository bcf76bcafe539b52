"""Which texts are drawn: parallel ones where judgments confirm them, whatever the collection's order."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.beir import write_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.benchmark.settings import Role
from mimo_plugin.benchmark.texts import SampledTexts, sample_texts
from mimo_plugin.collections.pool import load
from mimo_plugin.core.errors import DataError

LANGS = ("de", "en", "fi")


def documents(texts: int = 9) -> list[dict[str, str]]:
    """Text n is in all languages where n is a multiple of 3, else in two of them."""
    return [
        {"_id": f"{lang}:{number}", "text": f"{lang} text {number}", "lang": lang}
        for number in range(texts)
        for at, lang in enumerate(LANGS)
        if number % 3 == 0 or number % 3 != at
    ]


def parallel(directory: Path, docs: Sequence[dict[str, str]]) -> Any:
    queries = [{"_id": "de:0", "text": "what", "lang": "de"}]
    qrels = {"de:0": {doc["_id"]: 1 for doc in docs if doc["_id"].endswith(":0")}}
    return load(write_folder(directory, docs, queries, qrels))


def drawn(texts: SampledTexts) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for group, lang in zip(texts.groups, texts.languages, strict=True):
        found.setdefault(group, set()).add(lang)
    return found


def test_texts_in_many_languages_come_first(tmp_path: Path) -> None:
    texts = sample_texts(parallel(tmp_path / "c", documents()), ["c"], count=4, seed=1)
    groups = drawn(texts)
    assert texts.alone is None
    assert list(map(len, groups.values())) == [3, 3, 3, 2]
    assert set(list(groups)[:3]) == {"0", "3", "6"}
    assert texts.texts == tuple(f"{i.partition(':')[0]} text {i.partition(':')[2]}" for i in texts.ids)
    assert (len(groups), texts.counts["de"]) == (4, texts.languages.count("de"))
    # Whole texts only.
    assert [texts.first(most) for most in (1, 3, 5, 6, 10, 11, 99)] == [3, 3, 3, 6, 9, 11, 11]


@settings(max_examples=10)
@given(order=st.permutations(documents()), seed=st.integers(0, 5))
def test_the_order_of_the_collection_plays_no_part(
    tmp_path_factory: pytest.TempPathFactory, order: list[dict[str, str]], seed: int
) -> None:
    directory = tmp_path_factory.mktemp("order")
    straight, shuffled = (
        sample_texts(parallel(directory / name, docs), ["c"], count=5, seed=seed)
        for name, docs in (("straight", documents()), ("shuffled", order))
    )
    assert straight == shuffled


def test_the_seed_decides(tmp_path: Path) -> None:
    pool = parallel(tmp_path / "c", documents(60))
    ids = [sample_texts(pool, ["c"], count=5, seed=seed).ids for seed in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]


def test_the_packaged_sample() -> None:
    pool = load("mimo-sample")
    for role, field in ((Role.DOCUMENTS, pool.docs_iter), (Role.QUERIES, pool.queries_iter)):
        texts = sample_texts(pool, ["mimo-sample"], role=role, count=50)
        own = {record[0]: record for record in field()}
        assert len(set(texts.groups)) == 50
        assert all(len(langs) >= 5 for langs in drawn(texts).values())
        assert [own[i][1:] for i in texts.ids] == list(zip(texts.texts, texts.languages, strict=True))
        rest = [i.partition(":")[2] for i in texts.ids]
        assert len(set(zip(texts.groups, rest, strict=True))) == 50


def test_several_questions_of_one_passage_are_different_texts(tmp_path: Path) -> None:
    docs = [{"_id": f"{lang}:p", "text": lang, "lang": lang} for lang in LANGS]
    queries = [
        {"_id": f"{lang}:q{n}", "text": f"{lang} {n}", "lang": lang} for lang in LANGS for n in range(2)
    ]
    qrels = {query["_id"]: {doc["_id"]: 1 for doc in docs} for query in queries}
    pool = load(write_folder(tmp_path / "c", docs, queries, qrels))
    texts = sample_texts(pool, ["c"], role=Role.QUERIES)
    assert {frozenset(langs) for langs in drawn(texts).values()} == {frozenset(LANGS)}
    assert len(set(texts.groups)) == 2
    for group in set(texts.groups):
        ids = [i for i, own in zip(texts.ids, texts.groups, strict=True) if own == group]
        assert len({i.partition(":")[2] for i in ids}) == 1


def test_ids_that_agree_by_chance_are_not_versions(tmp_path: Path) -> None:
    """A pool of monolingual collections: so many texts of each language, and the reason."""
    specs = []
    for lang in ("de", "fi"):
        docs = [{"_id": str(n), "text": f"{lang} {n}", "lang": lang} for n in range(20)]
        queries = [{"_id": "1", "text": "what", "lang": lang}]
        specs.append(write_folder(tmp_path / lang, docs, queries, {"1": {"1": 1, "2": 1}}))
    texts = sample_texts(load(*specs), specs, count=6)
    assert texts.counts == {"de": 6, "fi": 6}
    assert texts.groups == texts.ids
    assert texts.alone is not None
    assert "the collection is not parallel" in texts.alone
    assert sample_texts(load(*specs), specs, count=6).ids == texts.ids


def test_without_judgments(tmp_path: Path) -> None:
    texts = sample_texts(load(write_folder(tmp_path / "c", documents())), ["c"], count=2)
    assert texts.alone == (
        "the collection has no queries and no qrels, which tell documents that are versions of one text"
    )
    assert texts.counts == {"de": 2, "en": 2, "fi": 2}


def test_texts_that_cannot_be_used(tmp_path: Path) -> None:
    docs = documents()
    pool = parallel(
        tmp_path / "c", [*docs, {"_id": "x", "text": "no language"}, {"_id": "de:99", "text": " "}]
    )
    assert sample_texts(pool, ["c"]).left_out == 2
    pool = load(write_folder(tmp_path / "d", [{"_id": "x", "text": "no language"}]))
    with pytest.raises(DataError, match="name: 0 of 1 documents have both text and a language, expected two"):
        sample_texts(pool, ["name"])
