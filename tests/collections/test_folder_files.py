"""Topics and qrels in files of their own, from the collection to the scores."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.beir import write_folder
from hypothesis import given
from hypothesis import strategies as st

from mimo_plugin.cli import main
from mimo_plugin.collections.loading import open_collection, require
from mimo_plugin.collections.pool import load
from mimo_plugin.collections.records import Query
from mimo_plugin.core.errors import DataError, UsageError
from mimo_plugin.evaluation.topics import load_topics, open_pool

TOPICS = [("q1", "cat on a mat"), ("q2", "Wie heißt die Katze?")]
QRELS = [("q1", "d1", 2), ("q1", "d2", 0), ("q2", "d2", -1), ("q2", "d3", 1)]


def topics_file(path: Path, topics: list[tuple[str, str]], between: str = "\t") -> str:
    content = "".join(f"{query}{between}{text}\n" for query, text in topics).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def qrels_file(
    path: Path, qrels: list[tuple[str, str, int]], between: str = "\t", iteration: str = "0"
) -> str:
    rows = ((query, iteration, doc, str(grade)) for query, doc, grade in qrels)
    content = "".join(between.join(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


@pytest.mark.parametrize("between", ["\t", " ", "   "])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_files_as_they_are_handed_out(tmp_path: Path, between: str, end: str) -> None:
    asked = topics_file(tmp_path / f"topics.miracl-v1.0-sw-dev.tsv{end}", TOPICS, between)
    judged = qrels_file(tmp_path / f"qrels.miracl-v1.0-sw-dev.tsv{end}", QRELS, between, "Q0")
    assert list(open_collection(asked).queries_iter()) == [Query(*topic, "") for topic in TOPICS]
    assert [
        (q.query_id, q.doc_id, q.relevance, q.iteration) for q in open_collection(judged).qrels_iter()
    ] == [(*row, "Q0") for row in QRELS]
    assert not open_collection(asked).has_qrels()
    require([asked], queries=True)
    # The ids that qrels judge are topics to evaluate, not to search.
    with pytest.raises(DataError, match="has no queries, expected a collection with queries"):
        require([judged], queries=True)


def test_a_folders_files_work_by_themselves(tmp_path: Path) -> None:
    rows = [{"_id": query, "text": text, "lang": "en"} for query, text in TOPICS]
    positive = {"q1": {"d1": 2, "d2": 0}, "q2": {"d3": 1}}
    write_folder(tmp_path, [{"_id": "d1", "text": "x"}], rows, positive)
    (tmp_path / "qrels.jsonl").write_text(json.dumps(positive) + "\n")
    assert list(open_collection(str(tmp_path / "queries.jsonl")).queries_iter()) == [
        Query(*topic, "en") for topic in TOPICS
    ]
    for name in ("qrels/test.tsv", "qrels.jsonl"):
        assert open_collection(str(tmp_path / name)).qrels_dict() == positive


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=6),
            st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), min_size=1, max_size=20),
        ),
        min_size=1,
        max_size=6,
        unique_by=lambda topic: topic[0],
    )
)
def test_any_topics_come_back(
    tmp_path_factory: pytest.TempPathFactory, topics: list[tuple[str, str]]
) -> None:
    first = topics[0][0]
    if first.startswith(("{", "<")):
        topics = [(f"q{first}", topics[0][1]), *topics[1:]]
    path = topics_file(tmp_path_factory.mktemp("topics") / "t.tsv", topics)
    assert [(q.query_id, q.text) for q in open_collection(path).queries_iter()] == [
        (q, text.strip()) for q, text in topics
    ]


@pytest.mark.parametrize(
    ("content", "part", "message"),
    [
        ("q1\t0\td1\t1\nq1\t0\td2\tx\n", "qrels", "f.tsv:2: relevance 'x', expected an integer"),
        ("q1 0 d1 1\nq1 0 d2\n", "qrels", "f.tsv:2: 3 columns, expected 4"),
        ("q1 Q0 d1 1 9.5 run\n", "qrels", "f.tsv:1: 6 columns, expected 4"),
        ("q1\tone\nq2\ttwo\tthree\n", "queries", "f.tsv:2: 3 columns, expected 2"),
        ("q1\tone\nq2\n", "queries", "f.tsv:2: 1 columns, expected 2"),
        ("", "queries", "f.tsv: holds no line"),
        ("<top>\n<num> 1\n", "queries", "f.tsv: begins with a tag"),
        ('{"_id": "q1"}\n', "queries", "key 'text' is missing"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path: Path, content: str, part: str, message: str) -> None:
    path = tmp_path / "f.tsv"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        list(getattr(open_collection(str(path)), f"{part}_iter")())
    assert message in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="or a file of topics or qrels, but there is no such file"):
        open_collection(str(tmp_path / "topics.tsv"))


def test_languages_and_prefixes(tmp_path: Path) -> None:
    plain = [topics_file(tmp_path / f"{lang}.tsv", TOPICS) for lang in ("sw", "yo")]
    named = topics_file(tmp_path / "named.tsv", [(f"sw:{query}", text) for query, text in TOPICS])

    def ids(*files: str, **options: Any) -> list[tuple[str, str]]:
        return [(query.query_id, query.lang) for query in load(*files, **options).queries_iter()]

    assert ids(plain[0]) == [("q1", ""), ("q2", "")]
    assert ids(plain[0], lang=["sw"]) == [("q1", "sw"), ("q2", "sw")]
    pooled = [("sw:q1", "sw"), ("sw:q2", "sw")]
    assert ids(plain[0], lang=["sw"], pooled=True) == pooled
    assert ids(*plain, lang=["sw", "yo"]) == [*pooled, ("yo:q1", "yo"), ("yo:q2", "yo")]
    # Ids that have their prefix keep it, whatever the options say.
    for options in ({}, {"pooled": True}, {"pooled": True, "lang": ["sw"]}, {"lang": ["sw"]}):
        assert ids(named, **options) == pooled
    # Without one they stay as they are: two files then have the same queries.
    assert ids(*plain) == [("q1", ""), ("q2", "")]
    other = topics_file(tmp_path / "other.tsv", [("q1", "other")])
    with pytest.raises(DataError, match="query id q1 occurs twice"):
        ids(plain[0], other)
    with pytest.raises(UsageError, match=r"3 languages \(a, b, c\) for 2 files"):
        load(*plain, lang=["a", "b", "c"])
    with pytest.raises(UsageError, match="language 'a:b'"):
        load(*plain, lang=["a:b"])


def test_qrels_of_files_and_their_topics(tmp_path: Path) -> None:
    judged = qrels_file(tmp_path / "qrels.txt", QRELS)
    asked = topics_file(tmp_path / "topics.tsv", TOPICS[:1])

    def languages(*args: Any, **options: Any) -> dict[str, int]:
        return load_topics(open_pool(*args, **options)).counts

    assert languages([judged]) == {"unknown": 2}
    assert languages([judged], lang=["sw"]) == {"sw": 2}
    # Of the ids that are judged, the topics have one.
    topics = load_topics(open_pool([judged], topics=[asked], lang=["sw"]))
    assert (topics.counts, topics.unlisted) == ({"sw": 1}, ("q2",))
    pooled = qrels_file(
        tmp_path / "pool.txt", [(f"{x}:{q}", f"{x}:{d}", n) for x in ("sw", "yo") for q, d, n in QRELS]
    )
    assert languages([pooled]) == {"sw": 2, "yo": 2}
    both = load_topics(open_pool([judged, qrels_file(tmp_path / "b.txt", QRELS)], lang=["sw", "yo"]))
    assert both.query_ids == ("sw:q1", "sw:q2", "yo:q1", "yo:q2")
    assert both.judged[0].docids.tolist() == [b"sw:d1", b"sw:d2"]
    with pytest.raises(UsageError, match="--topic-lang is the language of a file"):
        open_pool(["mimo-sample/de"], lang=["de"])
    with pytest.raises(DataError, match="has no qrels"):
        open_pool([asked])


def test_duplicate_judgments_and_topics_are_counted(tmp_path: Path) -> None:
    judged = qrels_file(tmp_path / "qrels.txt", [*QRELS, QRELS[0]])
    asked = topics_file(tmp_path / "topics.tsv", [*TOPICS, TOPICS[1]])
    assert load_topics(open_pool([judged], topics=[asked])).copies == 2
    other = qrels_file(tmp_path / "other.txt", [*QRELS, ("q1", "d1", 0)])
    with pytest.raises(DataError, match="is judged 2 and 0"):
        load_topics(open_pool([other]))
    first = load_topics(open_pool([other], duplicates="first"))
    assert first.judged[0].relevance.tolist() == [2.0, 0.0]


def test_the_whole_way_with_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run of a folder's topics and of a file with the same ones are the same, and so are the scores."""
    docs = [
        {"_id": "d1", "text": "The cat sits on the mat."},
        {"_id": "d2", "text": "Die Katze heißt Minka."},
        {"_id": "d3", "text": "Prices fell sharply today."},
    ]
    rows = [{"_id": query, "text": text} for query, text in TOPICS]
    spec = write_folder(tmp_path / "c", docs, rows, {"q1": {"d1": 2, "d2": 0}, "q2": {"d2": -1, "d3": 1}})
    asked, judged = topics_file(tmp_path / "t.tsv.gz", TOPICS), qrels_file(tmp_path / "q.txt", QRELS, " ")
    index = str(tmp_path / "index")
    assert main(["index", spec, "--encoder", "packaged:all-MiniLM-L6-v2", "--output", index]) == 0
    scores = {}
    for name, topics, qrels in (("folder", spec, [spec]), ("file", asked, [judged, "--topics", asked])):
        run = str(tmp_path / f"{name}.trec")
        assert main(["search", index, "--topics", topics, "--output", run, "--no-progress"]) == 0
        out = tmp_path / f"{name}.json"
        assert main(["evaluate", f"run={run}", "--qrels", *qrels, "--json", str(out), "--no-progress"]) == 0
        scores[name] = json.loads(out.read_text())["runs"]["run"]
    assert (tmp_path / "folder.trec").read_bytes() == (tmp_path / "file.trec").read_bytes()
    assert scores["folder"] == scores["file"]
    out = tmp_path / "lang.json"
    run = f"run={tmp_path / 'file.trec'}"
    assert (
        main(["evaluate", run, "--qrels", judged, "--lang", "en", "--json", str(out), "--no-progress"]) == 0
    )
    assert json.loads(out.read_text())["runs"]["run"]["per_language"]["en"]["queries"] == 2
    capsys.readouterr()
    assert (
        main(["search", index, "--topics", spec, "--topic-lang", "en", "--output", str(tmp_path / "x")]) == 2
    )
    assert "--topic-lang is the language of a file of topics" in capsys.readouterr().err
