"""What users do with Pyserini, done with our students and indexes: stock commands, searchers, servers."""

import json
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from helpers.beir import documents, write_folder
from helpers.checkpoints import TEXTS, plain_xlmr, sentence_transformer
from helpers.serving import free_port, serving

import mimo_plugin
from mimo_plugin.collections.pool import load
from mimo_plugin.core.errors import EnvironmentProblem
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.indexing.build import index as build_index
from mimo_plugin.indexing.settings import IndexOptions
from mimo_plugin.pyserini.commands import run_module
from mimo_plugin.training.record import save_student

# Shorter than Pyserini's default for documents, 256, and than the longest document here.
MAX_LENGTH = 200
DIMENSION = 32
LONG = " ".join(TEXTS * 40)
QUERIES = {"q1": "Suche Sprache", "q2": "haku kieli", "q3": "検索 言語"}
PYSERINI_2 = int(version("pyserini").partition(".")[0]) >= 2


def trained(directory: Path, base: Path, **layout: Any) -> Path:
    """A checkpoint written as `mimo train` writes it."""
    from sentence_transformers import SentenceTransformer

    made = sentence_transformer(directory.with_name(f"{directory.name}-made"), base, **layout)
    save_student(SentenceTransformer(str(made), device="cpu"), directory)
    return directory


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_xlmr(tmp_path_factory.mktemp("base") / "xlmr", hidden=DIMENSION, positions=514)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    return trained(tmp_path_factory.mktemp("students") / "student", base, max_length=MAX_LENGTH)


@pytest.fixture(scope="module")
def student(checkpoint: Path) -> Encoder:
    return Encoder(str(checkpoint))


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    found = documents(40)
    found[7]["text"] = LONG
    return found


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]) -> Any:
    queries = [{"_id": name, "text": text, "lang": "de"} for name, text in QUERIES.items()]
    return load(write_folder(tmp_path_factory.mktemp("pool") / "folder", rows, queries))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, pool: Any, student: Encoder) -> Path:
    output = tmp_path_factory.mktemp("index") / "index"
    build_index(pool, student, output, options=IndexOptions(progress=False))
    return output


@pytest.fixture(scope="module")
def texts(pool: Any) -> dict[str, str]:
    return {doc.doc_id: doc.text for doc in pool.docs_iter()}


@pytest.fixture(scope="module")
def lucene(tmp_path_factory: pytest.TempPathFactory, texts: dict[str, str]) -> Path:
    """A Lucene index of the same pool that keeps the texts, as a Pyserini script makes one."""
    from pyserini.index.lucene import LuceneIndexer

    directory = tmp_path_factory.mktemp("lucene") / "index"
    arguments = ["-index", str(directory), "-stemmer", "none", "-keepStopwords", "-storeRaw"]
    indexer = LuceneIndexer(args=arguments, threads=1)
    indexer.add_batch_dict([{"id": docid, "contents": text} for docid, text in texts.items()])
    indexer.close()
    return directory


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("topics") / "topics.tsv"
    path.write_text("".join(f"{name}\t{text}\n" for name, text in QUERIES.items()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def searcher(index: Path, checkpoint: Path) -> Any:
    mimo_plugin.register()
    from pyserini.search.faiss import FaissSearcher

    return FaissSearcher(str(index), mimo_plugin.MimoQueryEncoder(str(checkpoint), device="cpu"))


def write_corpus(path: Path, rows: list[dict[str, str]]) -> Path:
    lines = ({"id": row["_id"], "title": row["title"], "text": row["text"]} for row in rows)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def encode(corpus: Path, output: Path, checkpoint: Path, *encoder: str, to_faiss: bool = True) -> None:
    fields = ["--fields", "title", "text"]
    command = ["input", "--corpus", str(corpus), *fields, "output", "--embeddings", str(output)]
    command += ["--to-faiss"] if to_faiss else []
    run_module(
        "encode", [*command, "encoder", "--encoder", str(checkpoint), *fields, "--device", "cpu", *encoder]
    )


def search(index: Path, topics: Path, checkpoint: Path, output: Path, *more: str) -> dict[str, Any]:
    """The run of `search.faiss`."""
    command = ["--index", str(index), "--topics", str(topics), "--encoder", str(checkpoint)]
    run_module("search.faiss", [*command, "--output", str(output), "--hits", "10", *more])
    return run_of(output)


def run_of(path: Path) -> dict[str, list[tuple[str, float]]]:
    found: dict[str, list[tuple[str, float]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        query, _, docid, _, score, _ = line.split()
        found.setdefault(query, []).append((docid, float(score)))
    return found


def assert_ranks(hits: list[tuple[str, float]], expected: dict[str, float], atol: float = 2e-6) -> None:
    """Hits are the best of the expected scores, in their order but for ties."""
    assert np.allclose([score for _, score in hits], [expected[docid] for docid, _ in hits], atol=atol)
    best = sorted(expected.values(), reverse=True)[: len(hits)]
    assert np.allclose([score for _, score in hits], best, atol=atol)


def exact(index: Path, student: Encoder) -> dict[str, dict[str, float]]:
    """Query -> docid -> inner product, from the index's own vectors."""
    found = faiss.read_index(str(index / "index"))
    docids = (index / "docid").read_text(encoding="utf-8").splitlines()
    scores = found.reconstruct_n(0, found.ntotal) @ student.encode_queries(list(QUERIES.values())).T
    return {
        name: dict(zip(docids, column.tolist(), strict=True))
        for name, column in zip(QUERIES, scores.T, strict=True)
    }


def test_stock_encode_and_search_with_our_class(
    rows: list[dict[str, str]], checkpoint: Path, student: Encoder, index: Path, topics: Path, tmp_path: Path
) -> None:
    """Neither a dimension nor a length is given: both are the checkpoint's, as in `mimo index`."""
    corpus = write_corpus(tmp_path / "corpus.jsonl", rows)
    encode(corpus, tmp_path / "jsonl", checkpoint, "--encoder-class", "mimo", to_faiss=False)
    encode(corpus, tmp_path / "faiss", checkpoint, "--encoder-class=mimo")
    lines = [json.loads(line) for line in (tmp_path / "jsonl" / "embeddings.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [row["_id"] for row in rows]
    assert [line["contents"] for line in lines] == [f"{row['title']}\n{row['text']}" for row in rows]
    ours = faiss.read_index(str(index / "index")).reconstruct_n(0, len(rows))
    assert np.abs(np.array([line["vector"] for line in lines]) - ours).max() <= 1e-6
    run_module(
        "index.faiss", ["--input", str(tmp_path / "jsonl"), "--output", str(tmp_path / "flat"), "--dim", "32"]
    )
    for made in ("faiss", "flat"):
        stock = faiss.read_index(str(tmp_path / made / "index"))
        assert np.abs(stock.reconstruct_n(0, len(rows)) - ours).max() <= 1e-6
        more = ["--encoder-class", "mimo", "--batch-size", "2"]
        run = search(tmp_path / made, topics, checkpoint, tmp_path / "run.trec", *more)
        expected = exact(index, student)
        assert list(run) == list(QUERIES)
        for name, hits in run.items():
            assert_ranks(hits, expected[name])


def test_lengths_and_dimensions_that_are_given_hold(
    rows: list[dict[str, str]], checkpoint: Path, student: Encoder, tmp_path: Path
) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", [rows[7]])
    arguments = ["--encoder-class", "mimo", "--max-length", "16", "--dimension", "32"]
    encode(corpus, tmp_path / "faiss", checkpoint, *arguments)
    vector = faiss.read_index(str(tmp_path / "faiss" / "index")).reconstruct(0)
    text = f"{rows[7]['title']} {LONG}"
    assert np.abs(vector - student.encode_documents([text], max_length=16)[0]).max() <= 1e-6
    assert np.abs(vector - student.encode_documents([text])[0]).max() > 1e-3


def test_students_work_with_stock_pyserini_alone(
    rows: list[dict[str, str]], checkpoint: Path, student: Encoder, index: Path, topics: Path, tmp_path: Path
) -> None:
    """With Pyserini's own default for the length, vectors of longer documents are others."""
    titled = [row for row in rows if row["title"]]
    corpus = write_corpus(tmp_path / "corpus.jsonl", titled)
    auto = ["--encoder-class", "auto", "--pooling", "mean", "--l2-norm"]
    ours = student.encode_documents([f"{row['title']} {row['text']}" for row in titled])
    for name, length, close in (("own", ["--max-length", str(MAX_LENGTH)], True), ("default", [], False)):
        encode(corpus, tmp_path / name, checkpoint, "--dimension", str(DIMENSION), *auto, *length)
        found = faiss.read_index(str(tmp_path / name / "index")).reconstruct_n(0, len(titled))
        far = np.abs(found - ours).max(axis=1) > 1e-5
        assert [row["_id"] for row, other in zip(titled, far, strict=True) if other] == (
            [] if close else ["d7"]
        )
    expected = exact(index, student)
    for name, hits in search(index, topics, checkpoint, tmp_path / "run.trec", *auto).items():
        assert_ranks(hits, expected[name], atol=1e-5)


def test_stock_queries_are_cut_where_ours_are(checkpoint: Path, student: Encoder) -> None:
    """By the length that the student's tokenizer files say."""
    from pyserini.encode import AutoQueryEncoder

    stock = AutoQueryEncoder(str(checkpoint), device="cpu", pooling="mean", l2_norm=True)
    assert np.abs(stock.encode(LONG) - student.encode_queries([LONG])[0]).max() <= 1e-5
    bare = AutoQueryEncoder(str(checkpoint), device="cpu")
    assert np.abs(bare.encode(TEXTS[0]) - student.encode_queries(TEXTS[:1])[0]).max() > 1e-2


def test_a_searcher_that_is_given_a_path(
    index: Path, checkpoint: Path, student: Encoder, tmp_path: Path
) -> None:
    """It pools CLS and does not normalise, unless `sentence` is in the path."""
    from pyserini.search.faiss import FaissSearcher

    shutil.copytree(checkpoint, tmp_path / "sentence-student")
    expected = student.encode_queries(TEXTS[:1])[0]
    for path, close in ((checkpoint, False), (tmp_path / "sentence-student", True)):
        encoder = FaissSearcher(str(index), str(path)).query_encoder
        assert (np.abs(encoder.encode(TEXTS[0]) - expected).max() <= 1e-5) == close


def test_prompts_with_stock_pyserini(base: Path, tmp_path: Path) -> None:
    """A prompt that ends with a space is a prefix without it; a title comes before the prefix.

    Our class takes a prefix for the prompt.
    """
    from pyserini.encode import AutoDocumentEncoder, AutoQueryEncoder

    prompts = {"query": "query: ", "document": "passage: "}
    path = trained(tmp_path / "student", base, prompts=prompts, max_length=MAX_LENGTH)
    student = Encoder(str(path))
    settings = {"device": "cpu", "pooling": "mean", "l2_norm": True}

    def difference(found: Any, expected: Any) -> float:
        return float(np.abs(np.asarray(found) - expected).max())

    queries = AutoQueryEncoder(str(path), prefix="query:", **settings)
    assert difference([queries.encode(text) for text in TEXTS], student.encode_queries(TEXTS)) <= 1e-5
    for prefix, close in (("passage:", True), ("passage: ", False), (None, False)):
        docs = AutoDocumentEncoder(str(path), prefix=prefix, **settings)
        assert (difference(docs.encode(TEXTS), student.encode_documents(TEXTS)) <= 1e-5) == close
    docs = AutoDocumentEncoder(str(path), prefix="passage:", **settings)
    found = docs.encode(["text", "text"], titles=["Titel", None])
    between = student.encode_documents(["Titel passage: text", "None passage: text"], prompt="")
    assert difference(found, between) <= 1e-5
    corpus = write_corpus(tmp_path / "corpus.jsonl", [{"_id": "d1", "title": "Titel", "text": "text"}])
    for prefix in (None, "other:"):
        given = [] if prefix is None else ["--prefix", prefix]
        encode(corpus, tmp_path / f"{prefix}", path, "--encoder-class", "mimo", *given)
        vector = faiss.read_index(str(tmp_path / f"{prefix}" / "index")).reconstruct(0)
        prompt = None if prefix is None else f"{prefix} "
        assert difference(vector, student.encode_documents(["Titel text"], prompt=prompt)[0]) <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "given", "outcome"),
    [
        ("student", None, "same"),
        ("student", "auto", "same"),
        ("students-dpr", None, "other"),
        ("arctic", None, "other"),
        ("contriever", None, "other"),
        ("autumn-student", None, "same"),
        ("automatic", None, "other"),
        ("relevance", None, "fails"),
        ("clip", None, "fails"),
        ("clip", "auto", "fails"),
        ("wordset", "auto", "fails"),
        ("relevance", "auto", "same"),
        ("automatic", "mimo", "same"),
        ("wordset", "mimo", "same"),
        ("clip", "mimo", "same"),
    ],
)
def test_what_a_path_does_to_stock_commands(
    name: str,
    given: str | None,
    outcome: str,
    checkpoint: Path,
    student: Encoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Parts of a path decide the class where none is given, and some settings where one is."""
    mimo_plugin.register()
    from pyserini.encode.__main__ import init_encoder

    shutil.copytree(checkpoint, tmp_path / name)
    # The path that Pyserini looks at is the name alone.
    monkeypatch.chdir(tmp_path)
    settings = {
        "pooling": "mean",
        "l2_norm": True,
        "prefix": None,
        "multimodal": False,
        "explicit_truncate": False,
    }
    if outcome == "fails":
        with pytest.raises((AttributeError, OSError, TypeError)):
            init_encoder(name, given, "cpu", **settings)
        return
    found = init_encoder(name, given, "cpu", **settings).encode(texts=TEXTS[:2], max_length=MAX_LENGTH)
    expected = student.encode_documents(TEXTS[:2])
    assert bool(found.shape == expected.shape and np.abs(found - expected).max() <= 1e-5) == (
        outcome == "same"
    )


def test_a_path_of_queries_alone(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The classes of queries are others than those of documents: `bpr` is one of them only."""
    from pyserini.encode import AutoDocumentEncoder, AutoQueryEncoder
    from pyserini.encode.__main__ import init_encoder
    from pyserini.search.faiss.__main__ import init_query_encoder

    shutil.copytree(checkpoint, tmp_path / "bpr")
    monkeypatch.chdir(tmp_path)
    assert isinstance(init_encoder("bpr", None, "cpu", "mean", True, None, False, False), AutoDocumentEncoder)
    arguments = (None, "topics", None, "cpu", 256, "mean", True, None)
    assert not isinstance(init_query_encoder("bpr", None, *arguments), AutoQueryEncoder)


def test_options_of_stock_encode_that_are_left_out(
    rows: list[dict[str, str]], checkpoint: Path, student: Encoder, tmp_path: Path
) -> None:
    """Without the dimension it fails; a field that only the input names is not encoded."""
    corpus = write_corpus(tmp_path / "corpus.jsonl", rows[1:3])
    auto = ["--encoder-class", "auto", "--pooling", "mean", "--l2-norm"]
    with pytest.raises(AssertionError):
        encode(corpus, tmp_path / "faiss", checkpoint, *auto)
    command = ["input", "--corpus", str(corpus), "--fields", "title", "text", "output", "--embeddings"]
    command += [str(tmp_path / "jsonl"), "encoder", "--encoder", str(checkpoint), "--device", "cpu", *auto]
    run_module("encode", command)
    lines = map(json.loads, (tmp_path / "jsonl" / "embeddings.jsonl").read_text().splitlines())
    found = np.array([line["vector"] for line in lines])
    assert np.abs(found - student.encode_documents([row["text"] for row in rows[1:3]])).max() <= 1e-5


def test_an_index_that_is_not_there(checkpoint: Path, topics: Path, tmp_path: Path) -> None:
    """Stock Pyserini says so and ends with status 0."""
    arguments = ["--index", "no-such-index", "--topics", str(topics), "--encoder", str(checkpoint)]
    arguments += ["--encoder-class", "mimo", "--output", str(tmp_path / "run.trec")]
    with pytest.raises(EnvironmentProblem, match="ended without writing .*run.trec"):
        run_module("search.faiss", arguments)
    with pytest.raises(SystemExit) as exit_:
        run_module("search.faiss", [*arguments, "--hits", "many"])
    assert exit_.value.code == 2


def test_texts_of_hits(searcher: Any, lucene: Path, texts: dict[str, str]) -> None:
    """A searcher over a local index has no texts of its own: it is given a Lucene index of the same pool."""
    from pyserini.search.lucene import LuceneSearcher

    with pytest.raises(AttributeError, match="ssearcher"):
        searcher.doc("d1")
    searcher.ssearcher = LuceneSearcher(str(lucene))
    try:
        for hit in searcher.search("Suche", k=40):
            assert json.loads(searcher.doc(hit.docid).raw())["contents"] == texts[hit.docid]
    finally:
        searcher.ssearcher.close()
        del searcher.ssearcher


def test_hybrid_search_with_bm25(searcher: Any, lucene: Path, index: Path, student: Encoder) -> None:
    from pyserini.analysis import get_lucene_analyzer
    from pyserini.search.hybrid import HybridSearcher
    from pyserini.search.lucene import LuceneSearcher

    sparse = LuceneSearcher(str(lucene))
    sparse.set_analyzer(get_lucene_analyzer(stemming=False, stopwords=False))
    hybrid = HybridSearcher(searcher, sparse)
    dense = exact(index, student)
    for name, text in QUERIES.items():
        lexical = {hit.docid: hit.score for hit in sparse.search(text, k=40)}
        assert lexical
        least = min(lexical.values())
        expected = {docid: score + 0.1 * lexical.get(docid, least) for docid, score in dense[name].items()}
        hits = hybrid.search(text, k0=40, k=10, alpha=0.1)
        assert_ranks([(hit.docid, hit.score) for hit in hits], expected, atol=1e-5)
    sparse.close()


def test_stock_hybrid_command(
    index: Path, lucene: Path, checkpoint: Path, topics: Path, tmp_path: Path
) -> None:
    dense = ["dense", "--index", str(index), "--encoder", str(checkpoint), "--encoder-class", "mimo"]
    sparse = ["sparse", "--index", str(lucene)]
    run = ["run", "--topics", str(topics), "--hits", "5", "--output", str(tmp_path / "run.trec")]
    run_module("search.hybrid", [*dense, *sparse, "fusion", "--alpha", "0.1", *run])
    found = run_of(tmp_path / "run.trec")
    assert {name: len(hits) for name, hits in found.items()} == dict.fromkeys(QUERIES, 5)


@pytest.mark.parametrize("factory", ["Flat", "SQ8", "HNSW8"])
def test_pseudo_relevance_feedback(
    factory: str, pool: Any, student: Encoder, checkpoint: Path, topics: Path, tmp_path: Path
) -> None:
    """Vectors come back from the index: the query moves towards those that it found."""
    from pyserini.search.faiss import DenseVectorAveragePrf, DenseVectorRocchioPrf, FaissSearcher

    index = tmp_path / "index"
    options = IndexOptions(factory=factory, progress=False)
    build_index(pool, student, index, options=options)
    searcher = FaissSearcher(str(index), mimo_plugin.MimoQueryEncoder(str(checkpoint), device="cpu"))
    stored = searcher.index.reconstruct_n(0, 40)
    average, rocchio = DenseVectorAveragePrf(), DenseVectorRocchioPrf(0.4, 0.6, 0, 3, 0)
    for text in QUERIES.values():
        query, found = searcher.search(text, k=3, return_vector=True)
        assert np.abs(query[0] - student.encode_queries([text])[0]).max() <= 1e-6
        vectors = stored[[searcher.docids.index(hit.docid) for hit in found]]
        for rule, expected in (
            (average, np.vstack([query, vectors]).mean(axis=0)),
            (rocchio, 0.4 * query[0] + 0.6 * vectors.mean(axis=0)),
        ):
            moved = rule.get_prf_q_emb(query[0], found)
            assert np.abs(moved - expected).max() <= 1e-6
            hits = searcher.search(moved[None, :].astype(np.float32), k=5)
            scores = dict(zip(searcher.docids, (stored @ expected).tolist(), strict=True))
            assert_ranks([(hit.docid, hit.score) for hit in hits], scores, atol=1e-5)
    more = ["--encoder-class", "mimo", "--prf-depth", "3", "--prf-method", "avg"]
    run = search(index, topics, checkpoint, tmp_path / "run.trec", *more)
    assert all(len(hits) == 10 for hits in run.values())


@pytest.fixture
def server(
    index: Path, lucene: Path, checkpoint: Path, tmp_path: Path, socket_enabled: None
) -> Iterator[str]:
    """The address of a server that `mimo pyserini server.rest` has started."""
    import yaml

    configuration = {
        "indexes": {
            "texts": str(lucene),
            "pool": {
                "path": str(index),
                "index_type": "faiss",
                "encoder": f"mimo:{checkpoint}",
                "base_index": "texts",
            },
            "bare": {"path": str(index), "index_type": "faiss", "encoder": f"mimo:{checkpoint}"},
        }
    }
    (tmp_path / "server.yaml").write_text(yaml.safe_dump(configuration))
    port = free_port()
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--no-prebuilt-indexes", "--no-access-log"]
    arguments += ["--config", str(tmp_path / "server.yaml")]
    with serving(partial(run_module, "server.rest", arguments), port):
        yield f"http://127.0.0.1:{port}/v1"


@pytest.mark.skipif(not PYSERINI_2, reason="the server of Pyserini 1.6 has no local FAISS indexes")
def test_rest_server(server: str, index: Path, student: Encoder, texts: dict[str, str]) -> None:
    def get(path: str) -> Any:
        with urllib.request.urlopen(f"{server}/{path}") as answer:
            return json.load(answer)

    expected = exact(index, student)
    for name, text in QUERIES.items():
        candidates = get(f"pool/search?query={urllib.parse.quote(text)}&hits=10")["candidates"]
        assert_ranks([(found["docid"], found["score"]) for found in candidates], expected[name])
        assert all(found["doc"] == texts[found["docid"]] for found in candidates)
    assert get("pool/doc/d3")["doc"] == texts["d3"]
    with pytest.raises(urllib.error.HTTPError, match="400") as refused:
        get("bare/search?query=haku")
    assert "requires a Lucene sparse index" in json.load(refused.value)["error"]
