"""What a user sees of the command line before anything runs: help in groups, suggestions, completion."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from mimo_plugin.cli import STEPS, main, mimo
from mimo_plugin.core.option import ADVANCED
from mimo_plugin.indexing.settings import PRESETS

# What a shell must not wait for.
HEAVY = {
    "pydantic",
    "numpy",
    "pandas",
    "pyarrow",
    "ir_datasets",
    "torch",
    "transformers",
    "faiss",
    "requests",
}


def commands(group: click.Group, name: str = "mimo") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for child in group.list_commands(context):
        command = group.get_command(context, child)
        assert command is not None
        yield f"{name} {child}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {child}")


def helped(capsys: pytest.CaptureFixture[str], *names: str) -> str:
    assert main([*names, "--help"]) == 0
    return capsys.readouterr().out


def test_commands_are_listed_by_steps(capsys: pytest.CaptureFixture[str]) -> None:
    text = helped(capsys)
    names = [name for step in STEPS.values() for name in step]
    assert sorted(names) == sorted(set(names)) == sorted(mimo.list_commands(click.Context(mimo)))
    places = [text.index(f"\n{step}:\n") for step in STEPS]
    assert places == sorted(places)
    for (step, inside), start, end in zip(STEPS.items(), places, [*places[1:], len(text)], strict=True):
        for name in inside:
            (line,) = (line for line in text[start:end].splitlines() if line.startswith(f"  {name} "))
            assert line.rstrip().endswith("."), step
            # Cut to the terminal's width, a sentence would say less.
            assert not line.rstrip().endswith("..."), line


COMMANDS = dict(commands(mimo))


@pytest.mark.parametrize("name", COMMANDS)
def test_options_are_in_groups(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, text = COMMANDS[name], helped(capsys, *name.split()[1:])
    options = [one for one in command.params if isinstance(one, click.Option)]
    body = text[text.index("\nOptions:\n") :]
    assert sum(line.startswith("  -") for line in body.splitlines()) == len(options) + 1
    sections = body.split("\n\n")
    headings = [one.split(":\n")[0].strip() for one in sections if "options:\n" in one or "Options:\n" in one]
    groups = list(dict.fromkeys(getattr(option, "group", "") for option in options))
    assert sorted(headings) == sorted(f"{group} options" if group else "Options" for group in {"", *groups})
    assert headings[0] == "Options"
    if ADVANCED in groups:
        assert headings[-1] == f"{ADVANCED} options"
    # A newcomer reads these: few enough for a screen.
    first = next(one for one in sections if one.lstrip().startswith("Options:\n"))
    assert sum(line.startswith("  -") for line in first.splitlines()) <= 18, name
    for option in options:
        heading = f"{group} options" if (group := getattr(option, "group", "")) else "Options"
        (section,) = (one for one in sections if one.lstrip().startswith(f"{heading}:\n"))
        assert option.opts[0] in section


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serch"], "No such command 'serch'; near: search"),
        (["train", "stage3"], "No such command 'stage3'; near: stage"),
        (["data", "x"], "No such command 'x', expected one of parallel, aligned"),
        (["search", "--topic", "x"], "--topics"),
    ],
)
def test_what_may_have_been_meant(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def completed(*words: str) -> list[str]:
    *before, incomplete = words
    found = ShellComplete(mimo, {}, "mimo", "_MIMO_COMPLETE").get_completions(before, incomplete)
    return [item.value if item.type == "plain" else item.type for item in found]


def test_completion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("corpus", "student", ".hidden"):
        Path(name).mkdir()
    Path("recipe.yaml").touch()
    assert completed("ind") == ["index"]
    swahili = ["miracl/sw", "miracl/sw/dev", "miracl/sw/test-a", "miracl/sw/test-b", "miracl/sw/train"]
    assert completed("index", "miracl/sw") == swahili
    assert completed("index", "miracl/yo/dev", "mimo-s") == ["mimo-sample"]
    assert completed("index", "path:") == ["path:", "path:corpus/", "path:student/"]
    # Of an option with several values, the second too.
    assert completed("search", "ix", "--topics", "miracl/sw/d") == ["miracl/sw/dev"]
    assert completed("search", "ix", "--topics", "miracl/yo/dev", "miracl/sw/d") == ["miracl/sw/dev"]
    assert completed("search", "ix", "--topics", "miracl/yo/dev", "--output", "") == ["file"]
    assert completed("index", "x", "--factory", "") == list(PRESETS)
    assert completed("index", "x", "--factory", "f") == ["flat", "fp16"]
    assert completed("index", "x", "--encoder", "packaged:all") == ["packaged:all-MiniLM-L6-v2"]
    assert completed("index", "x", "--encoder", "st") == ["student/"]
    assert completed("reproduce", "miracl-d") == ["miracl-dev", "miracl-dev-16"]
    assert completed("reproduce", "rec") == ["recipe.yaml"]
    assert completed("reproduce", "sample", "--encoder", "mine=stu") == ["mine=student/"]
    assert completed("evaluate", "x.trec", "--qrels", "mimo-") == ["mimo-sample"]
    assert completed("fuse", "--method", "") == ["rrf", "sum"]


def test_checkpoints_of_the_cache_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, name in (
        ("models--a--b-small", "model.safetensors"),
        ("models--a--old", "pytorch_model.bin"),
    ):
        (tmp_path / folder / "snapshots" / "main").mkdir(parents=True)
        (tmp_path / folder / "snapshots" / "main" / name).touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert completed("index", "x", "--encoder", "a/") == ["a/b-small"]


@pytest.mark.parametrize(
    "words", [None, "mimo index miracl/s", "mimo reproduce miracl", "mimo index x --encoder p"]
)
def test_a_shell_does_not_wait(words: str | None) -> None:
    environment, arguments = dict(os.environ), ["--help"]
    if words is not None:
        completing = {
            "_MIMO_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        environment, arguments = environment | completing, []
    program = """
import sys
from mimo_plugin.cli import main
try:
    main(sys.argv[1:])
finally:
    print(*sys.modules, file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout
    assert HEAVY.isdisjoint(done.stderr.split())
