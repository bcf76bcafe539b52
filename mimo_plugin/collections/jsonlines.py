"""JSON Lines, plain or gzipped, read as a stream; every error says the file and the line."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mimo_plugin.collections.records import check_id, check_text
from mimo_plugin.errors import DataError


def open_binary(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, line without its end); blank lines are passed over.

    Raises:
        DataError: the file cannot be read, is a damaged gzip file, or a line is not UTF-8.
    """
    number = 0
    try:
        with open_binary(path) as file:
            for number, raw in enumerate(file, start=1):
                try:
                    # A byte order mark is legal at the start of UTF-8 text, and some editors write it.
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{path}:{number}: not valid UTF-8 (byte 0x{raw[error.start]:02x} at column "
                        f"{error.start + 1}), expected UTF-8: convert the file (iconv) or drop the line"
                    ) from None
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}:{number + 1}: damaged gzip file ({error}), expected a whole one: fetch it again"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number, JSON object).

    Raises:
        DataError: as `read_lines`, or a line is not a JSON object.
    """
    for number, line in read_lines(path):
        try:
            value = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(
                f"{path}:{number}: not valid JSON ({error}), expected one JSON object a line"
            ) from None
        if not isinstance(value, dict):
            raise DataError(
                f"{path}:{number}: JSON of type {type(value).__name__}, expected one JSON object a line"
            )
        yield number, value


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
