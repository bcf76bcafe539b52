"""Reads ir_datasets' collections; finds their missing files and the places of faults."""

import errno
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

from ir_datasets.util import (
    Cache,
    Download,
    LocalDownload,
    RelativePath,
    RequestsDownload,
    TarExtractAll,
    ZipExtractCache,
    home_path,
)

from mimo_plugin.collections.rows import unreadable
from mimo_plugin.core.environment import reachable
from mimo_plugin.core.errors import DataError, EnvironmentProblem, MimoError

# part -> names of the part and of one of its records in messages
PARTS = {"docs": "documents", "queries": "queries", "qrels": "qrels"}
_RECORDS = {"docs": "document", "queries": "query", "qrels": "judgment"}
_PLACES_SHOWN = 3


@dataclass(frozen=True)
class MissingFile:
    """A file that is not on this machine.

    Attributes:
        place: where ir_datasets expects the file, or the folder of an unpacked archive.
        urls: where ir_datasets would download it from; empty for a file that users have to obtain.
    """

    place: Path
    urls: tuple[str, ...]


def missing_files(handler: Any) -> list[MissingFile]:
    """The missing files that a docs, queries or qrels handler needs for reading.

    Raises:
        DataError: a folder cannot be read.
    """
    found: dict[Path, MissingFile] = {}
    try:
        for file in _missing(handler, frozenset()):
            found.setdefault(file.place, file)
    except OSError as error:
        raise DataError(unreadable(error.filename, error)) from error
    return [] if found and _has_docstore(handler) else list(found.values())


def _has_docstore(handler: Any) -> bool:
    """Whether a lookup store was built, which ir_datasets reads instead of the files."""
    if not hasattr(handler, "docs_store"):
        return False
    try:
        store = handler.docs_store()
        return hasattr(store, "built") and bool(store.built())
    except Exception:  # a few datasets must download files to find the place of their store
        return False


def _missing(node: Any, above: frozenset[int]) -> Iterator[MissingFile]:
    """Walks the parts of a handler, since ir_datasets has no method for the files it needs."""
    if isinstance(node, LocalDownload):
        node = Download([node], node.path(force=False))
    if isinstance(node, Download):
        copies = [mirror.path(force=False) for mirror in node.mirrors if isinstance(mirror, LocalDownload)]
        downloads = home_path() / "downloads" / str(node.expected_md5)
        place = Path(node._cache_path or next(iter(copies), downloads))
        if not any(path.exists() for path in (place, *copies)):
            urls = (mirror.url for mirror in node.mirrors if isinstance(mirror, RequestsDownload))
            yield MissingFile(place, tuple(urls))
        return
    children = [child for child in _children(node) if id(child) not in above]
    behind = (file for child in children for file in _missing(child, above | {id(node)}))
    if not isinstance(node, RelativePath | TarExtractAll | ZipExtractCache | Cache):
        yield from behind
        return
    place = Path(node.path(force=False))
    if place.exists():  # the archive is not needed once it has been unpacked
        return
    needed = list(behind)
    if needed or (isinstance(node, RelativePath) and Path(node._streamer.path(force=False)).exists()):
        yield MissingFile(place, tuple(url for file in needed for url in file.urls))


def _children(node: Any) -> Iterator[Any]:
    if isinstance(node, list | tuple):
        yield from node
    elif isinstance(node, dict):
        yield from node.values()
    elif isinstance(node, FunctionType):
        yield from (cell.cell_contents for cell in node.__closure__ or ())
    elif isinstance(node, partial):
        yield from (node.func, *node.args)
    elif type(node).__module__.split(".")[0] == "ir_datasets" and hasattr(node, "__dict__"):
        yield from vars(node).values()


def read(dataset: Any, part: str, spec: str) -> Iterator[Any]:
    """Yields the records of one part of an ir_datasets dataset.

    Args:
        part: "docs", "queries" or "qrels".
        spec: the collection's name, for messages.

    Raises:
        DataError: a file is missing and cannot be fetched, or a record cannot be read.
        EnvironmentProblem: the disk is full.
    """
    handler = getattr(dataset, f"{part}_handler")()
    if unfetchable := offline_problem(handler, part, spec):
        raise DataError(unfetchable)
    count = 0
    try:
        for record in getattr(dataset, f"{part}_iter")():
            yield record
            count += 1
    except (MimoError, MemoryError):
        raise
    except Exception as error:
        raise _explained(error, handler, part, spec, count) from error


def offline_problem(handler: Any, part: str, spec: str) -> str | None:
    """The message about missing files that cannot be downloaded now; None if there are none."""
    try:
        missing = [file for file in missing_files(handler) if not reachable(file.urls)]
    except DataError as error:
        return f"{spec}: {error}"
    if not missing:
        return None
    fetched = any(file.urls for file in missing)
    reason = "could not be downloaded (no network?)" if fetched else "must be obtained"
    if len(missing) == 1:
        return f"{spec}: a file of its {PARTS[part]} is missing and {reason}; put it at {_places(missing)}"
    return (
        f"{spec}: {len(missing)} files of its {PARTS[part]} are missing and {reason}; put them at "
        f"{_places(missing)}"
    )


def _places(missing: list[MissingFile]) -> str:
    shown = [f"{file.place}{f' (from {file.urls[0]})' if file.urls else ''}" for file in missing]
    more = len(shown) - _PLACES_SHOWN
    return ", ".join(shown[:_PLACES_SHOWN]) + (f", ... and {more} more" if more > 0 else "")


def _explained(error: Exception, handler: Any, part: str, spec: str, count: int) -> MimoError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EnvironmentProblem(f"{spec}: the disk is full ({error}): make room for ir_datasets' files")
    cause = _one_line(error)
    if missing := missing_files(handler):
        return DataError(
            f"{spec}: a file of its {PARTS[part]} is missing and its download failed ({cause}); try again, "
            f"or put it at {_places(missing)}"
        )
    if isinstance(error, PermissionError | IsADirectoryError | NotADirectoryError) and error.filename:
        return DataError(f"{unreadable(error.filename, error)} ({PARTS[part]} of {spec})")
    if place := _bad_line(error, handler, count):
        return DataError(f"{place} ({PARTS[part]} of {spec}): repair or fetch the file again")
    return DataError(f"{spec}: {_RECORDS[part]} number {count + 1} cannot be read: {cause}")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _bad_line(error: Exception, handler: Any, count: int) -> str | None:
    """The place of a fault, found by reading the files again: ir_datasets' errors do not name it.

    Args:
        count: records that were read before the fault; the first `count` lines are skipped.
    """
    if not isinstance(error, ValueError | KeyError | RuntimeError | EOFError | OSError | zlib.error):
        return None
    before = 0
    for name in ("_dlcs", "_docs_dlc", "_queries_dlc", "_qrels_dlc", "_dlc"):
        value = vars(handler).get(name)
        for source in value if isinstance(value, list | tuple) else [value]:
            if not (hasattr(source, "stream") and hasattr(source, "path")):
                continue
            number = 0
            try:
                with source.stream() as file:
                    for number, line in enumerate(file, start=1):
                        if before + number > count and (found := _fault(error, line)):
                            return f"{source.path(force=False)}:{number}: {found}"
            except Exception as again:
                return f"{source.path(force=False)}:{number + 1}: cannot be read: {_one_line(again)}"
            before += number
    return None


_WRONG_COUNT = re.compile(r"expected ((?:at least )?\d+) (fields|columns), got (\d+)")
_NO_INTEGER = re.compile(r"invalid literal for int\(\) with base 10: (.*)")


def _fault(error: Exception, line: bytes) -> str | None:
    """The fault of a line, if it fits ir_datasets' error."""
    if isinstance(error, UnicodeDecodeError):
        try:
            line.decode()
        except UnicodeDecodeError as own:
            return f"not valid UTF-8 (byte 0x{line[own.start]:02x} at column {own.start + 1})"
    elif isinstance(error, json.JSONDecodeError | KeyError):
        try:
            record = json.loads(line.decode("utf-8", "replace"))
        except ValueError as own:
            return f"not valid JSON ({own})"
        if isinstance(error, KeyError) and isinstance(record, dict) and error.args[0] not in record:
            return f"key {error.args[0]!r} is missing (keys found: {', '.join(map(repr, record)) or 'none'})"
    elif found := _WRONG_COUNT.fullmatch(str(error)):
        expected, unit, count = found.groups()
        # ir_datasets splits TSV at tabs and TREC files at any white space; both skip empty lines.
        tabs = unit == "fields"
        columns = line.rstrip(b"\r\n").split(b"\t") if tabs else line.split()
        if line.strip() and len(columns) == int(count):
            return f"{count} columns, expected {expected}{' with tabs between them' if tabs else ''}"
    elif found := _NO_INTEGER.fullmatch(str(error)):
        # The relevance comes last in a TREC file.
        columns = line.split()
        if columns and repr(columns[-1].decode("utf-8", "replace")) == found[1]:
            return f"relevance {found[1]}, expected an integer"
    return None
