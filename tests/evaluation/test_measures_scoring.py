"""Scores against trec_eval, through pytrec_eval, and against definitions."""

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from helpers.evaluation_samples import Hits, Qrels, random_trial

from mimo_plugin.core.errors import DataError
from mimo_plugin.core.files import user_caches
from mimo_plugin.evaluation.compare import compare_runs
from mimo_plugin.evaluation.measures import (
    Measure,
    MeasureKind,
    RunScores,
    Scores,
    average,
    parse_measures,
    score_run,
)
from mimo_plugin.evaluation.options import OFFERED_MEASURES, Correction, SignificanceTest
from mimo_plugin.evaluation.results import CountsResult
from mimo_plugin.evaluation.runs import Run
from mimo_plugin.evaluation.significance import Plan
from mimo_plugin.evaluation.topics import check_queries, make_topics

# Our name -> trec_eval's, and how pytrec_eval is asked for it.
TREC_EVAL = {
    "ndcg": ("ndcg", "ndcg"),
    "ndcg@3": ("ndcg_cut_3", "ndcg_cut.3"),
    "ndcg@10": ("ndcg_cut_10", "ndcg_cut.10"),
    "map": ("map", "map"),
    "map@5": ("map_cut_5", "map_cut.5"),
    "mrr": ("recip_rank", "recip_rank"),
    "recall@5": ("recall_5", "recall.5"),
    "recall@100": ("recall_100", "recall.100"),
    "p@5": ("P_5", "P.5"),
    "p@100": ("P_100", "P.100"),
    "success@5": ("success_5", "success.5"),
    "rprec": ("Rprec", "Rprec"),
}


def _scores(qrels: Qrels, hits: Hits, names: str) -> dict[str, Scores]:
    measures = parse_measures(names)
    topics = make_topics(qrels, dict.fromkeys(qrels, "en"))
    scores = score_run(Run.from_hits("run", hits), topics, measures)
    return {str(measure): values for measure, values in scores.per_topic.items()}


# What trec_eval has only as an option for the whole run (-M), or not at all.
CUT_MRR, JUDGED = "mrr@3", "judged@5"


def test_every_offered_measure_is_compared() -> None:
    def forms(names: Iterable[str]) -> set[tuple[MeasureKind, bool]]:
        return {(measure.kind, measure.cutoff is not None) for measure in parse_measures(names)}

    assert forms([*TREC_EVAL, CUT_MRR, JUDGED]) == forms([OFFERED_MEASURES.replace("@k", "@5")])


@pytest.mark.slow
def test_equal_to_trec_eval_in_every_bit() -> None:
    """300 trials of three topics, every offered measure: no value differs, not even in its last bit."""
    rng = np.random.default_rng(2605)
    names = [*TREC_EVAL, CUT_MRR, JUDGED]
    compared = 0
    for _ in range(300):
        qrels, hits = random_trial(rng)
        found = _scores(qrels, hits, ",".join(names))
        expected = _trec_eval(qrels, hits)
        cut = {query: {docid: docs[docid] for docid in _top(docs, 3)} for query, docs in hits.items()}
        expected[CUT_MRR] = _trec_eval(qrels, cut)["mrr"]
        tops = {query: _top(hits.get(query, {}), 5) for query in qrels}
        expected[JUDGED] = [
            sum(docid in qrels[query] for docid in tops[query]) / len(tops[query]) if tops[query] else 0.0
            for query in sorted(qrels)
        ]
        for name in names:
            assert found[name].tolist() == expected[name], (name, qrels, hits)
            compared += len(expected[name])
    assert compared == 300 * 3 * len(names)


def _trec_eval(qrels: Qrels, hits: Hits) -> dict[str, list[float]]:
    """Our name -> trec_eval's values; -c: a topic that the run lacks counts as 0."""
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {asked for _, asked in TREC_EVAL.values()})
    reference = evaluator.evaluate({query: docs for query, docs in hits.items() if docs})
    return {
        name: [reference.get(query, {}).get(theirs, 0.0) for query in sorted(qrels)]
        for name, (theirs, _) in TREC_EVAL.items()
    }


def _top(docs: Mapping[str, float], count: int) -> list[str]:
    """The first documents in trec_eval's order, from its definition."""
    return sorted(docs, key=lambda docid: (np.float32(docs[docid]), docid.encode()), reverse=True)[:count]


def test_docids_matter_by_their_order_only() -> None:
    rng = np.random.default_rng(9)
    for _ in range(20):
        qrels, hits = random_trial(rng)
        ids = sorted({d for docs in (*qrels.values(), *hits.values()) for d in docs}, key=str.encode)
        new = {docid: f"文{number:05}#0" for number, docid in enumerate(ids)}
        renamed = (
            {query: {new[d]: grade for d, grade in docs.items()} for query, docs in qrels.items()},
            {query: {new[d]: score for d, score in docs.items()} for query, docs in hits.items()},
        )
        before = _scores(qrels, hits, "ndcg@3,map,judged@3")
        after = _scores(*renamed, "ndcg@3,map,judged@3")
        for name, values in before.items():
            np.testing.assert_array_equal(values, after[name])


@pytest.mark.slow
def test_a_topic_with_negative_judgments_only_scores_zero() -> None:
    found = _scores({"q": {"a": -1, "b": -2}}, {"q": {"a": 2.0, "c": 1.0}}, "ndcg@10,map,rprec,judged@2")
    assert {name: values.tolist() for name, values in found.items()} == {
        "ndcg@10": [0.0],
        "map": [0.0],
        "rprec": [0.0],
        "judged@2": [0.5],
    }


def test_more_topics_than_go_into_one_call() -> None:
    count = 2100
    qrels = {f"q{number:04}": {f"d{number}": 1} for number in range(count)}
    hits = {query: {"x": 2.0, f"d{int(query[1:])}": 1.0 + 2 * (int(query[1:]) % 2)} for query in qrels}
    found = _scores(qrels, hits, "mrr")["mrr"]
    assert found.tolist() == [1.0 if number % 2 else 0.5 for number in range(count)]


def test_counts_and_depth() -> None:
    languages = {"q1": "de", "q2": "de", "q3": "fi", "open": "fi"}
    topics = make_topics({"q1": {"a": 1}, "q2": {"a": 1}, "q3": {"a": 0}, "stray": {"a": 1}}, languages)
    assert topics.languages == ("de", "fi")
    assert topics.counts == {"de": 2, "fi": 1}
    assert topics.unlisted == ("stray",)
    hits = {
        "q1": {"a": 1.0, "b": 0.5},
        "q3": {"a": 1.0},
        "open": {"a": 1.0},
        "what": {"a": 1.0, "b": 1.0, "c": 0.0},
    }
    scores = score_run(Run.from_hits("run", hits), topics, parse_measures("map"))
    assert vars(scores.counts) == {"judged": 4, "retrieved": 2, "missing": 2, "unjudged": 1, "unknown": 1}
    assert scores.depth == 3


def test_averages() -> None:
    topics = make_topics(
        {f"q{n}": {"a": 1} for n in range(4)}, {"q0": "de", "q1": "fi", "q2": "fi", "q3": "fi"}
    )
    found = average(np.array([1.0, 0.2, 0.4, 0.6]), topics)
    assert found.mean == pytest.approx(0.55)
    assert found.per_language == {"de": 1.0, "fi": pytest.approx(0.4)}
    assert found.macro == pytest.approx(0.7)


def test_a_judged_id_that_no_query_has_is_in_no_language() -> None:
    """It counts in the mean, as in trec_eval, and is no version of a topic."""
    qrels = {"de:1": {"a": 1}, "fi:1": {"a": 1}, "fi:2": {"b": 1}, "stray": {"a": 1}, "gone": {"c": 1}}
    topics = make_topics(qrels, {"de:1": "de", "fi:1": "fi", "fi:2": "fi", "open": "fi"})
    assert topics.query_languages == {"de:1": "de", "fi:1": "fi", "fi:2": "fi"}
    found = average(np.array([1.0, 0.5, 0.0, 0.0, 1.0]), topics)
    assert topics.query_ids == ("de:1", "fi:1", "fi:2", "gone", "stray")
    assert found.per_language == {"de": 1.0, "fi": 0.25}
    assert (found.macro, found.mean) == (0.625, 0.5)
    blocks = topics.block_of.tolist()
    assert blocks[0] == blocks[1]
    assert len(set(blocks)) == 4
    # Without them nothing else changes, in tests as in averages.
    alone = make_topics(
        {query: judged for query, judged in qrels.items() if ":" in query}, topics.query_languages
    )
    rng = np.random.default_rng(0)
    values = rng.random((2, 5))
    plan = Plan(SignificanceTest.STUDENT, Correction.HOLM, permutations=1000)
    (measure,) = parse_measures("map")
    compared = [
        compare_runs(
            [
                RunScores(name, {measure: row}, CountsResult(judged=5, retrieved=5, missing=0), 9)
                for name, row in zip("ab", rows, strict=True)
            ],
            of,
            [measure],
            [(0, 1)],
            plan,
        )
        for rows, of in ((values, topics), (values[:, :3], alone))
    ]
    assert compared[0] == compared[1]


def test_topics_with_the_same_relevant_documents_across_languages_are_one_unit() -> None:
    relevant = {"a": 1, "b": 2}
    qrels = {
        "de:1": relevant,
        "fi:1": {**relevant, "c": 0},
        "fi:2": {"z": 1},
        "fi:3": {"z": 1},
        "de:9": {"n": 0},
    }
    topics = make_topics({**qrels, "fi:9": {"n": 0}}, {query: query[:2] for query in (*qrels, "fi:9")})
    block = dict(zip(topics.query_ids, topics.block_of.tolist(), strict=True))
    assert topics.parallel
    assert block["de:1"] == block["fi:1"]
    # Two questions on one passage in one language stay two topics, as do topics without relevant documents.
    assert topics.blocks == len({block[query] for query in block}) == 5


def test_nothing_judged() -> None:
    with pytest.raises(DataError, match="the qrels are empty"):
        make_topics({"q": {}}, {"q": "de"})


@pytest.mark.parametrize(
    ("topics", "queries", "hint"),
    [
        (
            ["7", "8"],
            ["de:7", "de:8", "fi:7", "fi:8"],
            "have the prefix of a pool, evaluate it with --pooled",
        ),
        (
            ["de:7", "fi:7"],
            ["7"],
            "lack the prefix of a pool, evaluate it with its own collection without --pooled",
        ),
        (["path:a:b:7"], ["7"], "lack the prefix of a pool"),
        (["7", "8"], ["7", "x"], "or leave them out with --ignore-unknown-queries"),
    ],
)
def test_queries_that_are_no_topics(topics: list[str], queries: list[str], hint: str) -> None:
    known = make_topics({query: {"a": 1} for query in topics}, dict.fromkeys(topics, "de"))
    run = Run.from_hits("r", {query: {"a": 1.0} for query in queries})
    (problem,) = check_queries(run, known)
    unknown = sorted(set(queries) - set(topics))
    assert problem.startswith(
        f"run 'r': {len(unknown)} of its {len(queries)} queries are not topics of the collection"
    )
    assert unknown[0] in problem
    assert hint in problem
    common = set(topics) & set(queries)
    assert check_queries(run, known, ignore_unknown=True) == (
        []
        if common
        else [
            f"run 'r' has no query in common with the qrels, expected ids such as {sorted(topics)[0]!r}: "
            "is it the run of another collection or split?"
        ]
    )


def test_topics_that_are_all_unjudged() -> None:
    known = make_topics({"q1": {"a": 1}}, {"q1": "de", "q2": "de"})
    (problem,) = check_queries(Run.from_hits("r", {"q2": {"a": 1.0}}), known)
    assert "no query in common with the qrels" in problem


def test_one_measure_alone() -> None:
    (measure,) = parse_measures("ndcg@10")
    assert isinstance(measure, Measure)
    assert _scores({"q": {"a": 1}}, {"q": {"a": 1.0}}, "ndcg@10")["ndcg@10"].tolist() == [1.0]


def test_compiled_code_goes_to_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert user_caches() == tmp_path / ".cache" / "mimo-plugin"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert user_caches() == tmp_path / "xdg" / "mimo-plugin"


@pytest.mark.slow
def test_compiling_ranx_says_nothing(tmp_path: Path) -> None:
    program = (
        "import mimo_plugin as mimo\n"
        "pool = mimo.collection(docs={'d': 'text'}, queries={'q': 'text'}, qrels={'q': {'d': 1}})\n"
        "print(mimo.evaluate({'a': {'q': {'d': 1.0}}}, pool, measures=['ndcg@20']).to_frame())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "ndcg@20" in done.stdout
