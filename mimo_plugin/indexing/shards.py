"""Vectors on disk in shards of a fixed number of documents; a shard is there whole or not at all."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.errors import ArtifactError
from mimo_plugin.files import replacing

if TYPE_CHECKING:
    import numpy as np


class Shards:
    """The shards in a directory: `00000.npy` (float32 (n, dimension)) and `00000.ids` ([docid, lang] a line).

    The vectors are written last, so a shard counts as complete when its `.npy` is there.

    Args:
        documents: of the whole collection.
        size: documents a shard; the last one may have fewer.
    """

    def __init__(self, directory: Path, documents: int, size: int, dimension: int) -> None:
        self._directory = directory
        self._documents = documents
        self._size = size
        self._dimension = dimension

    def __len__(self) -> int:
        """Number of shards when all are there."""
        return -(-self._documents // self._size)

    def documents_before(self, shard: int) -> int:
        """Documents of all shards before this one."""
        return min(shard * self._size, self._documents)

    def rows(self, shard: int) -> int:
        """Documents of one shard."""
        return self.documents_before(shard + 1) - self.documents_before(shard)

    def complete(self) -> int:
        """Number of shards that are there, counted from the first without a gap.

        Raises:
            ArtifactError: a shard is there and has another shape than it must have.
        """
        count = 0
        while count < len(self) and self._vectors_path(count).is_file():
            self.vectors(count)
            count += 1
        return count

    def write(self, shard: int, entries: list[tuple[str, str]], vectors: "np.ndarray") -> None:
        """Writes one shard: (docid, lang) pairs and their vectors, float32 (len(entries), dimension)."""
        import numpy as np

        with (
            replacing(self._entries_path(shard)) as beside,
            beside.open("w", encoding="utf-8", newline="\n") as lines,
        ):
            lines.writelines(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
        with replacing(self._vectors_path(shard)) as beside, beside.open("wb") as file:
            # Not np.save: it hands the data to C, where a full disk can go unnoticed.
            header = np.lib.format.header_data_from_array_1_0(vectors)
            np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(vectors).data)

    def vectors(self, shard: int) -> "np.ndarray":
        """The shard's vectors, float32 (rows(shard), dimension), mapped from disk.

        Raises:
            ArtifactError: the file is damaged.
        """
        import numpy as np

        path = self._vectors_path(shard)
        try:
            found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"{path} cannot be read ({error}): delete it and run the command again"
            ) from error
        expected = (self.rows(shard), self._dimension)
        if found.shape != expected or found.dtype != np.float32:
            raise ArtifactError(
                f"{path} holds {found.dtype} vectors of shape {found.shape}, expected float32 {expected}: "
                "start over with --no-resume"
            )
        return found

    def entries(self, shard: int) -> Iterator[tuple[str, str]]:
        """The shard's (docid, lang) pairs in order."""
        with self._entries_path(shard).open(encoding="utf-8") as lines:
            for line in lines:
                docid, lang = json.loads(line)
                yield docid, lang

    def _vectors_path(self, shard: int) -> Path:
        return self._directory / f"{shard:05d}.npy"

    def _entries_path(self, shard: int) -> Path:
        return self._directory / f"{shard:05d}.ids"
