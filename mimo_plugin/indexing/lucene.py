"""Tables of vectors, and the Lucene index that Anserini makes of one."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import ArtifactError
from mimo_plugin.core.files import make_parent, replacing
from mimo_plugin.indexing.vectors import VectorBatch
from mimo_plugin.pyserini.java import ensure_jvm

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


# Seconds between two looks at how far Lucene is.
_LOOK = 0.2
# MiB that Lucene collects before it writes; Anserini's own can be more than the JVM's heap.
_BUFFER = 512
# Lucene takes vectors to be of unit length; float32 rounding stays far below.
_TOLERANCE = 1e-3


class Norms:
    """The lengths of the vectors that passed through."""

    def __init__(self) -> None:
        self.least, self.most = float("inf"), 0.0

    def watch(self, batches: Iterator[VectorBatch]) -> Iterator[VectorBatch]:
        import numpy as np

        for batch in batches:
            lengths = np.linalg.norm(batch.vectors, axis=1)
            self.least = min(self.least, float(lengths.min()))
            self.most = max(self.most, float(lengths.max()))
            yield batch

    def warning(self) -> str | None:
        """What a user should know where they are not one."""
        if self.least > 1 - _TOLERANCE and self.most < 1 + _TOLERANCE:
            return None
        return (
            f"the vectors are {self.least:.3g} to {self.most:.3g} long, Lucene takes them to be of length 1: "
            "scores are (1 + inner product) / 2, and 0 for all documents where that is negative; rank with "
            "FAISS, or encode with --normalize"
        )


def write_input(batches: Iterator[VectorBatch], directory: Path, dimension: int, counter: Any) -> None:
    """Writes what Anserini reads, a Parquet file a batch.

    Args:
        counter: a progress bar; advanced by the documents written.

    Raises:
        EnvironmentProblem: the file system refuses.
    """
    for number, batch in enumerate(batches):
        write_parquet(iter([batch]), directory / f"{number:06d}.parquet", dimension)
        counter.update(len(batch.docids))


def index_with_anserini(
    source: Path, index: Path, documents: int, *, hnsw: bool, threads: int, progress: bool | None = None
) -> None:
    """Makes a Lucene index of the Parquet files in a directory.

    Args:
        hnsw: with Anserini's own settings, M=16 and efC=100; else a flat one, which is searched exactly.
        threads: files that are read, and graphs that are built, at a time.

    Raises:
        ArtifactError: Lucene did not take every document.
        EnvironmentProblem: no usable Java or Pyserini.
    """
    ensure_jvm()
    from jnius import autoclass

    name = f"io.anserini.index.Index{'Hnsw' if hnsw else 'Flat'}DenseVectors"
    args = autoclass(f"{name}$Args")()
    args.collectionClass = "ParquetDenseVectorCollection"
    args.input = str(source)
    args.index = str(index)
    args.threads = threads
    args.memoryBuffer = _BUFFER
    args.quiet = True
    indexer = autoclass(name)(args)
    counters = indexer.getCounters()
    with bar(total=documents, what="Lucene indexing", unit="docs", enabled=progress) as counter:
        failure = _run(indexer, lambda: counter.update(int(counters.indexed.get()) - counter.n))
    taken = int(counters.indexed.get())
    if failure is not None or taken != documents:
        reason = f": {' '.join(str(failure).split())}" if failure else ""
        raise ArtifactError(
            f"Lucene took {taken} of {documents} documents{reason}; make room on the disk, or see "
            "`mimo doctor`, and run the command again"
        )


def _run(indexer: Any, look: Any) -> Exception | None:
    """Runs the indexer in a thread of its own, so that Ctrl-C and the progress bar are not held up."""
    failures: list[Exception] = []

    def run() -> None:
        import jnius

        try:
            indexer.run()
        except Exception as error:
            failures.append(error)
        finally:
            jnius.detach()

    thread = Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_LOOK)
        look()
    return failures[0] if failures else None
