"""The teacher's embeddings on disk, keyed by hashes of their texts."""

import hashlib
import logging
import math
import os
import re
import zlib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import Field

from mimo_plugin.core.artifact import Artifact, FileRecord, Kind, Manifest, Record, sealed_text
from mimo_plugin.core.errors import ArtifactError, DataError, ModelError
from mimo_plugin.core.files import writing
from mimo_plugin.encoder import packaged
from mimo_plugin.encoder.checkpoint import check_device
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.training.models import TeacherOptions

logger = logging.getLogger(__name__)

FORMAT: Final = "mimo-teacher-store"


class Role(StrEnum):
    """Role of a text, which decides the teacher's prompt. `TEXT`, for stage 1, has none."""

    QUERY = "query"
    PASSAGE = "passage"
    TEXT = "text"


def load_teacher(options: TeacherOptions) -> Encoder:
    """Loads the teacher.

    Raises:
        EnvironmentProblem, ModelError, UsageError: as `Encoder`; a ModelError if queries and passages have
            different encoders, since one projection cannot serve both.
    """
    on_cpu = check_device(options.device).startswith("cpu")
    teacher = Encoder(
        options.checkpoint,
        EncoderOptions(
            device=options.device,
            dtype=options.compute_dtype or ("float32" if on_cpu else "bfloat16"),
            attention=options.attention,
            batch_size=options.batch_size or 64,
            max_length=options.max_length,
            query_prompt=options.query_prompt,
            document_prompt=options.passage_prompt,
            # Stored vectors must not depend on the backends that are installed.
            backend="torch",
        ),
    )
    if teacher.asymmetric:
        raise ModelError(
            f"{options.checkpoint} encodes queries and documents by different modules (Router): a teacher "
            "must be one encoder of both; name another, or save one of its routes as a checkpoint"
        )
    return teacher


class Identity(Record):
    """Everything that determines a stored vector.

    Attributes:
        teacher: the checkpoint as given, a directory's path resolved.
        files: hash of the sizes and times of a directory's weights, to recognise it without loading; None
            for a name.
        fingerprint: see `Encoder.fingerprint`.
        query_prompt, passage_prompt, max_length: resolved.
        dtype, compute_dtype, attention: see `TeacherOptions`.
    """

    teacher: str
    files: str | None
    fingerprint: str
    query_prompt: str
    passage_prompt: str
    max_length: int
    dtype: Literal["float16", "float32"]
    compute_dtype: str
    attention: str | None = None
    dimension: Annotated[int, Field(ge=1)]

    @classmethod
    def of(cls, teacher: Encoder, options: TeacherOptions) -> "Identity":
        return cls(
            teacher=teacher.name,
            files=_files(options.checkpoint),
            fingerprint=teacher.fingerprint,
            query_prompt=teacher.query_prompt,
            passage_prompt=teacher.document_prompt,
            max_length=teacher.max_length,
            dtype=options.dtype,
            compute_dtype=teacher.options.dtype,
            attention=teacher.options.attention,
            dimension=teacher.dimension,
        )

    def prompt(self, role: Role) -> str:
        return {Role.QUERY: self.query_prompt, Role.PASSAGE: self.passage_prompt, Role.TEXT: ""}[role]

    def resolved(self) -> dict[str, Any]:
        """Values that a recipe may leave to the teacher's own files."""
        return self.model_dump(exclude={"teacher", "files", "dtype", "dimension"})

    def like(self, options: TeacherOptions) -> TeacherOptions:
        """The options, with this number format and attention as defaults."""
        names = ("compute_dtype", "attention")
        return options.model_copy(
            update={name: getattr(options, name) or getattr(self, name) for name in names}
        )

    def differences(self, wanted: "TeacherOptions | Identity") -> list[str]:
        """A line for each difference; None in the options matches anything."""
        found = []
        for name in (*_NAMES, "dimension"):
            there, here = getattr(self, name), getattr(wanted, name, None)
            if here is not None and here != there:
                found.append(f"its {name.replace('_', ' ')} is {there!r}, expected {here!r}")
        if isinstance(wanted, Identity) and wanted.fingerprint != self.fingerprint:
            found.append(
                f"its teacher is {self.teacher} with weights {self.fingerprint[:12]}, expected "
                f"{wanted.teacher} with weights {wanted.fingerprint[:12]}"
            )
        return found


_NAMES = ("query_prompt", "passage_prompt", "max_length", "dtype", "compute_dtype", "attention")


def _files(teacher: str) -> str | None:
    if teacher.startswith(packaged.PREFIX) or not Path(teacher).is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(Path(teacher).rglob("*")):
        if path.suffix in {".safetensors", ".json"} and path.is_file():
            stat = path.stat()
            name = path.relative_to(teacher).as_posix()
            digest.update(f"{name}\t{stat.st_size}\t{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


KEY_BYTES = 16
KEY = np.dtype(f"S{KEY_BYTES}")
# CRC-32 of a row of vectors.
SUM = np.dtype("<u4")
VECTORS, KEYS, SUMS = "vectors", "keys", "sums"
# A store in the store: the anchor teacher's vectors.
ANCHOR = "anchor"


class StoreManifest(Manifest):
    """`manifest.json` of a teacher store.

    Attributes:
        rows: number of valid rows; after a kill the files may hold more.
        keys_crc32: of the rows' keys; None for a store of an earlier version, whose rows have no checksums.
        versions: of the libraries, when the store was created.
        files: empty: the files grow, and each row has a checksum.
    """

    format: Literal["mimo-teacher-store"] = FORMAT
    format_version: Literal[1] = 1
    identity: Identity
    rows: Annotated[int, Field(ge=0)]
    keys_crc32: int | None = None
    versions: dict[str, str]
    files: dict[str, FileRecord] = Field(default_factory=dict)

    def sealed(self, indent: int | None = None) -> str:
        return sealed_text(self.model_dump(mode="json", exclude={"files"}), indent)

    def row_types(self) -> dict[str, np.dtype]:
        """The dtype of each file's rows, little-endian on every machine."""
        number = np.dtype(self.identity.dtype).newbyteorder("<")
        types = {VECTORS: np.dtype((number, (self.identity.dimension,))), KEYS: KEY}
        return types if self.keys_crc32 is None else {**types, SUMS: SUM}


STORE = Kind(
    StoreManifest,
    frozenset({FORMAT}),
    noun="a teacher store",
    command="mimo train",
    names=re.compile("|".join([VECTORS, KEYS, SUMS, ANCHOR])),
    option="--teacher-store",
    again="delete it and fill it again",
)


class StoreDirectory(Artifact[StoreManifest]):
    """A store's directory: files `vectors` (rows, dimension), `keys` (rows,) and checksums `sums` (rows,)."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, STORE)

    def read(self) -> StoreManifest:
        """Reads the manifest; raises an ArtifactError also if a file has fewer rows than it says."""
        manifest = super().read()
        for name, row in manifest.row_types().items():
            path, expected = self.path / name, manifest.rows * row.itemsize
            size = path.stat().st_size if path.is_file() else 0
            if size < expected:
                raise self.damaged(f"{path} has {size} bytes, the manifest beside it says {expected}")
        return manifest

    def rows(self, name: str, manifest: StoreManifest) -> np.ndarray:
        """The valid rows of a file, memory-mapped."""
        row, count = manifest.row_types()[name], manifest.rows
        if not count:
            return np.empty(0, dtype=row)
        return np.memmap(self.path / name, dtype=row.base, mode="r", shape=(count, *row.shape))

    def keys(self, manifest: StoreManifest) -> np.ndarray:
        """The keys of all rows, `KEY` of shape (rows,); raises an ArtifactError if they are damaged."""
        keys = np.array(self.rows(KEYS, manifest))
        if manifest.rows and manifest.keys_crc32 not in (None, zlib.crc32(keys.tobytes())):
            raise self.damaged(f"{self.path / KEYS} does not match its CRC-32")
        return keys

    def append(self, manifest: StoreManifest, keys: np.ndarray, vectors: np.ndarray) -> StoreManifest:
        """Writes rows after the valid ones, then counts them in the manifest."""
        added = {VECTORS: vectors, KEYS: keys, SUMS: row_sums(vectors)}
        for name, row in manifest.row_types().items():
            path = self.path / name
            with writing(path), path.open("r+b" if path.exists() else "x+b") as file:
                file.truncate(manifest.rows * row.itemsize)
                file.seek(0, 2)
                file.write(added[name].tobytes())
                file.flush()
                os.fsync(file.fileno())
        crc32 = manifest.keys_crc32
        crc32 = None if crc32 is None else zlib.crc32(keys.tobytes(), crc32)
        manifest = manifest.model_copy(update={"rows": manifest.rows + len(keys), "keys_crc32": crc32})
        self.seal(manifest)
        return manifest

    def damaged(self, found: str) -> ArtifactError:
        return ArtifactError(f"{found}: the store is damaged; delete {self.path} and fill it again")

    def require(self, found: Identity, options: TeacherOptions) -> Encoder | None:
        """Checks that the store's vectors match the options.

        Returns:
            The teacher, if the check had to load it.

        Raises:
            ArtifactError: with every difference.
        """
        self.refuse(found.differences(options))
        place = Path(options.checkpoint)
        same_name = found.teacher == (str(place.resolve()) if place.is_dir() else options.checkpoint)
        if same_name and found.files == _files(options.checkpoint):
            return None
        return self.teacher(found, options)

    def teacher(self, found: Identity, options: TeacherOptions) -> Encoder:
        """Loads the teacher; raises an ArtifactError if its vectors differ from the store's."""
        options = found.like(options)
        teacher = load_teacher(options)
        self.refuse(found.differences(Identity.of(teacher, options)))
        return teacher


def text_keys(prompt: str, texts: Sequence[str]) -> np.ndarray:
    """The first 16 bytes of each text's SHA-256 together with the prompt, `KEY` of shape (len(texts),)."""
    encoded = prompt.encode("utf-8", "surrogatepass")
    start = hashlib.sha256(f"{len(encoded)}:".encode() + encoded)
    joined = bytearray()
    for text in texts:
        digest = start.copy()
        digest.update(text.encode("utf-8", "surrogatepass"))
        joined += digest.digest()[:KEY_BYTES]
    return np.frombuffer(bytes(joined), dtype=KEY)


def row_sums(vectors: np.ndarray) -> np.ndarray:
    """CRC-32 of each row's bytes, `SUM` of shape (rows,)."""
    return np.fromiter(map(zlib.crc32, np.ascontiguousarray(vectors)), dtype=SUM, count=len(vectors))


class KeyIndex:
    """Finds the rows of keys; takes 24 bytes per key.

    Args:
        keys: distinct, `KEY` of shape (n,); key i is in row i.
    """

    def __init__(self, keys: np.ndarray) -> None:
        self._rows = np.argsort(keys, kind="stable")
        self._keys = keys[self._rows]

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Rows of keys, int64 of the same shape; -1 for a missing key."""
        if not len(self):
            return np.full(len(keys), -1)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self) - 1)
        return np.where(self._keys[places] == keys, self._rows[places], -1)

    def append(self, keys: np.ndarray) -> None:
        """Adds distinct new keys, in the rows after the last."""
        order = np.argsort(keys, kind="stable")
        places = np.searchsorted(self._keys, keys[order])
        self._rows = np.insert(self._rows, places, order + len(self))
        self._keys = np.insert(self._keys, places, keys[order])


_SHOWN = 60
# multilingual-e5-small has 0.80: a student came to the mean of its vectors and collapsed there.
_NARROW = 0.7
_SAMPLE = 1000


class TeacherStore:
    """A store opened for reading.

    Several processes may read a store while another one adds rows; they see those present on opening.
    """

    def __init__(self, directory: StoreDirectory, manifest: StoreManifest) -> None:
        self.directory = directory.path
        self.manifest = manifest
        self._index = KeyIndex(directory.keys(manifest))
        self._vectors = directory.rows(VECTORS, manifest)
        self._sums = None if manifest.keys_crc32 is None else directory.rows(SUMS, manifest)

    @classmethod
    def open(cls, path: Path, *, expect: TeacherOptions | None = None) -> "TeacherStore":
        """Opens a store for reading.

        Args:
            expect: options that the vectors must match; None accepts any.

        Raises:
            ArtifactError: there is no store, it is damaged, or holds other vectors.
        """
        directory = StoreDirectory(path)
        manifest = directory.read()
        if expect is not None:
            directory.require(manifest.identity, expect)
        return cls(directory, manifest)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def dimension(self) -> int:
        return self.manifest.identity.dimension

    @property
    def fingerprint(self) -> str:
        """The teacher's, see `Encoder.fingerprint`."""
        return self.manifest.identity.fingerprint

    def mean_cosine(self) -> float:
        """The mean cosine between different texts, of 1,000 rows of the store; NaN if it has one only."""
        import torch

        from mimo_plugin.training.losses import mean_similarity

        if len(self) < 2:
            return math.nan
        places = np.linspace(0, len(self) - 1, min(_SAMPLE, len(self)), dtype=np.int64)
        return float(mean_similarity(torch.from_numpy(self._vectors[places])))

    def warn_if_narrow(self) -> None:
        """Logs a warning where distillation alone is likely to end in a collapsed student."""
        if (found := self.mean_cosine()) > _NARROW:
            logger.warning(
                "the teacher's vectors of different texts have a mean cosine of %.2f: a student comes near "
                "all of them by learning their mean, and may collapse; then train without the warm-up "
                "(mimo train stage2), or take another teacher",
                found,
            )

    def vectors(self, texts: Sequence[str], role: Role) -> np.ndarray:
        """The teacher's vectors of texts, float32 of shape (len(texts), dimension).

        Raises:
            ArtifactError: a vector is damaged.
            DataError: a text is not in the store.
        """
        rows = self._index.find(text_keys(self.manifest.identity.prompt(role), texts))
        absent = np.flatnonzero(rows < 0)
        if len(absent):
            text = texts[int(absent[0])]
            shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
            others = f" (nor of {len(absent) - 1} others of {len(texts)})" if len(absent) > 1 else ""
            raise DataError(
                f"the teacher store {self.directory} has no vector of the {role} {shown!r}{others}: it was "
                "filled from other data or with another prompt; fill it from the training data"
            )
        stored: np.ndarray = self._vectors[rows]
        if self._sums is not None and len(other := np.flatnonzero(row_sums(stored) != self._sums[rows])):
            raise ArtifactError(
                f"row {rows[other[0]]} of {self.directory / VECTORS} does not match its CRC-32 in "
                f"{self.directory / SUMS}: one of them is damaged; delete {self.directory} and fill it again"
            )
        return stored.astype(np.float32)
