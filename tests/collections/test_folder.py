"""`path:DIR` in both layouts, and what is said about a folder that is not right."""

import gzip
import json
import os
from functools import partial
from pathlib import Path

import pytest
from helpers.beir import write_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.collections.loading import open_collection, require
from mimo_plugin.collections.pool import load
from mimo_plugin.core.errors import DataError

DOCS = [
    {"_id": "d1", "title": "Haus", "text": "am See", "lang": "de", "metadata": {}},
    {"_id": "d2", "text": "talo järven rannalla", "lang": "fi"},
    {"_id": "d3", "title": None, "text": ""},
]
QUERIES = [{"_id": "q1", "text": "See?", "lang": "de"}, {"_id": "q2", "text": "järvi?"}]
QRELS = {"q1": {"d1": 2, "d2": 0}, "q2": {"d2": 1}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "lake", DOCS, QUERIES, QRELS)
    return tmp_path / "lake"


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    directory = tmp_path / "paper"
    directory.mkdir()
    corpus = [{"de:1": {"text": "am See", "lang": "de"}}, {"fi:1": {"text": "järvi", "lang": "fi"}}]
    _write(directory / "corpus.jsonl", *map(json.dumps, corpus))
    _write(directory / "queries.jsonl", *(json.dumps(query) for query in QUERIES))
    _write(directory / "qrels.jsonl", '{"q1": {"de:1": 1, "fi:1": 1}}', '{"q2": {"fi:1": 1}}')
    return directory


def _write(path: Path, *lines: str) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def test_beir_folder_is_a_dataset_of_its_own_records(folder: Path) -> None:
    dataset = open_collection(f"path:{folder}")
    docs = list(dataset.docs_iter())
    assert [(doc.doc_id, doc.title, doc.text, doc.lang) for doc in docs] == [
        ("d1", "Haus", "am See", "de"),
        ("d2", "", "talo järven rannalla", "fi"),
        ("d3", "", "", ""),
    ]
    assert [doc.default_text() for doc in docs] == ["Haus am See", "talo järven rannalla", ""]
    assert [tuple(query) for query in dataset.queries_iter()] == [("q1", "See?", "de"), ("q2", "järvi?", "")]
    assert dataset.qrels_dict() == QRELS
    assert dataset.queries_dict()["q2"].text == "järvi?"
    assert dataset.docs_count() is None


def test_paper_folder(paper: Path) -> None:
    dataset = open_collection(f"path:{paper}")
    assert [tuple(doc) for doc in dataset.docs_iter()] == [("de:1", "am See", "de"), ("fi:1", "järvi", "fi")]
    assert dataset.qrels_dict() == {"q1": {"de:1": 1, "fi:1": 1}, "q2": {"fi:1": 1}}
    assert [query.query_id for query in dataset.queries_iter()] == ["q1", "q2"]


def test_gzipped_files_read_the_same(folder: Path, paper: Path) -> None:
    for directory in (folder, paper):
        before = open_collection(f"path:{directory}")
        records = [list(before.docs_iter()), list(before.queries_iter()), before.qrels_dict()]
        for path in directory.glob("*.jsonl"):
            with gzip.open(f"{path}.gz", "wb") as file:
                file.write(path.read_bytes())
            path.unlink()
        after = open_collection(f"path:{directory}")
        assert [list(after.docs_iter()), list(after.queries_iter()), after.qrels_dict()] == records


def test_slices_and_lookup_write_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    dataset = open_collection(f"path:{folder}")
    assert [doc.doc_id for doc in dataset.docs_iter()[1:]] == ["d2", "d3"]
    assert dataset.docs_iter()[2].doc_id == "d3"
    with pytest.raises(IndexError):
        dataset.docs_iter()[3]
    store = dataset.docs_store()
    assert store.get("d2").text == "talo järven rannalla"
    assert sorted(store.get_many(["d3", "d1", "none"])) == ["d1", "d3"]
    with pytest.raises(KeyError):
        store.get("none")
    assert sorted(folder.rglob("*")) == before


def test_documents_are_streamed(tmp_path: Path) -> None:
    write_folder(tmp_path / "broken", DOCS)
    with (tmp_path / "broken" / "corpus.jsonl").open("a") as file:
        file.write("not JSON\n")
    docs = open_collection(f"path:{tmp_path / 'broken'}").docs_iter()
    assert [next(docs).doc_id for _ in DOCS] == ["d1", "d2", "d3"]
    with pytest.raises(DataError, match=r"corpus\.jsonl:4: not valid JSON"):
        next(docs)


def test_split_is_test_or_the_only_one_or_the_one_asked_for(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "dev.tsv")
    assert open_collection(f"path:{folder}").qrels_dict() == QRELS
    _write(folder / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore", "q2\td3\t1")
    assert open_collection(f"path:{folder}").qrels_dict() == {"q2": {"d3": 1}}
    assert open_collection(f"path:{folder}#dev").qrels_dict() == QRELS
    # queries.jsonl holds those of all splits
    assert [query.query_id for query in open_collection(f"path:{folder}").queries_iter()] == ["q2"]
    assert [query.query_id for query in open_collection(f"path:{folder}#dev").queries_iter()] == ["q1", "q2"]


def test_no_split_can_be_chosen(folder: Path) -> None:
    for name in ("dev", "train"):
        _write(folder / "qrels" / f"{name}.tsv", "query-id\tcorpus-id\tscore", "q2\td3\t1")
    (folder / "qrels" / "test.tsv").unlink()
    dataset = open_collection(f"path:{folder}")
    assert len(list(dataset.docs_iter())) == 3
    message = rf"qrels for the splits dev, train and no 'test', expected a choice such as path:{folder}#dev"
    for read in (dataset.qrels_iter, dataset.queries_iter):
        with pytest.raises(DataError, match=message):
            list(read())
    with pytest.raises(DataError, match=message):
        require([f"path:{folder}"], qrels=True)
    with pytest.raises(DataError, match=r"#tset: no such split, expected one of .*: dev, train"):
        open_collection(f"path:{folder}#tset")


def test_folder_with_a_hash_in_its_name(tmp_path: Path) -> None:
    spec = write_folder(tmp_path / "a#b", DOCS, QUERIES, QRELS)
    assert open_collection(spec).qrels_dict() == open_collection(f"{spec}#test").qrels_dict() == QRELS


def test_parts_may_be_missing(folder: Path) -> None:
    (folder / "corpus.jsonl").unlink()
    dataset = open_collection(f"path:{folder}")
    assert not dataset.has_docs()
    assert dataset.has_queries()
    with pytest.raises(DataError, match="has no documents"):
        require([f"path:{folder}"], docs=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"_id": "d4" "text": ""}', r"corpus\.jsonl:4: not valid JSON"),
        ("[1]", r"corpus\.jsonl:4: JSON of type list, expected one JSON object a line"),
        ('{"_id": "d4"}', r"corpus\.jsonl:4: key 'text' is missing \(keys found: '_id'\)"),
        ('{"text": "x"}', r"corpus\.jsonl:4: key '_id' is missing"),
        ('{"_id": 4, "text": "x"}', r"corpus\.jsonl:4: '_id' is of type int \(4\), expected a string"),
        ('{"_id": "d4", "text": ["x"]}', r"corpus\.jsonl:4: 'text' is of type list"),
        ('{"_id": "d4", "text": null}', r"corpus\.jsonl:4: 'text' is missing"),
        ('{"_id": "d4", "text": "x", "title": 1}', r"corpus\.jsonl:4: 'title' is of type int"),
        ('{"_id": "d4", "text": "x", "lang": "d e"}', r"corpus\.jsonl:4: 'lang' is 'd e'"),
        ('{"_id": "", "text": "x"}', r"corpus\.jsonl:4: '_id' is empty"),
        ('{"_id": "d 4", "text": "x"}', r"corpus\.jsonl:4: '_id' 'd 4' has white space in it"),
        ('{"_id": "d4\\u00a0", "text": "x"}', r"has white space in it"),
        (
            '{"_id": "d4", "text": "a\\ud83d"}',
            r"corpus\.jsonl:4: 'text' is not valid Unicode: a lone surrogate",
        ),
    ],
)
def test_bad_documents_are_named_by_file_and_line(folder: Path, line: str, message: str) -> None:
    with (folder / "corpus.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=message) as caught:
        list(open_collection(f"path:{folder}").docs_iter())
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=message):
        list(load(f"path:{folder}").docs_iter())


def test_not_utf8(folder: Path) -> None:
    with (folder / "corpus.jsonl").open("ab") as file:
        file.write('\n{"_id": "d4", "text": "Straße"}\n'.encode("latin-1"))
    with pytest.raises(DataError, match=r"corpus\.jsonl:5: not valid UTF-8 \(byte 0xdf at column 28\)"):
        list(open_collection(f"path:{folder}").docs_iter())


def test_damaged_gzip(folder: Path) -> None:
    compressed = gzip.compress((folder / "corpus.jsonl").read_bytes() * 200)
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.jsonl.gz").write_bytes(compressed[:-20])
    with pytest.raises(DataError, match=r"corpus\.jsonl\.gz:\d+: damaged gzip file"):
        list(open_collection(f"path:{folder}").docs_iter())


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["q1\td1\t1"], r"test\.tsv:1: 'q1\\td1\\t1', expected the header"),
        ([], r"test\.tsv:1: '', expected the header"),
        (["query-id\tcorpus-id\tscore", "q1\td1"], r"test\.tsv:2: 2 columns, expected 3"),
        (["query-id\tcorpus-id\tscore", "q1 0 d1 1"], r"test\.tsv:2: 1 columns, expected 3"),
        (
            ["query-id\tcorpus-id\tscore", "q1\td1\t1.0"],
            r"test\.tsv:2: relevance '1\.0', expected an integer",
        ),
        (["query-id\tcorpus-id\tscore", "q1\td1\tyes"], r"test\.tsv:2: relevance 'yes', expected an integer"),
        (["query-id\tcorpus-id\tscore", "\td1\t1"], r"test\.tsv:2: query id is empty"),
        (["query-id\tcorpus-id\tscore", "q1\td 1\t1"], r"test\.tsv:2: docid 'd 1' has white space"),
    ],
)
def test_bad_tsv_qrels(folder: Path, lines: list[str], message: str) -> None:
    _write(folder / "qrels" / "test.tsv", *lines)
    with pytest.raises(DataError, match=message):
        list(open_collection(f"path:{folder}").qrels_iter())


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("qrels.jsonl", '{"q1": {"de:1": 1.5}}', r"qrels\.jsonl:3: relevance 1\.5, expected an integer"),
        ("qrels.jsonl", '{"q1": {"de:1": true}}', r"qrels\.jsonl:3: relevance True, expected an integer"),
        ("qrels.jsonl", '{"q1": ["de:1"]}', r"qrels\.jsonl:3: query id 'q1' has a value of type list"),
        ("qrels.jsonl", '{"q 1": {"de:1": 1}}', r"qrels\.jsonl:3: query id 'q 1' has white space"),
        ("corpus.jsonl", '{"de:2": "text"}', r"corpus\.jsonl:3: docid 'de:2' has a value of type str"),
        ("corpus.jsonl", '{"de:2": {"lang": "de"}}', r"corpus\.jsonl:3: key 'text' is missing"),
        ("queries.jsonl", '{"_id": "q3"}', r"queries\.jsonl:3: key 'text' is missing"),
    ],
)
def test_bad_paper_files(paper: Path, name: str, line: str, message: str) -> None:
    with (paper / name).open("a") as file:
        file.write(line + "\n")
    dataset = open_collection(f"path:{paper}")
    part = {"qrels.jsonl": "qrels_iter", "corpus.jsonl": "docs_iter", "queries.jsonl": "queries_iter"}[name]
    with pytest.raises(DataError, match=message):
        list(getattr(dataset, part)())


def test_folders_that_are_no_collection(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        open_collection(f"path:{tmp_path / 'none'}")
    with pytest.raises(DataError, match="is a file"):
        open_collection(f"path:{folder / 'corpus.jsonl'}")
    with pytest.raises(DataError, match=r"no corpus\.jsonl, queries\.jsonl or qrels in it"):
        open_collection(f"path:{tmp_path}")
    with pytest.raises(DataError, match="no such folder"):
        open_collection("path:")
    (tmp_path / "corpus.jsonl").write_text('{"id": "d1", "contents": "x"}\n')
    with pytest.raises(DataError, match=r"corpus\.jsonl:1: keys 'id', 'contents', expected '_id' and 'text'"):
        open_collection(f"path:{tmp_path}")


def test_two_layouts_or_two_files_are_ambiguous(folder: Path) -> None:
    _write(folder / "qrels.jsonl", "{}")
    with pytest.raises(DataError, match="qrels in two layouts"):
        open_collection(f"path:{folder}")
    (folder / "qrels.jsonl").unlink()
    (folder / "queries.jsonl.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"queries\.jsonl and queries\.jsonl\.gz both exist"):
        open_collection(f"path:{folder}")


def test_every_bad_line_is_reported(folder: Path) -> None:
    latin = '{"_id": "d5", "text": "Straße"}'.encode("latin-1")
    lines = [
        b"not JSON",
        latin,
        b'{"_id": "d 6", "text": ""}',
        b'{"_id": "d7"}',
        b'{"_id": "d8", "text": ""}',
    ]
    with (folder / "corpus.jsonl").open("ab") as file:
        file.write(b"".join(line + b"\n" for line in lines))
    for docs in (open_collection(f"path:{folder}").docs_iter(), load(f"path:{folder}").docs_iter()):
        assert [next(docs).doc_id for _ in range(4)] == ["d1", "d2", "d3", "d8"]
        with pytest.raises(DataError) as caught:
            next(docs)
        shown = str(caught.value).splitlines()
        assert [line.split(": ")[0] for line in shown] == [f"{folder}/corpus.jsonl:{n}" for n in (4, 5, 6, 7)]


def test_bad_first_lines_are_reported_with_the_others(folder: Path) -> None:
    lines = (folder / "corpus.jsonl").read_text(encoding="utf-8")
    (folder / "corpus.jsonl").write_text(f"not JSON\n{lines}[]\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"^[^\n]*corpus\.jsonl:1: .*\n[^\n]*corpus\.jsonl:5: [^\n]*$"):
        list(open_collection(f"path:{folder}").docs_iter())
    (folder / "corpus.jsonl").write_text("not JSON\n[]\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"corpus\.jsonl:1: .*\n.*corpus\.jsonl:2: "):
        open_collection(f"path:{folder}")


@pytest.mark.parametrize(
    ("name", "lines", "numbers"),
    [
        ("queries.jsonl", ["[]", '{"_id": "q1", "text": ""}', '{"_id": "q 2", "text": ""}'], [1, 3]),
        ("qrels.jsonl", ['{"q1": {"d 1": 1, "d2": "x"}, "q 2": {}}', '{"q3": []}'], [1, 1, 1, 2]),
        ("corpus.jsonl", ['{"a": {"text": "x"}, "b": {}, "c d": {"text": ""}}', "[]"], [1, 1, 2]),
        ("qrels/test.tsv", ["query-id\tcorpus-id\tscore", "q1", "q1\td1\t1", "q1\td2\tx"], [2, 4]),
    ],
)
def test_bad_lines_of_every_kind_of_file(
    tmp_path: Path, name: str, lines: list[str], numbers: list[int]
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    _write(tmp_path / name, *lines)
    dataset = open_collection(f"path:{tmp_path}")
    part = {"corpus.jsonl": "docs", "queries.jsonl": "queries"}.get(name, "qrels")
    for source in (dataset, load(f"path:{tmp_path}")):
        with pytest.raises(DataError) as caught:
            list(getattr(source, f"{part}_iter")())
        shown = str(caught.value).splitlines()
        assert [line.split(": ")[0] for line in shown] == [f"{tmp_path / name}:{n}" for n in numbers]


def test_a_file_full_of_faults_is_not_read_to_its_end(folder: Path) -> None:
    with (folder / "corpus.jsonl").open("a") as file:
        file.write("not JSON\n" * 30)
    for docs in (open_collection(f"path:{folder}").docs_iter(), load(f"path:{folder}").docs_iter()):
        with pytest.raises(DataError) as caught:
            list(docs)
        *shown, last = str(caught.value).splitlines()
        assert [line.split(": ")[0] for line in shown] == [f"{folder}/corpus.jsonl:{n}" for n in range(4, 24)]
        assert last == "reading stopped after 20 faults, expected none: there may be more of them"


def test_faults_of_all_folders_and_files_are_reported_together(tmp_path: Path) -> None:
    specs = [write_folder(tmp_path / name, DOCS, QUERIES, QRELS) for name in ("one", "two", "three")]
    _write(tmp_path / "one" / "corpus.jsonl", '{"id": "d1", "contents": ""}')
    (tmp_path / "one" / "queries.jsonl.gz").touch()
    _write(tmp_path / "three" / "corpus.jsonl", "not JSON")
    for check in (partial(require, docs=True), lambda given: load(*given)):
        with pytest.raises(DataError) as caught:
            check([*specs, f"path:{tmp_path / 'four'}"])
        first, second, third, fourth = str(caught.value).splitlines()
        assert "one/corpus.jsonl:1: keys 'id', 'contents'" in first
        assert "one/queries.jsonl and queries.jsonl.gz both exist" in second
        assert "three/corpus.jsonl:1: not valid JSON" in third
        assert "four: no such folder" in fourth


@pytest.mark.parametrize(
    ("name", "line", "key"),
    [
        ("corpus.jsonl", '{"de:2": {"text": "a"}, "de:2": {"text": "b"}}', "de:2"),
        ("qrels.jsonl", '{"q1": {"de:1": 1, "fi:1": 1, "de:1": 0}}', "de:1"),
        ("qrels.jsonl", '{"q1": {"de:1": 1}, "q1": {"fi:1": 1}}', "q1"),
        ("queries.jsonl", '{"_id": "q3", "text": "a", "text": "b"}', "text"),
    ],
)
def test_a_key_twice_in_one_object(paper: Path, name: str, line: str, key: str) -> None:
    with (paper / name).open("a") as file:
        file.write(line + "\n")
    part = {"qrels.jsonl": "qrels_iter", "corpus.jsonl": "docs_iter", "queries.jsonl": "queries_iter"}[name]
    with pytest.raises(DataError, match=rf"{name}:3: '{key}' occurs twice in one JSON object"):
        list(getattr(open_collection(f"path:{paper}"), part)())


def test_gzipped_tsv_qrels(folder: Path) -> None:
    plain = folder / "qrels" / "test.tsv"
    (folder / "qrels" / "dev.tsv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert open_collection(f"path:{folder}#dev").qrels_dict() == QRELS
    plain.unlink()
    assert open_collection(f"path:{folder}").qrels_dict() == QRELS
    (folder / "qrels" / "dev.tsv").touch()
    with pytest.raises(DataError, match=r"dev\.tsv and dev\.tsv\.gz both exist"):
        open_collection(f"path:{folder}")


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl.gz", "qrels.jsonl", "qrels/dev.tsv"])
def test_a_folder_in_the_place_of_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(DataError, match=rf"{name}: is a folder, expected a file"):
        open_collection(f"path:{tmp_path}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["", "corpus.jsonl", "qrels"])
def test_no_right_to_read(folder: Path, name: str) -> None:
    (folder / name).chmod(0)
    try:
        with pytest.raises(DataError, match=r"cannot be read \(Permission denied\).*chmod"):
            open_collection(f"path:{folder}")
    finally:
        (folder / name).chmod(0o755)


def test_nobody_has_no_folder() -> None:
    with pytest.raises(DataError, match=r"^path:~no-such-user/x: .*expected path:DIR"):
        open_collection("path:~no-such-user/x")
    with pytest.raises(DataError, match="unknown collection"):
        open_collection("x" * 5000)


_TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
_IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(
    lambda text: text.split() == [text] and "\0" not in text
)


@settings(max_examples=60)
@given(rows=st.dictionaries(_IDS, st.tuples(_TEXT, _TEXT), min_size=1, max_size=6))
def test_whatever_is_written_is_read(
    rows: dict[str, tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    docs = [{"_id": doc_id, "title": title, "text": text} for doc_id, (title, text) in rows.items()]
    spec = write_folder(tmp_path_factory.mktemp("any") / "x", docs, qrels={"q": dict.fromkeys(rows, 1)})
    dataset = open_collection(spec)
    assert [(doc.doc_id, (doc.title, doc.text)) for doc in dataset.docs_iter()] == list(rows.items())
    assert dataset.qrels_dict() == {"q": dict.fromkeys(rows, 1)}


@settings(max_examples=40)
@given(good=st.lists(st.booleans(), min_size=1, max_size=19))
def test_every_line_is_either_read_or_reported(
    good: list[bool], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("mixed")
    lines = [f'{{"_id": "{n}", "text": ""}}' if fine else "{" for n, fine in enumerate(good, start=1)]
    _write(folder / "queries.jsonl", *lines)
    seen: list[str] = []
    shown: list[str] = []
    try:
        seen.extend(query.query_id for query in load(f"path:{folder}").queries_iter())
    except DataError as error:
        shown = str(error).splitlines()
    assert seen == [str(n) for n, fine in enumerate(good, start=1) if fine]
    assert [line.split(":")[1] for line in shown] == [
        str(n) for n, fine in enumerate(good, start=1) if not fine
    ]
