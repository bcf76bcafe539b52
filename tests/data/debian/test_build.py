"""`mimo data debian` from end to end: the real apt on a tiny archive, and parsed tables."""

import gzip
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_archive import Package, write_archive

from mimo_plugin.cli import main
from mimo_plugin.collections.packaged import descriptions
from mimo_plugin.collections.pool import load
from mimo_plugin.core.artifact import BUILDING
from mimo_plugin.data.debian.build import debian_directory
from mimo_plugin.data.debian.split import stem
from mimo_plugin.training.data import open_pairs, open_table

needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt-get on this machine")
LANGUAGES = ("en", "de", "fr", "pt_BR")
FEW = ("--min-doc-languages", "3", "--min-query-languages", "4", "--dev-share", "0.2", "--test-share", "0.2")
WORDS = {
    "en": "grey river under stone bridge carries seven small boats toward the morning harbour",
    "de": "grauer Fluss unter steinerner Bruecke traegt sieben kleine Boote zum fruehen Hafen",
    "fr": "fleuve gris sous pont ancien porte sept petits bateaux vers port matinal brumeux",
    "pt_BR": "rio cinza debaixo ponte antiga leva sete barcos pequenos ao porto cedo nublado",
}


def long_text(code: str, number: int) -> list[str]:
    """Two paragraphs; no two numbers have nearly the same words."""
    words = [f"{word}{chr(97 + number % 26)}{chr(97 + number // 26)}" for word in WORDS[code].split()]
    return [" ".join(words[:6]), "", " ".join(words[6:])]


def packages(count: int = 40) -> list[Package]:
    """Software with a library each; every third lacks Portuguese, every fifth French, too."""
    found = []
    for number in range(count):
        codes = LANGUAGES[: 2 if number % 5 == 4 else 3 if number % 3 == 2 else 4]
        name = f"soft{chr(97 + number % 26)}{chr(97 + number // 26)}"
        for package, other in ((name, 0), (f"lib{name}1", 500)):
            text = {
                code: (f"{WORDS[code].split()[0]} {package}", long_text(code, number + other))
                for code in codes
            }
            found.append(Package(package, text))
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_archive(tmp_path_factory.mktemp("archive"), packages())


def mimo_data(output: Path, *options: str) -> int:
    return main(["data", "debian", "--output", str(output), *options])


@pytest.fixture(scope="module")
def made(source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("made") / "debian"
    assert mimo_data(output, "--source", source, "--languages", *LANGUAGES, *FEW, "--no-exclude") == 0
    return output


def table_rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def content(directory: Path) -> dict[str, bytes]:
    """Every file but the manifests, which say what made them."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "manifest.json" and ".arrow" not in path.name
    }


@needs_apt
def test_apt_s_descriptions_become_the_table(made: Path) -> None:
    rows = table_rows(made / "table.jsonl.gz")
    assert [row["package"] for row in rows] == [package.name for package in packages()]
    for row, package in zip(rows, packages(), strict=True):
        assert row["id"] == package.md5[:12]
        assert row["text"] == {
            "pt" if code == "pt_BR" else code: {"short": short, "long": " ".join(filter(None, long))}
            for code, (short, long) in package.text.items()
        }


@needs_apt
def test_the_manifest_says_where_the_descriptions_come_from(made: Path, source: str) -> None:
    manifest = debian_directory(made).read()
    (release,) = manifest.source["archive"]
    assert release["site"] == source.split()[2]
    assert (release["suite"], release["components"], release["version"]) == ("tiny", ["main"], "1.2")
    assert release["date"] == "Sat, 01 Aug 2026 00:00:00 UTC"
    assert manifest.parameters["sources"] == [source]
    assert sum(counts["en"] for counts in manifest.descriptions.values()) == 80


def splits_of(made: Path) -> dict[str, set[str]]:
    """Split -> ids of its descriptions, as far as they were written."""
    splits = {"train": set(open_table(made / "table").dataset["query_id"])}
    for split in ("dev", "test"):
        docs = load(f"path:{made / split}", pooled=False).docs_iter()
        splits[split] = {doc.doc_id.partition(":")[2] for doc in docs}
    return splits


@needs_apt
def test_no_variant_crosses_the_split(made: Path) -> None:
    packages_by_id = {row["id"]: row["package"] for row in table_rows(made / "table.jsonl.gz")}
    stems = {split: {stem(packages_by_id[one]) for one in ids} for split, ids in splits_of(made).items()}
    assert all(stems.values())
    assert not stems["train"] & stems["dev"]
    assert not stems["train"] & stems["test"]
    assert not stems["dev"] & stems["test"]


@needs_apt
def test_pairs_and_table_hold_the_training_descriptions(made: Path) -> None:
    rows = {row["id"]: row["text"] for row in table_rows(made / "table.jsonl.gz")}
    train = splits_of(made)["train"]
    table = open_table(made / "table").dataset
    for found in table:
        assert found["query_id"] == found["passage_id"]
        expected = rows[found["query_id"]]
        assert found["langs"] == sorted(expected)
        assert found["queries"] == [expected[lang]["short"] for lang in found["langs"]]
        assert found["passages"] == [expected[lang]["long"] for lang in found["langs"]]
    pairs = {(pair["lang"], pair["text"], pair["anchor"]) for pair in open_pairs(made / "pairs").dataset}
    assert pairs == {
        (lang, texts[part], rows[one]["en"][part])
        for one in train
        for lang, texts in rows[one].items()
        for part in ("short", "long")
    }
    assert len(pairs) == open_pairs(made / "pairs").manifest.rows


@needs_apt
@pytest.mark.parametrize("split", ["dev", "test"])
def test_collections_have_every_version_relevant_to_every_version(made: Path, split: str) -> None:
    pool = load(f"path:{made / split}", pooled=False)
    docs = {doc.doc_id: doc for doc in pool.docs_iter()}
    queries = {query.query_id: query for query in pool.queries_iter()}
    rows = {row["id"]: row["text"] for row in table_rows(made / "table.jsonl.gz")}
    versions: dict[str, set[str]] = {}
    for doc in docs.values():
        lang, _, identifier = doc.doc_id.partition(":")
        assert (doc.lang, doc.text) == (lang, rows[identifier][lang]["long"])
        versions.setdefault(identifier, set()).add(lang)
    assert all(versions[one] == set(rows[one]) and len(rows[one]) >= 3 for one in versions)
    assert {query.query_id for query in queries.values()} == {
        f"{lang}:{one}" for one, langs in versions.items() if len(langs) >= 4 for lang in langs
    }
    for query in queries.values():
        lang, _, identifier = query.query_id.partition(":")
        assert (query.lang, query.text) == (lang, rows[identifier][lang]["short"])
    judged = {(qrel.query_id, qrel.doc_id): qrel.relevance for qrel in pool.qrels_iter()}
    assert judged == {
        (query, f"{lang}:{query.partition(':')[2]}"): 1
        for query in queries
        for lang in versions[query.partition(":")[2]]
    }
    counts = debian_directory(made).read().collections[split]
    assert sum(counts.documents.values()) == len(docs)
    assert sum(counts.queries.values()) == len(queries)
    assert counts.judgments == len(judged)


@needs_apt
def test_the_table_that_was_written_makes_the_same_data_again(made: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert mimo_data(again, "--from-table", str(made / "table.jsonl.gz"), *FEW, "--no-exclude") == 0
    assert content(again) == content(made)


@needs_apt
def test_apt_s_own_directories_stay_as_they_are(source: str, tmp_path: Path) -> None:
    def state() -> dict[Path, int]:
        found: dict[Path, int] = {}
        for directory in ("/etc/apt", "/var/lib/apt", "/var/cache/apt"):
            found |= {path: path.lstat().st_mtime_ns for path in Path(directory).rglob("*")}
        return found

    before = state()
    assert mimo_data(tmp_path / "o", "--source", source, "--languages", *LANGUAGES, *FEW) == 0
    assert state() == before


@needs_apt
def test_a_second_run_does_nothing_and_another_one_is_refused(
    made: Path, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "debian"
    shutil.copytree(made, output)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    # Without the archive: what is finished is not fetched again.
    options = ("--source", source, "--languages", *LANGUAGES, *FEW, "--no-exclude")
    assert mimo_data(output, *options) == 0
    assert "finished before from the same" in capsys.readouterr().out
    assert mimo_data(output, *options, "--seed", "7") == 1
    assert "seed is 7, there it is 42" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before
    assert mimo_data(output, *options, "--seed", "7", "--overwrite") == 0
    assert debian_directory(output).read().parameters["seed"] == 7
    assert content(output) != content(made)


@needs_apt
def test_stats_shows_languages_and_their_pairs(made: Path, tmp_path: Path, capsys: Any) -> None:
    table = str(made / "table.jsonl.gz")
    assert mimo_data(tmp_path / "o", "--from-table", table, *FEW, "--no-exclude", "--stats") == 0
    out = capsys.readouterr().out
    assert "query language down, passage language across" in out
    assert "path:" in out


@needs_apt
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("deb file:{missing} tiny main", "does not have a Release file"),
        ("deb file:{archive} tiny main", "is not signed"),
        ("rubbish", "Malformed line 1"),
    ],
)
def test_what_apt_cannot_fetch_is_one_line_with_its_reason(
    line: str, reason: str, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = source.split("file:")[1].split()[0]
    output = tmp_path / "o"
    assert mimo_data(output, "--source", line.format(missing=tmp_path / "none", archive=archive)) == 1
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith("mimo: apt-get could not fetch the descriptions: ")
    assert reason in message
    assert "--from-table" in message
    assert not output.exists()


@needs_apt
def test_an_index_that_is_not_what_was_signed_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = write_archive(tmp_path / "archive", packages(3))
    with (tmp_path / "archive" / "dists" / "tiny" / "main" / "i18n" / "Translation-de").open("a") as file:
        file.write("\nPackage: more\n")
    assert mimo_data(tmp_path / "o", "--source", line) == 1
    assert "mimo: apt-get could not fetch the descriptions: " in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@needs_apt
def test_an_archive_without_the_languages_is_said(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mimo_data(tmp_path / "o", "--source", source, "--languages", "ja", "ko", "en") == 1
    assert "none of the 0 training descriptions has a text" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@needs_apt
def test_an_archive_without_descriptions_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_archive(tmp_path / "archive", [])
    assert mimo_data(tmp_path / "o", "--source", source) == 1
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith(
        f"mimo: no translations of package descriptions in the package sources, {source}"
    )


def test_without_apt_the_other_way_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert mimo_data(tmp_path / "o") == 1
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith("mimo: apt-get and apt-config not found")
    assert "--from-table FILE.jsonl.gz" in message
    assert not (tmp_path / "o").exists()


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def plain_rows(count: int = 40) -> list[dict[str, Any]]:
    return [
        {
            "id": package.md5[:12],
            "package": package.name,
            "text": {
                code: {"short": short, "long": " ".join(filter(None, long))}
                for code, (short, long) in package.text.items()
            },
        }
        for package in packages(count)
    ]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "table.jsonl", plain_rows())


def test_a_dev_table_is_the_dev_split(table: Path, tmp_path: Path) -> None:
    rows = plain_rows(60)[80:]
    dev = write_rows(tmp_path / "dev.jsonl", rows)
    output = tmp_path / "o"
    options = ("--from-table", str(table), "--dev-table", str(dev), *FEW, "--no-exclude")
    assert mimo_data(output, *options) == 0
    docs = load(f"path:{output / 'dev'}", pooled=False).docs_iter()
    expected = {f"{lang[:2]}:{row['id']}" for row in rows if len(row["text"]) >= 3 for lang in row["text"]}
    assert {doc.doc_id for doc in docs} == expected
    manifest = debian_directory(output).read()
    assert set(manifest.descriptions) == {"train", "dev", "test"}
    assert set(manifest.parameters["tables"]) == {"main", "dev"}


def test_a_table_becomes_a_test_collection_and_nothing_trains(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": row["id"], "text": row["text"]} for row in plain_rows(60)[80:]]
    given = write_rows(tmp_path / "other.jsonl", rows)
    options = ("--from-table", str(given), "--test-only", *FEW[:4])
    assert mimo_data(tmp_path / "only", *options) == 0
    assert "stage 1" not in capsys.readouterr().out
    split = ("--from-table", str(table), "--test-table", str(given), *FEW)
    assert mimo_data(tmp_path / "split", *split) == 0
    assert content(tmp_path / "only" / "test") == content(tmp_path / "split" / "test")
    assert {path.name for path in (tmp_path / "only").iterdir()} == {
        "test",
        "table.jsonl.gz",
        "manifest.json",
    }
    manifest = debian_directory(tmp_path / "only").read()
    assert set(manifest.collections) == set(manifest.descriptions) == {"test"}
    assert (manifest.pairs, manifest.table) == (0, 0)
    assert mimo_data(tmp_path / "only", *options, "--dev-table", str(given)) == 2
    assert "--test-only takes all descriptions of one source" in capsys.readouterr().err
    assert mimo_data(tmp_path / "only", *options) == 0
    assert "finished before" in capsys.readouterr().out


def test_the_packaged_sample_does_not_train(tmp_path: Path) -> None:
    sample = list(descriptions())[:40]
    rows = [
        {
            "id": one.id if number % 2 else f"x{number}",
            "package": f"sample-{chr(97 + number % 26)}{chr(97 + number // 26)}",
            "text": {lang: {"short": one.short[lang], "long": one.long[lang]} for lang in one.short},
        }
        for number, one in enumerate(sample)
    ]
    table = write_rows(tmp_path / "table.jsonl", [*plain_rows(), *rows])
    options = ("--from-table", str(table), "--dev-share", "0", "--test-share", "0")
    assert mimo_data(tmp_path / "with", *options) == 0
    assert mimo_data(tmp_path / "without", *options, "--no-exclude") == 0
    ids = {row["id"] for row in rows}
    assert not ids & set(open_table(tmp_path / "with" / "table").dataset["query_id"])
    assert ids <= set(open_table(tmp_path / "without" / "table").dataset["query_id"])
    dropped = debian_directory(tmp_path / "with").read().dropped["variant of an excluded description"]
    assert dropped["en"] == len(rows)
    assert not (tmp_path / "with" / "dev").exists()


def test_another_anchor(table: Path, tmp_path: Path) -> None:
    options = ("--from-table", str(table), "--anchor", "fr", "--no-identity", *FEW)
    assert mimo_data(tmp_path / "o", *options) == 0
    pairs = open_pairs(tmp_path / "o" / "pairs")
    assert pairs.manifest.anchor == "fr"
    assert set(pairs.dataset["lang"]) == {"de", "en", "pt"}
    assert all(text.startswith("fleuve") for text in pairs.dataset["anchor"])
    assert pairs.manifest.dropped["no text in the anchor language"].keys() == {"de", "en"}
    assert all("fr" in langs for langs in open_table(tmp_path / "o" / "table").dataset["langs"])


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--source", "deb x"), 2, "--source and --from-table"),
        (("--dev-share", "0.6", "--test-share", "0.4"), 2, "no training data is left"),
        (("--languages", "en", "German"), 2, "language 'German', expected a code"),
        (("--languages", "en", "de", "de_AT"), 2, "'de' was given 2 times"),
        (("--languages", "en", "de", "--anchor", "fr"), 2, "--anchor fr is not among the languages: en de"),
        (("--languages", "de"), 2, "one language (de), expected two or more"),
        (("--anchor", "xx"), 1, "has a text in the anchor language 'xx'"),
        (("--dev-table", "/none.jsonl"), 1, "/none.jsonl: cannot be read"),
        (("--exclude", "nothing-like-it"), 1, "unknown collection"),
        ((), 1, "dev: no query among its"),
    ],
)
def test_bad_options_are_said_before_anything_is_written(
    options: tuple[str, ...],
    status: int,
    message: str,
    table: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert mimo_data(tmp_path / "o", "--from-table", str(table), *options) == status
    errors = capsys.readouterr().err
    assert message in errors
    assert all(line.startswith("mimo: ") for line in errors.splitlines())
    assert not (tmp_path / "o").exists()


def test_several_problems_are_said_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "thesis.tex").touch()
    options = ("--from-table", "/none.jsonl", "--languages", "de", "--exclude", "nothing-like-it")
    assert mimo_data(tmp_path / "o", *options) == 1
    errors = capsys.readouterr().err
    for message in ("one language", "thesis.tex", "/none.jsonl", "unknown collection"):
        assert message in errors


@pytest.mark.parametrize("name", ["manifest.json", "dev"])
def test_somebody_else_s_directory_is_not_touched(
    name: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / name).write_text("{}")
    assert mimo_data(tmp_path / "o", "--from-table", str(table), *FEW, "--overwrite") == 1
    assert "holds something else" in capsys.readouterr().err
    assert (tmp_path / "o" / name).read_text() == "{}"


@pytest.fixture
def busy(table: Path, tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A directory in which the command is writing, and its process."""
    output = tmp_path / "o"
    program = (
        "import signal, sys, time\n"
        # A test that runs in the background hands down that Ctrl-C is ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from mimo_plugin.cli import main\n"
        "from mimo_plugin.data.debian import build as job\n"
        "write = job.write_aligned\n"
        "def slow(*args):\n"
        "    made = write(*args)\n"
        "    print('here', flush=True)\n"
        "    time.sleep(60)\n"
        "    return made\n"
        "job.write_aligned = slow\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", program, "data", "debian", "--output", str(output)]
    with subprocess.Popen(
        [*command, "--from-table", str(table), *FEW, "--no-exclude"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        yield output, process
        process.kill()


def test_a_killed_run_leaves_nothing_that_looks_complete(
    busy: tuple[Path, subprocess.Popen[str]],
    table: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, process = busy
    options = ("--from-table", str(table), *FEW, "--no-exclude")
    assert mimo_data(output, *options) == 1
    assert f"is being written by process {process.pid} " in capsys.readouterr().err
    process.kill()
    process.wait()
    assert {path.name for path in output.iterdir()} == {BUILDING, ".writer"}
    assert mimo_data(output, *options) == 0
    assert mimo_data(tmp_path / "whole", *options) == 0
    assert content(output) == content(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(
    busy: tuple[Path, subprocess.Popen[str]], number: signal.Signals
) -> None:
    output, process = busy
    process.send_signal(number)
    assert process.wait() == 130
    assert not output.exists()


def test_a_damaged_directory_is_not_taken_for_finished(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--from-table", str(table), *FEW)
    assert mimo_data(tmp_path / "o", *options) == 0
    manifest = debian_directory(tmp_path / "o").read()
    assert set(manifest.files) >= {"dev/corpus.jsonl", "dev/qrels/dev.tsv", "test/qrels/test.tsv"}
    with (tmp_path / "o" / "dev" / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")
    capsys.readouterr()
    assert mimo_data(tmp_path / "o", *options) == 1
    assert "is corrupted; make it again with --overwrite" in capsys.readouterr().err
    assert mimo_data(tmp_path / "o", *options, "--overwrite") == 0
