"""The teacher's embeddings on disk, by their texts' keys."""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field

from mimo_plugin.core.artifact import Record, SealedRecord, parse_manifest
from mimo_plugin.core.errors import ArtifactError, DataError, ModelError, UsageError
from mimo_plugin.core.files import write_text
from mimo_plugin.encoder import packaged
from mimo_plugin.encoder.checkpoint import check_device
from mimo_plugin.encoder.encoder import Encoder, EncoderOptions

MANIFEST = "manifest.json"
FORMAT: Final = "mimo-teacher-store"
DTYPES = ("float16", "float32")


class Role(StrEnum):
    """What a text is to the teacher, which decides its prompt. A `TEXT` of stage 1 has none."""

    QUERY = "query"
    PASSAGE = "passage"
    TEXT = "text"


@dataclass(frozen=True)
class TeacherOptions:
    """Which vectors are wanted; None means what the teacher's own files say.

    Attributes:
        teacher: directory, hub id or `packaged:` checkpoint.
        query_prompt, passage_prompt: put before queries and passages; "" is none.
        max_length: longest text in tokens, prompt and special tokens included.
        dtype: number format that vectors are stored in, "float16" or "float32".
        compute_dtype: number format of the teacher's weights; None is bfloat16 on an accelerator and float32
            on a CPU, or what a store was begun with.
        attention: implementation of the attention: "eager", "sdpa", "flash_attention_2", ...; None is what
            transformers chooses.
        device: torch device; None is the fastest that is there.
        batch_size: texts a batch.
    """

    teacher: str
    query_prompt: str | None = None
    passage_prompt: str | None = None
    max_length: int | None = None
    dtype: str = "float16"
    compute_dtype: str | None = None
    attention: str | None = None
    device: str | None = None
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UsageError(f"teacher vectors in {self.dtype}: expected one of {', '.join(DTYPES)}")

    def resolved(self) -> "TeacherOptions":
        """With the number format of the device where none was asked for.

        Raises:
            EnvironmentProblem, UsageError: there is no such device.
        """
        if self.compute_dtype is not None:
            return self
        device = check_device(self.device)
        return replace(self, compute_dtype="float32" if device.startswith("cpu") else "bfloat16")

    def like(self, found: "Identity") -> "TeacherOptions":
        """With the number format and attention of a store that was begun, where none was asked for."""
        return replace(
            self,
            compute_dtype=self.compute_dtype or found.compute_dtype,
            attention=self.attention or found.attention,
        )

    def load(self) -> Encoder:
        """The teacher.

        Raises:
            EnvironmentProblem, ModelError, UsageError: as `Encoder`; a ModelError where queries and
                passages go through different encoders, since one projection cannot lead to both.
        """
        options = self.resolved()
        teacher = Encoder(
            self.teacher,
            EncoderOptions(
                device=self.device,
                dtype=str(options.compute_dtype),
                attention=self.attention,
                batch_size=self.batch_size,
                max_length=self.max_length,
                query_prompt=self.query_prompt,
                document_prompt=self.passage_prompt,
                # What is stored must not depend on what else is installed.
                backend="torch",
            ),
        )
        if teacher.asymmetric:
            raise ModelError(
                f"{self.teacher} encodes queries and documents by different modules (Router): --teacher must "
                "be one encoder of both; name another, or save one of its routes as a checkpoint"
            )
        return teacher


class Identity(Record):
    """All that decides a stored vector.

    Attributes:
        teacher: the checkpoint as given, a directory's path resolved.
        files: sizes and times of a directory's weights as a hash, so that it need not be loaded to see that
            it is the same; None for a name.
        fingerprint: see `Encoder.fingerprint`.
        query_prompt, passage_prompt, max_length: resolved.
        dtype, compute_dtype, attention: see `TeacherOptions`.
        dimension: of the vectors.
    """

    teacher: str
    files: str | None
    fingerprint: str
    query_prompt: str
    passage_prompt: str
    max_length: int
    dtype: Annotated[str, Field(pattern=f"^({'|'.join(DTYPES)})$")]
    compute_dtype: str
    attention: str | None = None
    dimension: Annotated[int, Field(ge=1)]

    @classmethod
    def of(cls, teacher: Encoder, options: TeacherOptions) -> "Identity":
        asked_query, asked_passage = options.query_prompt, options.passage_prompt
        return cls(
            teacher=teacher.name,
            files=_files(options.teacher),
            fingerprint=teacher.fingerprint,
            query_prompt=teacher.query_prompt if asked_query is None else asked_query,
            passage_prompt=teacher.document_prompt if asked_passage is None else asked_passage,
            max_length=teacher.max_length,
            dtype=options.dtype,
            compute_dtype=str(options.resolved().compute_dtype),
            attention=options.attention,
            dimension=teacher.dimension,
        )

    def prompt(self, role: Role) -> str:
        return {Role.QUERY: self.query_prompt, Role.PASSAGE: self.passage_prompt, Role.TEXT: ""}[role]


class StoreManifest(SealedRecord):
    """`manifest.json` of a teacher store.

    Attributes:
        rows: vectors that count; what the files hold beyond them is what a kill left.
        keys_crc32: of the rows' keys; None of a store that was begun before rows had checksums, and has none.
        versions: of the libraries, when the store was begun.
    """

    format: Literal["mimo-teacher-store"] = FORMAT
    format_version: Literal[1] = 1
    identity: Identity
    rows: Annotated[int, Field(ge=0)]
    keys_crc32: int | None = None
    versions: dict[str, str]

    def write(self, directory: Path) -> None:
        write_text(directory / MANIFEST, self.sealed(indent=2))


def read_manifest(directory: Path) -> StoreManifest:
    """Reads a store's manifest.

    Raises:
        ArtifactError: the directory is no teacher store, or its manifest is damaged.
    """
    path = directory / MANIFEST
    if not path.is_file():
        raise ArtifactError(
            f"{directory} has no {MANIFEST}: it is no teacher store; name one, or a new directory to fill"
        )
    return parse_manifest(path, StoreManifest, "a teacher store")


def require_same(directory: Path, found: Identity, options: TeacherOptions) -> Encoder | None:
    """Raises unless a store's vectors are the ones that the options want.

    Returns:
        The teacher, where it had to be loaded to know.

    Raises:
        ArtifactError: they are not; the message says in what.
    """
    asked = {
        "query prompt": (found.query_prompt, options.query_prompt),
        "passage prompt": (found.passage_prompt, options.passage_prompt),
        "maximum length": (found.max_length, options.max_length),
        "dtype": (found.dtype, options.dtype),
        "compute dtype": (found.compute_dtype, options.compute_dtype),
        "attention": (found.attention, options.attention),
    }
    _refuse(
        directory,
        [
            f"its {name} is {there!r}, wanted is {wanted!r}"
            for name, (there, wanted) in asked.items()
            if wanted is not None and wanted != there
        ],
    )
    directory_name = str(Path(options.teacher).resolve())
    same_name = found.teacher == (directory_name if Path(options.teacher).is_dir() else options.teacher)
    if same_name and found.files == _files(options.teacher):
        return None
    teacher = options.like(found).load()
    require_teacher(directory, found, teacher, options)
    return teacher


def require_teacher(directory: Path, found: Identity, teacher: Encoder, options: TeacherOptions) -> None:
    """Raises an ArtifactError unless a store's vectors are a loaded teacher's; its name does not matter."""
    wanted = Identity.of(teacher, options.like(found))
    differences = []
    if found.fingerprint != wanted.fingerprint:
        differences.append(
            f"its teacher is {found.teacher} with weights {found.fingerprint[:12]}, wanted is "
            f"{wanted.teacher} with weights {wanted.fingerprint[:12]}"
        )
    for name in ("query_prompt", "passage_prompt", "max_length", "dimension"):
        there, here = getattr(found, name), getattr(wanted, name)
        if there != here:
            differences.append(f"its {name.replace('_', ' ')} is {there!r}, wanted is {here!r}")
    _refuse(directory, differences)


def _refuse(directory: Path, differences: list[str]) -> None:
    if differences:
        raise ArtifactError(
            f"{directory} holds other teacher vectors: {'; '.join(differences)}. Choose another store, or "
            "the same teacher, prompts, length and number formats"
        )


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


class KeyIndex:
    """Which row a key is in: two sorted arrays, 24 bytes a key.

    Args:
        keys: distinct, `KEY` of shape (n,); the i-th one is in row i.
    """

    def __init__(self, keys: np.ndarray) -> None:
        self._rows = np.argsort(keys, kind="stable")
        self._keys = keys[self._rows]

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Rows of keys, int64 of the same shape; -1 where there is none."""
        if not len(self):
            return np.full(len(keys), -1)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self) - 1)
        return np.where(self._keys[places] == keys, self._rows[places], -1)

    def append(self, keys: np.ndarray) -> None:
        """Puts distinct keys that are not there yet into the rows that follow."""
        order = np.argsort(keys, kind="stable")
        places = np.searchsorted(self._keys, keys[order])
        self._rows = np.insert(self._rows, places, order + len(self))
        self._keys = np.insert(self._keys, places, keys[order])


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
        """The teacher's, see `Encoder.fingerprint`."""
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
