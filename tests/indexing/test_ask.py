"""`mimo search -q` and `--interactive`: what is found, and how it is shown."""

import io
import json
import unicodedata
from pathlib import Path

import pytest
from helpers.beir import documents, write_folder
from hypothesis import given
from hypothesis import strategies as st

from mimo_plugin.cli import main
from mimo_plugin.collections.pool import load
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.indexing.ask import shortened
from mimo_plugin.indexing.build import index
from mimo_plugin.indexing.open import open_index


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_folder(tmp_path_factory.mktemp("folder"), documents(30))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, student: Encoder, spec: str) -> Path:
    return index(
        spec, student, tmp_path_factory.mktemp("index") / "index", progress=False, texts=True
    ).directory


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")


def test_json_has_everything_that_a_run_has(
    built: Path, spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", str(built), "-q", "Suche", "--query", "haku", "-k", "3", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    opened = open_index(built)
    run = opened.search(["Suche", "haku"], hits=3)
    docs = {doc.doc_id: doc for doc in load(spec).docs_iter()}
    assert [line["query"] for line in lines] == ["Suche", "haku"]
    for line, ranked in zip(lines, run.values(), strict=True):
        assert [(hit["docid"], hit["score"]) for hit in line["hits"]] == list(ranked.items())
        assert [hit["rank"] for hit in line["hits"]] == [1, 2, 3]
        assert all((hit["lang"], hit["text"]) == docs[hit["docid"]][:0:-1] for hit in line["hits"])


def test_a_table_as_wide_as_the_terminal(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", str(built), "-q", "Suche\n Wort"]) == 0
    title, _, head, _, *rows, last = capsys.readouterr().out.splitlines()
    assert title == "Suche Wort"
    assert head.split() == ["rank", "score", "lang", "docid", "text"]
    assert len(rows) == 10
    assert last == ""
    assert {sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in row) for row in rows} <= {
        *range(61)
    }
    assert any(row.endswith("…") for row in rows)


def test_all_of_each_text(built: Path, spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", str(built), "-q", "Suche", "-k", "30", "--full", "--lang", "ja"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for doc in load(spec).docs_iter():
        assert (doc.text in printed) or doc.lang != "ja"


def test_without_texts_a_line_says_so(
    student: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = write_folder(tmp_path / "gone", documents(5))
    directory = index(gone, student, tmp_path / "index", progress=False).directory
    asked = ["search", str(directory), "-q", "haku", "-q", "Suche", "-k", "2"]
    assert main(asked) == 0
    assert "text" in capsys.readouterr().out
    (tmp_path / "gone" / "corpus.jsonl").unlink()
    assert main(asked) == 0
    out, err = capsys.readouterr()
    assert err.count(f"no texts of {directory} are shown") == 1
    assert "`mimo index ... --texts` keeps them" in err
    assert [line.split() for line in out.splitlines()][2] == ["rank", "score", "lang", "docid"]


def test_a_conversation(
    built: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["Suche", "", ":lang fi", "Suche", ":lang xx", ":lang", "  Suche  ", ":quit"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    assert main(["search", str(built), "--interactive", "-k", "4", "--json", "--lang", "de,ja"]) == 0
    out, err = capsys.readouterr()
    first, chosen, second, every, third, unknown = out.splitlines()
    found = [{hit["lang"] for hit in json.loads(line)["hits"]} for line in (first, second)]
    assert found[0] <= {"de", "ja"}
    assert found[1] == {"fi"}
    assert (chosen, every) == ("languages: fi", "languages: all")
    ranked = open_index(built).search("Suche", hits=4)["0"]
    assert [hit["docid"] for hit in json.loads(third)["hits"]] == list(ranked)
    assert unknown.startswith(":quit: unknown")
    assert "mimo: --lang xx: the index has no such documents, they are in de, fi, ja" in err
    assert err.count("loading encoder") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of -q TEXT, --interactive, and --topics"),
        (["-q", "a", "--interactive"], "one of -q TEXT, --interactive, and --topics"),
        (["--topics", "mimo-sample"], "--topics and --output belong together"),
        (["-q", "a", "--output", "x"], "--topics and --output belong together"),
        (["-q", "a", "--tag", "x"], "--tag cannot be used with -q"),
        (["--topics", "mimo-sample", "--output", "x", "--full"], "--full cannot be used with --topics"),
        (["-q", "a", "--hits", "0"], "is not in the range"),
    ],
)
def test_what_does_not_fit_together(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "/none", *arguments]) == 2
    assert message in capsys.readouterr().err


@given(st.text(), st.integers(2, 30))
def test_shortened_texts_fit(text: str, width: int) -> None:
    def columns(shown: str) -> int:
        wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in shown)
        return len(shown) + wide - sum(bool(unicodedata.combining(letter)) for letter in shown)

    found = shortened(text, width)
    assert columns(found) <= width
    assert found == text or (found.endswith("…") and text.startswith(found[:-1]) and columns(text) > width)
    if found != text:
        # One more character would not have fitted.
        assert columns(text[: len(found)]) > width - 1
