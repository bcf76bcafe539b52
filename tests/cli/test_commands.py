"""The command line's contract: exit status, one line an error, no heavy import before it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.beir import documents, write_folder
from helpers.checkpoints import plain_xlmr

from mimo_plugin.cli import COMMANDS, main

QUERIES = [
    {"_id": f"q{number}", "text": text, "lang": lang}
    for number, (text, lang) in enumerate(
        [
            ("Suche Sprache", "de"),
            ("haku kieli", "fi"),
            ("検索 言語", "ja"),
            ("Wort", "de"),
            ("sana", "fi"),
            ("単語", "ja"),
        ]
    )
]
QRELS = {row["_id"]: {f"d{3 * number}": 1, f"d{number + 7}": 2} for number, row in enumerate(QUERIES)}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_folder(tmp_path_factory.mktemp("folder"), documents(40), QUERIES, QRELS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(plain_xlmr(tmp_path_factory.mktemp("checkpoint")))


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from mimo_plugin.cli import main\n"
        "status = main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'faiss', 'pyserini', 'jnius', 'ranx', 'scipy', 'ir_datasets',"
        " 'transformers', 'sentence_transformers', 'pydantic', 'pandas', 'numba'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Usage: mimo" in text
    if name not in ("doctor", "demo"):
        assert f"  mimo {name} " in text.split("Usage:", 1)[1].split("\n", 1)[1]


def test_main_job(spec: str, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index, run, other = tmp_path / "index", tmp_path / "tiny.trec", tmp_path / "short.trec"
    assert main(["index", spec, "--encoder", checkpoint, "--output", str(index)]) == 0
    out = capsys.readouterr()
    assert "40 documents, 32 dimensions, Flat" in out.out
    assert "languages: de 14, fi 13, ja 13" in out.out
    loading, notice = out.err.splitlines()
    assert loading == f"mimo: loading encoder {checkpoint}"
    assert "--query-prompt" in notice
    assert main(["search", str(index), "--topics", spec, "--output", str(run), "--hits", "20"]) == 0
    assert "6 queries, 120 lines" in capsys.readouterr().out
    lines = [line for line in run.read_text().splitlines() if int(line.split()[3]) <= 3]
    other.write_text("\n".join(lines) + "\n")
    json = tmp_path / "scores.json"
    arguments = ["evaluate", str(run), str(other), "--qrels", spec, "--measures", "ndcg@10,recall@20"]
    assert main([*arguments, "--baseline", "short", "--json", str(json)]) == 0
    assert "tiny" in capsys.readouterr().out
    assert json.is_file()


def test_pooled_ids_from_index_to_evaluation(
    spec: str, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row | {"lang": "sw"} for row in documents(10)]
    queries = [row | {"lang": "sw"} for row in QUERIES]
    second = write_folder(tmp_path / "sw", rows, queries, QRELS)
    first = write_folder(
        tmp_path / "de",
        [row | {"lang": "de"} for row in documents(10)],
        [row | {"lang": "de"} for row in QUERIES],
        QRELS,
    )
    index, run = tmp_path / "index", tmp_path / "run.trec"
    assert main(["index", first, second, "--encoder", checkpoint, "--output", str(index)]) == 0
    assert main(["search", str(index), "--topics", second, "--output", str(run)]) == 0
    columns = [line.split() for line in run.read_text().splitlines()]
    assert {line[0].split(":")[0] for line in columns} == {"sw"}
    assert {line[2].split(":")[0] for line in columns} == {"de", "sw"}
    assert main(["evaluate", str(run), "--qrels", second, "--pooled", "--measures", "ndcg@10"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run), "--qrels", second, "--measures", "ndcg@10"]) == 1
    assert "--pooled" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["index", "SPEC", "--output", "OUT"], 2, "COLLECTION... with --encoder, or --vectors DIR"),
        (["index", "--encoder", "m", "--output", "OUT"], 2, "COLLECTION... with --encoder, or --vectors DIR"),
        (["nothing"], 2, "No such command 'nothing'"),
        (
            ["index", "SPEC", "--encoder", "CHECKPOINT", "--output", "OUT", "--factory", "Nope"],
            2,
            "not a FAISS index",
        ),
        (["index", "SPEC", "--encoder", "/none", "--output", "OUT"], 1, "/none: no such directory"),
        (["index", "miracl/dee", "--encoder", "CHECKPOINT", "--output", "OUT"], 1, "miracl/de"),
        (["search", "/none", "--topics", "SPEC", "--output", "OUT"], 1, "/none: no such directory"),
        (["search", "/none", "--output", "OUT", "--topics"], 2, "requires an argument"),
        (["pyserini", "encod"], 2, "pyserini.encod is not a module of Pyserini"),
    ],
)
def test_errors_are_one_line_with_the_right_status(
    arguments: list[str],
    status: int,
    message: str,
    spec: str,
    checkpoint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"SPEC": spec, "CHECKPOINT": checkpoint, "OUT": str(tmp_path / "out")}
    assert main([names.get(word, word) for word in arguments]) == status
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_several_bad_inputs_are_reported_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "thesis.tex").write_text("")
    arguments = ["index", "miracl/dee", "path:/none", "--encoder", "/no/model", "--output", str(output)]
    assert main(arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    for problem in ("miracl/dee", "/none", "/no/model", "thesis.tex"):
        assert sum(problem in line for line in lines) == 1


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    from mimo_plugin.core.errors import ArtifactError

    with pytest.raises(ArtifactError):
        main(
            ["--debug", "search", str(tmp_path), "--topics", "mimo-sample", "--output", str(tmp_path / "run")]
        )


def test_progress_is_shown_only_when_asked_for(
    spec: str, checkpoint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["index", spec, "--encoder", checkpoint, "--output"]
    assert main([*arguments, str(tmp_path / "quiet"), "--no-known-prompts"]) == 0
    assert capfd.readouterr().err == f"mimo: loading encoder {checkpoint}\n"
    assert main([*arguments, str(tmp_path / "loud"), "--progress"]) == 0
    assert "encoding" in capfd.readouterr().err


@pytest.mark.parametrize(
    "given", [["--qrels", "A", "B"], ["--qrels", "A", "--qrels", "B"], ["--qrels=A", "--qrels", "B"]]
)
def test_list_options(given: list[str]) -> None:
    import click

    from mimo_plugin.cli.generate import CommandWithLists, ListOption

    seen: list[object] = []

    @click.command(cls=CommandWithLists)
    @click.argument("runs", nargs=-1)
    @click.option("--qrels", cls=ListOption)
    @click.option("--flag", is_flag=True)
    def command(**values: object) -> None:
        seen.append(values)

    for arguments in (
        ["r1", "r2", *given, "--flag"],
        [*given, "--flag", "r1", "r2"],
        ["--flag", *given, "--", "r1", "r2"],
    ):
        command.main(args=arguments, standalone_mode=False)
        assert seen.pop() == {"runs": ("r1", "r2"), "qrels": ("A", "B"), "flag": True}
