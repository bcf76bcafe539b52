"""Reading a collection's records: what is wrong with them is gathered and said together."""

import errno
import json
import re
import zlib
from collections.abc import Callable, Iterator
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

from mimo_plugin.core.environment import reachable
from mimo_plugin.core.errors import DataError, EnvironmentProblem, MimoError

_WRONG_COUNT = re.compile(
    r"expected (?P<expected>(at least )?\d+) (?P<unit>fields|columns), got (?P<found>\d+)"
)
_NO_INTEGER = re.compile(r"invalid literal for int\(\) with base 10: (?P<literal>.*)")


def fault_finder(error: Exception) -> Callable[[bytes], str | None] | None:
    """A function that says what is wrong with a line if it is what the error complains of, else None.

    Returns:
        None for an error that does not come from the content of a line.
    """
    if isinstance(error, UnicodeDecodeError):
        return _encoding_fault
    if isinstance(error, json.JSONDecodeError):
        return _json_fault
    if isinstance(error, KeyError) and error.args:
        return partial(_missing_key, error.args[0])
    if isinstance(error, RuntimeError) and (match := _WRONG_COUNT.fullmatch(str(error))):
        return partial(_wrong_count, match["expected"], match["unit"], int(match["found"]))
    if isinstance(error, ValueError) and (match := _NO_INTEGER.fullmatch(str(error))):
        return partial(_no_integer, match["literal"])
    return None


def _encoding_fault(line: bytes) -> str | None:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"not valid UTF-8 (byte 0x{line[error.start]:02x} at column {error.start + 1})"
    return None


def _json_fault(line: bytes) -> str | None:
    try:
        json.loads(line.decode("utf-8", "replace"))
    except json.JSONDecodeError as error:
        return f"not valid JSON ({error})"
    return None


def _missing_key(key: Any, line: bytes) -> str | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or key in record:
        return None
    return f"key {key!r} is missing (keys found: {', '.join(map(repr, record)) or 'none'})"


def _wrong_count(expected: str, unit: str, found: int, line: bytes) -> str | None:
    # As ir_datasets splits: TSV at tabs, TREC files at any white space; both pass over empty lines.
    columns = line.rstrip(b"\r\n").split(b"\t") if unit == "fields" else line.split()
    if not line.strip() or len(columns) != found:
        return None
    return f"{found} columns, expected {expected}{' with tabs between them' if unit == 'fields' else ''}"


def _no_integer(literal: str, line: bytes) -> str | None:
    # The relevance comes last in a TREC file.
    columns = line.decode("utf-8", "replace").split()
    if not columns or repr(columns[-1]) != literal:
        return None
    return f"relevance {literal}, expected an integer"


def unreadable(path: object, error: OSError) -> str:
    """What to say about a file or folder that the operating system does not let us read."""
    if isinstance(error, PermissionError):
        advice = "give yourself the right to read it and to enter its folders (ls -l, chmod)"
    elif isinstance(error, IsADirectoryError | NotADirectoryError):
        advice = "a file and a folder are mixed up here, put the right one in this place"
    else:
        advice = "check the path and the disk"
    return f"{path}: cannot be read ({error.strerror or error}), expected a readable file or folder: {advice}"


@dataclass(frozen=True)
class MissingFile:
    """Attributes:
    place: where ir_datasets looks for the file (or the folder of an unpacked archive) first.
    urls: where it would download it from; none for what a user has to obtain.
    """

    place: Path
    urls: tuple[str, ...]


def missing_files(handler: Any) -> list[MissingFile]:
    """The files that reading a docs, queries or qrels handler needs and that are not on this machine.

    Raises:
        DataError: the folder of one may not be looked at.
    """
    found: dict[Path, MissingFile] = {}
    try:
        for file in _missing(handler, set()):
            found.setdefault(file.place, file)
    except OSError as error:
        raise DataError(unreadable(error.filename, error)) from error
    return [] if found and _has_docstore(handler) else list(found.values())


def streams(handler: Any) -> Iterator[tuple[str, Any]]:
    """Yields (path, object with `stream()`) of the local files that a handler reads record by record."""
    for name in ("_dlcs", "_docs_dlc", "_queries_dlc", "_qrels_dlc", "_dlc"):
        value = vars(handler).get(name)
        for dlc in value if isinstance(value, list | tuple) else [value]:
            if hasattr(dlc, "stream") and hasattr(dlc, "path"):
                yield str(dlc.path(force=False)), dlc


def _has_docstore(handler: Any) -> bool:
    """Whether a lookup store was built once: ir_datasets reads that instead of the files."""
    if not hasattr(handler, "docs_store"):
        return False
    try:
        store = handler.docs_store()
        return hasattr(store, "built") and bool(store.built())
    except Exception:  # a few datasets download before they can say where their store would be
        return False


def _missing(node: Any, seen: set[int]) -> Iterator[MissingFile]:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, Download):
        yield from _missing_download(node)
    elif isinstance(node, RelativePath):
        yield from _missing_member(node)
    elif isinstance(node, TarExtractAll):
        yield from _missing_extract(Path(node._extract_path), node._streamer)
    elif isinstance(node, ZipExtractCache):
        yield from _missing_extract(Path(node.extract_path), node.dlc)
    elif isinstance(node, Cache):
        yield from _missing_extract(Path(node._path), node._streamer)
    elif isinstance(node, LocalDownload):
        if not node.path(force=False).exists():
            yield MissingFile(node.path(force=False), ())
    else:
        for child in _children(node):
            yield from _missing(child, seen)


def _missing_download(download: Any) -> Iterator[MissingFile]:
    copies = [mirror.path(force=False) for mirror in download.mirrors if isinstance(mirror, LocalDownload)]
    if any(path.exists() for path in copies):
        return
    urls = tuple(mirror.url for mirror in download.mirrors if isinstance(mirror, RequestsDownload))
    if download._cache_path is not None:
        place = Path(download._cache_path)
    elif copies:
        place = copies[0]
    else:
        place = home_path() / "downloads" / str(download.expected_md5)
    if not place.exists():
        yield MissingFile(place, urls)


def _missing_extract(place: Path, archive: Any) -> Iterator[MissingFile]:
    # What has been unpacked is used as it is, without a look at the archive.
    behind = [] if place.exists() else list(_missing(archive, set()))
    if behind:
        yield MissingFile(place, _urls(behind))


def _missing_member(node: Any) -> Iterator[MissingFile]:
    place = Path(node.path(force=False))
    if place.exists():
        return
    behind = list(_missing(node._streamer, set()))
    if behind or Path(node._streamer.path(force=False)).exists():
        yield MissingFile(place, _urls(behind))


def _urls(files: list[MissingFile]) -> tuple[str, ...]:
    return tuple(url for file in files for url in file.urls)


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


# part -> what a message calls it, and one of its records
PARTS = {"docs": "documents", "queries": "queries", "qrels": "qrels"}
_RECORDS = {"docs": "document", "queries": "query", "qrels": "judgment"}
_PLACES_SHOWN = 3


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
    unfetchable = offline_problem(handler, part, spec)
    if unfetchable:
        raise DataError(unfetchable)
    count = 0
    iterator = None
    while True:
        try:
            if iterator is None:
                iterator = iter(getattr(dataset, f"{part}_iter")())
            record = next(iterator)
        except StopIteration:
            return
        except (MimoError, MemoryError):
            raise
        except Exception as error:
            raise _explained(error, handler, part, spec, count) from error
        count += 1
        yield record


def offline_problem(handler: Any, part: str, spec: str) -> str | None:
    """What to say if files are missing and cannot be had now."""
    try:
        missing = [file for file in missing_files(handler) if not reachable(file.urls)]
    except DataError as error:
        return f"{spec}: {error}"
    if not missing:
        return None
    one = len(missing) == 1
    reason = (
        "could not be downloaded (no network?)" if any(file.urls for file in missing) else "must be obtained"
    )
    what = "a file" if one else f"{len(missing)} files"
    return (
        f"{spec}: {what} of its {PARTS[part]} {'is' if one else 'are'} missing and {reason}; "
        f"put {'it' if one else 'them'} at {_places(missing)}"
    )


def _places(missing: list[MissingFile]) -> str:
    shown = ", ".join(
        f"{file.place}{f' (from {file.urls[0]})' if file.urls else ''}" for file in missing[:_PLACES_SHOWN]
    )
    more = len(missing) - _PLACES_SHOWN
    return f"{shown}, ... and {more} more" if more > 0 else shown


def _explained(error: Exception, handler: Any, part: str, spec: str, count: int) -> MimoError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EnvironmentProblem(f"{spec}: the disk is full ({error}): make room for ir_datasets' files")
    cause = _one_line(error)
    missing = missing_files(handler)
    if missing:
        return DataError(
            f"{spec}: a file of its {PARTS[part]} is missing and its download failed ({cause}); try again, "
            f"or put it at {_places(missing)}"
        )
    if isinstance(error, PermissionError | IsADirectoryError | NotADirectoryError) and error.filename:
        return DataError(f"{unreadable(error.filename, error)} ({PARTS[part]} of {spec})")
    place = _bad_line(error, handler, count)
    if place:
        return DataError(f"{place} ({PARTS[part]} of {spec}): repair or fetch the file again")
    return DataError(f"{spec}: {_RECORDS[part]} number {count + 1} cannot be read: {cause}")


def _bad_line(error: Exception, handler: Any, count: int) -> str | None:
    """Where in the source the fault is: ir_datasets' errors do not tell, so its files are read once more.

    Args:
        count: records that were read before the fault; it is not in as many lines.
    """
    fault = fault_finder(error)
    if fault is None and not isinstance(error, EOFError | OSError | zlib.error):
        return None
    before = 0
    for path, source in streams(handler):
        number = 0
        try:
            with source.stream() as file:
                for number, line in enumerate(file, start=1):
                    found = fault(line) if fault and before + number > count else None
                    if found:
                        return f"{path}:{number}: {found}"
        except Exception as again:
            return f"{path}:{number + 1}: cannot be read: {_one_line(again)}"
        before += number
    return None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
