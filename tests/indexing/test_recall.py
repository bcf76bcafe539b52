"""Recall is measured when an approximate index is built, and chooses its efSearch or nprobe."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest
from helpers.beir import documents, write_folder
from helpers.seeded_vectors import Seeded

import mimo_plugin
from mimo_plugin.cli import main
from mimo_plugin.core.artifact import sealed_text
from mimo_plugin.core.errors import DataError, UsageError
from mimo_plugin.indexing import faiss as building
from mimo_plugin.indexing.build import index_vectors
from mimo_plugin.indexing.faiss import filled_index
from mimo_plugin.indexing.open import IndexPlan, index_at, open_index
from mimo_plugin.indexing.recall import EF_SEARCH, TARGET, Recall, tune
from mimo_plugin.indexing.settings import IndexOptions

QUERIES = [{"_id": f"q{number}", "text": f"Suche {number}", "lang": "de"} for number in range(40)]


def tuned(
    vectors: Seeded, factory: str, queries: np.ndarray | None, parameters: str | None = None
) -> tuple[faiss.Index, Recall | None]:
    plan = IndexPlan.of(vectors.plan, factory, parameters, 1)
    index = filled_index(plan, vectors, progress=False)
    return index, tune(index, vectors, queries, 1, progress=False)


def setting(index: faiss.Index) -> int:
    inner = faiss.downcast_index(index)
    return inner.hnsw.efSearch if isinstance(inner, faiss.IndexHNSW) else inner.nprobe


def brute_force(
    index: faiss.Index, vectors: Seeded, queries: np.ndarray, own: np.ndarray | None, most: int
) -> dict[int, float]:
    """Setting, `most` at most -> recall@100, by a full sort of all inner products.

    Args:
        own: the documents that the queries are.
    """
    products = queries @ vectors.all.T
    if own is not None:
        products[np.arange(len(own)), own] = -np.inf
    truth = [set(row) for row in np.argsort(-products, axis=1)[:, :100].tolist()]
    inner = faiss.downcast_index(index)
    if isinstance(inner, faiss.IndexHNSW):
        ladder, name = list(EF_SEARCH), "efSearch"
    else:
        ladder, name = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64], "nprobe"
    found = {}
    for value in [value for value in ladder if value <= most]:
        faiss.ParameterSpace().set_index_parameter(index, name, value)
        rows = index.search(queries, 100 + (own is not None))[1].tolist()
        hits = [
            [row for row in some if own is None or row != own[query]][:100] for query, some in enumerate(rows)
        ]
        found[value] = np.mean(
            [len(truth[query].intersection(some)) / 100 for query, some in enumerate(hits)]
        )
    return found


@pytest.mark.parametrize(
    ("factory", "parameters"), [("IVF64,Flat", None), ("HNSW4", "efConstruction=8"), ("IVF64,SQ8", None)]
)
@pytest.mark.parametrize("source", ["queries", "documents"])
def test_the_smallest_setting_that_reaches_the_target_is_chosen(
    factory: str, parameters: str | None, source: str
) -> None:
    vectors = Seeded(2500, 24)
    generator = np.random.default_rng(5)
    own = None if source == "queries" else building.sample_evenly(vectors, 500, 1).rows
    # Queries lie beside the documents.
    asked = vectors.queries + 0.2 * generator.standard_normal(24).astype(np.float32)
    index, recall = tuned(vectors, factory, asked if own is None else None, parameters)
    assert recall is not None
    assert (recall.source, recall.hits) == (source, 100)
    assert recall.queries == (50 if own is None else 500)
    assert setting(index) == recall.value
    by_hand = brute_force(index, vectors, asked if own is None else vectors.all[own], own, recall.value)
    assert [value for value, found in by_hand.items() if found >= TARGET] == [recall.value]
    assert len(by_hand) > 1
    assert recall.recall == pytest.approx(by_hand[recall.value], abs=1e-3)
    assert recall.problem() is None


def test_where_codes_keep_the_target_away_one_warning_says_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    vectors = Seeded(10_000, 32)
    with caplog.at_level(logging.WARNING, "mimo_plugin"):
        index, recall = tuned(vectors, "IVF64,PQ4np", vectors.queries)
    assert recall is not None
    assert recall.value is not None
    by_hand = brute_force(index, vectors, vectors.queries, None, 64)
    most = by_hand[64]
    assert recall.value == min(value for value, found in by_hand.items() if found >= most - 0.01)
    assert recall.value < 64
    (line,) = caplog.messages
    assert line == recall.problem()
    assert f"recall@100 is {recall.recall:.4f} with nprobe={recall.value}, measured on 50 queries" in line
    assert "--factory ivf" in line
    assert "--factory flat" in line


@pytest.mark.parametrize("preset", ["ivfpq", "sq8", "hnsw", "hnsw64", "ivf"])
def test_every_approximate_preset_is_measured(tmp_path: Path, preset: str) -> None:
    vectors = Seeded(10_000 if preset == "ivfpq" else 1500, 32)
    built = index_vectors(vectors, tmp_path / "index", IndexOptions(factory=preset, progress=False))
    recall = built.manifest.recall
    assert recall is not None
    assert (recall.source, recall.queries) == ("documents", 500)
    assert recall.parameter == {"ivfpq": "nprobe", "ivf": "nprobe", "sq8": None}.get(preset, "efSearch")
    assert str(recall) in built.summary()
    if preset != "ivfpq":
        assert recall.recall >= TARGET
    again = open_index(tmp_path / "index")
    assert again.manifest.recall == recall
    if recall.value is not None:
        assert setting(again.faiss) == recall.value


def test_an_exact_index_is_not_measured() -> None:
    assert tuned(Seeded(300, 8), "Flat", None)[1] is None


@pytest.mark.parametrize("count", [1, 2, 50, 100, 101, 102])
@pytest.mark.parametrize("source", ["queries", "documents"])
def test_few_documents(count: int, source: str) -> None:
    vectors = Seeded(count, 8)
    _, recall = tuned(vectors, "HNSW8", vectors.queries if source == "queries" else None)
    others = count - (source == "documents")
    if others == 0:
        assert recall is None
        return
    assert recall == Recall(
        recall=1.0,
        hits=min(others, 100),
        queries=50 if source == "queries" else count,
        source=source,
        parameter="efSearch",
        value=EF_SEARCH[0],
    )


def test_any_of_many_copies_is_a_hit() -> None:
    vectors = Seeded(2000, 8)
    vectors.all[np.random.default_rng(1).permutation(2000)[:150]] = vectors.all[3]
    _, recall = tuned(vectors, "IVF16,Flat", vectors.all[3:4])
    assert recall is not None
    assert (recall.recall, recall.value) == (1.0, 1)


FOUND = Recall(recall=0.96, hits=100, queries=500, source="queries", parameter="nprobe", value=16)


@pytest.mark.parametrize(
    ("recall", "parameters", "said"),
    [
        (0.96, None, None),
        (0.96, "nprobe=16", None),
        (0.96, "nprobe=32", None),
        (0.96, "efSearch=1,nprobe=8", "nprobe=8 finds less than the index's own nprobe=16"),
        (0.96, "quantizer_nprobe=8", None),
        (0.90, None, "recall@100 is 0.9000 with nprobe=16, measured on 500 queries, less than the 0.95"),
        (0.90, "nprobe=16", "less than the 0.95"),
        (0.90, "nprobe=32", None),
        (0.90, "nprobe=4", "nprobe=4 finds less"),
    ],
)
def test_what_a_search_warns_of(recall: float, parameters: str | None, said: str | None) -> None:
    problem = FOUND.model_copy(update={"recall": recall}).problem(parameters)
    assert problem is None if said is None else said in str(problem)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    qrels = {"q1": {"d1": 1}}
    return write_folder(tmp_path_factory.mktemp("folder"), documents(300), QUERIES, qrels)


Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str | Path) -> str:
        assert main([*map(str, arguments), "--no-progress"]) == 0
        return "".join(capsys.readouterr())

    return run


@pytest.mark.threads
def test_real_queries_are_used_where_there_are_some(
    folder: str, checkpoint: Path, tmp_path: Path, run: Run
) -> None:
    kind = ("--factory", "IVF8,Flat")
    run("index", folder, "--encoder", checkpoint, "--output", tmp_path / "own", *kind)
    run("encode", folder, "--encoder", checkpoint, "--output", tmp_path / "vectors")
    given = ("index", "--vectors", tmp_path / "vectors", *kind)
    run(*given, "--output", tmp_path / "documents")
    run(*given, "--output", tmp_path / "topics", "--topics", folder)
    own, docs, topics = (index_at(tmp_path / name).read().recall for name in ("own", "documents", "topics"))
    assert own is not None
    assert docs is not None
    assert (own.source, own.queries) == ("queries", len(QUERIES))
    assert topics == own
    assert (docs.source, docs.queries) == ("documents", 300)
    assert (tmp_path / "own" / "index").read_bytes() == (tmp_path / "topics" / "index").read_bytes()


def test_topics_that_cannot_be_used_show_before_the_work(
    folder: str, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="nowhere"):
        mimo_plugin.index(
            folder, str(checkpoint), tmp_path / "index", factory="hnsw", topics=["path:nowhere"]
        )
    with pytest.raises(UsageError, match="do not say which encoder made them"):
        index_vectors(Seeded(100, 8), tmp_path / "index", IndexOptions(factory="hnsw", topics=[folder]))
    assert not (tmp_path / "index").exists()


def test_queries_that_cannot_be_read_leave_the_documents(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = write_folder(tmp_path / "folder", documents(120), [*QUERIES, {**QUERIES[0], "text": "anders"}])
    with caplog.at_level(logging.WARNING, "mimo_plugin"):
        built = mimo_plugin.index(spec, str(checkpoint), tmp_path / "index", factory="hnsw", progress=False)
    assert built.manifest.recall is not None
    assert built.manifest.recall.source == "documents"
    assert any(
        "recall is measured on documents, as the queries cannot be used" in one for one in caplog.messages
    )


@pytest.mark.threads
def test_pyserini_and_searches_have_the_chosen_setting(
    folder: str, checkpoint: Path, tmp_path: Path, run: Run
) -> None:
    mimo_plugin.register()
    from pyserini.search.faiss import FaissSearcher

    encoder = mimo_plugin.MimoQueryEncoder(str(checkpoint), device="cpu")
    for factory in ("IVF32,Flat", "hnsw"):
        output = tmp_path / factory
        run("index", folder, "--encoder", checkpoint, "--output", output, "--factory", factory)
        recall = index_at(output).read().recall
        assert recall is not None
        searcher = FaissSearcher(str(output), encoder)
        assert setting(searcher.index) == recall.value
        assert recall.recall >= TARGET
        ours = mimo_plugin.search(output, ["Suche"], hits=20, progress=False)["0"]
        theirs = [float(hit.score) for hit in searcher.search("Suche", k=20)]
        assert list(ours.values()) == pytest.approx(theirs, abs=1e-5)
    asked = ("search", tmp_path / "IVF32,Flat", "-q", "Suche")
    lower = run(*asked, "--search-parameters", "nprobe=1")
    assert "mimo: warning" in lower
    assert lower.count("nprobe=1 finds less than the index's own nprobe=") == 1
    assert "warning" not in run(*asked, "--search-parameters", "nprobe=32")
    assert "warning" not in run(*asked)


def test_older_manifests_and_low_recall(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vectors = Seeded(3000, 16)
    built = index_vectors(vectors, tmp_path / "index", IndexOptions(factory="IVF32,PQ4np", progress=False))
    path = tmp_path / "index" / "manifest.json"
    with caplog.at_level(logging.WARNING, "mimo_plugin"):
        caplog.clear()
        index = open_index(tmp_path / "index")
        expected = index.faiss.search(vectors.queries, 10)[1]
        assert caplog.messages == [f"{tmp_path / 'index'}: {built.manifest.recall.problem()}"]
        data = json.loads(path.read_text())
        del data["recall"], data["checksum"]
        path.write_text(sealed_text(data))
        caplog.clear()
        old = open_index(tmp_path / "index")
        assert old.manifest.recall is None
        assert np.array_equal(old.faiss.search(vectors.queries, 10)[1], expected)
        assert caplog.messages == []


def test_all_threads_or_as_many_as_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The number is FAISS's own during the build only; a long build names an index that is built faster."""
    monkeypatch.setattr(building, "_SETTLED", 0)
    monkeypatch.setattr(building, "_LONG", 0)
    before = faiss.omp_get_max_threads()
    vectors = Seeded(1200, 16)
    with caplog.at_level(logging.INFO, "mimo_plugin"):
        for threads, shown in ((3, 3), (None, before)):
            caplog.clear()
            options = IndexOptions(factory="HNSW8", threads=threads, progress=False)
            index_vectors(vectors, tmp_path / str(threads), options)
            (line,) = [one for one in caplog.messages if "--factory ivf" in one]
            assert f"with {shown} threads" in line
            assert faiss.omp_get_max_threads() == before
        caplog.clear()
        index_vectors(vectors, tmp_path / "ivf", IndexOptions(factory="IVF16,Flat", progress=False))
        assert caplog.messages == []
    assert (tmp_path / "3" / "index").read_bytes() == (tmp_path / "None" / "index").read_bytes()
