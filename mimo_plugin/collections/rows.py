"""Files as rows with their places: lines, JSON Lines, Parquet, and the layouts of collections.

Readers yield valid rows. They add invalid rows and unreadable or damaged files to `Problems`.
"""

import gzip
import json
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from mimo_plugin.collections.records import check_id, check_text
from mimo_plugin.core.errors import DataError, Problems

# Place of a row, as `FILE:LINE`, and its values by name.
Row = tuple[str, dict[str, Any]]


def unreadable(path: object, error: OSError) -> str:
    """The message about a file or folder that the operating system cannot read."""
    if isinstance(error, PermissionError):
        advice = "give yourself the right to read it and to enter its folders (ls -l, chmod)"
    elif isinstance(error, IsADirectoryError | NotADirectoryError):
        advice = "a file and a folder are mixed up here, put the right one in this place"
    else:
        advice = "check the path and the disk"
    return f"{path}: cannot be read ({error.strerror or error}), expected a readable file or folder: {advice}"


def open_binary(path: Path | zipfile.Path) -> IO[bytes]:
    """Opens a file or a member of a zip file; decompresses it if its name ends in .gz."""
    file = path.open("rb")
    return gzip.open(file, "rb") if path.suffix == ".gz" else file  # type: ignore[return-value]


def read_lines(path: Path | zipfile.Path, faults: Problems) -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, line without its end), without blank lines."""
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


def read_objects(path: Path, faults: Problems) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number, JSON object); a repeated key is a fault."""
    return faults.convert(read_lines(path, faults), partial(_parsed, path))


def _parsed(path: Path, numbered: tuple[int, str]) -> tuple[int, dict[str, Any]]:
    number, line = numbered
    try:
        value = _DECODER.decode(line)
    except DataError as error:
        raise DataError(f"{path}:{number}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}:{number}: not valid JSON ({error}), expected one JSON object a line"
        ) from None
    if not isinstance(value, dict):
        raise DataError(
            f"{path}:{number}: JSON of type {type(value).__name__}, expected one JSON object a line"
        )
    return number, value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        name = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise DataError(f"{name!r} occurs twice in one JSON object, expected each key once: leave one out")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def get_id(record: Mapping[str, Any], key: str, where: str) -> str:
    """The id under `key`; raises a DataError if it is missing or invalid."""
    return check_id(get_value(record, key, where), f"{where}: {key!r}")


def get_text(record: Mapping[str, Any], key: str, where: str) -> str:
    """The text under `key`, possibly empty; raises a DataError if it is missing or not text."""
    return check_text(get_value(record, key, where), f"{where}: {key!r}")


def get_optional(record: Mapping[str, Any], key: str, where: str) -> str:
    """The text under `key`, "" if there is none; raises a DataError if it is not text."""
    value = record.get(key)
    return "" if value is None else check_text(value, f"{where}: {key!r}")


def get_lang(record: Mapping[str, Any], where: str) -> str:
    """The language code under "lang", "" if there is none; raises a DataError if it has white space."""
    lang = get_optional(record, "lang", where)
    if lang.split() not in ([], [lang]):
        raise DataError(f"{where}: 'lang' is {lang!r}, expected a code such as 'de' without white space")
    return lang.strip()


def get_value(record: Mapping[str, Any], key: str, where: str) -> Any:
    """The value under `key`; raises a DataError if it is missing."""
    if key not in record:
        found = ", ".join(map(repr, record)) or "none"
        raise DataError(f"{where}: key {key!r} is missing (keys found: {found}): add it")
    return record[key]


# trec_eval's limit is smaller; Python's `int` has none, and accepts 1_0.
_RELEVANCE = re.compile(r"[+-]?[0-9]{1,9}")


def get_relevance(record: Mapping[str, Any], where: str) -> int:
    """The integer under "score", in a table also as text or 1.0; raises a DataError if there is none."""
    value = get_value(record, "score", where)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) in (int, str) and _RELEVANCE.fullmatch(f"{value}".strip()):
        return int(value)
    raise DataError(f"{where}: relevance {value!r:.40}, expected an integer (0 = not relevant)")


def json_rows(path: Path, faults: Problems) -> Iterator[Row]:
    """The objects of JSON Lines, as in BEIR's `corpus.jsonl` and `queries.jsonl`."""
    return ((f"{path}:{number}", record) for number, record in read_objects(path, faults))


def paper_rows(path: Path, faults: Problems) -> Iterator[Row]:
    """The documents in the benchmark files of the MIMO paper: objects `{docid: {"text", "lang"}}`."""
    for where, doc_id, fields in _nested(path, faults, "docid", "an object with 'text' and 'lang'"):
        yield where, {**fields, "_id": doc_id}


def paper_qrel_rows(path: Path, faults: Problems) -> Iterator[Row]:
    """The judgments in the benchmark files of the MIMO paper: objects `{query id: {docid: relevance}}`."""
    expected = "an object of docids with their relevance"
    for where, query_id, judged in _nested(path, faults, "query id", expected):
        for doc_id, relevance in judged.items():
            yield where, {"query-id": query_id, "corpus-id": doc_id, "score": relevance}


def _nested(
    path: Path, faults: Problems, what: str, expected: str
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields (place, key, object) of lines that map ids to objects."""

    def checked(item: tuple[str, str, Any]) -> tuple[str, str, dict[str, Any]]:
        where, identifier, value = item
        check_id(identifier, f"{where}: {what}")
        if not isinstance(value, dict):
            found = f"{what} {identifier!r} has a value of type {type(value).__name__}"
            raise DataError(f"{where}: {found}, expected {expected}")
        return item

    rows = json_rows(path, faults)
    items = ((where, identifier, value) for where, record in rows for identifier, value in record.items())
    return faults.convert(items, checked)


QREL_COLUMNS = ["query-id", "corpus-id", "score"]


def beir_qrel_rows(path: Path, faults: Problems) -> Iterator[Row]:
    """The judgments of BEIR's `qrels/SPLIT.tsv`: a header and three columns, separated by tabs."""
    lines = read_lines(path, faults)
    number, header = next(lines, (1, ""))
    if faults:  # the header itself cannot be read
        return
    if header.split() != QREL_COLUMNS:
        # Other lines of a file that is not BEIR's are not reported.
        faults.add(
            f"{path}:{number}: {header!r:.100}, expected the header {' '.join(QREL_COLUMNS)!r} in the first "
            "line"
        )
        return
    yield from _columns(path, lines, QREL_COLUMNS, faults)


def trec_qrel_rows(path: Path, faults: Problems) -> Iterator[Row]:
    """The judgments of a TREC file: query id, iteration, docid and relevance, separated by white space."""
    names = ["query-id", "iteration", "corpus-id", "score"]
    between = "tabs or spaces between them: query id, iteration, docid, relevance"
    return _columns(path, read_lines(path, faults), names, faults, None, between)


def _columns(
    path: Path,
    lines: Iterator[tuple[int, str]],
    names: Sequence[str],
    faults: Problems,
    separator: str | None = "\t",
    between: str = "tabs between them",
) -> Iterator[Row]:
    """Lines with one value per name."""
    for number, line in lines:
        values = line.split(separator)
        if len(values) == len(names):
            yield f"{path}:{number}", dict(zip(names, values, strict=True))
        else:
            faults.add(f"{path}:{number}: {len(values)} columns, expected {len(names)} with {between}")


_ID_LANGUAGE = re.compile(r"([a-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*):.")


def language_of_id(identifier: str) -> str:
    """The language prefix of an id such as `sw:17`; "" if it has none."""
    match = _ID_LANGUAGE.match(identifier)
    return match[1] if match else ""


def topic_rows(path: Path, faults: Problems) -> Iterator[Row]:
    """A file of topics: id and text per line, separated by a tab or, without tabs, by white space."""
    for number, line in read_lines(path, faults):
        columns = line.split("\t") if "\t" in line else line.split(None, 1)
        if len(columns) != 2:
            faults.add(
                f"{path}:{number}: {len(columns)} columns, expected 2 with a tab between them: id, text"
            )
            continue
        identifier, text = columns
        yield (
            f"{path}:{number}",
            {"_id": identifier, "text": text.strip(), "lang": language_of_id(identifier)},
        )


# Name of a value here -> its names in published sets and other libraries.
_NAMES = {
    "_id": ("_id", "id", "docid", "query_id", "doc_id", "docno", "qid"),
    "text": ("text", "query"),
}
_QREL_NAMES = {
    "query-id": ("query-id", "query_id", "qid"),
    "corpus-id": ("corpus-id", "corpus_id", "docid", "doc_id", "docno"),
    "score": ("score", "relevance", "label"),
}


def usual_names(record: Mapping[str, Any]) -> dict[str, Any]:
    """A document or query with `_id` and `text`; ids may be numbers, and null is an empty text."""
    row = _renamed(record, _NAMES)
    return row | {"text": ""} if row.get("text", "") is None else row


def usual_qrel_names(record: Mapping[str, Any]) -> dict[str, Any]:
    """A judgment with `query-id`, `corpus-id` and `score`; ids may be numbers."""
    return _renamed(record, _QREL_NAMES)


def _renamed(record: Mapping[str, Any], names: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    row = dict(record)
    for usual, others in names.items():
        found = next((other for other in others if other in record), None)
        if found is not None:
            number = usual.endswith("id") and type(record[found]) is int
            row[usual] = str(record[found]) if number else record[found]
    return row


def table_rows(files: tuple[Path, ...], faults: Problems) -> Iterator[Row]:
    """Documents or queries in the layout of MTEB: Parquet, JSON Lines or TSV."""
    return ((where, usual_names(record)) for where, record in _table(files, faults))


def table_qrel_rows(files: tuple[Path, ...], faults: Problems) -> Iterator[Row]:
    """Judgments in the layout of MTEB, one per row."""
    return ((where, usual_qrel_names(record)) for where, record in _table(files, faults))


def is_table(file: Path) -> bool:
    """Whether a file of judgments has one per line, with the columns of MTEB."""
    _, first = next(table_qrel_rows((file,), Problems()), ("", {}))
    return set(_QREL_NAMES) <= set(first)


def _table(files: tuple[Path, ...], faults: Problems) -> Iterator[Row]:
    for file in files:
        name = file.name.removesuffix(".gz")
        read = _parquet if name.endswith(".parquet") else json_rows if name.endswith(".jsonl") else _tsv
        yield from read(file, faults)


def _parquet(file: Path, faults: Problems) -> Iterator[Row]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=4096):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{file}:{number}", record
    except PermissionError as error:
        faults.add(unreadable(file, error))
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        faults.add(f"{file}: not a whole Parquet file ({reason}), expected one: fetch it again")


def _tsv(file: Path, faults: Problems) -> Iterator[Row]:
    """A file with a header; NeuCLIRBench's queries have none."""
    lines = read_lines(file, faults)
    headless = file.name.startswith("news.")
    columns = ["_id", "text"] if headless else next(lines, (1, ""))[1].split("\t")
    return _columns(file, lines, columns, faults)
