"""A student that is scored on what it was trained on is told, wherever scores are made."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.beir import write_folder
from helpers.checkpoints import plain_xlmr

from mimo_plugin.cli import main
from mimo_plugin.evaluation.trained_on import FILE, encoder_of, write_seen

_LANGUAGES = ("de", "fi")
# Words that the tiny tokenizer tells apart.
_WORDS = ["such", "satz", "lause", "many", "short", "viele", "engine", "haku", "kurz", "sprachen"]
_SAID = "was trained on 4 of the 20 documents here (20.0%) (the set): its scores do not compare"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parallel collection of 20 documents, a student that was trained on 4 of them, and one that was
    not."""
    base = tmp_path_factory.mktemp("world")
    pairs = [(lang, number) for number in range(10) for lang in _LANGUAGES]
    docs = [{"_id": f"{lang}:{n}", "text": f"Text {lang} {_WORDS[n]}", "lang": lang} for lang, n in pairs]
    queries = [{"_id": f"{lang}:q{n}", "text": _WORDS[n], "lang": lang} for lang, n in pairs]
    qrels = {f"{lang}:q{n}": {f"{other}:{n}": 1 for other in _LANGUAGES} for lang, n in pairs}
    write_folder(base / "set", docs, queries, qrels)
    plain_xlmr(base / "student")
    shutil.copytree(base / "student", base / "stranger")
    # Case and white space do not make another text.
    texts = [f"text  {lang} {_WORDS[n].upper()}" for lang in _LANGUAGES for n in (3, 4)]
    write_seen(base / "student", [*texts, "something else"], training_data="the set", languages=["de", "en"])
    assert (
        main(
            [
                "index",
                f"path:{base / 'set'}",
                "--encoder",
                str(base / "student"),
                "--output",
                str(base / "index"),
            ]
        )
        == 0
    )
    return base


def searched(world: Path, run: Path, encoder: str = "student") -> Path:
    command = ["search", str(world / "index"), "--topics", f"path:{world / 'set'}", "--output", str(run)]
    assert main([*command, "--encoder", str(world / encoder)]) == 0
    return run


def evaluated(world: Path, run: Path, capsys: Any) -> tuple[dict[str, Any] | None, str]:
    scores = run.with_name("scores.json")
    capsys.readouterr()
    assert main(["evaluate", f"mine={run}", "--qrels", f"path:{world / 'set'}", "--json", str(scores)]) == 0
    found = json.loads(scores.read_text())["runs"]["mine"].get("trained_on")
    return found, capsys.readouterr().err


def test_evaluate_knows_the_encoder_of_a_run(world: Path, tmp_path: Path, capsys: Any) -> None:
    run = searched(world, tmp_path / "mine.trec")
    assert encoder_of(run) == str(world / "student")
    found, said = evaluated(world, run, capsys)
    assert found == {"documents": 4, "of": 20, "share": 0.2, "training_data": "the set"}
    assert f"warning: run 'mine' {_SAID}" in said


def test_a_run_that_is_not_the_recorded_one_says_nothing(world: Path, tmp_path: Path, capsys: Any) -> None:
    run = searched(world, tmp_path / "mine.trec")
    run.write_text(run.read_text().replace(" mimo\n", " other\n"))
    assert encoder_of(run) is None
    assert evaluated(world, run, capsys)[0] is None
    # Nor does one with a record of something else, which stays as it is.
    record = tmp_path / "mine.trec.json"
    record.write_text('{"mine": 1}')
    searched(world, run)
    assert record.read_text() == '{"mine": 1}'
    found, said = evaluated(world, run, capsys)
    assert found is None
    assert "trained" not in said


def test_an_encoder_that_says_nothing_leaves_no_record(world: Path, tmp_path: Path, capsys: Any) -> None:
    run = searched(world, tmp_path / "mine.trec", "stranger")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.trec"]
    found, said = evaluated(world, run, capsys)
    assert found is None
    assert "trained" not in said


def test_a_damaged_record_of_training_is_told(world: Path, tmp_path: Path, capsys: Any) -> None:
    run = searched(world, tmp_path / "mine.trec")
    record = world / "student" / FILE
    whole = record.read_bytes()
    try:
        record.write_bytes(whole[:50])
        found, said = evaluated(world, run, capsys)
    finally:
        record.write_bytes(whole)
    assert found is None
    assert "mine: not known whether it was trained on documents here: " in said


@pytest.mark.slow
def test_reproduce_and_its_report(world: Path, tmp_path: Path, capsys: Any) -> None:
    config = tmp_path / "own.yaml"
    config.write_text(
        f"title: Own\nsetting: mlir\ncollections: ['path:{world / 'set'}']\nmeasures: [ndcg@5]\n"
    )
    output = tmp_path / "output"
    command = ["reproduce", str(config), "--output", str(output), "--encoder"]
    command += [f"mine={world / 'student'}", f"other={world / 'stranger'}"]
    slices = tmp_path / "slices.tsv"
    slices.write_text("de:q1\tlow\nfi:q2\tlow\nde:q9\thigh\nfi:q10\thigh\n")
    command += ["--slices", str(slices)]
    assert main([*command, "--seen-languages", "mien=de"]) == 2
    assert main(command) == 1
    errors = capsys.readouterr().err
    assert "seen languages of 'mien'; near: mine" in errors
    assert "slices.tsv:4: topic 'fi:q10' is not among the 20 of the collection" in errors
    assert not (output / "runs").exists()
    slices.write_text(slices.read_text().replace("fi:q10", "fi:q8"))
    assert main(command) == 0
    assert f"warning: mine {_SAID}" in capsys.readouterr().err
    results = json.loads((output / "results.json").read_text())
    runs = results["evaluation"]["runs"]
    assert runs["mine"]["trained_on"] == {"documents": 4, "of": 20, "share": 0.2, "training_data": "the set"}
    assert "trained_on" not in runs["other"]
    assert any(warning.startswith(f"mine {_SAID}") for warning in results["warnings"])
    page = (output / "report" / "index.html").read_text()
    assert "mine was trained on 4 of the 20 documents (20.0 %)." in page
    assert runs["mine"]["unseen_languages"] == ["fi"]
    assert runs["other"]["apart"]["unseen"]["ndcg@5"] == runs["other"]["per_language"]["fi"]["ndcg@5"]
    assert "* not among the training languages of mine." in page
    assert {name: part["topics"] for name, part in results["evaluation"]["slices"].items()} == {
        "low": 2,
        "high": 2,
    }
    assert "nDCG@5, slices of topics" in page
    assert (output / "report" / "tables" / "ndcg-5-slices-of-topics.csv").is_file()
    # The run of a reproduction has a record of its own.
    found, _ = evaluated(world, output / "runs" / "mine.trec.gz", capsys)
    assert found == runs["mine"]["trained_on"]
    capsys.readouterr()
    assert main(command) == 0
    assert "looking for its training texts" not in capsys.readouterr().out


def test_analyze(world: Path, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "geometry.json"
    command = [
        "analyze",
        f"path:{world / 'set'}",
        "--encoder",
        f"mine={world / 'student'}",
        "--json",
        str(file),
    ]
    assert main(command) == 0
    assert "mine was trained on 4 of the 20 documents analysed here (20.0%)" in capsys.readouterr().err
    assert json.loads(file.read_text())["trained_on"]["mine"]["documents"] == 4
