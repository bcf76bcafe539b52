"""Vectors in the formats of other tools: Lucene, JSON Lines, Parquet."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from threading import Thread
from typing import Literal

from mimo_plugin.collections.pool import load
from mimo_plugin.core.artifact import MANIFEST, Artifact, Kind, Manifest, said_format
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import ArtifactError, DataError, Problems, UsageError
from mimo_plugin.core.files import check_place, make_parent, replacing
from mimo_plugin.encoder.encoder import lengths, unit
from mimo_plugin.indexing.build import IndexedVectors
from mimo_plugin.indexing.encode import require_space
from mimo_plugin.indexing.faiss import new_index
from mimo_plugin.indexing.open import index_at, made_by_pyserini
from mimo_plugin.indexing.plan import OF_THE_MACHINE, EncodingPlan
from mimo_plugin.indexing.vectors import PARQUET_SETTINGS, VectorBatch, Vectors, open_vectors, vector_table
from mimo_plugin.pyserini.bm25 import LUCENE_FILES, lucene_files, versions
from mimo_plugin.pyserini.java import ensure_jvm


class Format(StrEnum):
    """What vectors can be exported to."""

    LUCENE_HNSW = "lucene-hnsw"
    LUCENE_FLAT = "lucene-flat"
    JSONL = "jsonl"
    PARQUET = "parquet"


# Bytes a number at most, while the export is made: a float as text; Lucene's input and two copies in a merge.
_BYTES = {Format.LUCENE_HNSW: 12, Format.LUCENE_FLAT: 12, Format.JSONL: 23, Format.PARQUET: 4}


class LuceneManifest(Manifest):
    """What lies beside Lucene's files.

    Attributes:
        kind: lucene-hnsw or lucene-flat.
        plan: of the vectors.
        versions: of Pyserini, Anserini and Lucene; another Anserini may not read the index.
    """

    format: Literal["mimo-lucene-vectors"] = "mimo-lucene-vectors"
    format_version: Literal[1] = 1
    kind: str
    plan: EncodingPlan
    versions: dict[str, str]


# What Anserini reads lies here until the index is whole.
_INPUT = "exporting"
LUCENE_VECTORS = Kind(
    LuceneManifest,
    formats=frozenset({"mimo-lucene-vectors"}),
    noun="an export",
    command="mimo export",
    names=LUCENE_FILES,
    mark=_INPUT,
    mark_is_folder=True,
    again="remove the directory and export again",
)


@dataclass(frozen=True)
class Exported:
    """What a call did.

    Attributes:
        documents, dimension: of the export.
        already: it was there, complete.
        warnings: what a user should know.
    """

    documents: int
    dimension: int
    already: bool = False
    warnings: tuple[str, ...] = ()


def export_vectors(
    sources: Sequence[Path],
    to: Format,
    output: Path,
    *,
    text: bool = False,
    dimension: int | None = None,
    threads: int = 2,
    progress: bool | None = None,
) -> Exported:
    """Writes vectors in another format, whole or not at all.

    Memory does not grow with them, but for what FAISS holds of an index, and the JVM's heap up to its bound.

    Args:
        sources: one index whose vectors are unchanged in it, or directories of vectors that belong together.
        output: a new directory for Lucene, where a finished export of the same vectors is kept as it is; a
            new file for the others.
        text: put the documents' texts into JSON Lines.
        dimension: the vectors' first so many components only; None is all.
        threads: of Lucene.
        progress: progress bars; None shows them on a terminal only.

    Raises:
        ArtifactError: a source is damaged or not exact; the output holds something else.
        DataError: texts are wanted, and their collection is not there or has changed.
        EnvironmentProblem: no space, or the file system refuses; no usable Java for Lucene.
        UsageError: an option does not fit the format.
    """
    lucene = to in (Format.LUCENE_HNSW, Format.LUCENE_FLAT)
    directory = Artifact(output, LUCENE_VECTORS)
    problems = Problems()
    if text and to is not Format.JSONL:
        problems.add(f"--text: only jsonl takes texts, not {to.value}", UsageError)
    with problems.collect():
        if lucene:
            directory.check_output()
        else:
            _refuse_existing(output)
    with problems.collect():
        source = open_source(sources, dimension)
    problems.raise_any()
    plan = source.plan
    if lucene and (manifest := directory.finished()) is not None:
        kind = [f"kind is {to.value!r}, there it is {manifest.kind!r}"] if manifest.kind != to.value else []
        directory.refuse([*plan.differences(manifest.plan, ignoring=OF_THE_MACHINE), *kind])
        return Exported(plan.documents, plan.dimension, already=True)
    texts = texts_of(plan) if text else None
    make_parent(output)
    size = _BYTES[to] * plan.dimension * plan.documents
    require_space(output.absolute().parent, size, f"{plan.documents} vectors as {to.value}")
    warnings = []
    with bar(total=plan.documents, what="exporting", unit="docs", enabled=progress) as counter:
        batches = _counted(source.batches(), counter.update)
        if to is Format.JSONL:
            write_jsonl(batches, output, texts)
        elif to is Format.PARQUET:
            write_parquet(batches, output)
        else:
            warnings = _write_lucene(batches, directory, to, plan, threads, progress)
    return Exported(plan.documents, plan.dimension, warnings=tuple(warnings))


def _refuse_existing(output: Path) -> None:
    check_place(output)
    if output.exists():
        raise ArtifactError(f"{output} is there already: choose another --output, or remove it")


def _counted(batches: Iterator[VectorBatch], advance: Callable[[int], object]) -> Iterator[VectorBatch]:
    for batch in batches:
        yield batch
        advance(len(batch.docids))


# Rows that are held at a time, whatever the source's shards are.
_ROWS = 4096
# Vectors so close to length 1 are of length 1; float32 rounding stays far below.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Source:
    """Attributes:
    vectors: as they are stored.
    plan: of what is exported: perhaps the first components alone.
    """

    vectors: Vectors
    plan: EncodingPlan

    def batches(self) -> Iterator[VectorBatch]:
        """All documents in order, a few thousand at a time."""
        for batch in self.vectors.batches():
            if self.plan.dimension < batch.vectors.shape[1]:
                cut = batch.vectors[:, : self.plan.dimension].copy()
                batch = batch._replace(vectors=unit(cut) if self.plan.normalized else cut)
            for start in range(0, len(batch.docids), _ROWS):
                yield batch.rows(start, start + _ROWS)


def open_source(directories: Sequence[Path], dimension: int | None = None) -> Source:
    """Opens one index, or one directory of vectors or several that belong together.

    Args:
        dimension: the first components of every vector, of length 1 again where the whole vectors are.

    Raises:
        ArtifactError: a directory is neither, or incomplete or damaged, or an index whose vectors are not
            the ones that were encoded.
        UsageError: several indexes, or the vectors have fewer components.
    """
    name = ", ".join(map(str, directories))
    if not any(map(_is_index, directories)):
        vectors = open_vectors(directories)
    elif len(directories) > 1:
        raise UsageError(f"{name}: one index, or directories of vectors, were expected")
    else:
        vectors = _open_exact(directories[0])
    plan = vectors.plan
    if dimension is None or dimension == plan.dimension:
        return Source(vectors, plan)
    if dimension > plan.dimension:
        raise UsageError(
            f"--dimension {dimension}: the vectors of {name} have {plan.dimension} dimensions, expected a "
            "number up to that"
        )
    normalized = plan.normalized
    if normalized is None:
        # Not said in older manifests, nor of imported vectors.
        normalized = bool((abs(lengths(vectors.batch(0).vectors) - 1) < _TOLERANCE).all())
    update = {"dimension": dimension, "truncate": dimension, "normalized": normalized}
    return Source(vectors, plan.model_copy(update=update))


def _is_index(directory: Path) -> bool:
    # Opening one of Pyserini's says that it is for searches only.
    return made_by_pyserini(directory) or said_format(directory / MANIFEST) == "mimo-index"


def _open_exact(directory: Path) -> Vectors:
    """The vectors of an index; raises an ArtifactError where it does not give them back unchanged."""
    import faiss

    manifest = index_at(directory).verify()
    plan = manifest.plan
    index = new_index(plan.factory, plan.dimension)
    if not isinstance(
        faiss.downcast_index(index), faiss.IndexFlat | faiss.IndexHNSWFlat | faiss.IndexIVFFlat
    ):
        raise ArtifactError(
            f"{directory} is an index of {plan.factory}, which does not keep the vectors as they were "
            "encoded: export the vectors that it was made of (`mimo encode`), or a Flat index"
        )
    return IndexedVectors(plan.vectors, [(directory, manifest)])


def texts_of(plan: EncodingPlan) -> Callable[[Sequence[str]], list[str]]:
    """A function that gives the texts of documents: asked for in the vectors' order, it reads the
    collections once.
    """
    if not plan.backend:
        raise UsageError(f"the vectors were imported from {plan.collections[0]}: their texts are not known")
    pool = load(
        *plan.collections, fields=plan.fields, pooled=plan.prefixes is not None, prefixes=plan.prefixes
    )
    docs = iter(pool.docs_iter())

    def texts(docids: Sequence[str]) -> list[str]:
        found = []
        for docid in docids:
            # A part of a collection begins further back.
            text = next((doc.text for doc in docs if doc.doc_id == docid), None)
            if text is None:
                raise DataError(
                    f"{', '.join(plan.collections)} has no document {docid} where the vectors have it: the "
                    "collection has changed since it was encoded"
                )
            found.append(text)
        return found

    return texts


def write_jsonl(
    batches: Iterator[VectorBatch],
    path: Path,
    texts: Callable[[Sequence[str]], list[str]] | None = None,
) -> None:
    """Writes `{"id", "contents", "vector"}` a line, as `pyserini.encode` does; numbers lose nothing.

    Args:
        texts: gives the documents' texts; None leaves `contents` empty.
    """
    with replacing(path) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:
        for batch in batches:
            contents = texts(batch.docids) if texts else [""] * len(batch.docids)
            for docid, text, vector in zip(batch.docids, contents, batch.vectors, strict=True):
                line = {"id": docid, "contents": text, "vector": vector.tolist()}
                file.write(json.dumps(line) + "\n")


def write_parquet(batches: Iterator[VectorBatch], path: Path) -> None:
    """Writes the columns docid, lang and vector (float32), a row group a batch; there must be one."""
    from pyarrow import parquet

    with replacing(path) as beside, beside.open("wb") as file:
        table = vector_table(next(batches))
        with parquet.ParquetWriter(file, table.schema, **PARQUET_SETTINGS) as writer:
            writer.write_table(table)
            for batch in batches:
                writer.write_table(vector_table(batch))


def _write_lucene(
    batches: Iterator[VectorBatch],
    directory: Artifact[LuceneManifest],
    to: Format,
    plan: EncodingPlan,
    threads: int,
    progress: bool | None,
) -> list[str]:
    """Returns what a user should know."""
    output = directory.path
    vectors = output / _INPUT
    least, most = float("inf"), 0.0
    with directory.held():
        directory.start_over()
        directory.begin()
        try:
            for number, batch in enumerate(batches):
                long = lengths(batch.vectors)
                least, most = min(least, float(long.min())), max(most, float(long.max()))
                write_parquet(iter([batch]), vectors / f"{number:06d}.parquet")
            _index_with_anserini(vectors, output, plan.documents, to, threads, progress)
        except BaseException:
            directory.start_over()
            raise
        directory.seal(
            LuceneManifest(kind=to.value, plan=plan, versions=versions(), files=lucene_files(output))
        )
    if least > 1 - _TOLERANCE and most < 1 + _TOLERANCE:
        return []
    return [
        f"the vectors are {least:.3g} to {most:.3g} long, Lucene takes them to be of length 1: scores are "
        "(1 + inner product) / 2, and 0 for all documents where that is negative; rank with FAISS, or encode "
        "with --normalize"
    ]


# Seconds between two looks at how far Lucene is.
_LOOK = 0.2
# MiB that Lucene collects before it writes; Anserini's own can be more than the JVM's heap.
_BUFFER = 512


def _index_with_anserini(
    source: Path, index: Path, documents: int, to: Format, threads: int, progress: bool | None
) -> None:
    """Makes a Lucene index of the Parquet files in a directory, HNSW with Anserini's own M=16 and efC=100.

    Args:
        threads: files that are read, and graphs that are built, at a time.
    """
    ensure_jvm()
    from jnius import autoclass

    name = f"io.anserini.index.Index{'Hnsw' if to is Format.LUCENE_HNSW else 'Flat'}DenseVectors"
    args = autoclass(f"{name}$Args")()
    args.collectionClass = "ParquetDenseVectorCollection"
    # The JVM's working directory is that of its start.
    args.input = str(source.absolute())
    args.index = str(index.absolute())
    args.threads = threads
    args.memoryBuffer = _BUFFER
    args.quiet = True
    indexer = autoclass(name)(args)
    counters = indexer.getCounters()
    failures: list[Exception] = []

    def run() -> None:
        import jnius

        try:
            indexer.run()
        except Exception as error:
            failures.append(error)
        finally:
            jnius.detach()

    # In a thread of its own, so that Ctrl-C and the progress bar are not held up.
    thread = Thread(target=run, daemon=True)
    with bar(total=documents, what="Lucene indexing", unit="docs", enabled=progress) as counter:
        thread.start()
        while thread.is_alive():
            thread.join(_LOOK)
            counter.update(int(counters.indexed.get()) - counter.n)
    taken = int(counters.indexed.get())
    if failures or taken != documents:
        reason = f": {' '.join(str(failures[0]).split())}" if failures else ""
        raise ArtifactError(
            f"Lucene took {taken} of {documents} documents{reason}; make room on the disk, or see "
            "`mimo doctor`, and run the command again"
        )
