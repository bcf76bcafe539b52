"""Reading runs: what is accepted, and each thing that is not, with its file and line."""

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_plugin.core.errors import DataError
from mimo_plugin.evaluation import runs as run_reader
from mimo_plugin.evaluation.runs import file_problem, read_run, run_files, run_problems

GOOD = "q1 Q0 a 1 3 t\nq1 Q0 b 2 2 t\nq2 Q0 a 1 1e-3 t\n"


def _read(tmp_path: Path, content: str | bytes) -> dict[str, list[tuple[bytes, float]]]:
    path = tmp_path / "run.trec"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    queries = read_run(path, "run").queries
    return {
        query: list(zip(r.docids.tolist(), r.scores.tolist(), strict=True)) for query, r in queries.items()
    }


def _problems(tmp_path: Path, content: str | bytes) -> list[str]:
    with pytest.raises(DataError) as caught:
        _read(tmp_path, content)
    return str(caught.value).replace(f"{tmp_path}/", "").splitlines()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1 Q0 c 3 1", "run.trec:4: 5 columns, expected 6 (query Q0 docid rank score tag)"),
        ("q1 Q0 c 3 1 my tag", "run.trec:4: 7 columns, expected 6"),
        ("q1 Q0 c 3 nan t", "run.trec:4: score 'nan', expected a finite number"),
        ("q1 Q0 c 3 -inf t", "run.trec:4: score '-inf', expected a finite number"),
        (
            "q1 Q0 c 3 1e99 t",
            "run.trec:4: score '1e99', expected a finite number (trec_eval reads it as float32)",
        ),
        ("q1 Q0 c 3 1_0 t", "run.trec:4: score '1_0', expected a finite number"),
        ("q1 Q0 c 3 high t", "run.trec:4: score 'high', expected a finite number"),
        ("q1 Q0 c x 1 t", "run.trec:4: rank 'x', expected an integer"),
        ("q1 Q0 c 1.0 1 t", "run.trec:4: rank '1.0', expected an integer"),
        ("q1 Q0 c 99999999999999999999 1 t", "run.trec:4: rank '99999999999999999999', expected an integer"),
        ("q1 Q0 c +-1 1 t", "run.trec:4: rank '+-1', expected an integer"),
        ("q1 Q0 c ٣ 1 t", "run.trec:4: rank '٣', expected an integer"),
        ("q1 Q0 c 1_0 1 t", "run.trec:4: rank '1_0', expected an integer"),
        (f"q1 Q0 c {'9' * 5000} 1 t", f"run.trec:4: rank '{'9' * 40}', expected an integer"),
        (f"q1 Q0 c {'0' * 18}3 1 t", f"run.trec:4: rank '{'0' * 18}3', expected an integer"),
        ("q1 Q0 c 3 １.５ t", "run.trec:4: score '１.５', expected a finite number"),
        (f"q1 Q0 c 3 {'9' * 5000} t", f"run.trec:4: score '{'9' * 40}', expected a finite number"),
        ("q1 Q0 a 3 1 t", "run.trec:4: document 'a' comes twice for query 'q1' (first in line 1)"),
        ("q1 Q0 c 3 2.5 t", "run.trec:4: unsorted ranks: query 'q1' has score 2.5 at rank 3 but 2 at rank 2"),
        ("q1 Q0 c\0 3 1 t", "run.trec:4: the query id or docid holds a NUL character"),
    ],
)
def test_bad_lines(tmp_path: Path, line: str, message: str) -> None:
    assert any(problem.startswith(message) for problem in _problems(tmp_path, GOOD + line + "\n"))


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    assert _problems(tmp_path, GOOD.encode() + b"q1 Q0 caf\xe9 3 1 t\n") == [
        "run.trec:4: the query id or docid is not UTF-8: convert the file, for example with iconv"
    ]


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_empty_file(tmp_path: Path, content: str) -> None:
    assert _problems(tmp_path, content)[0].startswith("run.trec: is empty, expected lines of six columns")


def test_several_problems_come_together_and_are_cut(tmp_path: Path) -> None:
    problems = _problems(tmp_path, "q Q0 d 1 x t\nq Q0 d 1\n" + GOOD + "q1 Q0 a 3 9 t\n" + "short\n" * 10)
    assert len(problems) == 6
    assert problems[-1].startswith("... and ")
    assert any(":1: score 'x'" in problem for problem in problems)
    assert any(":2: 4 columns" in problem for problem in problems)


def test_damaged_gzip(tmp_path: Path) -> None:
    packed = gzip.compress(GOOD.encode() * 1000)
    assert _problems(tmp_path, packed[: len(packed) // 2])[0].startswith("run.trec: cannot be read as a run")


def test_accepted(tmp_path: Path) -> None:
    expected = {"q1": [(b"a", 3.0), (b"b", 2.0)], "q2": [(b"a", np.float32(1e-3))]}
    assert _read(tmp_path, GOOD) == expected
    assert _read(tmp_path, gzip.compress(GOOD.encode())) == expected
    assert _read(tmp_path, "\ufeff" + GOOD.replace("\n", "\r\n") + "\n") == expected
    assert _read(tmp_path, GOOD.replace(" ", "\t")) == expected
    # Ranks from 0, and ranks that say nothing, contradict nothing.
    assert _read(tmp_path, GOOD.replace(" 1 3 t", " 0 3 t").replace(" 2 2 t", " 1 2 t")) == expected
    assert _read(tmp_path, GOOD.replace(" 2 2 t", " 1 2 t")) == expected


def test_lines_in_any_order_are_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    scores = -np.sort(-rng.integers(0, 40, size=(20, 50)), axis=1)
    lines = [f"q{q} Q0 d{d} {d + 1} {scores[q, d]} t\n" for q in range(20) for d in range(50)]
    expected = _read(tmp_path, "".join(lines))
    rng.shuffle(lines)
    assert _read(tmp_path, "".join(lines)) == expected
    # Blocks of a few lines each.
    monkeypatch.setattr(run_reader, "_BLOCK_BYTES", 100)
    assert _read(tmp_path, "".join(lines)) == expected


def test_names(tmp_path: Path) -> None:
    for name in ("a.trec", "b.run.gz", "c.v2.txt", "x=y.trec", "run"):
        (tmp_path / name).write_text(GOOD)
    specs = [str(tmp_path / name) for name in ("a.trec", "b.run.gz", "c.v2.txt", "x=y.trec", "run")]
    named = f"best={tmp_path / 'a.trec'}"
    assert [file.name for file in run_files([*specs, named])] == ["a", "b", "c.v2", "x=y", "run", "best"]


def test_names_that_clash_and_files_that_lack(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "a.trec").write_text(GOOD)
    (tmp_path / "1" / "a.trec").write_text(GOOD)
    names = [str(tmp_path / name) for name in ("a.trec", "1/a.trec", "none.trec", "1")]
    files = run_files(names)
    clash, *lacking = run_problems(files)
    assert clash.startswith("two runs are named 'a'")
    assert clash.endswith(f"give one as NAME=FILE, for example a-2={tmp_path}/1/a.trec")
    assert lacking == [
        f"{tmp_path}/none.trec: no such file, expected a TREC run",
        f"{tmp_path}/1: is a directory, expected a TREC run",
    ]
    with pytest.raises(DataError, match=r"none\.trec: no such file"):
        read_run(*reversed(files[2]))
    assert str(file_problem(tmp_path / ("x" * 300))).endswith("File name too long")


@given(
    rank=st.one_of(
        st.integers(-(10**17), 10**20).map(str), st.text(st.characters(exclude_categories=["Z", "C"]))
    ),
    score=st.one_of(st.floats(width=32).map(repr), st.text(st.characters(exclude_categories=["Z", "C"]))),
)
def test_a_line_is_judged_alike_alone_and_beside_a_bad_one(rank: str, score: str) -> None:
    """The fast look at a block and the slow one at each row agree, and neither fails otherwise."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "run.trec"
        line = f"q Q0 d {rank} {score} t\n"
        found = []
        for content in (line, line + "short\n"):
            path.write_text(content, encoding="utf-8")
            try:
                read_run(path, "run")
                found.append([])
            except DataError as error:
                found.append([problem for problem in str(error).splitlines() if ":1:" in problem])
        assert found[0] == found[1]
