"""Collections in the layout of MTEB's tasks: a language by name, Parquet or JSON Lines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_mteb import Rows, tables, write_jsonl, write_mteb, write_parquet

from mimo_plugin.collections.folder import MTEB_PARTS
from mimo_plugin.collections.loading import open_collection, require
from mimo_plugin.collections.pool import load, pool_prefixes
from mimo_plugin.core.errors import DataError
from mimo_plugin.data.sources import collection_identity


def content(spec: str) -> tuple[set[Any], set[Any], set[Any]]:
    pool = load(spec)
    return (
        {(doc.doc_id, doc.text, doc.lang) for doc in pool.docs_iter()},
        {(query.query_id, query.text, query.lang) for query in pool.queries_iter()},
        {(qrel.query_id, qrel.doc_id, qrel.relevance) for qrel in pool.qrels_iter()},
    )


def expected(lang: str) -> tuple[set[Any], set[Any], set[Any]]:
    made = tables(lang)
    return (
        {(row["_id"], f"{row['title']} {row['text']}", lang) for row in made["corpus"]},
        {(row["_id"], row["text"], lang) for row in made["queries"]},
        {(row["query-id"], row["corpus-id"], row["score"]) for row in made["qrels"]},
    )


@pytest.mark.parametrize("write", [write_parquet, write_jsonl])
@pytest.mark.parametrize(
    "name",
    [
        "{lang}-{part}/dev-00000-of-00001",
        "{part}-{lang}/test",
        "{lang}/{part}/test-00000-of-00001",
        "{part}/{lang}",
        "{lang}-{part}",
        "{lang}/{part}",
    ],
)
def test_a_language_is_a_collection(write: Callable[[Path, Rows], None], name: str, tmp_path: Path) -> None:
    suffix = {write_parquet: "parquet", write_jsonl: "jsonl"}[write]
    for lang in ("ar", "de"):
        for part, rows in tables(lang).items():
            write(tmp_path / f"{name.format(lang=lang, part=part)}.{suffix}", rows)
    require([f"path:{tmp_path}/ar"], docs=True, queries=True, qrels=True)
    found = content(f"path:{tmp_path}/ar")
    if name == "{lang}/{part}" and suffix == "jsonl":
        # A folder in BEIR's layout, which says nothing of its language.
        assert [{row[:2] for row in part} for part in found] == [
            {row[:2] for row in part} for part in expected("ar")
        ]
    else:
        assert found == expected("ar")


def test_a_folder_without_languages(tmp_path: Path) -> None:
    for part, rows in tables("x").items():
        write_parquet(tmp_path / part / "test-00000-of-00001.parquet", rows)
    docs, queries, qrels = content(f"path:{tmp_path}")
    assert {doc[0] for doc in docs} == {"x0", "x1", "x2"}
    assert len(queries) == 3
    assert len(qrels) == 6


def test_languages_make_a_pool_of_their_own_names(tmp_path: Path) -> None:
    for lang in ("rus", "zho"):
        write_mteb(tmp_path, lang, "test")
    specs = [f"path:{tmp_path}/{lang}" for lang in ("rus", "zho")]
    assert pool_prefixes(specs) == {f"{tmp_path}/rus": "ru", f"{tmp_path}/zho": "zh"}
    pool = load(*specs)
    assert {(doc.doc_id[:3], doc.lang) for doc in pool.docs_iter()} == {("ru:", "ru"), ("zh:", "zh")}
    first, second = map(collection_identity, specs)
    assert (first["folder"], second["folder"]) == ("rus", "zho")
    assert len(first["files"]) == 3
    assert first["files"] != second["files"]


def test_topics_of_another_source(tmp_path: Path) -> None:
    for lang in ("rus", "zho"):
        write_mteb(tmp_path / "set", lang, "test")
    (tmp_path / "bench" / "data").mkdir(parents=True)
    (tmp_path / "bench" / "data" / "news.eng.tsv").write_text("0\tnull\n1\tone\n2\ttwo\n", encoding="utf-8")
    pool = load(
        *[f"path:{tmp_path}/set/{lang}" for lang in ("rus", "zho")],
        shared_topics=True,
        topic_source=f"path:{tmp_path}/bench/eng",
    )
    assert [tuple(query) for query in pool.queries_iter()] == [
        ("0", "null", "en"),
        ("1", "one", "en"),
        ("2", "two", "en"),
    ]
    judged = {(qrel.query_id, qrel.doc_id) for qrel in pool.qrels_iter() if qrel.relevance > 0}
    assert judged == {
        (str(n), f"{lang}:{own}{n}") for n in range(3) for lang, own in (("ru", "rus"), ("zh", "zho"))
    }


def test_splits(tmp_path: Path) -> None:
    made = tables("de")
    write_mteb(tmp_path, "de", "train", made)
    write_parquet(tmp_path / "de-qrels" / "dev-00000-of-00001.parquet", made["qrels"][:2])
    with pytest.raises(
        DataError, match=r"qrels for the splits dev, train and no 'test', .* such as path:.*/de#dev"
    ):
        open_collection(f"path:{tmp_path}/de")
    assert len(content(f"path:{tmp_path}/de#dev")[2]) == 2
    with pytest.raises(DataError, match="qrels have no split 'tset', expected one of dev, train"):
        open_collection(f"path:{tmp_path}/de#tset")


@pytest.mark.parametrize(
    ("part", "row", "message"),
    [
        ("corpus", {"_id": "a", "title": "t"}, "1: key 'text' is missing (keys found: '_id', 'title')"),
        ("queries", {"_id": "a b", "text": "t"}, "'a b' has white space"),
        ("qrels", {"query-id": "0", "corpus-id": "d", "score": 0.5}, "relevance 0.5, expected an integer"),
        ("qrels", {"query-id": "0", "corpus-id": "d"}, "key 'score' is missing"),
    ],
)
def test_what_is_wrong_is_said_with_its_file(part: str, row: Any, message: str, tmp_path: Path) -> None:
    write_mteb(tmp_path, "de", made=tables("de") | {part: [row]})
    with pytest.raises(DataError) as caught:
        content(f"path:{tmp_path}/de")
    assert message in str(caught.value)
    assert f"de-{part}/dev-00000-of-00001.parquet:1" in str(caught.value)


def test_a_cut_parquet_file(tmp_path: Path) -> None:
    write_mteb(tmp_path, "de")
    file = tmp_path / "de-corpus" / "dev-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"not a whole Parquet file .* fetch it again"):
        content(f"path:{tmp_path}/de")


def test_numbers_as_ids_and_nothing_as_text(tmp_path: Path) -> None:
    made = {
        "corpus": [{"_id": 7, "title": None, "text": "t"}, {"_id": 8, "title": "", "text": None}],
        "queries": [{"_id": 0, "text": "q"}],
        "qrels": [{"query-id": 0, "corpus-id": 7, "score": 1.0}],
    }
    assert set(made) == set(MTEB_PARTS)
    write_mteb(tmp_path, "de", made=made)
    docs, queries, qrels = content(f"path:{tmp_path}/de")
    assert docs == {("7", "t", "de"), ("8", "", "de")}
    assert queries == {("0", "q", "de")}
    assert qrels == {("0", "7", 1)}
