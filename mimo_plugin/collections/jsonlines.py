"""JSON Lines, plain or gzipped, read as a stream; every error says the file and the line."""

import gzip
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

from mimo_plugin.collections.faults import Faults, unreadable
from mimo_plugin.collections.records import check_id, check_text
from mimo_plugin.errors import DataError


def open_binary(path: Path | zipfile.Path) -> IO[bytes]:
    """A file, or the member of a zip file, unpacked where its name ends in .gz."""
    if isinstance(path, zipfile.Path):
        file = path.open("rb")
        return gzip.open(file, "rb") if path.suffix == ".gz" else file  # type: ignore[return-value]
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def read_lines(path: Path | zipfile.Path, faults: Faults) -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, line without its end); blank lines are passed over.

    Lines that are not UTF-8 become faults; so does a file that cannot be read or is a damaged gzip file, and
    it ends there.
    """
    number = 0
    try:
        with open_binary(path) as file:
            for number, raw in enumerate(file, start=1):
                try:
                    # A byte order mark is legal at the start of UTF-8 text, and some editors write it.
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    faults.add(
                        f"{path}:{number}: not valid UTF-8 (byte 0x{raw[error.start]:02x} at column "
                        f"{error.start + 1}), expected UTF-8: convert the file (iconv) or drop the line"
                    )
                    continue
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        kind = "zip" if isinstance(path, zipfile.Path) else "gzip"
        faults.add(
            f"{path}:{number + 1}: damaged {kind} file ({error}), expected a whole one: fetch it again"
        )
    except OSError as error:
        faults.add(unreadable(path, error))


def read_objects(path: Path, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number, JSON object); what is no JSON object, or has a key twice, becomes a fault."""
    return faults.convert(read_lines(path, faults), partial(_parsed, path))


def _parsed(path: Path, numbered: tuple[int, str]) -> tuple[int, dict[str, Any]]:
    number, line = numbered
    try:
        value = _DECODER.decode(line)
    except _RepeatedKeyError as error:
        raise DataError(
            f"{path}:{number}: {error.args[0]!r} occurs twice in one JSON object, expected each key once: "
            "leave one out"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}:{number}: not valid JSON ({error}), expected one JSON object a line"
        ) from None
    if not isinstance(value, dict):
        raise DataError(
            f"{path}:{number}: JSON of type {type(value).__name__}, expected one JSON object a line"
        )
    return number, value


class _RepeatedKeyError(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """What `json` makes of an object, but it keeps the last of equal keys and drops the others."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise _RepeatedKeyError(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def get_id(record: dict[str, Any], key: str, where: str) -> str:
    """The id under `key`; DataError where it is missing or unusable."""
    return check_id(_get(record, key, where), f"{where}: {key!r}")


def get_text(record: dict[str, Any], key: str, where: str) -> str:
    """The text under `key`, possibly empty; DataError where it is missing or not text."""
    return check_text(_get(record, key, where), f"{where}: {key!r}")


def get_optional(record: dict[str, Any], key: str, where: str) -> str:
    """The text under `key`, "" where there is none; DataError where it is something else."""
    value = record.get(key)
    return "" if value is None else check_text(value, f"{where}: {key!r}")


def get_lang(record: dict[str, Any], where: str) -> str:
    """The language code under "lang", "" where there is none; DataError where it has white space in it."""
    lang = get_optional(record, "lang", where)
    if lang.split() not in ([], [lang]):
        raise DataError(f"{where}: 'lang' is {lang!r}, expected a code such as 'de' without white space")
    return lang.strip()


def _get(record: dict[str, Any], key: str, where: str) -> Any:
    if key not in record:
        found = ", ".join(map(repr, record)) or "none"
        raise DataError(f"{where}: key {key!r} is missing (keys found: {found}): add it")
    return record[key]
