"""The pass over a collection before anything is encoded: what is wrong with it shows in minutes, not days."""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mimo_plugin.collections.records import ERROR, FIRST
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
        copies: records that are left out, because an earlier one has their docid.
        repeated: the docids that several records have.
    """

    documents: int
    empty: int
    languages: dict[str, int]
    fingerprint: str
    copies: int = 0
    repeated: frozenset[str] = frozenset()

    def distinct(self, collection: Any) -> Any:
        """The collection that was surveyed, with the first record of each docid alone."""
        return _distinct(collection, self.repeated) if self.repeated else collection


def copies_text(count: int) -> str:
    return f"{count} documents were left out: an earlier one has their docid"


def survey(
    collection: Any,
    *,
    duplicates: str = ERROR,
    identical: bool = True,
    progress: bool | None = None,
) -> Survey:
    """Streams a collection's documents once, where docids are repeated three times; memory does not grow with
    their number, but with that of repeated docids.

    Args:
        collection: an ir_datasets dataset of `Doc`s.
        duplicates: of documents with one docid and different content, "first" takes the first.
        identical: one docid several times with the same content is taken once; False refuses that, too.

    Raises:
        DataError: there are no documents, or docids occur more than once with different content.
    """
    with tempfile.TemporaryFile() as file:
        found = _count(bar(collection.docs_iter(), what="reading", unit="docs", enabled=progress), file)
        if not found.documents:
            raise DataError("the collection holds no documents: at least one was expected")
        hashes = repeated_hashes(file, found.documents)
    repeated = _repeated(collection, hashes, duplicates, identical) if hashes else frozenset()
    if not repeated:
        return found
    once = _count(_distinct(collection, repeated).docs_iter())
    return replace(once, copies=found.documents - once.documents, repeated=repeated)


def _distinct(collection: Any, repeated: frozenset[str]) -> Any:
    from mimo_plugin.collections.streaming import DistinctDocs

    return DistinctDocs(collection, repeated)


def _count(docs: Iterable[Any], file: IO[bytes] | None = None) -> Survey:
    """Counts documents; their docids' hashes go into the file."""
    digest = hashlib.sha256()
    languages: Counter[str] = Counter()
    empty = 0
    for doc in docs:
        text = doc.text.encode("utf-8", "surrogatepass")
        docid = doc.doc_id.encode("utf-8", "surrogatepass")
        digest.update(b"%d %d %s\n" % (len(docid), len(text), doc.lang.encode()))
        digest.update(docid)
        digest.update(text)
        languages[doc.lang] += 1
        empty += not text.strip()
        if file is not None:
            with writing(Path(tempfile.gettempdir())):
                file.write(docid_hash(docid))
    return Survey(languages.total(), empty, dict(languages), digest.hexdigest())


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


def _repeated(collection: Any, hashes: set[int], duplicates: str, identical: bool) -> frozenset[str]:
    """The docids that several records have: a second pass tells them from ids with equal hashes.

    Raises:
        DataError: with those whose records may not be taken for one.
    """
    counts: Counter[str] = Counter()
    first: dict[str, bytes] = {}
    refused = set()
    for doc in collection.docs_iter():
        docid = doc.doc_id.encode("utf-8", "surrogatepass")
        if int.from_bytes(docid_hash(docid), "little") not in hashes:
            continue
        counts[doc.doc_id] += 1
        content = docid_hash(f"{doc.lang}\n{doc.text}".encode("utf-8", "surrogatepass"))
        same = first.setdefault(doc.doc_id, content) == content
        if counts[doc.doc_id] > 1 and not (same and identical) and duplicates != FIRST:
            refused.add(doc.doc_id)
    problems = Problems(DataError)
    differ = " with different content" if identical else ""
    advice = ", or take the first of each (--duplicates first)" if identical else ""
    for name, count in counts.items():
        if name in refused:
            problems.add(
                f"docid {name!r} occurs {count} times in the collection{differ}: docids must be unique; "
                f"remove or rename the copies{advice}"
            )
    problems.raise_any()
    return frozenset(docid for docid, count in counts.items() if count > 1)
