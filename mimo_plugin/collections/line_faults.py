"""Finds the line that made an ir_datasets reader fail: its errors say what was wrong, but not where."""

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

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
