"""Files that are whole or not there: written beside their place, then renamed into it."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mimo_plugin.errors import EnvironmentProblem


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; on success it takes `path`'s place, else it is removed.

    Raises:
        EnvironmentProblem: the file system refuses (no space, no permission, ...).
    """
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
        raise EnvironmentProblem(
            f"cannot write {path}: {error.strerror or error}. What was complete before is kept; make room or "
            "choose another place, and run the command again"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text so that a reader finds the old file or the new one, never a part."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


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
