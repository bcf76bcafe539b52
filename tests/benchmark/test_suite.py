"""The paper's benchmarks under their released names, one by one and as a suite."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.bench import results
from helpers.checkpoints import plain_xlmr
from helpers.tiny_mteb import tables, write_mteb, write_paper, write_parquet

from mimo_plugin.benchmark.loading import load_config
from mimo_plugin.benchmark.parts import open_benchmark
from mimo_plugin.benchmark.suite import SUITES
from mimo_plugin.cli import main

_MIRACL = ("ar", "de", "en", "es", "fr", "hi", "id", "ja", "ru", "zh")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(plain_xlmr(tmp_path_factory.mktemp("checkpoint") / "tiny"))


def write_neuclir(data: Path, year: int, lang: str) -> None:
    write_mteb(data / f"NeuCLIR{year}RetrievalHardNegatives", lang, "test")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """All that the paper's suite reads, each under its released name."""
    data = tmp_path / "data"
    for name in ("Belebele_test", "XQuAD_test", "MLQA_test", "MultiEup_test"):
        write_paper(data / "MMLIR" / name)
    for year in (2022, 2023):
        for lang in ("rus", "zho"):
            write_neuclir(data, year, lang)
    (data / "neuclir" / "bench" / "data").mkdir(parents=True)
    topics = "".join(f"{n}\ttopic {n}\n" for n in range(3))
    (data / "neuclir" / "bench" / "data" / "news.eng.tsv").write_text(topics, encoding="utf-8")
    for lang in _MIRACL:
        write_mteb(data / "MIRACLRetrievalHardNegatives", lang)
    return data


def test_released_names_and_cutoffs(data: Path, checkpoint: str, tmp_path: Path) -> None:
    config = load_config("belebele", data=str(data))
    assert config.collections == (f"path:{data}/MMLIR/Belebele_test",)
    command = ["reproduce", "belebele", "--data", str(data), "--encoder", f"mimo={checkpoint}"]
    assert main([*command, "--output", str(tmp_path / "output")]) == 0
    bias = results(tmp_path / "output")["language_bias"]["mimo"]
    assert set(bias["mrc_at"]) == {"5", "10", "20"}
    assert set(bias["peer_at"]) == {"20", "100"}
    assert bias["mrc_at"]["20"] == bias["mrc"]
    assert bias["peer_at"]["20"] == bias["peer"]
    for found in (bias["peer"], *bias["peer_at"].values(), *bias["mrc_at"].values()):
        assert set(found["per_language"]) == {"de", "fi"}
    # As many topics in each language: the mean is that of the languages.
    peer = bias["peer_at"]["100"]
    assert peer["mean"] == pytest.approx(sum(peer["per_language"].values()) / 2)
    made = {path.name for path in (tmp_path / "output" / "report").rglob("*.csv")}
    assert {"fairness-cutoffs.csv", "peer-100-by-language.csv", "mrc-5-by-language.csv"} <= made
    assert {"peer-by-language.csv"} <= made


def test_cutoffs_of_a_command(data: Path, checkpoint: str, tmp_path: Path, capsys: Any) -> None:
    command = ["reproduce", "xquad", "--data", str(data), "--encoder", checkpoint]
    output = ["--output", str(tmp_path / "output")]
    assert main([*command, *output, "--fairness", "mrc@3,7", "PEER@9"]) == 0
    (bias,) = results(tmp_path / "output")["language_bias"].values()
    assert (list(bias["mrc_at"]), list(bias["peer_at"])) == (["3", "7"], ["9"])
    capsys.readouterr()
    assert main([*command, *output, "--fairness", "5", "mrc@0", "peer@200", "ndcg@5"]) == 2
    said = capsys.readouterr().err
    assert all(f"found '{wrong}'" in said for wrong in ("5", "mrc@0", "ndcg@5"))
    assert main([*command, *output, "--fairness", "peer@200"]) == 2
    assert "200 is deeper than the config's depth, which is 100" in capsys.readouterr().err


def test_english_topics_against_hard_negatives(data: Path, tmp_path: Path) -> None:
    config = load_config("neuclir-2022-hard-negatives", data=str(data))
    benchmark = open_benchmark(config, tmp_path / "cache", progress=False)
    (part,) = benchmark.parts
    assert part.queries == [(str(n), f"topic {n}") for n in range(3)]
    assert {query.lang for query in benchmark.pool.queries_iter()} == {"en"}
    assert {doc.doc_id for doc in part.pool.docs_iter()} == {
        f"{lang}:{own}{n}" for n in range(3) for lang, own in (("ru", "rus"), ("zh", "zho"))
    }
    # Graded 3 and 0 in the file.
    grades = {qrel.relevance for qrel in benchmark.pool.qrels_iter()}
    assert grades == {0, 1}


@pytest.mark.parametrize("gain", ["graded", "binary"])
def test_gain(gain: str, checkpoint: str, tmp_path: Path) -> None:
    """With grades 1 and 3 the two differ, with one grade they do not."""
    made = tables("de", 6)
    made["qrels"] = [
        {"query-id": "0", "corpus-id": f"de{n}", "score": score} for n, score in enumerate((1, 3, 0, -1, 2))
    ]
    write_mteb(tmp_path / "set", "de", made=made)
    config = tmp_path / "own.yaml"
    config.write_text(
        f"title: Own\nsetting: mlir\ncollections: ['path:{tmp_path}/set/de']\nmeasures: [ndcg@5]\n",
        encoding="utf-8",
    )
    output = tmp_path / gain
    assert (
        main(
            [
                "reproduce",
                str(config),
                "--encoder",
                f"e={checkpoint}",
                "--output",
                str(output),
                "--gain",
                gain,
            ]
        )
        == 0
    )
    found = results(output)
    assert found["config"]["gain"] == gain
    assert ("0 or 1" in (found["config"]["note"] or "")) is (gain == "binary")
    import gzip
    from math import log2

    with gzip.open(output / "runs" / "e.trec.gz", "rt") as lines:
        order = [line.split()[2] for line in lines][:5]
    grades = {"de0": 1, "de1": 3, "de4": 2} if gain == "graded" else dict.fromkeys(("de0", "de1", "de4"), 1)
    dcg = sum(grades.get(docid, 0) / log2(rank + 2) for rank, docid in enumerate(order))
    best = sum(grade / log2(rank + 2) for rank, grade in enumerate(sorted(grades.values(), reverse=True)))
    assert found["evaluation"]["runs"]["e"]["mean"]["ndcg@5"] == pytest.approx(dcg / best)


_SOME = ("belebele", "mlqa", "neuclir-2023-hard-negatives", "miracl-hard-negatives-10")


@pytest.mark.slow
def test_the_papers_suite(
    data: Path, checkpoint: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [load_config(name, data=str(data)).name for name in SUITES["paper"]] == list(SUITES["paper"])
    assert set(_SOME) < set(SUITES["paper"])
    monkeypatch.setitem(SUITES, "paper", _SOME)
    output = tmp_path / "suite"
    command = ["reproduce", "--suite", "paper", "--data", str(data), "--output", str(output)]
    command += ["--encoder", f"mimo={checkpoint}"]
    # Two lack data: both are said before anything else, and the others are done.
    (data / "MMLIR" / "MLQA_test").rename(data / "gone")
    (data / "NeuCLIR2023RetrievalHardNegatives" / "zho-corpus").rename(data / "gone2")
    assert main(command) == 1
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].startswith("mlqa: left out: path:")
    assert lines[1].startswith("neuclir-2023-hard-negatives: left out: ")
    assert lines[2] == "== belebele"
    assert "2 of 4 benchmarks were left out (mlqa, neuclir-2023-hard-negatives)" in said.err
    summary = json.loads((output / "summary.json").read_text())
    done = [name for name in _SOME if name not in ("mlqa", "neuclir-2023-hard-negatives")]
    assert list(summary["benchmarks"]) == done
    assert set(summary["left_out"]) == {"mlqa", "neuclir-2023-hard-negatives"}
    # Where they are there, they are added, and the others are not done again.
    (data / "gone").rename(data / "MMLIR" / "MLQA_test")
    (data / "gone2").rename(data / "NeuCLIR2023RetrievalHardNegatives" / "zho-corpus")
    before = {path: path.stat().st_mtime_ns for path in output.glob("*/runs/*.trec.gz")}
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    summary = json.loads((output / "summary.json").read_text())
    assert list(summary["benchmarks"]) == list(_SOME)
    assert summary["left_out"] == {}
    scores = summary["systems"]["mimo"]
    for name, about in summary["benchmarks"].items():
        run = results(output / name)["evaluation"]["runs"]["mimo"]
        assert scores[name] == run["macro"][about["measure"]]
    mixed = [scores[name] for name, about in summary["benchmarks"].items() if about["setting"] == "mlir"]
    assert len(mixed) == 3
    assert scores["mean of MLIR"] == pytest.approx(sum(mixed) / 3)
    with (output / "summary.csv").open() as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows] == ["system", "mimo"]
    assert float(rows[1][-1]) == summary["systems"]["mimo"]["mean of MLIR"]


def test_a_suite_without_data_or_with_wrong_words(tmp_path: Path, checkpoint: str, capsys: Any) -> None:
    encoder = ["--encoder", checkpoint, "--output", str(tmp_path / "output")]
    assert main(["reproduce", "--suite", "paper", "--data", str(tmp_path), *encoder]) == 1
    said = capsys.readouterr().err
    assert all(name in said for name in ("belebele", "xquad", "mlqa", "multieup", "NeuCLIR2022", "MIRACL"))
    assert not (tmp_path / "output").exists()
    assert main(["reproduce", "--suite", "papers", *encoder]) == 2
    assert "expected one of paper" in capsys.readouterr().err
    assert main(["reproduce", "belebele", "--suite", "paper", "--run", "a.trec", *encoder]) == 2
    said = capsys.readouterr().err
    assert "expected one of them" in said
    assert "--run with --suite" in said


def test_two_releases_are_not_taken_for_each_other(tmp_path: Path, capsys: Any, checkpoint: str) -> None:
    for name in ("MLIR-en", "MLIR-de"):
        write_paper(tmp_path / name / "Belebele_test")
    assert main(["reproduce", "belebele", "--data", str(tmp_path), "--encoder", checkpoint]) == 1
    said = capsys.readouterr().err
    assert f"2 folders match, expected one: {tmp_path}/MLIR-de/Belebele_test, {tmp_path}/MLIR-en" in said
    write_paper(tmp_path / "MMLIR" / "Belebele_test")
    assert load_config("belebele", data=str(tmp_path)).collections == (
        f"path:{tmp_path}/MMLIR/Belebele_test",
    )
    write_parquet(tmp_path / "belebele" / "corpus.parquet", tables("de")["corpus"])
    assert load_config("belebele", data=str(tmp_path)).collections == (f"path:{tmp_path}/belebele",)
