"""The teacher's vectors on disk, by text: what training reads in place of running the teacher."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mimo_plugin.errors import ArtifactError, DataError
from mimo_plugin.training.teacher_manifest import (
    Role,
    StoreManifest,
    TeacherOptions,
    read_manifest,
    require_same,
)
from mimo_plugin.training.text_keys import KEY, KeyIndex, text_keys

VECTORS, KEYS, SUMS = "vectors", "keys", "sums"
# CRC-32 of a row of vectors.
SUM = np.dtype("<u4")
_SHOWN = 60


class TeacherStore:
    """An open store; in its directory `vectors` are (rows, dimension) numbers, `keys` (rows,) keys of texts
    and `sums` (rows,) checksums of vectors.

    Several processes may have one open, also while another one adds to it: they go on with what was there.
    """

    def __init__(self, directory: Path, manifest: StoreManifest) -> None:
        self.directory = directory
        self.manifest = manifest
        require_whole(directory, manifest)
        self._index = KeyIndex(read_keys(directory, manifest))
        self._vectors = _map_vectors(directory, manifest)
        self._sums = _read_sums(directory, manifest)

    @classmethod
    def open(cls, directory: Path, *, expect: TeacherOptions | None = None) -> "TeacherStore":
        """Opens a store for reading.

        Args:
            expect: the vectors that are wanted; None takes what there is.

        Raises:
            ArtifactError: there is no store, it is damaged, or holds other vectors.
        """
        manifest = read_manifest(directory)
        if expect is not None:
            require_same(directory, manifest.identity, expect)
        return cls(directory, manifest)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def dimension(self) -> int:
        return self.manifest.identity.dimension

    @property
    def dtype(self) -> str:
        """Number format on disk, "float16" or "float32"."""
        return self.manifest.identity.dtype

    @property
    def fingerprint(self) -> str:
        """The teacher's, see `Student.fingerprint`."""
        return self.manifest.identity.fingerprint

    def vectors(self, texts: Sequence[str], role: Role) -> np.ndarray:
        """The teacher's vectors of texts, float32 of shape (len(texts), dimension).

        Raises:
            ArtifactError: one of them is damaged.
        DataError: a text is not in the store.
        """
        rows = self._rows(texts, role)
        absent = np.flatnonzero(rows < 0)
        if len(absent):
            text = texts[int(absent[0])]
            shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
            others = f" (nor of {len(absent) - 1} others of {len(texts)})" if len(absent) > 1 else ""
            raise DataError(
                f"the teacher store {self.directory} has no vector of the {role} {shown!r}{others}: it was "
                "filled from other data or under another prompt; fill it from the data that is trained on"
            )
        stored: np.ndarray = self._vectors[rows]
        if self._sums is not None and len(other := np.flatnonzero(row_sums(stored) != self._sums[rows])):
            raise ArtifactError(
                f"row {rows[other[0]]} of {self.directory / VECTORS} is not what its CRC-32 in "
                f"{self.directory / SUMS} says: one of them is damaged; delete {self.directory} and fill it "
                "again"
            )
        return stored.astype(np.float32)

    def missing(self, texts: Sequence[str], role: Role) -> list[str]:
        """The texts that are not in the store."""
        return [texts[int(place)] for place in np.flatnonzero(self._rows(texts, role) < 0)]

    def _rows(self, texts: Sequence[str], role: Role) -> np.ndarray:
        return self._index.find(text_keys(self.manifest.identity.prompt(role), texts))


def vector_type(manifest: StoreManifest) -> np.dtype:
    """The number format on disk, little-endian on every machine."""
    return np.dtype(manifest.identity.dtype).newbyteorder("<")


def require_whole(directory: Path, manifest: StoreManifest) -> None:
    """Raises an ArtifactError where the files hold fewer rows than the manifest says."""
    widths = {VECTORS: vector_type(manifest).itemsize * manifest.identity.dimension, KEYS: KEY.itemsize}
    if manifest.keys_crc32 is not None:
        widths[SUMS] = SUM.itemsize
    for name, width in widths.items():
        path, expected = directory / name, manifest.rows * width
        size = path.stat().st_size if path.is_file() else 0
        if size < expected:
            raise ArtifactError(
                f"{path} has {size} bytes, the manifest beside it says {expected}: the store is damaged; "
                f"delete {directory} and fill it again"
            )


def read_keys(directory: Path, manifest: StoreManifest) -> np.ndarray:
    """The keys of all rows, `KEY` of shape (rows,); raises an ArtifactError where they are damaged."""
    if not manifest.rows:
        return np.empty(0, dtype=KEY)
    keys = np.fromfile(directory / KEYS, dtype=KEY, count=manifest.rows)
    if manifest.keys_crc32 is not None and zlib.crc32(keys.tobytes()) != manifest.keys_crc32:
        raise ArtifactError(
            f"{directory / KEYS} is not as it was written (CRC-32): the store is damaged; delete {directory} "
            "and fill it again"
        )
    return keys


def row_sums(vectors: np.ndarray) -> np.ndarray:
    """CRC-32 of each row as it lies on disk, `SUM` of shape (rows,)."""
    return np.fromiter(map(zlib.crc32, np.ascontiguousarray(vectors)), dtype=SUM, count=len(vectors))


def _read_sums(directory: Path, manifest: StoreManifest) -> np.ndarray | None:
    if manifest.keys_crc32 is None or not manifest.rows:
        return None
    return np.fromfile(directory / SUMS, dtype=SUM, count=manifest.rows)


def _map_vectors(directory: Path, manifest: StoreManifest) -> np.ndarray:
    shape, number = (manifest.rows, manifest.identity.dimension), vector_type(manifest)
    if not manifest.rows:
        return np.empty(shape, dtype=number)
    return np.memmap(directory / VECTORS, dtype=number, mode="r", shape=shape)
