"""The documentation does what it says: its snippets run in order and print what it shows."""

import doctest
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack, redirect_stdout
from functools import partial
from importlib import import_module
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers.serving import free_port, serving

import mimo_plugin
from mimo_plugin.cli import main
from mimo_plugin.pyserini.commands import run_module

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MODULES_WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "mimo_plugin").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
RELEASE = tuple(map(int, version("pyserini").split(".")[:2]))

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
_NEEDS = re.compile(r"<!-- pyserini >= (\d+)\.(\d+) -->")
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")


class Snippet(NamedTuple):
    """Attributes:
    language: python or shell.
    expected: what it prints; None where the page does not say.
    """

    language: str
    code: str
    expected: str | None


def snippets(page: str) -> list[Snippet]:
    """Of the sections that are for this release of Pyserini."""
    found: list[Snippet] = []
    for section in re.split(r"^(?=## )", page, flags=re.M):
        needs = _NEEDS.search(section)
        if needs and tuple(map(int, needs.groups())) > RELEASE:
            continue
        for language, code in _BLOCK.findall(section):
            if language == "text":
                found[-1] = found[-1]._replace(expected=code)
            else:
                found.append(Snippet(language, code, None))
    return found


def run_shell(code: str, stack: ExitStack) -> None:
    """Our commands run in this process, ones that end with & as long as the stack; others in a shell."""
    if not code.startswith("mimo "):
        environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
        done = subprocess.run(
            ["bash", "-ec", code], env=environment, check=True, capture_output=True, text=True
        )
        print(done.stdout, end="")
        return
    for line in code.replace("\\\n", " ").splitlines():
        command = shlex.split(line, comments=True)
        if command[-1] == "&":
            _, module, *arguments = command[1:-1]
            port = int(arguments[arguments.index("--port") + 1])
            stack.enter_context(serving(partial(run_module, module, arguments), port))
        else:
            assert main(command[1:]) == 0, line


def run_page(page: str) -> None:
    """Runs a page's snippets in order and compares what they print with what the page shows."""
    names: dict[str, Any] = {}
    with ExitStack() as stack:
        for snippet in snippets(page):
            with redirect_stdout(StringIO()) as printed:
                if snippet.language == "python":
                    exec(compile(snippet.code, "page", "exec"), names)
                else:
                    run_shell(snippet.code, stack)
            if snippet.expected is not None:
                assert printed.getvalue() == snippet.expected, snippet.code


@pytest.mark.slow
def test_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, socket_enabled: None) -> None:
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "pyserini.md").read_text(encoding="utf-8").replace("8081", str(free_port()))
    # The JVM of this process takes relative paths to be below the directory that it was started in.
    run_page(page.replace("indexes/", f"{tmp_path}/indexes/"))


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


def test_snippets_of_other_releases_are_left_out() -> None:
    page = (
        "## a\n```python\n1\n```\n## b\n<!-- pyserini >= 9.9 -->\n```python\n2\n```\n## c\n```shell\n3\n```\n"
    )
    assert snippets(page) == [Snippet("python", "1\n", None), Snippet("shell", "3\n", None)]


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = _LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
