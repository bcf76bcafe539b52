"""`mimo reproduce` from config to report, through the command line."""

import csv
import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from helpers import processes
from helpers.bench import LANGUAGES, hits, parallel_folder, results, stamps, write_config
from helpers.checkpoints import plain_xlmr

from mimo_plugin.benchmark.reproduce import reproduce
from mimo_plugin.cli import main
from mimo_plugin.cli.benchmark import report_command
from mimo_plugin.collections.pool import load
from mimo_plugin.core.errors import ArtifactError
from mimo_plugin.encoder.encoder import Encoder

_MADE = ("runs", "indexes", "geometry", "collections")
_PLAIN = {"fairness": None, "geometry": None}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    directory = tmp_path_factory.mktemp("checkpoints")
    return str(plain_xlmr(directory / "a", seed=0)), str(plain_xlmr(directory / "b", seed=1))


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory, checkpoints: tuple[str, str]
) -> tuple[Path, list[str], str]:
    """A finished reproduction, the command that made it, and its collection."""
    base = tmp_path_factory.mktemp("reproduction")
    collection = parallel_folder(base / "parallel")
    config = write_config(
        base / "small.yaml",
        [collection],
        bm25={"analyzers": "plain"},
        fusion=[{"name": "hybrid", "systems": ["bm25", "encoder"], "method": "rrf"}],
    )
    command = ["reproduce", str(config), "--encoder", *checkpoints, "--output", str(base / "output")]
    assert main(command) == 0
    return base / "output", command, collection


@pytest.mark.slow
def test_its_runs_are_those_of_the_single_commands(
    done: tuple[Path, list[str], str], checkpoints: tuple[str, str], tmp_path: Path
) -> None:
    output, _, collection = done
    index, run, scores = tmp_path / "index", tmp_path / "a.trec", tmp_path / "scores.json"
    assert main(["index", collection, "--encoder", checkpoints[0], "--output", str(index)]) == 0
    search = ["search", str(index), "--topics", collection, "--hits", "20", "--tag", "a"]
    assert main([*search, "--output", str(run)]) == 0
    with gzip.open(output / "runs" / "a.trec.gz", "rt", encoding="utf-8") as made:
        assert made.read() == run.read_text()
    names = ("bm25", "a", "b", "hybrid-a", "hybrid-b")
    evaluate = ["evaluate", *(f"{name}={output / 'runs' / name}.trec.gz" for name in names)]
    options = ["--measures", "ndcg@5,recall@10", "--baseline", "bm25", "--json", str(scores)]
    assert main([*evaluate, "--qrels", collection, *options]) == 0
    found = results(output)
    assert {"collections": [collection], **found["evaluation"]} == json.loads(scores.read_text())
    assert tuple(found["systems"]) == names
    assert found["systems"]["hybrid-a"]["parts"] == ["bm25", "a"]
    assert set(found["language_bias"]) == set(names)
    assert set(found["geometry"]["encoders"]) == {"a", "b"}


@pytest.mark.slow
def test_a_loaded_encoder_is_a_system_like_a_checkpoint(
    done: tuple[Path, list[str], str], checkpoints: tuple[str, str], tmp_path: Path
) -> None:
    output, command, _ = done
    said: list[str] = []
    encoders = [Encoder(checkpoints[0]), f"other={checkpoints[1]}"]
    found = reproduce(command[1], tmp_path / "output", encoders, bm25=False, say=said.append)
    assert found.report.is_file()
    assert said[-1].startswith(str(tmp_path / "output" / "results.json"))
    for name, before in (("a", "a"), ("other", "b")):
        mean = found.results.evaluation.runs[name].mean
        assert mean == results(output)["evaluation"]["runs"][before]["mean"]
    assert hits(tmp_path / "output" / "runs" / "a.trec.gz") == hits(output / "runs" / "a.trec.gz")
    assert found.results.geometry is not None
    assert set(found.results.geometry.encoders) == {"a", "other"}
    with pytest.raises(TypeError, match="depht"):
        reproduce(command[1], tmp_path / "output", encoders, depht=3)


@pytest.mark.slow
def test_mrc_of_an_encoder_is_exact(done: tuple[Path, list[str], str]) -> None:
    bias = results(done[0])["language_bias"]
    assert bias["a"]["mrc"]["unscored"] == 0
    assert bias["bm25"]["mrc"]["unscored"] > 0


@pytest.mark.slow
def test_what_is_done_is_not_done_again(
    done: tuple[Path, list[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    output, command, _ = done
    made = (*_MADE, "report")
    before, found = stamps(output, made), (output / "results.json").read_bytes()
    assert main(command) == 0
    assert stamps(output, made) == before
    assert (output / "results.json").read_bytes() == found
    said = capsys.readouterr().out
    assert "indexing" not in said
    assert "macro average of" in said
    assert "difference from" not in said
    assert (
        said.splitlines()[-1]
        == f"report: {output / 'report' / 'index.html'}; --tables prints its tables of scores"
    )
    assert main([*command, "--tables"]) == 0
    assert "difference from" in capsys.readouterr().out


@pytest.mark.slow
def test_what_is_damaged_or_gone_is_made_again(done: tuple[Path, list[str], str], tmp_path: Path) -> None:
    output = tmp_path / "output"
    shutil.copytree(done[0], output)
    command = [*done[1][:-1], str(output)]
    (index,) = output.glob("indexes/bm25-*/all")
    runs, topics = output / "runs", output / "topics.json"
    files = [runs / "a.trec.gz", runs / "bm25.trec.gz", topics, output / "report" / "topics.html"]
    whole = {file: file.read_bytes() for file in files}
    damaged = whole[files[0]]
    files[0].write_bytes(damaged[:-1] + bytes([damaged[-1] ^ 1]))
    next(index.glob("_*.fdt")).unlink()
    (runs / "bm25.trec.gz").unlink()
    topics.unlink()
    assert main(command) == 0
    assert [file.name for file in files if file.read_bytes() != whole[file]] == []
    assert list(index.glob("_*.fdt"))

    before = stamps(output, ("runs", "indexes"))
    assert main([*command, "--report-topics", "0"]) == 0
    found = json.loads(topics.read_text(encoding="utf-8"))
    assert (found["documents"], found["topics"], found["largest"]) == ({}, {}, [])
    assert found["scores"] == json.loads(whole[topics])["scores"]
    assert not (output / "report" / "topics.html").exists()
    assert stamps(output, ("runs", "indexes")) == before
    topics.write_bytes(whole[topics].replace(b'"run a":"', b'"run a":"0'))
    with pytest.raises(ArtifactError, match="belongs to other results"):
        CliRunner().invoke(report_command, [str(output)], catch_exceptions=False, standalone_mode=False)


@pytest.mark.slow
def test_the_report_stands_beside_the_results(done: tuple[Path, list[str], str]) -> None:
    page = (done[0] / "report" / "index.html").read_text(encoding="utf-8")
    assert "A small benchmark" in page
    assert "hybrid-b" in page
    assert "http" not in page.split("<body", 1)[1].split("provenance", 1)[0].replace("http://www.w3.org", "")


@pytest.mark.slow
def test_topics_are_those_of_runs_judgments_and_collection(done: tuple[Path, list[str], str]) -> None:
    output, _, collection = done
    found, pool = json.loads((output / "topics.json").read_text(encoding="utf-8")), load(collection)
    assert found["fingerprints"] == results(output)["provenance"]["fingerprints"]
    for name, run in results(output)["evaluation"]["runs"].items():
        for measure, mean in run["mean"].items():
            assert fmean(found["scores"][name][measure]) == pytest.approx(mean, abs=1e-12)
        ranked = hits(output / "runs" / f"{name}.trec.gz")
        for query_id, topic in found["topics"].items():
            assert [docid for docid, _ in topic["hits"][name]] == ranked[query_id][:10]
    queries = {query.query_id: (query.text, query.lang) for query in pool.queries_iter()}
    documents = {doc.doc_id: (doc.text, doc.lang) for doc in pool.docs_iter()}
    judged = {(qrel.query_id, qrel.doc_id): qrel.relevance for qrel in pool.qrels_iter()}
    assert set(found["topics"]) == set(queries)
    for query_id, topic in found["topics"].items():
        assert (topic["text"], topic["language"]) == queries[query_id]
        assert topic["relevant"] == sum(query == query_id for query, _ in judged)
        for docid, relevance in (hit for run in topic["hits"].values() for hit in run):
            assert relevance == judged.get((query_id, docid))
            shown = found["documents"][docid]
            assert (shown["text"], shown["language"]) == documents[docid]
    rows = list(csv.reader((output / "report" / "tables" / "scores-by-topic.csv").open(encoding="utf-8")))
    scores = [values for by_measure in found["scores"].values() for values in by_measure.values()]
    assert [list(map(float, row[2:])) for row in rows[1:]] == [list(row) for row in zip(*scores, strict=True)]
    assert [row[:2] for row in rows[1:]] == [
        list(pair) for pair in zip(found["query_ids"], found["languages"], strict=True)
    ]
    page = (output / "report" / "topics.html").read_text(encoding="utf-8")
    assert all(docid in page for docid in found["documents"])


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_the_same(
    done: tuple[Path, list[str], str], checkpoints: tuple[str, str], tmp_path: Path
) -> None:
    config = str(write_config(tmp_path / "plain.yaml", [done[2]], **_PLAIN))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = ["reproduce", config, "--encoder", checkpoints[0], "--no-bm25", "--shard-size", "4", "--output"]
    assert main([*options, str(whole)]) == 0
    for mark in ("indexes/a-*/all/building/00000*", "runs/a.json"):
        processes.kill(processes.command(*options, str(killed)), lambda mark=mark: list(killed.glob(mark)))
    assert main([*options, str(killed)]) == 0
    made = [
        *(whole / "runs").glob("*.gz"),
        *(path for path in (whole / "indexes").rglob("*") if path.is_file()),
    ]
    assert len(made) == 5
    for file in made:
        assert (killed / file.relative_to(whole)).read_bytes() == file.read_bytes(), file


def test_a_subset_is_called_one_wherever_a_number_stands(
    done: tuple[Path, list[str], str], checkpoints: tuple[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "output"
    config = write_config(tmp_path / "plain.yaml", [done[2]], **_PLAIN)
    command = ["reproduce", str(config), "--encoder", checkpoints[0], "--no-bm25", "--languages", "de,fi"]
    assert main([*command, "--docs", "judged+2", "--output", str(output)]) == 0
    found = results(output)
    assert found["subset"]["judged"] == 28
    assert found["config"]["languages"] == ["de", "fi"]
    assert {
        docid.split(":")[0] for docids in hits(output / "runs" / "a.trec.gz").values() for docid in docids
    } == {
        "de",
        "fi",
    }
    text = found["subset"]["text"]
    assert "28 judged documents" in text
    assert text in (output / "report" / "index.html").read_text(encoding="utf-8")
    tables = list((output / "report" / "tables").iterdir())
    assert tables
    assert all("From a subset" in table.read_text(encoding="utf-8") for table in tables)


@pytest.mark.slow
def test_each_language_in_an_index_of_its_own(checkpoints: tuple[str, str], tmp_path: Path) -> None:
    collections = {"de": "miracl/de/dev", "sw": "miracl/sw/dev"}
    config = write_config(
        tmp_path / "apart.yaml",
        collections,
        setting="multi-monolingual",
        bm25={"analyzers": "language"},
        **_PLAIN,
    )
    output = tmp_path / "output"
    assert main(["reproduce", str(config), "--encoder", checkpoints[0], "--output", str(output)]) == 0
    found = results(output)
    for name in ("a", "bm25"):
        for query_id, docids in hits(output / "runs" / f"{name}.trec.gz").items():
            assert {docid.split(":")[0] for docid in docids} == {query_id.split(":")[0]}
    assert found["systems"]["bm25"]["details"]["analyzers"] == {
        "de": "GermanAnalyzer",
        "sw": "WhitespaceAnalyzer",
    }
    assert found["language_bias"] == {}
    # As each language by itself, but for the prefix.
    alone = tmp_path / "alone"
    assert main(["index", "miracl/sw/dev", "--encoder", checkpoints[0], "--output", str(alone)]) == 0
    run = tmp_path / "sw.trec"
    assert (
        main(["search", str(alone), "--topics", "miracl/sw/dev", "--hits", "20", "--output", str(run)]) == 0
    )
    scores = tmp_path / "scores.json"
    evaluate = ["evaluate", str(run), "--qrels", "miracl/sw/dev", "--measures", "ndcg@5"]
    assert main([*evaluate, "--json", str(scores)]) == 0
    assert (
        json.loads(scores.read_text())["runs"]["sw"]["mean"]["ndcg@5"]
        == found["evaluation"]["runs"]["a"]["per_language"]["sw"]["ndcg@5"]
    )
    # One language of it has the same ids, and needs nothing encoded again but its own.
    part = tmp_path / "part"
    command = ["reproduce", str(config), "--encoder", checkpoints[0], "--no-bm25", "--languages", "sw"]
    assert main([*command, "--output", str(part)]) == 0
    assert set(hits(part / "runs" / "a.trec.gz")) == {f"sw:{number}" for number in range(5)}


@pytest.mark.slow
def test_other_prompts_and_dimensions_are_other_runs(checkpoints: tuple[str, str], tmp_path: Path) -> None:
    collection = parallel_folder(tmp_path / "parallel", texts=6)
    config = write_config(tmp_path / "small.yaml", [collection], **_PLAIN)
    command = ["reproduce", str(config), "--encoder", checkpoints[0], "--output", str(tmp_path / "output")]
    keys = set()
    for asked in ([], ["--dimension", "8"], ["--query-prompt", "haku "], ["--document-prompt", "See "]):
        for _ in range(2):
            assert main([*command, *asked]) == 0
            note = next((tmp_path / "output" / "runs").glob("a*.json"))
            keys.add(json.loads(note.read_text(encoding="utf-8"))["key"])
    assert len(keys) == 4
    plans = [
        json.loads(path.read_text(encoding="utf-8"))["plan"]
        for path in (tmp_path / "output" / "indexes").glob("*/*/manifest.json")
    ]
    # Queries alone are searched in the index that is there.
    assert sorted((plan["dimension"], plan["prompt"]) for plan in plans) == [(8, ""), (32, ""), (32, "See ")]


@pytest.mark.slow
def test_indexes_that_are_there_keep_their_number_format(
    checkpoints: tuple[str, str], tmp_path: Path
) -> None:
    config = write_config(tmp_path / "small.yaml", [parallel_folder(tmp_path / "parallel")], **_PLAIN)
    output = tmp_path / "output"
    command = ["reproduce", str(config), "--encoder", checkpoints[0], "--output", str(output), "--no-bm25"]
    assert main([*command, "--dtype", "bfloat16"]) == 0
    before = stamps(output, ["indexes"])
    shutil.rmtree(output / "runs")
    # By itself this machine would take float32 here, since torch runs the model.
    assert main(command) == 0
    assert stamps(output, ["indexes"]) == before
    assert results(output)["systems"]["a"]["details"]["dtype"] == "bfloat16"
    assert main([*command, "--dtype", "float32"]) == 0
    assert len(list((output / "indexes").iterdir())) == 2


@pytest.mark.slow
def test_runs_made_elsewhere(
    done: tuple[Path, list[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, foreign = tmp_path / "mine.trec", tmp_path / "foreign.trec"
    mine.write_text("".join(f"{lang}:q0 Q0 {lang}:0 1 1.0 x\n" for lang in LANGUAGES))
    foreign.write_text("de:q0 Q0 de:0 1 1.0 x\nde:q0 Q0 en:7 2 0.5 x\n")
    only = tmp_path / "output"
    config = write_config(tmp_path / "no-geometry.yaml", [done[2]], geometry=None)
    given = ["reproduce", str(config), "--no-bm25", "--run", str(mine), str(foreign), "--output", str(only)]
    assert main(given) == 0
    said = capsys.readouterr()
    assert "run 'foreign' was made from another index" in said.err
    assert "en:7" in said.err
    found = results(only)
    assert set(found["language_bias"]) == {"mine"}
    assert found["evaluation"]["runs"]["mine"]["mean"]["ndcg@5"] > 0
    assert not (only / "runs").exists()


def test_bad_input_is_reported_together_before_anything_is_encoded(
    done: tuple[Path, list[str], str],
    checkpoints: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "output"
    config = done[1][1]
    (tmp_path / "empty").mkdir()
    bad = ["--encoder", str(tmp_path / "empty"), f"x y={checkpoints[0]}", "--run", "gone.trec"]
    assert main(["reproduce", config, *bad, "--docs", "all", "--output", str(output)]) != 0
    errors = capsys.readouterr().err
    for part in ("empty", "'x y'", "gone.trec", "--docs 'all'"):
        assert part in errors
    assert main(["reproduce", config, "--encoder", "no/such", "--output", str(output)]) != 0
    assert "no/such" in capsys.readouterr().err
    assert not output.exists()
    assert main(["reproduce", config, "--no-bm25", "--output", str(output)]) == 2
    assert "no system" in capsys.readouterr().err
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.tex").write_text("")
    assert main(["reproduce", config, "--encoder", checkpoints[0], "--output", str(taken)]) == 1
    assert "thesis.tex" in capsys.readouterr().err
    run = tmp_path / "other.trec"
    run.write_text("nobody Q0 de:0 1 1.0 x\n")
    assert main(["reproduce", config, "--no-bm25", "--run", str(run), "--output", str(output)]) == 1
    assert "nobody" in capsys.readouterr().err
    assert not (output / "runs").exists()


_HEAVY = ("torch", "transformers", "faiss", "pandas", "scipy", "sklearn", "datasets", "pyserini")
_BAD_INPUT = f"""
import sys
from mimo_plugin.cli import main
code = main(["reproduce", "sample", "--encoder", ".", "--docs", "all", "--output", "output"])
print(code, [name for name in {_HEAVY} if name in sys.modules])
"""


def test_nothing_heavy_is_imported_before_all_is_checked(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _BAD_INPUT]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "1 []"
    assert "--docs 'all'" in done.stderr
    assert "neither config.json nor modules.json" in done.stderr


def test_a_disk_that_is_too_small_is_met_first(
    done: tuple[Path, list[str], str],
    checkpoints: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    output = tmp_path / "output"
    command = ["reproduce", done[1][1], "--encoder", checkpoints[0], "--no-bm25", "--output", str(output)]
    assert main(command) == 1
    assert "1000 B free" in capsys.readouterr().err
    assert not (output / "indexes").exists()


def test_a_dry_run_says_what_it_takes(
    done: tuple[Path, list[str], str],
    checkpoints: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "output"
    command = ["reproduce", done[1][1], "--encoder", checkpoints[0], "--dry-run", "--output", str(output)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "42 documents, 42 judged queries" in said
    assert "42 documents to encode, about 0:0" in said
    assert "a flat index takes 5.2 KiB" in said
    assert not (output / "runs").exists()
