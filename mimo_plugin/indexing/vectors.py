"""A directory of vectors: Parquet shards with checksums under a plan, and its manifest."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from mimo_plugin.collections.survey import copies_text
from mimo_plugin.core.artifact import Artifact, FileRecord, Kind, Manifest, SealedRecord, parse_manifest
from mimo_plugin.core.errors import ArtifactError, Problems
from mimo_plugin.core.files import replacing, write_text, writing
from mimo_plugin.indexing.plan import OF_THE_MACHINE, EncodingPlan, join_plans

PLAN = "plan.json"
_SHARD_FILES = r"\d{5,}\.(parquet|json)"
_DAMAGED = "it is corrupted; delete it and its .json, and run the command again"


class VectorBatch(NamedTuple):
    """Documents and their vectors, float32 (documents, dimension); an unknown language is ""."""

    docids: list[str]
    langs: list[str]
    vectors: np.ndarray

    def rows(self, start: int, stop: int) -> "VectorBatch":
        rows = slice(start, stop)
        return VectorBatch(self.docids[rows], self.langs[rows], self.vectors[rows])


class ShardRecord(SealedRecord):
    """The record of a shard, in a file beside it.

    Attributes:
        languages: language -> number of documents.
        empty: number of documents without text; None for imported vectors.
    """

    file: FileRecord
    languages: dict[str, int]
    empty: int | None


class Shards:
    """The shards of a directory: `00000.parquet` (docid, lang, vector) and `00000.json`, its record.

    The record is written last: a shard exists when its record does.

    Args:
        documents: number of documents in the whole collection.
        size: documents per shard; the collection's last one may have fewer.
        numbers: of the shards in this directory; None is all of the collection.
    """

    def __init__(
        self, directory: Path, documents: int, size: int, dimension: int, numbers: range | None = None
    ) -> None:
        self.numbers = range(-(-documents // size)) if numbers is None else numbers
        self.size = size
        self._directory = directory
        self._documents = documents
        self._dimension = dimension

    def rows(self, shard: int) -> int:
        """Number of documents in one shard."""
        return min((shard + 1) * self.size, self._documents) - shard * self.size

    def missing(self) -> list[int]:
        """Numbers of the shards that do not exist yet; raises as `read` for a corrupted one."""
        missing = []
        for shard in self.numbers:
            if self._record_path(shard).is_file():
                self.read(shard)
            else:
                missing.append(shard)
        return missing

    def documents_in(self, shards: Sequence[int]) -> int:
        return sum(map(self.rows, shards))

    def write(self, shard: int, batch: VectorBatch, empty: int | None = None) -> None:
        from pyarrow import parquet

        path = self.path(shard)
        # A Python file reports every error.
        with replacing(path) as beside, beside.open("wb") as file:
            parquet.write_table(vector_table(batch), file, **PARQUET_SETTINGS)
        with writing(path):
            file_record = FileRecord.of(path)
        record = ShardRecord(file=file_record, languages=dict(Counter(batch.langs)), empty=empty)
        write_text(self._record_path(shard), record.sealed())

    def read(self, shard: int) -> VectorBatch:
        """Raises an ArtifactError where the file is corrupted or has another shape than the plan's."""
        path = self.path(shard)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}; {_DAMAGED}") from error
        record = self.record(shard)
        if hashlib.sha256(content).hexdigest() != record.file.sha256:
            raise ArtifactError(f"{path} differs from its record (SHA-256): {_DAMAGED}")
        batch = _read_parquet(path, content)
        if batch.vectors.shape != (self.rows(shard), self._dimension):
            raise ArtifactError(
                f"{path} holds vectors of shape {batch.vectors.shape}, expected "
                f"{(self.rows(shard), self._dimension)}: start over with --no-resume"
            )
        return batch

    def record(self, shard: int) -> ShardRecord:
        """Raises an ArtifactError where the record is corrupted."""
        return parse_manifest(self._record_path(shard), ShardRecord, "a shard of vectors")

    def path(self, shard: int) -> Path:
        return self._directory / f"{shard:05d}.parquet"

    def _record_path(self, shard: int) -> Path:
        return self._directory / f"{shard:05d}.json"


# Vectors hardly compress.
PARQUET_SETTINGS: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}


def vector_table(batch: VectorBatch) -> Any:
    """A pyarrow table with the columns docid, lang and vector (a fixed-size list of float32)."""
    import pyarrow as pa

    values = np.ascontiguousarray(batch.vectors, dtype=np.float32)
    columns = {
        "docid": pa.array(batch.docids, pa.string()),
        "lang": pa.array(batch.langs, pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1]),
    }
    return pa.table(columns)


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


class VectorsManifest(Manifest):
    """Attributes:
    languages: language -> number of documents.
    empty_documents: number of documents without text; None for imported vectors.
    """

    format: Literal["mimo-vectors"] = "mimo-vectors"
    format_version: Literal[1] = 1
    plan: EncodingPlan
    languages: dict[str, int]
    empty_documents: int | None


def summary_text(head: str, done: str | None, manifest: VectorsManifest) -> str:
    """The last lines of a command that made vectors or an index."""
    plan, empty, copies = manifest.plan, manifest.empty_documents, manifest.plan.copies
    counts = ", ".join(f"{lang or 'unknown'} {count}" for lang, count in manifest.languages.items())
    chosen = plan.dtype != "float32" and plan.dtype_reason
    lines = [
        head,
        f"languages: {counts}",
        f"computed in {plan.dtype}: {plan.dtype_reason}" if chosen else None,
        done,
        f"{empty} documents have no text and were encoded like the others" if empty else None,
        copies_text(copies) if copies else None,
    ]
    return "\n".join(filter(None, lines))


def part_text(plan: EncodingPlan) -> str:
    return f", part {plan.shard} of {plan.collection_documents}" if plan.shard else ""


def kept_text(resumed: int, encoded: int) -> str:
    return f"{resumed} documents were encoded before and kept, {encoded} now"


VECTORS = Kind(
    VectorsManifest,
    formats=frozenset({"mimo-vectors"}),
    noun="vectors",
    command="mimo encode",
    names=re.compile(rf"{_SHARD_FILES}|{PLAN}"),
    mark=PLAN,
)


def take_up(directory: Path, plan: EncodingPlan) -> Shards:
    """Writes the plan and returns the shards; those of an interrupted command with the same plan stay."""
    artifact = Artifact(directory, VECTORS)
    path = directory / PLAN
    if path.is_file():
        try:
            there = EncodingPlan.model_validate_json(path.read_bytes())
        except ValueError as error:
            raise ArtifactError(f"{path} is corrupted: start over with --no-resume") from error
        artifact.refuse(plan.differences(there))
    elif directory.is_dir():
        # Without its plan, a shard's origin is unknown.
        for shard in directory.iterdir():
            if re.fullmatch(_SHARD_FILES, shard.name):
                shard.unlink()
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    artifact.begin(plan.model_dump_json(indent=2) + "\n")
    return shards_of(directory, plan)


def begun_plan(artifact: Artifact[Any], work: Path) -> EncodingPlan | None:
    """The plan of a finished or begun output directory; None in a new one.

    Args:
        work: the directory of its vectors, while it is not finished.
    """
    manifest = artifact.finished()
    if manifest is not None:
        plan: EncodingPlan = manifest.plan
        return plan
    try:
        return EncodingPlan.model_validate_json((work / PLAN).read_bytes())
    except (OSError, ValueError):  # `take_up` says what is wrong
        return None


def shards_of(directory: Path, plan: EncodingPlan) -> Shards:
    numbers = plan.part.shards(plan.collection_documents, plan.shard_size)
    return Shards(directory, plan.collection_documents, plan.shard_size, plan.dimension, numbers)


def finished_under(artifact: Artifact[Any], plan: EncodingPlan, resume: bool) -> Any:
    """The manifest of a finished output directory, else None. Without `resume` it is emptied first."""
    if not resume:
        artifact.start_over()
    manifest = artifact.finished()
    if manifest is not None:
        artifact.refuse(plan.differences(manifest.plan, ignoring=OF_THE_MACHINE))
    return manifest


def summed(
    languages: Iterable[Mapping[str, int]], empty: Iterable[int | None]
) -> tuple[dict[str, int], int | None]:
    """Sums of several parts: documents per language, and documents without text."""
    counts: Counter[str] = Counter()
    for part in languages:
        counts.update(part)
    known = list(empty)
    return dict(counts), None if None in known else sum(filter(None, known))


class Vectors:
    """Vectors on disk as one sequence of shards; reading a shard checks its SHA-256.

    Attributes:
        languages: language -> number of documents.
        empty_documents: number of documents without text; None for imported vectors.
    """

    def __init__(self, plan: EncodingPlan, parts: Sequence[Shards]) -> None:
        self.plan = plan
        self._shards = [(part, number) for part in parts for number in part.numbers]
        records = [part.record(number) for part, number in self._shards]
        self.languages, self.empty_documents = summed(
            (record.languages for record in records), (record.empty for record in records)
        )

    def __len__(self) -> int:
        return len(self._shards)

    def batch(self, shard: int) -> VectorBatch:
        part, number = self._shards[shard]
        return part.read(number)

    def batches(self) -> Iterator[VectorBatch]:
        return map(self.batch, range(len(self)))


def open_vectors(directories: Sequence[Path]) -> Vectors:
    """Opens one directory of vectors, or several: the parts of a collection, or several collections."""
    problems = Problems()
    plans = []
    for directory in directories:
        with problems.collect():
            plans.append(Artifact(directory, VECTORS).read().plan)
    problems.raise_any()
    plan, order = join_plans(plans, list(map(str, directories)))
    return Vectors(plan, [shards_of(directories[at], plans[at]) for at in order])
