"""Parquet with a docid and a vector a row, such as `mimo encode`, datasets or Spark write."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.collections.faults import Faults
from mimo_plugin.collections.records import check_id
from mimo_plugin.errors import DataError
from mimo_plugin.vectors.shards import VectorBatch

if TYPE_CHECKING:
    import numpy as np

_ROWS = 4096
_DOCID, _VECTOR, _LANG = (
    ("docid", "id", "_id", "doc_id"),
    ("vector", "embedding", "emb"),
    ("lang", "language"),
)


def read_parquet(path: Path, faults: Faults) -> Iterator[VectorBatch]:
    """Reads the columns docid (or id, _id, doc_id), vector (or embedding, emb) and, if there is one, lang."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            docid, vector, lang = (_one(names, wanted) for wanted in (_DOCID, _VECTOR, _LANG))
            if docid is None or vector is None:
                faults.add(
                    f"{path}: columns {', '.join(names)}, expected one of {', '.join(_DOCID)} and one of "
                    f"{', '.join(_VECTOR)}"
                )
                return
            columns = [name for name in (docid, vector, lang) if name is not None]
            start = 0
            for rows in file.iter_batches(batch_size=_ROWS, columns=columns):
                docids = _texts(rows.column(docid), docid, path)
                for row, value in enumerate(docids, start=start):
                    check_id(value, f"{path}: {docid} of row {row}")
                langs = [""] * len(docids) if lang is None else _texts(rows.column(lang), lang, path)
                yield VectorBatch(docids, langs, _matrix(rows.column(vector), path, start))
                start += len(docids)
    except (pa.ArrowException, OSError, ValueError) as error:
        faults.add(f"{path}: cannot be read as Parquet ({' '.join(str(error).split())}): write it again")
    except DataError as error:
        faults.add(str(error))


def _one(names: list[str], wanted: tuple[str, ...]) -> str | None:
    return next((name for name in wanted if name in names), None)


def _texts(column: Any, name: str, path: Path) -> list[str]:
    values: list[Any] = column.to_pylist()
    if not all(isinstance(value, str) for value in values):
        raise DataError(f"{path}: column {name} holds values that are no text, expected a text in every row")
    return values


def _matrix(column: Any, path: Path, start: int) -> "np.ndarray":
    """The vectors of a list column, float32 (rows, dimension)."""
    import numpy as np
    import pyarrow as pa

    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise DataError(f"{path}: the vectors are of type {kind}, expected lists of floats")
    flat = column.flatten()
    if column.null_count or flat.null_count or not pa.types.is_floating(flat.type) or len(flat) % len(column):
        raise DataError(
            f"{path}: rows from {start} on hold no vector, or vectors of several lengths, expected as many "
            "floats in every row"
        )
    if not pa.types.is_fixed_size_list(kind) and len(set(column.value_lengths().to_pylist())) > 1:
        raise DataError(f"{path}: vectors of several lengths from row {start} on, expected one length")
    vectors: np.ndarray = (
        flat.to_numpy(zero_copy_only=False).astype(np.float32, copy=False).reshape(len(column), -1)
    )
    if not np.isfinite(vectors).all():
        row = start + int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise DataError(f"{path}: vector {row} holds NaN or infinity: encode the document again")
    return vectors
