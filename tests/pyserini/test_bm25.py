"""BM25 indexes: what their analysis finds, equality with stock Anserini and Pyserini, and whose they are."""

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.beir import write_folder

from mimo_plugin.collections.pool import load
from mimo_plugin.core.artifact import Artifact
from mimo_plugin.core.errors import ArtifactError
from mimo_plugin.pyserini.bm25 import BM25_INDEXES, analysis_of, index_bm25, search_bm25
from mimo_plugin.pyserini.java import _anserini_jar, ensure_jvm, import_pyserini

HOUSES = [
    {"_id": "one", "text": "Die Häuser stehen am See", "lang": "de"},
    {"_id": "two", "text": "Das Wetter ist gut", "lang": "de"},
]
QUERIES = 30


def _collection(directory: Path, rows: list[dict[str, str]] = HOUSES) -> Any:
    return load(write_folder(directory / "docs", rows))


def _index(collection: Any, directory: Path, **options: Any) -> bool:
    return index_bm25(collection, directory, threads=1, progress=False, **options).already


def _found(directory: Path, text: str) -> list[str]:
    ((_, docids, _),) = search_bm25(directory, [("q", text)], hits=10, threads=1)
    return docids


@pytest.fixture(scope="module")
def german() -> tuple[list[dict[str, str]], list[tuple[str, str]]]:
    """The sample's German documents and some of its German queries."""
    pool = load("mimo-sample")
    docs = [
        {"_id": doc.doc_id, "text": doc.text, "lang": "de"} for doc in pool.docs_iter() if doc.lang == "de"
    ]
    queries = [(query.query_id, query.text) for query in pool.queries_iter() if query.lang == "de"]
    return docs, queries[:QUERIES]


def test_inflected_forms_are_found_in_their_language_alone(tmp_path: Path) -> None:
    collection = _collection(tmp_path)
    for language, found in ((None, []), ("de", ["one"]), ("de_AT", ["one"])):
        directory = tmp_path / f"index-{language}"
        assert not _index(collection, directory, language=language)
        assert _found(directory, "Haus") == found
        assert _found(directory, "häuser") == ["one"]
    manifest = Artifact(tmp_path / "index-de_AT", BM25_INDEXES).read()
    assert manifest.plan.language == "de"
    assert manifest.plan.analyzer == "org.apache.lucene.analysis.de.GermanAnalyzer"
    assert (manifest.plan.documents, manifest.indexed, manifest.languages) == (2, 2, {"de": 2})
    assert manifest.note == ""
    assert set(manifest.versions) == {"pyserini", "anserini", "lucene"}
    assert all(version[0].isdigit() for version in manifest.versions.values())


@pytest.mark.slow
def test_equal_to_stock_anserini_and_pyserini(
    tmp_path: Path, german: tuple[list[dict[str, str]], list[tuple[str, str]]]
) -> None:
    """Indexed by Anserini's own command with `-language de`, searched by Pyserini's `set_language`."""
    docs, queries = german
    (tmp_path / "json").mkdir()
    lines = (json.dumps({"id": row["_id"], "contents": row["text"]}) for row in docs)
    (tmp_path / "json" / "docs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    java = ensure_jvm().home / "bin" / "java"
    import_pyserini()
    from pyserini.search.lucene import LuceneSearcher

    stock = ["-collection", "JsonCollection", "-input", str(tmp_path / "json"), "-language", "de"]
    options = ["-index", str(tmp_path / "stock"), "-generator", "DefaultLuceneDocumentGenerator"]
    command = [str(java), "-cp", str(_anserini_jar()), "io.anserini.index.IndexCollection", *stock, *options]
    subprocess.run([*command, "-threads", "1"], check=True, capture_output=True)
    searcher = LuceneSearcher(str(tmp_path / "stock"))
    searcher.set_language("de")

    _index(_collection(tmp_path, docs), tmp_path / "ours", language="de")
    compared = 0
    for (_, docids, scores), (_, text) in zip(
        search_bm25(tmp_path / "ours", queries, hits=50, threads=1), queries, strict=True
    ):
        hits = searcher.search(text, k=50)
        assert docids == [hit.docid for hit in hits]
        assert scores.tolist() == [np.float32(hit.score) for hit in hits]
        compared += len(hits)
    assert compared > QUERIES * 10


def test_every_language_is_searched_as_it_is_indexed(tmp_path: Path) -> None:
    _index(_collection(tmp_path), tmp_path / "index")
    from jnius import autoclass
    from pyserini.search.lucene import LuceneSearcher

    known = sorted(map(str, autoclass("io.anserini.analysis.AnalyzerMap").analyzerMap.keySet().toArray()))
    assert {"ar", "bn", "fa", "fi", "hi", "id", "ja", "ko", "ru", "te", "th", "zh"} <= set(known)
    for language in (None, "en", "ha", "so", "sw", "yo", *known):
        analysis = analysis_of(language)
        assert analysis.note == ""
        assert analysis.apply(LuceneSearcher(str(tmp_path / "index"))) == analysis.analyzer


def test_languages_without_an_analyzer_of_their_own(tmp_path: Path) -> None:
    """Yoruba is split at white space, as in MIRACL's index; what Anserini does not know, plainly."""
    rows = [{"_id": "d", "text": "Running Ilé-ìwé", "lang": "yo"}]
    collection = _collection(tmp_path, rows)
    _index(collection, tmp_path / "yo", language="yo")
    assert [_found(tmp_path / "yo", text) for text in ("Running", "running", "ìwé")] == [["d"], [], []]
    _index(collection, tmp_path / "cs", language="cs")
    assert [_found(tmp_path / "cs", text) for text in ("running", "run", "ìwé")] == [["d"], [], ["d"]]
    manifest = Artifact(tmp_path / "cs", BM25_INDEXES).read()
    assert manifest.plan.language is None
    assert manifest.note.startswith("Anserini has no analyzer for 'cs'")


def test_documents_without_text_are_left_out(tmp_path: Path) -> None:
    rows = [
        {"_id": "full", "text": "\U0001f600 a character beyond the first plane", "lang": "en"},
        {"_id": "control", "text": "\x01 ", "lang": "en"},
        {"_id": "empty", "text": "", "lang": "en"},
    ]
    _index(_collection(tmp_path, rows), tmp_path / "index")
    manifest = Artifact(tmp_path / "index", BM25_INDEXES).read()
    assert (manifest.plan.documents, manifest.indexed) == (3, 1)
    assert _found(tmp_path / "index", "plane") == ["full"]


def test_kept_refused_or_made_again(tmp_path: Path) -> None:
    collection, directory = _collection(tmp_path), tmp_path / "index"
    assert not _index(collection, directory)
    times = {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}
    assert _index(collection, directory)
    assert {path.name: path.stat().st_mtime_ns for path in directory.iterdir()} == times
    with pytest.raises(ArtifactError, match="made otherwise: language is 'de', there it is None; analyzer"):
        _index(collection, directory, language="de")
    assert not _index(collection, directory, language="de", resume=False)
    assert _found(directory, "Haus") == ["one"]
    more = _collection(tmp_path / "more", [*HOUSES, {"_id": "three", "text": "neu", "lang": "de"}])
    with pytest.raises(ArtifactError, match="collection_fingerprint is .*documents is 3, there it is 2"):
        _index(more, directory, language="de")


class _Interrupted:
    """A collection whose reading ends in the middle of its second pass."""

    def __init__(self, collection: Any) -> None:
        self._collection = collection
        self._passes = 0

    def docs_iter(self) -> Iterator[Any]:
        self._passes += 1
        for doc in self._collection.docs_iter():
            yield doc
            if self._passes == 2:
                raise KeyboardInterrupt


def test_a_build_that_was_cut_short_looks_like_no_index(tmp_path: Path) -> None:
    collection, directory = _collection(tmp_path), tmp_path / "index"
    with pytest.raises(KeyboardInterrupt):
        _index(_Interrupted(collection), directory)
    assert not directory.exists()
    # What a kill leaves: files of Lucene's without a commit.
    directory.mkdir()
    for name in ("plan.json", "_0.fdt", "_0_Lucene90FieldsIndex-doc_ids_1.tmp", "write.lock", ".writer"):
        (directory / name).write_bytes(b"part")
    with pytest.raises(ArtifactError, match=r"has no manifest.json, expected a BM25 index"):
        next(search_bm25(directory, [("q", "Haus")], hits=1))
    assert not _index(collection, directory)
    assert _found(directory, "häuser") == ["one"]
    assert not (directory / "plan.json").exists()


def test_directories_of_others_are_left_alone(tmp_path: Path) -> None:
    collection = _collection(tmp_path)
    for name, content in (
        ("notes.txt", "mine"),
        ("segments_1", "another tool's index"),
        ("manifest.json", '{"format": "mimo-index"}'),
    ):
        directory = tmp_path / f"of-{name}"
        directory.mkdir()
        (directory / name).write_text(content)
        for resume in (True, False):
            with pytest.raises(ArtifactError, match=rf"holds something else \(.*{name}"):
                _index(collection, directory, resume=resume)
        assert (directory / name).read_text() == content
    with pytest.raises(ArtifactError, match="is a file"):
        _index(collection, tmp_path / "of-notes.txt" / "notes.txt")


def test_one_writer(tmp_path: Path) -> None:
    directory = tmp_path / "index"
    directory.mkdir()
    holder = os.open(directory, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(ArtifactError, match="is being written by another process"):
        _index(_collection(tmp_path), directory)
    os.close(holder)
    assert not _index(_collection(tmp_path), directory)


def test_an_index_is_searched_by_its_own_analyzer_or_not_at_all(tmp_path: Path) -> None:
    directory = tmp_path / "index"
    _index(_collection(tmp_path), directory, language="de")
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["checksum"]
    manifest["plan"]["analyzer"] = "org.apache.lucene.analysis.de.OtherGermanAnalyzer"
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="made with .*OtherGermanAnalyzer .*build the index again"):
        _found(directory, "Haus")
    manifest["files"]["segments_1"]["bytes"] += 1
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="a BM25 index that is corrupted"):
        _found(directory, "Haus")
