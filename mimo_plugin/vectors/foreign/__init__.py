"""Vectors that others made: NumPy arrays, Pyserini's JSON Lines, Parquet; each a stream of batches."""

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

from mimo_plugin.collections.faults import Faults
from mimo_plugin.errors import UsageError
from mimo_plugin.vectors.foreign.jsonl import read_jsonl
from mimo_plugin.vectors.foreign.npy import read_npy
from mimo_plugin.vectors.foreign.parquet import read_parquet
from mimo_plugin.vectors.shards import VectorBatch

Reader = Callable[[Path, Faults], Iterator[VectorBatch]]

# Ending of a file's name -> its reader. A batch holds some thousand documents at most.
READERS: dict[str, Reader] = {
    ".npy": read_npy,
    ".jsonl": read_jsonl,
    ".jsonl.gz": read_jsonl,
    ".parquet": read_parquet,
}


def reader_of(path: Path) -> Reader:
    """The reader for a file.

    Raises:
        UsageError: it is no file, or its name ends otherwise.
    """
    if not path.is_file():
        raise UsageError(f"--import {path}: no such file; {', '.join(READERS)} was expected")
    for ending, reader in READERS.items():
        if path.name.endswith(ending):
            return reader
    raise UsageError(f"--import {path}: a file that ends in {', '.join(READERS)} was expected")


class Foreign:
    """Vector files as one sequence.

    Args:
        lang: language of documents whose file does not say it.
    """

    def __init__(self, files: tuple[Path, ...], lang: str = "") -> None:
        self.files = files
        self._readers = [reader_of(path) for path in files]
        self._lang = lang

    def batches(self) -> Iterator[VectorBatch]:
        """Yields all documents in order; raises a DataError with the faults of all files at the end."""
        with Faults() as faults:
            for path, reader in zip(self.files, self._readers, strict=True):
                for batch in reader(path, faults):
                    langs = [lang or self._lang for lang in batch.langs]
                    yield VectorBatch(batch.docids, langs, batch.vectors)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(path.name for path in self.files)
