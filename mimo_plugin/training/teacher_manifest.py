"""Whose vectors a teacher store holds: teacher, prompts, length and number formats."""

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from mimo_plugin import packaged
from mimo_plugin.checkpoint import check_device
from mimo_plugin.errors import ArtifactError, ModelError, UsageError
from mimo_plugin.files import write_text
from mimo_plugin.manifests import Record, SealedRecord, parse_manifest
from mimo_plugin.student import EncoderOptions, Student

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

    def load(self) -> Student:
        """The teacher.

        Raises:
            EnvironmentProblem, ModelError, UsageError: as `Student.load`; a ModelError where queries and
                passages go through different encoders, since one projection cannot lead to both.
        """
        options = self.resolved()
        teacher = Student.load(
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
        fingerprint: see `Student.fingerprint`.
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
    def of(cls, teacher: Student, options: TeacherOptions) -> "Identity":
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


def require_same(directory: Path, found: Identity, options: TeacherOptions) -> Student | None:
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


def require_teacher(directory: Path, found: Identity, teacher: Student, options: TeacherOptions) -> None:
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
