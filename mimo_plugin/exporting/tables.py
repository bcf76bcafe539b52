"""Vectors in one file: JSON Lines as Pyserini writes them, or Parquet."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.files import make_parent, replacing
from mimo_plugin.vectors import VectorBatch

if TYPE_CHECKING:
    import pyarrow as pa


def write_jsonl(
    batches: Iterator[VectorBatch],
    path: Path,
    texts: Callable[[Sequence[str]], list[str]] | None = None,
) -> None:
    """Writes `{"id", "contents", "vector"}` a line, as `pyserini.encode` does; numbers lose nothing.

    Args:
        texts: gives the documents' texts; None leaves `contents` empty.

    Raises:
        EnvironmentProblem: the file system refuses.
    """
    make_parent(path)
    with replacing(path) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:
        for batch in batches:
            contents = texts(batch.docids) if texts else [""] * len(batch.docids)
            for docid, text, vector in zip(batch.docids, contents, batch.vectors, strict=True):
                line = {"id": docid, "contents": text, "vector": vector.tolist()}
                file.write(json.dumps(line) + "\n")


def write_parquet(batches: Iterator[VectorBatch], path: Path, dimension: int) -> None:
    """Writes the columns docid, lang and vector (float32), a row group a batch.

    Raises:
        EnvironmentProblem: the file system refuses.
    """
    from pyarrow import parquet

    make_parent(path)
    with replacing(path) as beside, beside.open("wb") as file:
        settings = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        with parquet.ParquetWriter(file, _schema(dimension), **settings) as writer:
            for batch in batches:
                writer.write_table(_table(batch, dimension))


def _schema(dimension: int) -> "pa.Schema":
    import pyarrow as pa

    vector = pa.list_(pa.float32(), dimension)
    return pa.schema([("docid", pa.string()), ("lang", pa.string()), ("vector", vector)])


def _table(batch: VectorBatch, dimension: int) -> Any:
    import numpy as np
    import pyarrow as pa

    values = np.ascontiguousarray(batch.vectors, dtype=np.float32)
    columns = [
        pa.array(batch.docids, pa.string()),
        pa.array(batch.langs, pa.string()),
        pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), dimension),
    ]
    return pa.table(columns, schema=_schema(dimension))
