"""Atomic writing of files, one writer a directory, errors for a full disk or missing permissions."""

import fcntl
import hashlib
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mimo_plugin.core.errors import ArtifactError, EnvironmentProblem, Problems, UsageError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` to write to; on success it replaces `path`, else it is removed.

    Links are followed. A pipe or device such as /dev/stdout is written to directly.

    Raises:
        EnvironmentProblem: the file system refuses (no space, no permission, ...).
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with writing(path):
            yield path
        return
    path = path.resolve()
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            yield beside
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            beside.replace(path)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError while `path` is written into an error that a user can act on.

    An OSError about an unrelated file, or without an errno, passes unchanged.

    Raises:
        EnvironmentProblem: for any other OSError.
    """
    try:
        yield
    except OSError as error:
        named = path if error.filename is None else Path(str(error.filename))
        ours = path.parent in named.parents or named in path.parents
        if error.errno is None or not ours:
            raise
        raise cannot_write(path, error.strerror or str(error)) from error


def cannot_write(path: Path, reason: str) -> EnvironmentProblem:
    """The error of a failed write."""
    return EnvironmentProblem(
        f"cannot write {path}: {reason}. What was complete before is kept; make room or choose another "
        "place, and run the command again"
    )


def check_place(path: Path) -> None:
    """Raises a UsageError if the file cannot be written."""
    try:
        if path.is_dir():
            raise UsageError(f"{path}: is a directory, expected the name of a file to write")
        parent = path.absolute().parent
        while not parent.exists():
            parent = parent.parent
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be written: {error.strerror or error}, choose another name or place"
        ) from error
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UsageError(f"{path}: cannot be written, {parent} is not a directory where you may write")


def check_outputs(outputs: Sequence[Path], inputs: Mapping[str, Path]) -> None:
    """Raises a UsageError for outputs that cannot be written, or would replace an input or each other.

    Args:
        inputs: description, such as "the run 'e5'" -> a file that is read.
    """
    problems = Problems(UsageError)
    for position, path in enumerate(outputs):
        with problems.collect():
            check_place(path)
        for what, file in inputs.items():
            if _same_file(path, file):
                problems.add(f"{path}: is the file of {what}, expected another file to write to")
        if any(_same_file(path, other) for other in outputs[:position]):
            problems.add(f"{path}: named for two outputs, expected a file each for tables and JSON")
    problems.raise_any()


def _same_file(one: Path, other: Path) -> bool:
    """Whether two paths are one file, which need not exist yet."""
    try:
        return one.samefile(other)
    except OSError:
        return one.resolve() == other.resolve()


def make_parent(path: Path) -> None:
    """Makes the parent directories of a file.

    Raises:
        EnvironmentProblem: the file system refuses.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)


def remove_tree(path: Path) -> None:
    """Removes a directory and its content.

    Raises:
        EnvironmentProblem: the file system refuses, or another process removes it too.
    """
    try:
        shutil.rmtree(path)
    except OSError as error:
        # The error itself names files by relative paths.
        raise EnvironmentProblem(f"cannot remove {path}: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def user_caches() -> Path:
    """The cache directory: below XDG_CACHE_HOME or ~/.cache, on macOS ~/Library/Caches."""
    if sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "mimo-plugin"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_text(size: float) -> str:
    """Bytes in binary units: 1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


# Names the writer, for the message to other processes; renamed into place, so that they never read a part.
NOTE = ".writer"
_BESIDE = ".writer.new"
# A kill can leave both; the next writer removes them.
NOTES = (NOTE, _BESIDE)


class Held:
    """An existing directory, known by its inode: another may take its name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made = path.stat()

    def lies_there(self) -> bool:
        try:
            return os.path.samestat(self._made, self.path.stat())
        except FileNotFoundError:
            return False

    def require(self) -> None:
        """Raises an EnvironmentProblem if the directory was removed or replaced."""
        if not self.lies_there():
            raise EnvironmentProblem(
                f"{self.path} was removed while it was written to: run the command again, it starts over"
            )


@contextmanager
def one_writer(directory: Path) -> Iterator[Held]:
    """Makes the directory and locks it for one writer; a new directory is removed again if it stays empty.

    Raises:
        ArtifactError: another process is writing there.
        EnvironmentProblem: the directory cannot be written; or it was removed or replaced during the work.
    """
    new = not directory.exists()
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        _lock(descriptor, directory)
        try:
            with writing(directory / NOTE):
                held = Held(directory)
                beside = directory / _BESIDE
                beside.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
                beside.replace(directory / NOTE)
            yield held
            held.require()
        finally:
            for name in NOTES:
                (directory / name).unlink(missing_ok=True)
            if new:
                with suppress(OSError):
                    directory.rmdir()
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = "another process"
        with suppress(FileNotFoundError):
            who = (directory / NOTE).read_text(encoding="utf-8").strip()
        raise ArtifactError(
            f"{directory} is being written by {who}: wait for it, stop it, or choose another directory"
        ) from None
    except OSError:
        # A file system without locks: another writer cannot be detected.
        pass
