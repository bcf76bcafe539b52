"""`mimo bm25`: the run of Lucene's index, of the documents and queries that were asked for."""

from pathlib import Path

import pytest
from helpers.beir import documents, write_folder

from mimo_plugin.cli import main
from mimo_plugin.collections.pool import load
from mimo_plugin.core.errors import UsageError
from mimo_plugin.evaluation.options import Analyzers
from mimo_plugin.evaluation.runs import Run
from mimo_plugin.indexing.lexical import bm25_to_run
from mimo_plugin.indexing.settings import Bm25Options
from mimo_plugin.pyserini.bm25 import index_bm25, search_bm25

QUERIES = [
    {"_id": "d21", "text": "Suche Sprache", "lang": "de"},
    {"_id": "q2", "text": "haku kieli", "lang": "fi"},
    {"_id": "q3", "text": "nichts davon", "lang": "de"},
]


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("folders")
    german = write_folder(root / "de", documents(30, ["de"]), QUERIES, {"d21": {"d21": 1}})
    return [german, write_folder(root / "fi", documents(40, ["fi"]), QUERIES[1:2], {"q2": {"d2": 1}})]


def reference(
    pool: object, queries: list[tuple[str, str]], directory: Path, language: str | None = None
) -> Run:
    index_bm25(pool, directory, language=language, threads=1, progress=False)
    hits = search_bm25(directory, queries, hits=10, threads=1)
    return Run.from_hits(
        "bm25", {query: dict(zip(ids, scores.tolist(), strict=True)) for query, ids, scores in hits}
    )


def made(specs: list[str], output: Path, **options: object) -> tuple[Run, tuple[str, ...]]:
    asked = Bm25Options(**{"hits": 10, "progress": False, "threads": 1, **options})  # type: ignore[arg-type]
    warnings = bm25_to_run(specs, output, asked).warnings
    return Run.read(output), warnings


def test_a_pool(specs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, kept = tmp_path / "bm25.trec", tmp_path / "lucene"
    pool = load(*specs)
    queries = [(query.query_id, query.text) for query in pool.queries_iter()]
    expected = reference(pool, queries, tmp_path / "reference")
    # The JVM of this process takes relative paths to be below the directory that it was started in.
    command = ["bm25", *specs, "--output", str(output), "-k", "10", "--index", str(kept), "--no-progress"]
    assert main(command) == 0
    assert "4 queries, " in capsys.readouterr().out
    run = Run.read(output)
    assert {query: list(hits) for query, hits in run.items()} == {
        q: list(hits) for q, hits in expected.items()
    }
    assert {"de:d21", "fi:q2"} <= set(run) <= {query for query, _ in queries}
    assert {line.split()[5] for line in output.read_text().splitlines()} == {"bm25"}
    # The kept index is searched as it is, with other queries too.
    times = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert main([*command, "--topics", specs[1], "--tag", "lucene", "--ir-metadata"]) == 0
    again = Run.read(output)
    assert "\n#   - name: bm25\n#     k1: 0.9\n#     b: 0.4\n" in output.read_text()
    assert {path: path.stat().st_mtime_ns for path in kept.iterdir()} == times
    assert dict(again) == {"fi:q2": run["fi:q2"]}
    capsys.readouterr()
    assert main([*command, "--lang", "de"]) == 1
    assert "Choose another --index" in capsys.readouterr().err


def test_documents_in_a_language(specs: list[str], tmp_path: Path) -> None:
    """They are indexed alone: the terms' statistics are theirs."""
    german = load(specs[0], pooled=True)
    queries = [(query.query_id, query.text) for query in load(*specs).queries_iter()]
    for analyzers, language in ((Analyzers.PLAIN, None), (Analyzers.LANGUAGE, "de")):
        expected = reference(german, queries, tmp_path / f"reference-{language}", language)
        run, warnings = made(specs, tmp_path / "run.trec", lang="de", analyzers=analyzers)
        assert {q: list(hits) for q, hits in run.items()} == {q: list(hits) for q, hits in expected.items()}
        assert any("share no term with a document" in warning for warning in warnings)


def test_queries_that_are_documents(specs: list[str], tmp_path: Path) -> None:
    everything, _ = made(specs[:1], tmp_path / "all.trec", hits=30)
    assert "d21" in everything["d21"]
    without, _ = made(specs[:1], tmp_path / "run.trec", remove_query=True, hits=5)
    assert list(without["d21"]) == [docid for docid in everything["d21"] if docid != "d21"][:5]


def test_bad_choices(specs: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--analyzers language: the documents' languages are de, fi"):
        made(specs, tmp_path / "run.trec", analyzers=Analyzers.LANGUAGE)
    with pytest.raises(UsageError, match="--lang dd: the collection has no such documents, .* de, fi"):
        made(specs, tmp_path / "run.trec", lang=["de", "dd"])
    assert not (tmp_path / "run.trec").exists()


def test_all_problems_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    arguments = ["--topics", "mimo-sampel", "--index", str(tmp_path / "thesis"), "--output", str(tmp_path)]
    assert main(["bm25", "miracl/dee", *arguments]) == 1
    err = capsys.readouterr().err
    for found in ("miracl/dee", "mimo-sampel", "thesis.tex", "is a directory, expected the name of a file"):
        assert sum(found in line for line in err.splitlines()) == 1
