"""The real PyTerrier: our retriever in its pipelines, and our vectors in pyterrier_dr's FlexIndex."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.beir import documents, write_folder
from helpers.checkpoints import plain_xlmr

from mimo_plugin.collections.pool import load
from mimo_plugin.core.artifact import Artifact
from mimo_plugin.core.errors import ArtifactError, DataError, EnvironmentProblem, UsageError
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.indexing.build import index
from mimo_plugin.indexing.exporting import FLEX_VECTORS, export_vectors
from mimo_plugin.indexing.open import Index
from mimo_plugin.indexing.settings import Format

pd = pytest.importorskip("pandas")
pt = pytest.importorskip("pyterrier", reason="pip install 'mimo-plugin[terrier]'")
QUERIES = {"q1": "Suche Sprache", "q2": "haku kieli", "q3": "検索 言語"}
DOCUMENTS = 50


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder(str(plain_xlmr(tmp_path_factory.mktemp("checkpoint"))))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = documents(DOCUMENTS)
    # Equal documents: their scores tie.
    for number in (5, 15, 25):
        rows[number] |= {"title": "", "text": "Suche Sprache"}
    rows[7]["_id"] = "日本:7"
    return write_folder(tmp_path_factory.mktemp("folder"), rows)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder, spec: str) -> Index:
    return index(spec, encoder, tmp_path_factory.mktemp("index") / "flat", progress=False, texts=True)


@pytest.fixture
def topics() -> Any:
    return pd.DataFrame({"qid": list(QUERIES), "query": list(QUERIES.values()), "topic_lang": list("dfj")})


def rankings(frame: Any) -> dict[str, list[tuple[str, float]]]:
    """Query id -> (docid, score) in the order of the ranks."""
    assert all(sorted(some["rank"]) == list(range(len(some))) for _, some in frame.groupby("qid"))
    ordered = frame.sort_values(["qid", "rank"])
    return {qid: list(zip(some["docno"], some["score"], strict=True)) for qid, some in ordered.groupby("qid")}


def test_results_are_those_of_a_search(built: Index, spec: str, topics: Any) -> None:
    from mimo_plugin.terrier import MimoRetriever

    expected = {qid: list(hits.items()) for qid, hits in built.search(QUERIES, hits=10).items()}
    found = MimoRetriever(built.directory, num_results=10, text=True)(topics)
    assert list(found.columns) == ["qid", "query", "topic_lang", "docno", "score", "rank", "text"]
    assert rankings(found) == expected
    texts = {doc.doc_id: doc.text for doc in load(spec).docs_iter()}
    assert all(texts[docno] == text for docno, text in zip(found["docno"], found["text"], strict=True))
    assert dict(zip(found["qid"], found["query"], strict=True)) == QUERIES


def test_in_pipelines_and_experiments(built: Index, topics: Any) -> None:
    from mimo_plugin.terrier import MimoRetriever

    retriever = MimoRetriever(built)
    expected = built.search(QUERIES, hits=3)
    for pipeline in (retriever % 3, (retriever % 3).compile(), retriever >> pt.RankCutoff(3)):
        assert {qid: dict(hits) for qid, hits in rankings(pipeline(topics)).items()} == dict(expected)
    compiled = (retriever % 3).compile()
    assert isinstance(compiled, MimoRetriever)
    assert compiled.num_results == 3
    doubled = rankings((2 * retriever + retriever)(topics))
    assert [score for _, score in doubled["q1"]] == pytest.approx(
        [3 * score for _, score in rankings(retriever(topics))["q1"]]
    )
    best = {qid: next(iter(hits)) for qid, hits in expected.items()}
    qrels = pd.DataFrame({"qid": list(best), "docno": list(best.values()), "label": 1})
    german = MimoRetriever(built, lang="de")
    table = pt.Experiment([retriever, german], topics, qrels, ["recip_rank"], names=["all", "German"])
    assert table["recip_rank"][0] == 1
    assert set(built.languages_of(german(topics)["docno"]).values()) == {"de"}


def test_no_topics_and_inspection(built: Index, topics: Any) -> None:
    from mimo_plugin.terrier import MimoRetriever

    retriever = MimoRetriever(built, text=True)
    none = retriever(topics.iloc[:0])
    assert list(none.columns) == [*topics.columns, "docno", "score", "rank", "text"]
    assert len(none) == 0
    assert pt.inspect.transformer_outputs(retriever, ["qid", "query"]) == [
        *("qid", "query", "docno", "score", "rank", "text")
    ]
    with pytest.raises(pt.validate.InputValidationError, match="query"):
        retriever(topics.drop(columns="query"))


def test_bad_settings(built: Index, encoder: Encoder, tmp_path: Path, topics: Any) -> None:
    from mimo_plugin.terrier import MimoRetriever

    with pytest.raises(UsageError, match="unexpected keyword argument 'nprobe', expected a field of Search"):
        MimoRetriever(built, nprobe=3)
    with pytest.raises(UsageError, match="--lang sw: the index has no such documents"):
        MimoRetriever(built, lang="sw")
    with pytest.raises(ArtifactError, match="no such directory"):
        MimoRetriever(tmp_path / "none")
    gone = write_folder(tmp_path / "gone", documents(5))
    without = index(gone, encoder, tmp_path / "index", progress=False)
    (tmp_path / "gone" / "corpus.jsonl").unlink()
    with pytest.raises(DataError, match="gone"):
        MimoRetriever(without.directory, text=True)(topics)


@pytest.mark.slow
def test_no_jvm_is_started(built: Index) -> None:
    """PyTerrier's and Pyserini's would be the same one, with the class path of whoever comes first."""
    program = (
        "import sys, pandas; from mimo_plugin.terrier import MimoRetriever\n"
        "found = MimoRetriever(sys.argv[1])(pandas.DataFrame({'qid': ['1'], 'query': ['haku']}))\n"
        "import pyterrier; print(len(found), pyterrier.java.started(), 'jnius' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(built.directory)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == f"{DOCUMENTS} False False\n"


def flex(path: Path) -> Any:
    pyterrier_dr = pytest.importorskip("pyterrier_dr", reason="pip install 'mimo-plugin[terrier]'")
    return pyterrier_dr.FlexIndex(str(path), verbose=False)


def test_a_flex_index_has_the_same_vectors_and_ranks_alike(
    built: Index, encoder: Encoder, topics: Any, tmp_path: Path
) -> None:
    done = export_vectors([built.directory], Format.FLEX, tmp_path / "flex", progress=False)
    assert (done.documents, done.already, done.warnings) == (DOCUMENTS, False, ())
    exported = flex(tmp_path / "flex")
    records = list(exported.get_corpus_iter())
    assert [record["docno"] for record in records] == list(built.docids.between(0, DOCUMENTS))
    vectors = built.faiss.reconstruct_n(0, DOCUMENTS)
    assert np.array([record["doc_vec"] for record in records]).tobytes() == vectors.tobytes()
    topics["query_vec"] = list(encoder.encode_queries(list(topics["query"])))
    for retriever in (exported.np_retriever(), exported.torch_retriever(), exported.faiss_flat_retriever()):
        found = rankings((retriever)(topics))
        for qid, hits in built.search(QUERIES, hits=DOCUMENTS).items():
            scores = dict(found[qid])
            assert scores == pytest.approx(dict(hits), abs=1e-6)
            # Documents of equal score may change places.
            assert [score for _, score in found[qid]] == pytest.approx(list(hits.values()), abs=1e-6)
    again = export_vectors([built.directory], Format.FLEX, tmp_path / "flex", progress=False)
    assert again.already


def test_flex_indexes_are_whole_or_not_there(built: Index, tmp_path: Path) -> None:
    output = tmp_path / "flex"
    export_vectors([built.directory], Format.FLEX, output, progress=False, dimension=8)
    manifest = Artifact(output, FLEX_VECTORS).verify()
    assert sorted(manifest.files) == ["docnos.npids", "pt_meta.json", "vecs.f4"]
    assert json.loads((output / "pt_meta.json").read_text())["vec_size"] == 8
    with pytest.raises(ArtifactError, match="an export made otherwise: .*dimension is 32, there it is 8"):
        export_vectors([built.directory], Format.FLEX, output, progress=False)
    (output / "vecs.f4").write_bytes(b"cut")
    with pytest.raises(ArtifactError, match=r"vecs\.f4 has 3 bytes"):
        export_vectors([built.directory], Format.FLEX, output, progress=False, dimension=8)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"other holds something else \(notes.txt\)"):
        export_vectors([built.directory], Format.FLEX, other, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flex", "other"]


def test_without_pyterrier_dr(built: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mimo_plugin.core.environment.find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match=r"--to flex needs pyterrier_dr.*'mimo-plugin\[terrier\]'"):
        export_vectors([built.directory], Format.FLEX, tmp_path / "flex", progress=False)
    assert not (tmp_path / "flex").exists()
