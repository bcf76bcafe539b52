"""Writing runs, and reading back what was written."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.core.errors import DataError, EnvironmentProblem
from mimo_plugin.evaluation.runs import Run, read_run, write_run

IDS = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1, max_size=8)
SCORES = st.floats(width=32, allow_nan=False, allow_infinity=False)
RUNS = st.dictionaries(IDS, st.dictionaries(IDS, SCORES, min_size=1, max_size=8), min_size=1, max_size=4)


@settings(max_examples=60)
@given(hits=RUNS)
def test_a_run_comes_back_as_it_was_written(hits: dict[str, dict[str, float]], tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("run") / "a.trec"
    lines = write_run(path, ((query, list(docs), list(docs.values())) for query, docs in hits.items()), "tag")
    assert lines == sum(map(len, hits.values())) == len(path.read_text("utf-8").splitlines())
    run = read_run(path, "a")
    assert list(run.queries) == list(hits)
    for query, docs in hits.items():
        ranking = run.queries[query]
        # trec_eval's order: float32 score, then the docid's bytes, both descending.
        expected = sorted(docs, key=lambda docid: (np.float32(docs[docid]), docid.encode()), reverse=True)
        assert [docid.decode() for docid in ranking.docids.tolist()] == expected
        np.testing.assert_array_equal(ranking.scores, np.float32([docs[docid] for docid in expected]))


def test_columns_ranks_and_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.trec"
    write_run(path, [("q2", ["b", "a", "c"], [1.0, 1.0, 2.5]), ("q1", ["ä"], [0.1])], "mimo")
    assert path.read_text("utf-8") == (
        "q2 Q0 c 1 2.5 mimo\nq2 Q0 b 2 1 mimo\nq2 Q0 a 3 1 mimo\nq1 Q0 ä 1 0.100000001 mimo\n"
    )


def test_gzip_is_the_same_run_and_always_the_same_bytes(tmp_path: Path) -> None:
    items = [("q", ["a", "b"], [2.0, 1.0])]
    write_run(tmp_path / "a.trec", items, "t")
    write_run(tmp_path / "a.trec.gz", items, "t")
    write_run(tmp_path / "b.trec.gz", items, "t")
    assert gzip.decompress((tmp_path / "a.trec.gz").read_bytes()) == (tmp_path / "a.trec").read_bytes()
    assert (tmp_path / "a.trec.gz").read_bytes() == (tmp_path / "b.trec.gz").read_bytes()


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (("a b", ["d"], [1.0]), "query id 'a b', expected at least one character and no white space"),
        (("", ["d"], [1.0]), "query id '', expected at least one character"),
        (("q", ["d\u3000"], [1.0]), r"docid of query 'q' 'd\\u3000', expected"),
        (("q", ["d", "d"], [1.0, 2.0]), "query 'q' has docid 'd' twice"),
        (("q", ["d"], [np.nan]), "query 'q' has a score that is not finite"),
        (("q", ["d"], [1.0, 2.0]), r"query 'q' has 1 docids and scores of shape \(2,\)"),
        (("first", ["d"], [1.0]), "query 'first' comes twice"),
    ],
)
def test_bad_items_leave_the_old_file_alone(
    tmp_path: Path, item: tuple[str, list[str], list[float]], message: str
) -> None:
    path = tmp_path / "a.trec"
    path.write_text("old")
    with pytest.raises(DataError, match=message):
        write_run(path, [("first", ["d"], [1.0]), item], "t")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_bad_tag(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run tag 'my run'"):
        write_run(tmp_path / "a.trec", [], "my run")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match=r"a\.trec"):
        write_run(tmp_path / "file" / "a.trec", [("q", ["d"], [1.0])], "t")


def test_from_hits_leaves_out_empty_queries() -> None:
    run = Run.from_hits("a", {"q": {"d": 1.0, "e": 2.0}, "empty": {}})
    assert {query: ranking.docids.tolist() for query, ranking in run.queries.items()} == {"q": [b"e", b"d"]}
