"""JSON Lines, gzipped or not, streamed with the line of every fault."""

import gzip
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

from ir_datasets.formats import BaseDocs
from ir_datasets.indices import Docstore

from mimo_plugin.collections.reading import unreadable
from mimo_plugin.collections.records import Doc, check_id, check_text
from mimo_plugin.core.errors import DataError, Problems


def open_binary(path: Path | zipfile.Path) -> IO[bytes]:
    """A file, or the member of a zip file, unpacked where its name ends in .gz."""
    if isinstance(path, zipfile.Path):
        file = path.open("rb")
        return gzip.open(file, "rb") if path.suffix == ".gz" else file  # type: ignore[return-value]
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def read_lines(path: Path | zipfile.Path, faults: Problems) -> Iterator[tuple[int, str]]:
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


def read_objects(path: Path, faults: Problems) -> Iterator[tuple[int, dict[str, Any]]]:
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


class DocsIterator:
    """Documents in order, and, as ir_datasets has it, slices: `docs_iter()[10:20]`."""

    def __init__(self, start: Callable[[], Iterator[Any]]) -> None:
        self._start = start
        self._iterator = start()

    def __iter__(self) -> "DocsIterator":
        return self

    def __next__(self) -> Any:
        return next(self._iterator)

    def __getitem__(self, key: int | slice) -> Any:
        if isinstance(key, slice):
            return islice(self._start(), key.start, key.stop, key.step)
        for doc in islice(self._start(), key, None):
            return doc
        raise IndexError(f"no document number {key}")


class StreamedDocstore(Docstore):
    """Looks documents up by reading the collection until all are found: nothing is written anywhere."""

    def __init__(self, docs: "StreamedDocs") -> None:
        super().__init__(docs.docs_cls())
        self._docs = docs

    def get_many_iter(self, doc_ids: Iterable[str]) -> Iterator[Any]:
        wanted = set(doc_ids)
        for doc in self._docs.stream() if wanted else ():
            if doc.doc_id in wanted:
                wanted.discard(doc.doc_id)
                yield doc
                if not wanted:
                    return


class StreamedDocs(BaseDocs):
    """Documents of a source that `stream` reads from the start each time it is called."""

    def stream(self) -> Iterator[Any]:
        raise NotImplementedError

    def docs_iter(self) -> DocsIterator:
        return DocsIterator(self.stream)

    def docs_cls(self) -> type[Any]:
        return Doc

    def docs_store(self, field: str = "doc_id", options: Any = None) -> Docstore:
        if field != "doc_id":
            raise ValueError(f"documents are looked up by doc_id, not by {field}")
        return StreamedDocstore(self)

    def docs_count(self) -> int | None:
        return None  # unknown before the collection has been read


class DistinctDocs(StreamedDocs):
    """Args:
    collection: has `docs_iter`.
    repeated: docids of which the first record is taken alone.
    """

    def __init__(self, collection: Any, repeated: Collection[str]) -> None:
        self._collection = collection
        self._repeated = repeated

    def stream(self) -> Iterator[Any]:
        met = set()
        for doc in self._collection.docs_iter():
            if doc.doc_id in self._repeated:
                if doc.doc_id in met:
                    continue
                met.add(doc.doc_id)
            yield doc
