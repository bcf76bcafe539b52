"""What a command leaves on disk: written beside and renamed, by one writer, with a checked manifest."""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mimo_plugin.core.errors import ArtifactError, EnvironmentProblem, UsageError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; on success it takes `path`'s place, else it is removed.

    A link is followed. What is no regular file (a pipe, /dev/stdout) is written to directly.

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
    """Turns an error of the file system while `path` is written into one that a user can act on.

    An error that names another file, or none of the file system's, is another one's and passes.

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
    """The error of a command that the file system does not let write."""
    return EnvironmentProblem(
        f"cannot write {path}: {reason}. What was complete before is kept; make room or choose another "
        "place, and run the command again"
    )


def check_place(path: Path) -> None:
    """Raises a UsageError where no file of that name can be written."""
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


def make_parent(path: Path) -> None:
    """Makes the directories that a file lies in.

    Raises:
        EnvironmentProblem: the file system refuses.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)


def remove_tree(path: Path) -> None:
    """Removes a directory and all that is in it.

    Raises:
        EnvironmentProblem: the file system refuses, or somebody else removes it as well.
    """
    try:
        shutil.rmtree(path)
    except OSError as error:
        # It names files relative to the directory that they are in.
        raise EnvironmentProblem(f"cannot remove {path}: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text so that a reader finds the old file or the new one, never a part."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def user_caches() -> Path:
    """Where what can be made again is kept: below XDG_CACHE_HOME or ~/.cache, on macOS ~/Library/Caches."""
    if sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "mimo-plugin"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_text(size: float) -> str:
    """Bytes for a reader: 1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


_SEAL = "checksum"


class Record(BaseModel):
    """Validated data: it cannot be changed, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SealedRecord(Record):
    """Data that is written with a checksum of itself, so that a single changed byte is noticed."""

    def sealed(self, indent: int | None = None) -> str:
        """JSON text, one line or indented."""
        return sealed_text(self.model_dump(mode="json"), indent)


R = TypeVar("R", bound=Record)


class FileRecord(Record):
    """Attributes:
    bytes: size.
    sha256: hexadecimal.
    """

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "FileRecord":
        return cls(bytes=path.stat().st_size, sha256=sha256(path))


def parse_manifest(path: Path, kind: type[R], what: str) -> R:
    """Reads a manifest. One without a checksum is taken as it is: it was written before there were any.

    Args:
        what: its kind, for the message.

    Raises:
        ArtifactError: it cannot be read, is another one, or not as it was written.
    """
    advice = "choose another directory, or make it again"
    try:
        content = path.read_bytes()
        if not issubclass(kind, SealedRecord):
            return kind.model_validate_json(content)
        data, whole = unseal(content)
        record = kind.model_validate(data)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}; see to its permissions") from error
    except ValidationError as error:
        problem = next(field_problems(error))
        raise ArtifactError(f"{path} is not the manifest of {what}: {problem}; {advice}") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not the manifest of {what}: {error}; {advice}") from error
    if not whole:
        raise ArtifactError(
            f"{path} is not as it was written (checksum): it is damaged or was edited; make it again"
        )
    return record


def require_files(directory: Path, files: Mapping[str, FileRecord], advice: str) -> None:
    """Raises an ArtifactError where a file is not there, or has another size than its record says.

    Args:
        files: path below the directory -> record.
        advice: what is damaged then, and what to do.
    """
    for name, record in files.items():
        file = directory / name
        size = file.stat().st_size if file.is_file() else None
        if size != record.bytes:
            found = "is missing" if size is None else f"has {size} bytes"
            raise ArtifactError(f"{file} {found}, the manifest says {record.bytes} bytes: {advice}")


def require_content(directory: Path, files: Mapping[str, FileRecord], advice: str) -> None:
    """As `require_files`, and raises where a file's SHA-256 is another; it reads all of them."""
    require_files(directory, files, advice)
    for name, record in files.items():
        if sha256(directory / name) != record.sha256:
            raise ArtifactError(
                f"{directory / name} is not the file that the manifest names (SHA-256): {advice}"
            )


def said_format(path: Path) -> str | None:
    """What a manifest says that it is of, whether or not it is whole; None where it says nothing."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    said = found.get("format") if isinstance(found, dict) else None
    return said if isinstance(said, str) else None


def sealed_text(data: Mapping[str, Any], indent: int | None = None) -> str:
    """JSON of an object with a checksum of itself."""
    return json.dumps({**data, _SEAL: _checksum(data)}, indent=indent, ensure_ascii=False) + "\n"


def unseal(content: bytes) -> tuple[Any, bool]:
    """JSON without its checksum, and whether not a byte of it has changed; without one nobody can tell.

    Raises:
        ValueError, RecursionError: it is no JSON, or no text.
    """
    data = json.loads(content)
    if not isinstance(data, dict) or data.pop(_SEAL, None) is None:
        return data, True
    return data, content.decode() in (sealed_text(data), sealed_text(data, indent=2))


def _checksum(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def field_problems(error: ValidationError) -> Iterator[str]:
    """Pydantic's complaints, each in one line that begins with the field."""
    for problem in error.errors(include_url=False):
        place = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        plain = problem["type"] in ("missing", "value_error", "json_invalid")
        found = "" if plain else f" (found {_shown(problem['input'])})"
        yield f"{place}: {message}{found}" if place else f"{message}{found}"


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:100]}..."


# Says who writes, for the message that others get. It is renamed into its place, so that they read all of it.
NOTE = ".writer"
_BESIDE = ".writer.new"
# What a kill can leave of it; the next writer removes it.
NOTES = (NOTE, _BESIDE)


class Held:
    """A directory as it was when this was made: somebody may remove it, and work goes to another of its name.

    Args:
        path: of a directory that is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made = path.stat()

    def lies_there(self) -> bool:
        try:
            return os.path.samestat(self._made, self.path.stat())
        except FileNotFoundError:
            return False

    def require(self) -> None:
        """Raises an EnvironmentProblem where the directory is no longer there, or is another one."""
        if not self.lies_there():
            raise EnvironmentProblem(
                f"{self.path} was removed while it was written to: run the command again, it starts over"
            )


@contextmanager
def one_writer(directory: Path) -> Iterator[Held]:
    """Makes the directory and holds it for one writer; a new one in which nothing was written is gone after.

    Raises:
        ArtifactError: another process is writing there.
        EnvironmentProblem: nothing can be written there; or work has gone well, and the directory is no
            longer the one that it began in.
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
        # A file system without locks: nothing tells whether another one writes.
        pass
