"""`mimo.Run` and `mimo.evaluate`: runs and judgments of any kind, and what they turn into."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import ranx

import mimo_plugin as mimo
from mimo_plugin.core.errors import DataError, UsageError

HITS = {
    f"{language}:{number}": {f"{language}:d{(number + step) % 9}": 9.0 - step for step in range(5)}
    for language in ("de", "fi")
    for number in range(6)
}
OTHER = {query: {docid: -score for docid, score in hits.items()} for query, hits in HITS.items()}
QRELS = {query: {next(iter(hits)): 2, "de:d8": 1} for query, hits in HITS.items()}


def _frame(nested: dict[str, dict[str, Any]], *columns: str) -> pandas.DataFrame:
    rows = [(query, docid, value) for query, inner in nested.items() for docid, value in inner.items()]
    return pandas.DataFrame(rows, columns=list(columns))


@pytest.mark.slow
def test_a_run_is_a_mapping_and_goes_there_and_back(tmp_path: Path) -> None:
    run = mimo.Run.of(HITS, "e5")
    assert (run.name, len(run), list(run)) == ("e5", 12, list(HITS))
    assert run == HITS
    assert list(mimo.Run.of(OTHER)["de:1"]) == list(reversed(HITS["de:1"]))
    assert run.save(tmp_path / "e5.trec.gz") == 60
    assert (mimo.Run.read(tmp_path / "e5.trec.gz"), mimo.Run.of(tmp_path / "e5.trec.gz").name) == (run, "e5")
    frame = run.to_frame()
    assert list(frame.columns) == ["query_id", "doc_id", "score", "rank"]
    assert frame["rank"].tolist() == [1, 2, 3, 4, 5] * 12
    for source in (
        run,
        frame,
        frame.rename(columns={"query_id": "qid", "doc_id": "docno"}),
        run.to_ranx(),
        ranx.Run(HITS),
    ):
        assert mimo.Run.of(source, "x") == run
        assert mimo.Run.of(source, "x").name == "x"
    assert "run 'e5', 12 queries" in repr(run)
    assert "de:d1" in repr(run)
    assert "<table" in run._repr_html_()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (7, "found int, expected query id -> docid -> score, a DataFrame or a file"),
        ({"q": 1.0}, "found dict, expected query id"),
        ({"q": {"d": float("nan")}}, "query 'q' has a score that is not finite"),
        ({"q 1": {"d": 1.0}}, "query id 'q 1', expected at least one character and no white space"),
        (
            pandas.DataFrame({"qid": ["q"], "score": [1]}),
            "no docid among the columns qid, score; expected doc_id",
        ),
        (_frame({"q": {"d": 1}}, "qid", "docno", "score").loc[[0, 0]], "query 'q' has docid 'd' twice"),
        ("none.trec", "none.trec: no such file"),
    ],
)
def test_what_is_no_run(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        mimo.Run.of(source)


@pytest.mark.slow
def test_runs_and_judgments_of_any_kind_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "other.trec"
    mimo.Run.of(OTHER).save(path)
    qrels = tmp_path / "qrels.txt"
    qrels.write_text(
        "".join(f"{q} 0 {d} {value}\n" for q, inner in QRELS.items() for d, value in inner.items())
    )
    measures = ["nDCG@10", "RR@10", "R@100", "AP"]
    results = [
        mimo.evaluate({"best": best, "other": other}, judged, measures=measures, baseline="other")
        for best, other, judged in (
            (HITS, path, QRELS),
            (mimo.Run.of(HITS), str(path), qrels),
            (_frame(HITS, "query_id", "doc_id", "score"), OTHER, [str(qrels)]),
            (ranx.Run(HITS), OTHER, _frame(QRELS, "query_id", "doc_id", "relevance")),
            (HITS, OTHER, ranx.Qrels(QRELS)),
        )
    ]
    # Judgments in a file have a name.
    assert len({replace(result, collections=()).result.to_json() for result in results}) == 1
    result = results[0]
    assert list(result.topics.languages) == ["de", "fi"]
    scores = result.to_frame()
    assert list(scores.columns) == ["ndcg@10", "mrr@10", "recall@100", "map", "judged@10", "queries"]
    assert scores.loc[("best", "macro"), "mrr@10"] == 1
    assert scores.loc[("other", "mean"), "mrr@10"] < 1
    compared = result.comparisons()
    assert len(compared) == 4 * 3
    assert (compared["run"] == "best").all()
    assert repr(result) == result.render().rstrip()
    assert "† differs from other" in repr(result)
    assert "<table" in result._repr_html_()
    result.save(tmp_path / "new" / "scores.json")
    assert (
        json.loads((tmp_path / "new" / "scores.json").read_text("utf-8"))["runs"]["best"]["mean"]["mrr@10"]
        == 1
    )


@pytest.mark.slow
def test_one_run_alone_is_scored_as_trec_eval_does() -> None:
    result = mimo.evaluate(mimo.Run.of(HITS, "best"), QRELS, measures="ndcg@10")
    qrels, run = ranx.Qrels(QRELS), ranx.Run(HITS)
    expected = ranx.evaluate(qrels, run, "ndcg@10")
    assert result.result.runs["best"].mean["ndcg@10"] == pytest.approx(float(np.float64(expected)))
    assert result.comparisons().empty


def test_runs_in_memory_have_different_names() -> None:
    with pytest.raises(
        DataError, match="two runs are named 'run', expected different names: give {name: run}"
    ):
        mimo.evaluate([mimo.Run.of(HITS), OTHER], QRELS)


def test_every_option_that_makes_no_sense_is_named_at_once() -> None:
    with pytest.raises(UsageError) as raised:
        mimo.evaluate(
            {"a": HITS}, QRELS, measures=["ndgc"], test="wilcoxon", correction="all", alpha=2, baseline="b"
        )
    assert [line.split(",")[0].split(";")[0] for line in str(raised.value).splitlines()] == [
        "unknown measure 'ndgc'",
        "test is 'wilcoxon'",
        "correction is 'all'",
        "alpha is 2",
        "unknown baseline 'b'",
    ]


@pytest.mark.slow
def test_mimo_evaluate_loads_only_what_it_needs(tmp_path: Path) -> None:
    """Neither models and training data nor plots; statistics only where runs are compared."""
    mimo.Run.of(HITS).save(tmp_path / "run.trec")
    lines = [
        f"{query} 0 {docid} {value}\n" for query, inner in QRELS.items() for docid, value in inner.items()
    ]
    (tmp_path / "qrels.txt").write_text("".join(lines))
    code = (
        "import sys\n"
        "from mimo_plugin.cli import main\n"
        "assert main(['evaluate', 'run.trec', '--qrels', 'qrels.txt', '--no-progress']) == 0\n"
        "print('loaded', *(name for name in sys.modules if '.' not in name))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    heavy = {"torch", "transformers", "sentence_transformers", "sklearn", "datasets", "pandas", "matplotlib"}
    assert not loaded & (heavy | {"statsmodels", "seaborn", "faiss", "pyserini", "jnius", "ranx"})
