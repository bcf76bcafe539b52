"""Vectors on disk in shards of a fixed number of documents; a shard is there whole or not at all.

A shard is a Parquet file, which any tool of the field reads, and beside it a record with its SHA-256.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mimo_plugin.errors import ArtifactError
from mimo_plugin.files import replacing, write_text, writing
from mimo_plugin.manifests import FileRecord, SealedRecord, parse_manifest

if TYPE_CHECKING:
    import numpy as np

SHARD_FILES = re.compile(r"\d{5,}\.(parquet|json)")
_DAMAGED = "the file is damaged; delete it and its .json, and run the command again"


class VectorBatch(NamedTuple):
    """Documents and their vectors, in order.

    Attributes:
        docids, langs: one a document; a language is "" where it is unknown.
        vectors: float32 (documents, dimension).
    """

    docids: list[str]
    langs: list[str]
    vectors: "np.ndarray"


class ShardRecord(SealedRecord):
    """What is known of a shard beside its file.

    Attributes:
        file: the Parquet file.
        languages: language -> number of documents.
        empty: documents without text; None where the texts were never seen.
    """

    file: FileRecord
    languages: dict[str, int]
    empty: int | None


class Shards:
    """The shards of a directory: `00000.parquet` (docid, lang, vector) and `00000.json`, its record.

    The record is written last, so a shard counts as there when its record is.

    Args:
        documents: of the whole collection.
        size: documents a shard; the collection's last one may have fewer.
        numbers: of the shards that belong here; None is all of the collection.
    """

    def __init__(
        self, directory: Path, documents: int, size: int, dimension: int, numbers: range | None = None
    ) -> None:
        self.numbers = range(-(-documents // size)) if numbers is None else numbers
        self._directory = directory
        self._documents = documents
        self._size = size
        self._dimension = dimension

    def rows(self, shard: int) -> int:
        """Documents of one shard."""
        return min((shard + 1) * self._size, self._documents) - shard * self._size

    def first_row(self, shard: int) -> int:
        """Documents of the collection before this shard."""
        return shard * self._size

    def missing(self) -> list[int]:
        """The shards that are still to be made.

        Raises:
            ArtifactError: one is there and is not what its record says.
        """
        return [shard for shard in self.numbers if not self._whole(shard)]

    def documents_in(self, shards: Sequence[int]) -> int:
        return sum(map(self.rows, shards))

    def write(self, shard: int, batch: VectorBatch, empty: int | None = None) -> None:
        """Writes one shard whole.

        Raises:
            EnvironmentProblem: the file system refuses.
        """
        path = self.path(shard)
        with replacing(path) as beside, beside.open("wb") as file:
            _write_parquet(batch, file)
        with writing(path):
            file_record = FileRecord.of(path)
        record = ShardRecord(file=file_record, languages=dict(Counter(batch.langs)), empty=empty)
        write_text(self._record_path(shard), record.sealed())

    def read(self, shard: int) -> VectorBatch:
        """One shard.

        Raises:
            ArtifactError: it is not the file that was written, or another one than it must be.
        """
        path = self.path(shard)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}; {_DAMAGED}") from error
        record = self.record(shard)
        if hashlib.sha256(content).hexdigest() != record.file.sha256:
            raise ArtifactError(f"{path} is not the file that its record names (SHA-256): {_DAMAGED}")
        batch = _read_parquet(path, content)
        if batch.vectors.shape != (self.rows(shard), self._dimension):
            raise ArtifactError(
                f"{path} holds vectors of shape {batch.vectors.shape}, expected "
                f"{(self.rows(shard), self._dimension)}: start over with --no-resume"
            )
        return batch

    def record(self, shard: int) -> ShardRecord:
        """What is known of a shard; raises an ArtifactError where its record is damaged."""
        return parse_manifest(self._record_path(shard), ShardRecord, "a shard of vectors")

    def path(self, shard: int) -> Path:
        return self._directory / f"{shard:05d}.parquet"

    def _record_path(self, shard: int) -> Path:
        return self._directory / f"{shard:05d}.json"

    def _whole(self, shard: int) -> bool:
        if not self._record_path(shard).is_file():
            return False
        self.read(shard)
        return True


def languages_of(records: Iterator[ShardRecord]) -> dict[str, int]:
    """Language -> number of documents, in the order of first appearance."""
    counts: Counter[str] = Counter()
    for record in records:
        counts.update(record.languages)
    return dict(counts)


def _write_parquet(batch: VectorBatch, file: Any) -> None:
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    values = np.ascontiguousarray(batch.vectors, dtype=np.float32)
    columns = {
        "docid": pa.array(batch.docids, pa.string()),
        "lang": pa.array(batch.langs, pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1]),
    }
    # Vectors hardly compress; through Python's file, whose every error is seen.
    parquet.write_table(
        pa.table(columns), file, compression="none", use_dictionary=False, write_statistics=False
    )


def _read_parquet(path: Path, content: bytes) -> VectorBatch:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(pa.BufferReader(content), columns=["docid", "lang", "vector"])
        vectors = table.column("vector").combine_chunks()
        return VectorBatch(
            table.column("docid").to_pylist(),
            table.column("lang").to_pylist(),
            vectors.flatten().to_numpy().reshape(len(vectors), -1),
        )
    except (pa.ArrowException, ValueError) as error:
        raise ArtifactError(f"{path} is no shard of vectors: {' '.join(str(error).split())}") from error
