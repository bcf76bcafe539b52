"""Reads a part of a collection record by record and says what is wrong with it in one line."""

import errno
import zlib
from collections.abc import Iterator
from typing import Any

from mimo_plugin.collections.faults import unreadable
from mimo_plugin.collections.line_faults import fault_finder
from mimo_plugin.collections.sources import MissingFile, missing_files, streams
from mimo_plugin.errors import DataError, EnvironmentProblem, MimoError
from mimo_plugin.network import reachable

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
