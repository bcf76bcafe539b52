"""Vectors in a Lucene index, made by Anserini and searched by Pyserini's Lucene searchers.

Anserini indexes files, so the vectors are written for it as Parquet, a few thousand a file: it reads one file
a thread, whole.
"""

from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

from mimo_plugin.errors import ArtifactError
from mimo_plugin.exporting.tables import write_parquet
from mimo_plugin.jvm import ensure_jvm
from mimo_plugin.progress import bar
from mimo_plugin.vectors import VectorBatch

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
