"""Text files that appear whole or not at all."""

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from mimo_plugin.errors import EnvironmentProblem, UsageError


def check_writable(path: Path) -> None:
    """Says before the work, not after it, that `path` cannot be written; raises `UsageError`."""
    if path.is_dir():
        raise UsageError(f"{path}: is a directory, expected the name of a file to write")
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UsageError(f"{path}: cannot be written, {parent} is not a writable directory")


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """Opens a UTF-8 text file beside `path`, which takes its place when the block ends without an error.

    A name that ends in `.gz` is compressed, the same text always to the same bytes. Missing parent
    directories are made. Raises `EnvironmentProblem` when the system refuses (disk full, no permission);
    then, and after any other error, an older file of that name is still as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as raw:
            if path.suffix == ".gz":
                with (
                    gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as packed,
                    TextIOWrapper(packed, encoding="utf-8", newline="\n") as stream,
                ):
                    yield stream
            else:
                with TextIOWrapper(raw, encoding="utf-8", newline="\n") as stream:
                    yield stream
        beside.replace(path)
    except OSError as error:
        # A failed write names no file; an error about another file is the caller's own.
        if error.filename is not None and Path(error.filename) not in (beside, path, *path.parents):
            raise
        raise EnvironmentProblem(
            f"{path}: cannot be written: {error.strerror or error}; free space or name another place"
        ) from error
    finally:
        beside.unlink(missing_ok=True)
