"""Records in memory as a collection, in the forms that users have them in."""

from typing import Any

import pytest

from mimo_plugin.collections.dataset import Pool, collection
from mimo_plugin.collections.pool import load
from mimo_plugin.collections.records import Doc, Query
from mimo_plugin.collections.survey import survey
from mimo_plugin.core.errors import DataError, MimoError, UsageError

DOCS = [Doc("d1", "See Der See ist tief.", "de"), Doc("d2", "Ziwa ni refu.", "sw")]
ROWS = [
    {"_id": "d1", "title": "See", "text": "Der See ist tief.", "lang": "de"},
    {"_id": "d2", "title": None, "text": "Ziwa ni refu.", "lang": "sw"},
]


def frame(rows: list[dict[str, Any]]) -> Any:
    import pandas as pd

    return pd.DataFrame(rows)


def hub_dataset(rows: list[dict[str, Any]]) -> Any:
    import datasets

    return datasets.Dataset.from_list(rows)


def renamed(name: str) -> list[dict[str, Any]]:
    return [{name: row["_id"], **{key: row[key] for key in ("title", "text", "lang")}} for row in ROWS]


@pytest.mark.parametrize(
    "docs",
    [
        ROWS,
        renamed("id"),
        renamed("docid"),
        iter(ROWS),
        {row["_id"]: {key: row[key] for key in ("title", "text", "lang")} for row in ROWS},
        DOCS,
        frame(ROWS),
        frame(renamed("doc_id")),
        hub_dataset(ROWS),
        collection(docs=ROWS),
    ],
    ids=[
        "rows",
        "id",
        "docid",
        "iterator",
        "dict",
        "tuples",
        "frame",
        "renamed frame",
        "datasets",
        "dataset",
    ],
)
def test_forms_of_documents(docs: Any) -> None:
    made = collection(docs=docs)
    for _ in range(2):
        assert list(made.docs_iter()) == DOCS
    assert made.docs_lang() is None
    assert made.docs_store().get("d2") == DOCS[1]
    assert made.specs == collection(docs=ROWS).specs


def test_plain_texts_are_numbered() -> None:
    made = collection(docs=["a", "b"], queries={"q": "x"}, lang="de")
    assert list(made.docs_iter()) == [Doc("0", "a", "de"), Doc("1", "b", "de")]
    assert list(made.queries_iter()) == [Query("q", "x", "de")]
    assert not made.has_qrels()
    assert made.docs_lang() == made.queries_lang() == "de"


@pytest.mark.parametrize(
    "qrels",
    [
        {"q1": {"d1": 2, "d2": 0}},
        [("q1", "d1", 2), ("q1", "d2", 0)],
        frame([{"qid": "q1", "docno": "d1", "label": 2.0}, {"qid": "q1", "docno": "d2", "label": 0.0}]),
        [{"query_id": "q1", "doc_id": f"d{n}", "relevance": 4 - 2 * n} for n in (1, 2)],
        collection(qrels={"q1": {"d1": 2, "d2": 0}}),
    ],
    ids=["dict", "triples", "frame", "rows", "dataset"],
)
def test_forms_of_judgments(qrels: Any) -> None:
    assert collection(qrels=qrels).qrels_dict() == {"q1": {"d1": 2, "d2": 0}}


def test_an_ir_datasets_dataset_keeps_its_language() -> None:
    import ir_datasets

    made = collection(docs=ir_datasets.load("miracl/de/dev"), queries=ir_datasets.load("miracl/de/dev"))
    assert list(made.docs_iter()) == list(load("miracl/de/dev").docs_iter())
    assert list(made.queries_iter()) == list(load("miracl/de/dev").queries_iter())


def test_every_bad_record_is_named() -> None:
    with pytest.raises(DataError) as caught:
        collection(docs=[1, {"_id": "a b", "text": "x"}, {"text": "x"}], qrels={"q": {"d": 0.5}})
    assert [line.split(", expected")[0].split(" (keys")[0] for line in str(caught.value).splitlines()] == [
        "docs[0]: of type int",
        "docs[1]: '_id' 'a b' has white space in it",
        "docs[2]: key '_id' is missing",
        "qrels['q']: relevance 0.5",
    ]
    with pytest.raises(DataError, match="expected docs, queries or qrels"):
        collection()


def test_it_is_a_pool_among_others() -> None:
    own = collection(docs=ROWS[:1], queries={"q": "tief?"}, qrels={"q": {"d1": 1}}, lang="de")
    pool = load(own, "miracl/sw/dev")
    assert isinstance(pool, Pool)
    assert pool.specs == (*own.specs, "miracl/sw/dev")
    assert pool.prefixes == {own.specs[0]: "de", "miracl/sw": "sw"}
    assert next(pool.docs_iter()) == Doc("de:d1", "See Der See ist tief.", "de")
    assert "de:q" in pool.queries_dict()
    assert survey(own).documents == 1
    nameless = load(own, collection(docs=ROWS))
    assert {doc.doc_id.partition(":")[0] for doc in nameless.docs_iter()} == {
        "de",
        collection(docs=ROWS).specs[0].replace(":", "-"),
    }


def test_its_name_is_of_its_documents_and_finds_nothing() -> None:
    one, other = collection(docs=["a"]), collection(docs=["b"])
    assert one.specs != other.specs
    assert collection(docs=["a"], queries=["q"]).specs == one.specs
    assert collection(queries=["q"]).specs != collection(queries=["r"]).specs
    with pytest.raises(DataError, match=r"memory:.*cannot be opened by name: pass the collection itself"):
        load(*one.specs)
    with pytest.raises(UsageError, match="a pool inside a pool"):
        load(load("mimo-sample/de", "mimo-sample/fr"), "miracl/de/dev")
    with pytest.raises(UsageError, match="of type list, expected the name of a collection"):
        load(["mimo-sample/de"])
    with pytest.raises(MimoError, match="given twice"):
        load(one, collection(docs=["a"]))


def test_what_a_pool_says_of_itself() -> None:
    pool = load("miracl/de/dev", "miracl/sw/dev", fields=["title"])
    assert pool.specs == ("miracl/de/dev", "miracl/sw/dev")
    assert pool.prefixes == {"miracl/de": "de", "miracl/sw": "sw"}
    assert pool.fields == ("title",)
    assert load("miracl/de/dev").prefixes is None
