"""That no docid is in two of the indexes that are to be merged; memory does not grow with their number."""

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from mimo_plugin.collections.survey import docid_hash, repeated_hashes
from mimo_plugin.errors import DataError, Problems
from mimo_plugin.files import writing
from mimo_plugin.indexing.manifest import DOCID
from mimo_plugin.progress import bar


def require_unique(directories: Sequence[Path], *, progress: bool | None = None) -> None:
    """Raises a DataError that names docids which occur more than once, and the indexes they are in."""
    count = 0
    with tempfile.TemporaryFile() as file:
        for _, docid in bar(_docids(directories), what="docids", unit="docs", enabled=progress):
            with writing(Path(tempfile.gettempdir())):
                file.write(docid_hash(docid))
            count += 1
        repeated = repeated_hashes(file, count)
    if not repeated:
        return
    # A second pass tells real duplicates from ids whose hashes happen to be equal.
    places: defaultdict[bytes, list[Path]] = defaultdict(list)
    for directory, docid in _docids(directories):
        if int.from_bytes(docid_hash(docid), "little") in repeated:
            places[docid].append(directory)
    problems = Problems(DataError)
    for docid, found in places.items():
        if len(found) > 1:
            problems.add(
                f"docid {docid.decode()!r} is in {' and in '.join(map(str, found))}, expected each document "
                "in one index: leave one out, or make them with --pooled, which puts the language before it"
            )
    problems.raise_any()


def _docids(directories: Sequence[Path]) -> Iterator[tuple[Path, bytes]]:
    for directory in directories:
        with (directory / DOCID).open("rb") as lines:
            for line in lines:
                yield directory, line.removesuffix(b"\n")
