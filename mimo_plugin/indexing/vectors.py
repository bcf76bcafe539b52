"""A directory of vectors: Parquet shards with checksums under a plan, and its manifest."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from mimo_plugin.core.artifact import (
    FileRecord,
    SealedRecord,
    one_writer,
    parse_manifest,
    require_files,
    said_format,
)
from mimo_plugin.core.errors import ArtifactError, Findings
from mimo_plugin.core.files import check_place, replacing, write_text, writing
from mimo_plugin.indexing.plan import OF_THE_MACHINE, EncodingPlan, join_plans

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


MANIFEST = "manifest.json"
FORMAT: Final = "mimo-vectors"


class VectorsManifest(SealedRecord):
    """Attributes:
    languages: language -> number of documents.
    empty_documents: documents without text; None where the texts were never seen.
    files: the shards, by name.
    """

    format: Literal["mimo-vectors"] = FORMAT
    format_version: Literal[1] = 1
    plan: EncodingPlan
    languages: dict[str, int]
    empty_documents: int | None
    files: dict[str, FileRecord]

    def write(self, directory: Path) -> None:
        write_text(directory / MANIFEST, self.sealed(indent=2))


def read_manifest(directory: Path) -> VectorsManifest:
    """Reads the manifest of a vectors directory and checks it against the files beside it.

    Raises:
        ArtifactError: the directory holds no vectors, or incomplete or damaged ones.
    """
    path = directory / MANIFEST
    if not directory.is_dir():
        raise ArtifactError(f"{directory}: no such directory; vectors made by `mimo encode` were expected")
    if not path.is_file():
        raise ArtifactError(
            f"{directory} has no {MANIFEST}: it holds no finished vectors; run the `mimo encode` command "
            "again that was to write them"
        )
    manifest = parse_manifest(path, VectorsManifest, "vectors of `mimo encode`")
    require_files(directory, manifest.files, "the vectors are damaged; encode again with --no-resume")
    return manifest


PLAN = "plan.json"
OURS = re.compile(rf"{PLAN}|{SHARD_FILES.pattern}|\..*\.tmp")


def take_up(directory: Path, plan: EncodingPlan) -> Shards:
    """The shards of a plan in a directory: those that an earlier command left under the same plan stay.

    Raises:
        ArtifactError: what lies here was begun under another plan.
        EnvironmentProblem: the directory cannot be written.
    """
    path = directory / PLAN
    if path.is_file():
        try:
            there = EncodingPlan.model_validate_json(path.read_bytes())
        except ValueError as error:
            raise ArtifactError(f"{path} is damaged: start over with --no-resume") from error
        refuse(plan.differences(there), f"{directory} holds work that was begun otherwise")
    else:
        # Shards without a plan are nobody's.
        clear(directory)
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    write_text(path, plan.model_dump_json(indent=2) + "\n")
    return shards_of(directory, plan)


def shards_of(directory: Path, plan: EncodingPlan) -> Shards:
    numbers = plan.part.shards(plan.collection_documents, plan.shard_size)
    return Shards(directory, plan.collection_documents, plan.shard_size, plan.dimension, numbers)


def clear(directory: Path) -> None:
    """Removes the plan and the shards; the plan last, so that a kill leaves nothing that looks foreign."""
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        if path.name != PLAN and (SHARD_FILES.fullmatch(path.name) or path.name.endswith(".tmp")):
            path.unlink(missing_ok=True)
    (directory / PLAN).unlink(missing_ok=True)


def refuse(differences: list[str], what: str) -> None:
    """Raises an ArtifactError where there are differences."""
    if differences:
        raise ArtifactError(
            f"{what}: {'; '.join(differences)}. Choose another --output, give the same options, or start "
            "over with --no-resume"
        )


class VectorsDirectory:
    """Args:
    path: new, empty, or one that the command began.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def refuse_foreign(self) -> None:
        """Checks that the directory holds nothing that is not this command's.

        Raises:
            ArtifactError: it does.
            UsageError: it cannot be written to.
        """
        check_place(self.path / MANIFEST)
        if not self.path.exists():
            return
        names = {path.name for path in self.path.iterdir() if not path.name.startswith(".")}
        foreign = {name for name in names if name != MANIFEST and not OURS.fullmatch(name)}
        if MANIFEST in names and not self._is_ours():
            foreign.add(f"a {MANIFEST} of another kind")
        elif names and MANIFEST not in names and PLAN not in names:
            foreign |= names
        if foreign:
            shown = ", ".join(sorted(foreign)[:5])
            raise ArtifactError(
                f"{self.path} holds something else ({shown}): --output must name a new or empty directory, "
                "or vectors that this command began"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the directory for one writer; the lock goes with the process, however it ends.

        Raises:
            ArtifactError: another process is writing here.
            EnvironmentProblem: the directory cannot be made.
        """
        with one_writer(self.path):
            for path in self.path.glob(".*.tmp"):
                path.unlink(missing_ok=True)
            yield

    def finished(self, plan: EncodingPlan) -> VectorsManifest | None:
        """The manifest of the finished vectors that lie here, or None.

        Raises:
            ArtifactError: they were made under another plan, or are damaged.
        """
        if not (self.path / MANIFEST).exists():
            return None
        manifest = read_manifest(self.path)
        refuse(
            plan.differences(manifest.plan, ignoring=OF_THE_MACHINE),
            f"{self.path} holds vectors made otherwise",
        )
        (self.path / PLAN).unlink(missing_ok=True)
        return manifest

    def start_over(self) -> None:
        """Removes what an earlier command wrote; the manifest gives way to the plan, then the rest goes."""
        if (self.path / MANIFEST).exists():
            (self.path / MANIFEST).replace(self.path / PLAN)
        clear(self.path)

    def finish(self, plan: EncodingPlan, shards: Shards) -> VectorsManifest:
        """Seals the vectors with their manifest."""
        records = [shards.record(shard) for shard in shards.numbers]
        empty = [record.empty for record in records]
        manifest = VectorsManifest(
            plan=plan,
            languages=languages_of(iter(records)),
            empty_documents=None if None in empty else sum(count or 0 for count in empty),
            files={
                shards.path(shard).name: record.file
                for shard, record in zip(shards.numbers, records, strict=True)
            },
        )
        manifest.write(self.path)
        (self.path / PLAN).unlink(missing_ok=True)
        return manifest

    def _is_ours(self) -> bool:
        return said_format(self.path / MANIFEST) == FORMAT


class Vectors:
    """Vectors on disk as one sequence of shards; every shard is checked against its SHA-256 when it is read.

    Attributes:
        plan: of all of it.
        languages: language -> number of documents.
        empty_documents: documents without text; None where the texts were never seen.
    """

    def __init__(self, plan: EncodingPlan, parts: Sequence[Shards]) -> None:
        self.plan = plan
        self._shards = [(part, number) for part in parts for number in part.numbers]
        records = [part.record(number) for part, number in self._shards]
        self.languages = languages_of(iter(records))
        empty = [record.empty for record in records]
        self.empty_documents = None if None in empty else sum(count or 0 for count in empty)
        self._held: tuple[int, VectorBatch] | None = None

    def __len__(self) -> int:
        """Number of shards."""
        return len(self._shards)

    @property
    def documents(self) -> int:
        return self.plan.documents

    @property
    def dimension(self) -> int:
        return self.plan.dimension

    def batch(self, shard: int) -> VectorBatch:
        """One shard; the last one that was asked for is held.

        Raises:
            ArtifactError: it is damaged.
        """
        if self._held is None or self._held[0] != shard:
            part, number = self._shards[shard]
            self._held = (shard, part.read(number))
        return self._held[1]

    def vectors(self, shard: int) -> "np.ndarray":
        """The vectors of a shard, float32 (documents, dimension); raises as `batch`."""
        return self.batch(shard).vectors

    def entries(self, shard: int) -> list[tuple[str, str]]:
        """(docid, language) of the documents of a shard; raises as `batch`."""
        batch = self.batch(shard)
        return list(zip(batch.docids, batch.langs, strict=True))

    def batches(self) -> Iterator[VectorBatch]:
        """All shards in order; raises as `batch`."""
        return map(self.batch, range(len(self)))


def open_vectors(directories: Sequence[Path]) -> Vectors:
    """Opens the vectors of one directory, or of several: the parts of a collection, or several collections.

    Raises:
        ArtifactError: one is incomplete or damaged, or they do not belong together.
    """
    findings = Findings()
    manifests = [findings.attempt(read_manifest, directory) for directory in directories]
    findings.raise_any()
    plans = [manifest.plan for manifest in manifests if manifest is not None]
    joined = join_plans(plans, list(map(str, directories)))
    return Vectors(joined.plan, [shards_of(directories[at], plans[at]) for at in joined.order])
