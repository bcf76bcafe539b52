"""A real run scored by the trec_eval that Pyserini carries, and by us."""

import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

from mimo_plugin.collections.pool import load
from mimo_plugin.evaluation.evaluate import evaluate
from mimo_plugin.evaluation.measures import average, parse_measures
from mimo_plugin.evaluation.runs import write_run
from mimo_plugin.indexing.search import read_topics
from mimo_plugin.pyserini.bm25 import index_bm25, search_bm25
from mimo_plugin.pyserini.java import _anserini_jar, ensure_jvm

COLLECTION = "mimo-sample"
# Our name -> trec_eval's, and how it is asked for it.
MEASURES = {
    "ndcg@10": ("ndcg_cut_10", "ndcg_cut.10"),
    "recall@100": ("recall_100", "recall.100"),
    "map": ("map", "map"),
    "mrr": ("recip_rank", "recip_rank"),
    "p@5": ("P_5", "P.5"),
}
HITS = 100
# Whose queries are searched: the others score 0, which is what -c is for.
SEARCHED = 150


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bm25")
    pool = load(COLLECTION)
    index_bm25(pool, directory / "index", threads=1, progress=False)
    queries = read_topics(pool).queries[:SEARCHED]
    write_run(
        directory / "bm25.trec", search_bm25(directory / "index", queries, hits=HITS, threads=1), "bm25"
    )
    return directory / "bm25.trec"


@pytest.mark.slow
def test_equal_to_four_decimals(run: Path, tmp_path: Path) -> None:
    qrels = tmp_path / "qrels.txt"
    qrels.write_text("".join(_qrels()), encoding="utf-8")
    printed = _trec_eval(qrels, run)
    evaluation = evaluate(run, COLLECTION, measures=MEASURES)
    (scores,) = evaluation.scores
    assert printed["num_q", "all"] == str(len(evaluation.topics.query_ids))
    assert scores.counts.missing > 0
    searched = {line.split()[0] for line in run.read_text(encoding="utf-8").splitlines()}
    compared = 0
    for measure in parse_measures(list(MEASURES)):
        theirs, _ = MEASURES[str(measure)]
        values = scores.per_topic[measure]
        assert printed[theirs, "all"] == f"{average(values, evaluation.topics).mean:.4f}"
        for query_id, value in zip(evaluation.topics.query_ids, values.tolist(), strict=True):
            if query_id in searched:
                assert printed[theirs, query_id] == f"{value:.4f}"
                compared += value > 0
    assert compared > SEARCHED


def _qrels() -> Iterator[str]:
    for qrel in load(COLLECTION).qrels_iter():
        yield f"{qrel.query_id} 0 {qrel.doc_id} {qrel.relevance}\n"


def _trec_eval(qrels: Path, run: Path) -> dict[tuple[str, str], str]:
    """(measure, query or "all") -> what trec_eval -c -q prints."""
    java = ensure_jvm().home / "bin" / "java"
    jar = _anserini_jar()
    _skip_without_trec_eval(jar)
    asked = [argument for _, name in MEASURES.values() for argument in ("-m", name)]
    command = [str(java), "-cp", str(jar), "trec_eval", "-c", "-q", "-m", "num_q", *asked]
    done = subprocess.run([*command, str(qrels), str(run)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = (line.split() for line in done.stdout.splitlines() if line.strip())
    return {(measure, query): value for measure, query, value in lines}


def _skip_without_trec_eval(jar: Path) -> None:
    """The jar carries programs for a few systems, named as Java names these."""
    system = {"Linux": "linux", "Darwin": "macosx"}.get(platform.system(), platform.system())
    machine = platform.machine()
    names = {machine, {"x86_64": "amd64", "arm64": "aarch64"}.get(machine, machine)}
    with ZipFile(jar) as packed:
        there = set(packed.namelist())
    if there.isdisjoint(f"trec_eval/trec_eval-{system}-{name}" for name in names):
        pytest.skip(f"Pyserini carries no trec_eval for {system} on {machine}")
