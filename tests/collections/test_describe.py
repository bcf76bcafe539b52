"""`mimo collections`."""

from pathlib import Path

import pytest
from helpers.beir import write_folder

from mimo_plugin.cli import main
from mimo_plugin.collections.describe import FamilyRow, family_rows


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collections"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "mimo-sample/LANG   one language of it: cs da de en es" in out
    assert "miracl/LANG[/SPLIT]   SPLIT: dev test-b*\n        de yo\n" in out
    assert "mr-tydi/LANG[/SPLIT]   SPLIT: dev test train\n        ar bn en fi" in out
    assert "path:DIR" in out
    assert max(map(len, out.splitlines())) <= 110


def test_rows_are_made_from_the_ids_alone() -> None:
    ids = {
        "x/de": False,
        "x/de/dev": True,
        "x/fi": False,
        "x/fi/dev": True,
        "x/all/test": False,
        "y/de": True,
    }
    assert family_rows("x", ids) == [
        FamilyRow("x/LANG", ("", "dev"), ("de", "fi")),
        FamilyRow("x/all/test", ("",), ("",)),
    ]


def test_one_collection_with_its_files_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collections", "miracl/de/dev"]) == 0
    out = capsys.readouterr().out
    for line in (
        "documents  not counted (--count counts)",
        "language   de",
        "fields     title, text",
        "sample     0#0",
        "queries    5",
        "qrels      10",
        "judged     5 queries",
        "relevance  0: 5, 1: 5",
    ):
        assert line in out


def test_documents_are_counted_by_reading_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    docs = [{"_id": str(n), "text": "x", **({"lang": "de"} if n % 3 else {})} for n in range(10)]
    spec = write_folder(tmp_path / "x", docs)
    assert main(["collections", spec, "--count"]) == 0
    out = capsys.readouterr().out
    assert "documents  10\n    language   de 6, unknown 4" in out
    assert "queries    none\n  qrels      none" in out


def test_nothing_is_downloaded_without_count(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collections", "miracl/ar/dev"]) == 0
    out = capsys.readouterr().out
    assert "docs-0.jsonl.gz and 4 more" in out
    assert "dev/qrels.tsv" in out
    assert main(["collections", "miracl/ar/dev", "--count"]) == 1
    assert "5 files of its documents are missing" in capsys.readouterr().err


def test_several_collections_and_their_ids_in_a_pool(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["collections", "miracl/de/dev", "mmarco/v2/de/dev", "miracl/sw"]) == 0
    ids = capsys.readouterr().out.split("Ids as one pool\n")[1].splitlines()
    assert [line.split() for line in ids] == [
        ["miracl/de/dev", "miracl/de:ID"],
        ["mmarco/v2/de/dev", "mmarco/v2/de:ID"],
        ["miracl/sw", "sw:ID"],
    ]
    clash = write_folder(tmp_path / "de", [{"_id": "1", "text": "x"}])
    assert main(["collections", "miracl/de/dev", clash]) == 0
    assert "Cannot be used as one pool: " in capsys.readouterr().out


def test_several_problems_are_reported_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collections", "miracl/nix", f"path:{tmp_path}", "miracl/de"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "mimo: 'miracl/nix': unknown collection" in err
    assert f"mimo: path:{tmp_path}: no corpus.jsonl" in err
    assert len(err.splitlines()) == 2
