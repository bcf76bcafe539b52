"""The pass over a collection before anything is encoded: what is wrong with it shows in minutes, not days."""

import hashlib
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mimo_plugin.errors import DataError, Problems
from mimo_plugin.files import writing
from mimo_plugin.progress import bar

if TYPE_CHECKING:
    import numpy as np

# Docid hashes that are sorted in memory at a time: 32 MiB.
_SORTED_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Survey:
    """What a collection holds.

    Attributes:
        documents: number of documents.
        empty: documents without text; they are encoded like any other.
        languages: language -> number of documents, in the order of first appearance.
        fingerprint: SHA-256 over ids, languages and texts in order.
    """

    documents: int
    empty: int
    languages: dict[str, int]
    fingerprint: str


def survey(collection: Any, *, progress: bool | None = None) -> Survey:
    """Streams a collection's documents once; memory does not grow with their number.

    Args:
        collection: an ir_datasets dataset of `Doc`s.

    Raises:
        DataError: there are no documents, or docids occur more than once.
    """
    digest = hashlib.sha256()
    languages: Counter[str] = Counter()
    empty = 0
    with tempfile.TemporaryFile() as file:
        for doc in bar(collection.docs_iter(), what="reading", unit="docs", enabled=progress):
            text = doc.text.encode("utf-8", "surrogatepass")
            docid = doc.doc_id.encode("utf-8", "surrogatepass")
            digest.update(b"%d %d %s\n" % (len(docid), len(text), doc.lang.encode()))
            digest.update(docid)
            digest.update(text)
            languages[doc.lang] += 1
            empty += not text.strip()
            with writing(Path(tempfile.gettempdir())):
                file.write(docid_hash(docid))
        documents = languages.total()
        if not documents:
            raise DataError("the collection holds no documents: at least one was expected")
        repeated = repeated_hashes(file, documents)
    if repeated:
        _raise_duplicates(collection, repeated)
    return Survey(documents, empty, dict(languages), digest.hexdigest())


def docid_hash(docid: bytes) -> bytes:
    """8 bytes that tell docids apart, but for rare pairs."""
    return hashlib.blake2b(docid, digest_size=8).digest()


def repeated_hashes(file: IO[bytes], count: int) -> set[int]:
    """The hashes, as little-endian numbers, that are more than once among those written one after the other.

    Raises:
        EnvironmentProblem: there is no space for them.
    """
    import numpy as np

    with writing(Path(tempfile.gettempdir())):
        file.flush()
    hashes: np.ndarray = np.memmap(file, dtype="<u8", mode="r", shape=(count,))
    parts = -(-count // _SORTED_AT_ONCE)
    repeated: set[int] = set()
    for part in range(parts):
        # Equal hashes fall into the same part, so each part can be looked at alone.
        chosen = [
            _of_part(hashes[i : i + _SORTED_AT_ONCE], part, parts) for i in range(0, count, _SORTED_AT_ONCE)
        ]
        ordered = np.sort(np.concatenate(chosen))
        repeated.update(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    return repeated


def _of_part(hashes: "np.ndarray", part: int, parts: int) -> "np.ndarray":
    return hashes if parts == 1 else hashes[hashes % parts == part]


def _raise_duplicates(collection: Any, repeated: set[int]) -> None:
    """A second pass tells real duplicates from ids whose hashes happen to be equal."""
    counts: Counter[str] = Counter()
    for doc in collection.docs_iter():
        if int.from_bytes(docid_hash(doc.doc_id.encode("utf-8", "surrogatepass")), "little") in repeated:
            counts[doc.doc_id] += 1
    problems = Problems(DataError)
    for docid, count in counts.items():
        if count > 1:
            problems.add(
                f"docid {docid!r} occurs {count} times in the collection: docids must be unique; "
                "remove or rename the copies"
            )
    problems.raise_any()
