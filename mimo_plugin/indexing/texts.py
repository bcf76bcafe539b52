"""The texts of an index's documents: kept beside it, or those of the collection that it was built from."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.collections.loading import open_collection
from mimo_plugin.collections.pool import load
from mimo_plugin.collections.reading import missing_files
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import DataError, Problems, UsageError
from mimo_plugin.core.files import replacing
from mimo_plugin.indexing.plan import EncodingPlan

if TYPE_CHECKING:
    import numpy as np

    from mimo_plugin.indexing.nearest import Lines

# From docids, asked for in the vectors' order, to texts.
TextsOf = Callable[[Sequence[str]], list[str]]

# Texts in a row group: a lookup decompresses one.
_GROUP = 1024
_SETTINGS: dict[str, Any] = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}


def texts_of(plan: EncodingPlan) -> TextsOf:
    """The texts of vectors from their collections, which are read once.

    Raises:
        DataError: a collection is unknown, or later: it has changed.
        UsageError: the vectors were imported.
    """
    return in_order(_load(plan).docs_iter(), plan.collections)


def _load(plan: EncodingPlan) -> Any:
    if not plan.backend:
        raise UsageError(f"the vectors were imported from {plan.collections[0]}: their texts are unknown")
    return load(
        *plan.collections, fields=plan.fields, pooled=plan.prefixes is not None, prefixes=plan.prefixes
    )


def in_order(documents: Iterable[Any], collections: Sequence[str]) -> TextsOf:
    """The texts of `Doc`s. collections: their names, for the message."""
    docs = iter(documents)

    def texts(docids: Sequence[str]) -> list[str]:
        found = []
        for docid in docids:
            # A part of a collection begins later.
            text = next((doc.text for doc in docs if doc.doc_id == docid), None)
            if text is None:
                raise DataError(
                    f"{', '.join(collections)} has no document {docid} at the place of its vector: "
                    "the collection has changed since it was encoded"
                )
            found.append(text)
        return found

    return texts


def write_texts(path: Path, docids: "Lines", texts: TextsOf, progress: bool | None = None) -> None:
    """Writes the texts of all documents in order, compressed.

    Raises: as `texts`, and EnvironmentProblem: the file system refuses.
    """
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([pa.field("text", pa.large_string(), nullable=False)])
    with (
        replacing(path) as beside,
        beside.open("wb") as file,
        parquet.ParquetWriter(file, schema, **_SETTINGS) as writer,
        bar(total=len(docids), what="keeping texts", unit="docs", enabled=progress) as counter,
    ):
        # Groups of one size, so that merged parts are the same file as the whole.
        for start in range(0, len(docids), _GROUP):
            some = texts(docids.between(start, min(start + _GROUP, len(docids))))
            writer.write_table(pa.table({"text": pa.array(some, pa.large_string())}, schema=schema))
            counter.update(len(some))


class KeptTexts:
    """A file of `write_texts`, which must be whole."""

    def __init__(self, path: Path) -> None:
        from pyarrow import parquet

        self._file = parquet.ParquetFile(path, memory_map=True)
        self._size = self._file.metadata.row_group(0).num_rows

    def __iter__(self) -> Iterator[str]:
        for group in range(self._file.num_row_groups):
            yield from self._group(group).to_pylist()

    def take(self, rows: "np.ndarray") -> list[str]:
        """The texts of documents by their numbers, int64 (n,), in that order."""
        groups = {group: self._group(group) for group in set((rows // self._size).tolist())}
        return [groups[row // self._size][row % self._size].as_py() for row in rows.tolist()]

    def _group(self, number: int) -> Any:
        return self._file.read_row_group(number).column("text")


def joined_texts(paths: Sequence[Path]) -> TextsOf:
    """The texts of several files, one after the other."""
    texts = (text for path in paths for text in KeptTexts(path))
    return lambda docids: list(islice(texts, len(docids)))


def texts_in(plan: EncodingPlan, docids: Sequence[str]) -> dict[str, str]:
    """Docid -> text, looked up in the collections of a plan, which are read until all are found.

    Raises:
        DataError: a collection is not on this machine.
        UsageError: the vectors were imported.
    """
    pool = _load(plan)
    require_here(plan)
    return {doc.doc_id: doc.text for doc in pool.docs_store().get_many_iter(docids)}


def require_here(plan: EncodingPlan) -> None:
    """Raises a DataError for collections that are not on this machine, and downloads nothing."""
    with Problems(DataError) as problems:
        for spec in plan.collections:
            if missing := missing_files(open_collection(spec).docs_handler()):
                problems.add(f"{spec}: {missing[0].place} is not on this machine")
