"""`mimo serve`: Pyserini's server answers with our hits and texts."""

import json
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from helpers.beir import documents, write_folder
from helpers.serving import free_port, serving

from mimo_plugin.cli import main
from mimo_plugin.collections.pool import load
from mimo_plugin.core.artifact import Artifact
from mimo_plugin.core.errors import ArtifactError, EnvironmentProblem
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.indexing.build import index
from mimo_plugin.indexing.open import Index
from mimo_plugin.indexing.search import search
from mimo_plugin.indexing.serving import keep_texts, serve
from mimo_plugin.indexing.settings import ServeOptions
from mimo_plugin.pyserini.bm25 import BM25_INDEXES, index_bm25, search_bm25

QUERIES = {"q1": "Suche Sprache", "q2": "haku kieli", "q3": "検索 言語"}
DOCUMENTS = 40
SERVES = [int(part) for part in version("pyserini").split(".")[:2]] >= [2, 1]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = documents(DOCUMENTS)
    rows[3] |= {"title": "", "text": " "}
    return write_folder(tmp_path_factory.mktemp("folder"), rows)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, spec: str) -> Index:
    # Prompts that the checkpoint's files do not know: the index does.
    prompts = EncoderOptions(query_prompt="Suche: ", document_prompt="Wort: ")
    output = tmp_path_factory.mktemp("index") / "index"
    return index(spec, Encoder(str(checkpoint), prompts), output, progress=False)


@pytest.mark.parametrize("kept", [True, False])
def test_lucene_keeps_the_texts(
    kept: bool, built: Index, spec: str, student: Encoder, tmp_path: Path
) -> None:
    """Of the index or of its collection; a document without text has its docid."""
    source = index(spec, student, tmp_path / "kept", progress=False, texts=True) if kept else built
    options = ServeOptions(threads=1, progress=False)
    keep_texts(source, tmp_path / "lucene", options)
    from pyserini.search.lucene import LuceneSearcher

    searcher = LuceneSearcher(str(tmp_path / "lucene"))
    docs = list(load(spec).docs_iter())
    assert searcher.num_docs == len(docs)
    for doc in docs:
        stored = json.loads(searcher.doc(doc.doc_id).raw())["contents"]
        assert stored == (doc.text if doc.text.strip() else doc.doc_id)
    searcher.close()
    keep_texts(source, tmp_path / "lucene", options)


def test_an_index_with_texts_serves_for_bm25_but_not_the_reverse(spec: str, tmp_path: Path) -> None:
    pool = load(spec)
    index_bm25(pool, tmp_path / "with", texts=True, threads=1, progress=False)
    assert index_bm25(pool, tmp_path / "with", threads=1, progress=False).already
    index_bm25(pool, tmp_path / "without", threads=1, progress=False)
    with pytest.raises(ArtifactError, match="texts is True, there it is False"):
        index_bm25(pool, tmp_path / "without", texts=True, threads=1, progress=False)
    runs = [
        [(one, docids, scores.tolist()) for one, docids, scores in search_bm25(path, [("q", "haku")], hits=5)]
        for path in (tmp_path / "with", tmp_path / "without")
    ]
    assert runs[0] == runs[1] != []
    assert Artifact(tmp_path / "with", BM25_INDEXES).verify().plan.texts


@pytest.mark.skipif(SERVES, reason="this Pyserini serves local indexes")
def test_the_release_that_is_needed(
    built: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str], socket_enabled: None
) -> None:
    """Together with whatever else is wrong."""
    (tmp_path / "mine").write_text("")
    command = ["serve", str(built.directory), "--lucene", str(tmp_path / "mine")]
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert main([*command, "--port", str(other.getsockname()[1])]) == 1
    error = capsys.readouterr().err
    assert "cannot be listened on: Address already in use; choose another --port" in error
    assert f"the server of Pyserini {version('pyserini')} has its own prebuilt indexes only" in error
    assert "pip install 'pyserini==2.3.0'" in error
    assert "mine is a file: --lucene must name" in error


@pytest.fixture
def server(built: Index, tmp_path: Path, socket_enabled: None) -> Iterator[str]:
    port = free_port()
    options = ServeOptions(port=port, lucene=tmp_path / "lucene", threads=1, progress=False)
    with serving(partial(serve, built.directory, options), port):
        with pytest.raises(EnvironmentProblem, match=rf":{port} cannot be listened on: .*another --port"):
            serve(built.directory, options)
        yield f"http://127.0.0.1:{port}/v1"


@pytest.mark.skipif(not SERVES, reason="the server of this Pyserini has no local FAISS indexes")
def test_answers_are_those_of_a_search(server: str, built: Index, spec: str, tmp_path: Path) -> None:
    def get(path: str) -> Any:
        with urllib.request.urlopen(f"{server}/{path}") as answer:
            return json.load(answer)

    def found(name: str, text: str, hits: int) -> list[dict[str, Any]]:
        answer = get(f"{name}/search?query={urllib.parse.quote(text)}&hits={hits}")
        return answer["candidates"]  # type: ignore[no-any-return]

    texts = {doc.doc_id: doc.text if doc.text.strip() else doc.doc_id for doc in load(spec).docs_iter()}
    expected = search(built.directory, QUERIES, hits=DOCUMENTS)
    for query, text in QUERIES.items():
        candidates = found("dense", text, DOCUMENTS)
        assert {one["docid"]: one["doc"] for one in candidates} == texts
        scores = {one["docid"]: one["score"] for one in candidates}
        assert scores == pytest.approx(expected[query], abs=2e-6)
        assert [one["score"] for one in candidates] == sorted(scores.values(), reverse=True)
    ((_, docids, _),) = search_bm25(tmp_path / "lucene", [("q2", QUERIES["q2"])], hits=5)
    assert sorted(one["docid"] for one in found("bm25", QUERIES["q2"], 5)) == sorted(docids)
    assert get("dense/doc/d3")["doc"] == "d3"
    # Several at once: none of them is in the server's cache.
    words = [f"haku {number}" for number in range(24)]
    alone = search(built.directory, words, hits=5)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda word: found("dense", word, 5), words))
    for candidates, hits in zip(answers, alone.values(), strict=True):
        assert {one["docid"]: one["score"] for one in candidates} == pytest.approx(hits, abs=2e-6)
    with pytest.raises(urllib.error.HTTPError, match="400"):
        get("none/search?query=x")
