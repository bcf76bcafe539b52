"""The documentation does what it says: its snippets run in order and print what it shows."""

import doctest
import gzip
import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack, redirect_stdout
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from helpers.serving import free_port, serving

import mimo_plugin
from mimo_plugin.cli import main, mimo
from mimo_plugin.collections import packaged
from mimo_plugin.pyserini.commands import run_module

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# They share a directory, where what one has made serves the next.
GUIDES = ("quickstart", "indexing", "evaluation", "bias", "training", "troubleshooting")
MODULES_WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "mimo_plugin").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
RELEASE = tuple(map(int, version("pyserini").split(".")[:2]))

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
_NEEDS = re.compile(r"<!-- pyserini >= (\d+)\.(\d+) -->")
_NEEDS_PACKAGE = re.compile(r"<!-- needs (\w+) -->")
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")


class Snippet(NamedTuple):
    """Attributes:
    language: python, shell, or sh: commands that need a network or more than a test has.
    expected: what it prints; None where the page does not say.
    """

    language: str
    code: str
    expected: str | None


def snippets(page: str) -> list[Snippet]:
    """Of the sections that are for this release of Pyserini, and whose packages are installed."""
    found: list[Snippet] = []
    for section in re.split(r"^(?=## )", page, flags=re.M):
        needs = _NEEDS.search(section)
        if needs and tuple(map(int, needs.groups())) > RELEASE:
            continue
        if any(find_spec(package) is None for package in _NEEDS_PACKAGE.findall(section)):
            continue
        for language, code in _BLOCK.findall(section):
            if language == "text":
                found[-1] = found[-1]._replace(expected=code)
            else:
                found.append(Snippet(language, code, None))
    return found


def run_shell(code: str, stack: ExitStack, done: set[str]) -> None:
    """Our commands run in this process, ones that end with & as long as the stack; others in a shell.

    Args:
        done: commands that were run here before; they are not run again.
    """
    if not code.startswith("mimo "):
        environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
        done = subprocess.run(
            ["bash", "-ec", code], env=environment, check=True, capture_output=True, text=True
        )
        print(done.stdout, end="")
        return
    for line in code.replace("\\\n", " ").splitlines():
        command = shlex.split(line, comments=True)
        if line in done:
            continue
        done.add(line)
        if command[-1] == "&":
            _, module, *arguments = command[1:-1]
            port = int(arguments[arguments.index("--port") + 1])
            stack.enter_context(serving(partial(run_module, module, arguments), port))
        else:
            assert main(command[1:]) == 0, line


def check_commands(code: str) -> None:
    """Our commands' names, options and numbers of arguments, without running them."""
    for line in code.replace("\\\n", " ").splitlines():
        found = re.search(r"(?:^|-m )(?:mimo|mimo_plugin) (.*)", line)
        words = shlex.split(found.group(1), comments=True) if found else []
        command: click.Command = mimo
        context = click.Context(mimo, info_name="mimo")
        while words and isinstance(command, click.Group):
            command = command.get_command(context, words.pop(0)) or pytest.fail(f"no such command: {line}")
            context = click.Context(command, context, info_name=command.name)
        if words and "..." not in words:
            command.make_parser(context).parse_args(words)


def run_page(page: str, done: set[str] | None = None) -> None:
    """Runs a page's snippets in order and compares what they print with what the page shows."""
    names: dict[str, Any] = {}
    done = set() if done is None else done
    with ExitStack() as stack:
        for snippet in snippets(page):
            with redirect_stdout(StringIO()) as printed:
                if snippet.language == "sh":
                    check_commands(snippet.code)
                elif snippet.language == "python":
                    exec(compile(snippet.code, "page", "exec"), names)
                else:
                    run_shell(snippet.code, stack, done)
            if snippet.expected is not None:
                assert printed.getvalue() == snippet.expected, snippet.code


@pytest.fixture
def part_of_the_sample(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of `mimo-sample` in its place: that the commands work is seen on as many texts."""
    table = tmp_path_factory.mktemp("sample") / "table.jsonl.gz"
    with gzip.open(packaged.sample_table(), "rb") as whole, gzip.open(table, "wb") as part:
        part.writelines(islice(whole, 200))
    monkeypatch.setattr(packaged, "sample_table", lambda: table)


@pytest.mark.slow
def test_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, socket_enabled: None) -> None:
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "pyserini.md").read_text(encoding="utf-8").replace("8081", str(free_port()))
    # The JVM of this process takes relative paths to be below the directory that it was started in.
    run_page(page.replace("indexes/", f"{tmp_path}/indexes/"))


@pytest.mark.slow
@pytest.mark.usefixtures("part_of_the_sample")
def test_readme_and_guides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # A quicker encoder for all but three documents: twelve layers take minutes for the others.
    slow = re.compile(r"packaged:multilingual-e5-small(?! --output indexes/lakes)")
    done: set[str] = set()
    for page in (ROOT / "README.md", *(DOCS / f"{name}.md" for name in GUIDES)):
        run_page(slow.sub("packaged:all-MiniLM-L6-v2", page.read_text(encoding="utf-8")), done)


@pytest.mark.slow
def test_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LlamaIndex brings thirty packages: it is tried where it is installed."""
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "neighbours.md").read_text(encoding="utf-8")
    run_page(page.replace("packaged:multilingual-e5-small", "packaged:all-MiniLM-L6-v2"))


def test_commands_that_need_a_network_are_known() -> None:
    run_page((DOCS / "clusters.md").read_text(encoding="utf-8"))
    with pytest.raises(click.NoSuchOption):
        check_commands("mimo index miracl/sw/dev --no-such-option")


@pytest.mark.slow
@pytest.mark.usefixtures("part_of_the_sample")
def test_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    # Imported here, as it makes its directory when it is imported.
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shell.history_manager.enabled = False
    commands: list[str] = []

    def system(line: str) -> None:
        """In place of a shell, for lines that begin with an exclamation mark."""
        commands.append(line)
        run_shell(line, ExitStack(), set())

    monkeypatch.setattr(shell, "system", system)
    for cell in json.loads((DOCS / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            # Steps enough to see that all of it works.
            code = (
                "".join(cell["source"])
                .replace('"steps": 100', '"steps": 2')
                .replace('"steps": 20', '"steps": 2')
            )
            shell.run_cell(code).raise_error()
    assert commands
    assert len(shell.user_ns["run"]) == len(list(shell.user_ns["held_out"].queries_iter()))


@pytest.mark.slow
def test_the_site_is_built(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert "mimo data debian" in (tmp_path / "commands" / "index.html").read_text(encoding="utf-8")
    assert "encode_documents" in (tmp_path / "reference" / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_api_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in mimo_plugin.__all__)
    run_page(page)


@pytest.mark.parametrize("name", mimo_plugin.__all__)
def test_public_names_have_docstrings(name: str) -> None:
    assert getattr(mimo_plugin, name).__doc__


@pytest.mark.parametrize("module", MODULES_WITH_EXAMPLES)
def test_examples_of_docstrings(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(import_module(module), optionflags=doctest.ELLIPSIS).failed == 0


def test_importing_the_package_is_cheap() -> None:
    program = "import sys, mimo_plugin; dir(mimo_plugin); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    heavy = {"torch", "numpy", "pydantic", "pyserini", "jnius", "ir_datasets", "click", "faiss"}
    assert heavy.isdisjoint(done.stdout.split())


def test_snippets_of_other_releases_and_missing_packages_are_left_out() -> None:
    page = (
        "## a\n```python\n1\n```\n## b\n<!-- pyserini >= 9.9 -->\n```python\n2\n```\n## c\n```shell\n3\n```\n"
        "## d\n<!-- needs no_such_package -->\n```python\n4\n```\n"
    )
    assert snippets(page) == [Snippet("python", "1\n", None), Snippet("shell", "3\n", None)]


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = _LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
