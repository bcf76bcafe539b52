"""Fusion against its formulas, computed document by document, and against Pyserini's own."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.cli import main
from mimo_plugin.core.errors import DataError, UsageError
from mimo_plugin.evaluation.fusion import fused_queries, fusion_warnings
from mimo_plugin.evaluation.options import FusionMethod, FusionOptions, Normalization
from mimo_plugin.evaluation.runs import Run, read_run, write_run

Hits = Mapping[str, float]

DOCIDS = st.sampled_from([f"{letter}{number}" for letter in "aéz" for number in range(5)])
# Small numbers tie; wide ones come near the ends of float32.
SCORES = st.one_of(st.integers(-3, 3).map(float), st.floats(-(2.0**99), 2.0**99, width=32))
HITS = st.dictionaries(DOCIDS, SCORES, min_size=1, max_size=10)
OPTIONS = st.one_of(
    st.builds(FusionOptions, st.just(FusionMethod.RRF), k=st.none() | st.integers(0, 100)),
    st.builds(FusionOptions, st.just(FusionMethod.SUM), norm=st.none() | st.sampled_from(Normalization)),
)


def _run(name: str, **queries: Hits) -> Run:
    return Run.from_hits(name, queries)


def fuse_runs(runs: Sequence[Run], options: FusionOptions | None = None) -> Run:
    return Run("fused", dict(fused_queries(runs, options)))


def _order(hits: Hits) -> list[str]:
    """trec_eval's order, from its definition."""
    return sorted(hits, key=lambda docid: (np.float32(hits[docid]), docid.encode()), reverse=True)


def _fused(run: Run, query: str = "q") -> dict[str, float]:
    docids, scores = run.queries[query]
    return {docid.decode(): score for docid, score in zip(docids.tolist(), scores.tolist(), strict=True)}


def _reference(lists: Sequence[Hits], weights: Sequence[float], options: FusionOptions) -> dict[str, float]:
    """The formulas of the docstring, in plain Python, exactly summed."""
    parts: dict[str, list[float]] = {docid: [] for hits in lists for docid in hits}
    for hits, weight in zip(lists, weights, strict=True):
        scores = {docid: float(np.float32(score)) for docid, score in hits.items()}
        low, high = min(scores.values()), max(scores.values())
        if options.method is FusionMethod.RRF:
            k = 60 if options.k is None else options.k
            value = {docid: 1 / (k + rank) for rank, docid in enumerate(_order(hits), start=1)}
            missing = 0.0
        elif options.norm is Normalization.NONE:
            value, missing = scores, low
        elif options.norm is Normalization.Z:
            mean, deviation = fmean(scores.values()), pstdev(scores.values())
            value = {d: (s - mean) / deviation if high > low else 0.0 for d, s in scores.items()}
            missing = min(value.values())
        else:
            value = {d: (s - low) / (high - low) if high > low else 1.0 for d, s in scores.items()}
            missing = 0.0
        for docid, own in parts.items():
            own.append(weight * value.get(docid, missing))
    return {docid: math.fsum(own) for docid, own in parts.items()}


def test_reciprocal_ranks_by_hand() -> None:
    one = _run("one", q={"a": 9.0, "b": 5.0, "c": 5.0})  # c before b: equal scores, larger docid first
    other = _run("other", q={"b": 0.2, "d": 0.1})
    fused = fuse_runs([one, other])
    assert list(_fused(fused)) == ["b", "a", "d", "c"]
    expected = {"b": 1 / 63 + 1 / 61, "a": 1 / 61, "d": 1 / 62, "c": 1 / 62}
    assert _fused(fused) == {docid: np.float32(score) for docid, score in expected.items()}


@settings(max_examples=150)
@given(
    lists=st.lists(HITS, min_size=2, max_size=4),
    options=OPTIONS,
    weights=st.lists(st.floats(0.125, 8), min_size=4, max_size=4),
)
def test_scores_are_those_of_the_formulas(
    lists: list[dict[str, float]], options: FusionOptions, weights: list[float]
) -> None:
    weights = weights[: len(lists)]
    own = FusionOptions(options.method, options.k, options.norm, tuple(weights))
    fused = _fused(fuse_runs([_run(f"r{n}", q=hits) for n, hits in enumerate(lists)], own))
    expected = _reference(lists, weights, options)
    assert fused.keys() == expected.keys()
    largest = max(map(abs, expected.values()))
    for docid, score in expected.items():
        assert fused[docid] == pytest.approx(score, rel=1e-6, abs=1e-9 * max(1.0, largest))
    assert list(fused) == _order(fused)
    assert all(math.isfinite(score) for score in fused.values())


@settings(max_examples=100)
@given(lists=st.lists(HITS, min_size=2, max_size=4), options=OPTIONS, data=st.data())
def test_the_order_of_runs_changes_no_bit(
    lists: list[dict[str, float]], options: FusionOptions, data: st.DataObject
) -> None:
    runs = [Run.from_hits(f"r{n}", {"q": hits, f"own{n}": hits}) for n, hits in enumerate(lists)]
    weights = data.draw(st.lists(st.floats(0.1, 3), min_size=len(runs), max_size=len(runs)))
    order = data.draw(st.permutations(range(len(runs))))
    there, back = (
        fuse_runs(
            [runs[place] for place in places],
            FusionOptions(options.method, options.k, options.norm, tuple(weights[p] for p in places)),
        )
        for places in (range(len(runs)), order)
    )
    assert there.queries.keys() == back.queries.keys()
    for query in there.queries:
        assert _fused(there, query) == _fused(back, query)
        assert list(_fused(there, query)) == list(_fused(back, query))


@settings(max_examples=100)
@given(hits=HITS, options=OPTIONS)
def test_a_run_fused_with_itself_keeps_its_order(hits: dict[str, float], options: FusionOptions) -> None:
    run = _run("run", q=hits)
    fused = _fused(fuse_runs([run, run], options))
    if options.method is FusionMethod.RRF:
        assert list(fused) == _order(hits)
    # Scores so close that their normalised ones are one float32 become ties; none ever change places.
    in_order = [fused[docid] for docid in _order(hits)]
    assert in_order == sorted(in_order, reverse=True)


def test_a_document_found_by_one_run_never_beats_one_found_before_it_by_both() -> None:
    """Zero for what a run does not have would do that: it is more than a score below 0."""
    one = {"both": -1.0, "mid": -2.0, "low": -9.0}
    other = {"both": -1.0, "mid": -2.0, "late": -9.0}
    for norm in Normalization:
        fused = fuse_runs(
            [_run("one", q=one), _run("other", q=other)], FusionOptions(FusionMethod.SUM, norm=norm)
        )
        assert list(_fused(fused)) == ["both", "mid", "low", "late"]


def test_ranks_do_not_depend_on_the_order_of_tied_lines() -> None:
    tied = {"d1": 2.0, "d2": 1.0, "d3": 1.0, "d4": 1.0}
    other = _run("other", q={"d4": 2.0, "d3": 1.0})
    first = fuse_runs([_run("one", q=tied), other])
    second = fuse_runs([_run("one", q=dict(reversed(tied.items()))), other])
    assert _fused(first) == _fused(second)


@pytest.mark.parametrize("norm", list(Normalization))
def test_constant_scores_and_single_hits(norm: Normalization) -> None:
    value = float(np.float32(0.1))  # the mean of three of them is another float64
    same, other = _run("same", q=dict.fromkeys("abc", value)), _run("other", q={"b": 7.0})
    fused = _fused(fuse_runs([same, other], FusionOptions(FusionMethod.SUM, norm=norm)))
    expected = {
        Normalization.MIN_MAX: {"b": 2.0, "c": 1.0, "a": 1.0},
        Normalization.Z: {"c": 0.0, "b": 0.0, "a": 0.0},
        # `other` gives all of them its only score.
        Normalization.NONE: dict.fromkeys("cba", np.float32(value + 7.0)),
    }
    assert fused == expected[norm]
    assert list(fused) == list(expected[norm])


def test_queries_that_only_some_runs_have() -> None:
    one = Run.from_hits("one", {"q": {"a": 1.0, "b": 0.5}, "only": {"x": 3.0, "y": 1.0}})
    other = _run("other", q={"b": 1.0})
    for options in (FusionOptions(), FusionOptions(FusionMethod.SUM, norm=Normalization.Z)):
        fused = fuse_runs([other, one], options)
        assert list(fused.queries) == ["q", "only"]
        assert list(_fused(fused, "only")) == ["x", "y"]
    assert fusion_warnings([other, one]) == [
        "run 'other' lacks 1 of 2 queries (only): there the other runs decide alone"
    ]


def test_hits_are_cut_in_trec_evals_order() -> None:
    one, other = _run("one", q={"a": 2.0, "b": 1.0}), _run("other", q={"c": 2.0, "d": 1.0})
    assert list(_fused(fuse_runs([one, other], FusionOptions(hits=3)))) == ["c", "a", "d"]


def test_runs_that_do_not_belong_together() -> None:
    with pytest.raises(DataError, match="runs 'a' and 'b' have no query in common.*'q1' and 'de:q1'"):
        fuse_runs([_run("a", q1={"d": 1.0}), Run.from_hits("b", {"de:q1": {"d": 1.0}})])
    (warning,) = fusion_warnings([_run("a", q={"1": 1.0}), _run("b", q={"de:1": 1.0})])
    assert warning.startswith("runs 'a' and 'b' have no document in common in any query")


def test_scores_beyond_float32() -> None:
    large = _run("large", q={"d": 3e38})
    with pytest.raises(DataError, match="query 'q': a fused score is beyond float32's range"):
        fuse_runs([large, large], FusionOptions(FusionMethod.SUM, norm=Normalization.NONE))


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (FusionOptions(norm=Normalization.Z), ["norm is z: rrf looks at ranks only"]),
        (FusionOptions(FusionMethod.SUM, k=60), ["k is 60: it belongs to rrf"]),
        (
            FusionOptions(k=-1, weights=(1.0, -2.0, math.nan)),
            ["k is -1, expected 0", "3 weights for 2 runs", "weights are 1, -2, nan, expected finite"],
        ),
        (FusionOptions(weights=(0.0, 0.0)), ["all weights are 0"]),
    ],
)
def test_options_that_make_no_sense(options: FusionOptions, messages: list[str]) -> None:
    run = _run("run", q={"a": 1.0})
    with pytest.raises(UsageError) as caught:
        fuse_runs([run, run], options)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(messages)
    for line, message in zip(lines, messages, strict=True):
        assert line.startswith(message)


def _write(path: Path, *runs: tuple[str, Hits]) -> str:
    write_run(path, ((query, list(hits), list(hits.values())) for query, hits in runs), path.stem)
    return str(path)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bm25 = _write(tmp_path / "bm25.trec", ("q1", {"a": 9.0, "b": 3.0}), ("q2", {"a": 2.0}))
    dense = _write(tmp_path / "dense.trec", ("q1", {"b": 0.9, "c": 0.1}))
    output = tmp_path / "new" / "hybrid.trec.gz"
    options = ["--method", "sum", "--weights", "0.5,2", "--hits", "2", "--tag", "hybrid"]
    assert main(["fuse", bm25, dense, "--output", str(output), *options]) == 0
    said = capsys.readouterr()
    assert said.out == f"{output}: 2 queries, 3 lines\n"
    assert "run 'dense' lacks 1 of 2 queries (q2)" in said.err
    run = read_run(output, "hybrid")
    assert {query: _fused(run, query) for query in run.queries} == {
        "q1": {"b": 2.0, "a": 0.5},
        "q2": {"a": 0.5},
    }


def test_all_bad_input_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = _write(tmp_path / "good.trec", ("q", {"a": 1.0}))
    command = ["fuse", good, good, "none.trec", "--output", good, "--weights", "1,2", "--k", "3"]
    assert main([*command, "--norm", "z", "--tag", "my run"]) == 1
    said = capsys.readouterr().err
    for message in (
        "two runs are named 'good'",
        "norm is z: rrf looks at ranks only",
        "2 weights for 3 runs",
        "is the file of the run 'good', expected another",
        "tag is 'my run', expected one word",
        "none.trec: no such file",
    ):
        assert message in said
    assert len(said.splitlines()) == 6
    assert main(["fuse", good, "--output", str(tmp_path / "x")]) == 2
    assert "1 run to fuse, expected two or more" in capsys.readouterr().err
    assert main(["fuse", good, good, "--output", str(tmp_path / "x"), "--weights", "1;2"]) == 2
    assert "'1;2', expected numbers with commas" in capsys.readouterr().err


def test_problems_of_all_runs_come_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for name in ("one", "other"):
        paths.append(tmp_path / f"{name}.trec")
        paths[-1].write_text("q Q0 d 1 x t\n")
    assert main(["fuse", *map(str, paths), "--output", str(tmp_path / "out.trec")]) == 1
    said = capsys.readouterr().err
    assert "one.trec:1: score 'x'" in said
    assert "other.trec:1: score 'x'" in said
    assert not (tmp_path / "out.trec").exists()


def test_pyserini_fuses_the_same(tmp_path: Path) -> None:
    """On runs without ties; its reading of files and its min-max with 0 for missing documents are its own."""
    from mimo_plugin.pyserini.java import import_pyserini

    import_pyserini()
    from pyserini.fusion import normalize, reciprocal_rank_fusion
    from pyserini.trectools import TrecRun

    rng = np.random.default_rng(11)
    paths = []
    for name in ("a", "b", "c"):
        queries = []
        for query in ("q1", "q2", "q3"):
            docids = rng.choice(60, 25, replace=False).tolist()
            queries.append((query, {f"d{docid}": float(rng.normal()) for docid in docids}))
        queries.append((f"of-{name}", {"d1": 4.0}))
        paths.append(_write(tmp_path / f"{name}.trec", *queries))
    runs = [read_run(Path(path), Path(path).stem) for path in paths]
    theirs = [TrecRun(path) for path in paths]
    for ours, other in (
        (FusionOptions(), reciprocal_rank_fusion(theirs)),
        (FusionOptions(FusionMethod.SUM), normalize(theirs)),
    ):
        fused = fuse_runs(runs, ours)
        expected: dict[str, dict[str, float]] = {}
        for row in other.run_data.itertuples():
            expected.setdefault(row.topic, {})[row.docid] = row.score
        assert fused.queries.keys() == expected.keys()
        for query, scores in expected.items():
            assert _fused(fused, query) == pytest.approx(scores, rel=1e-6, abs=1e-9)
