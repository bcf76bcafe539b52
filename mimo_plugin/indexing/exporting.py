"""Exports vectors to other tools: Lucene, PyTerrier's FlexIndex, JSON Lines, Parquet, Milvus."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any, Literal

from mimo_plugin.core.artifact import MANIFEST, Artifact, FileRecord, Kind, Manifest, said_format
from mimo_plugin.core.environment import bar, installed_versions, require_extra
from mimo_plugin.core.errors import ArtifactError, Problems, UsageError
from mimo_plugin.core.files import check_place, make_parent, replacing
from mimo_plugin.encoder.encoder import lengths, unit
from mimo_plugin.indexing.build import IndexedVectors
from mimo_plugin.indexing.encode import require_space
from mimo_plugin.indexing.faiss import new_index
from mimo_plugin.indexing.open import index_at, made_by_pyserini
from mimo_plugin.indexing.plan import OF_THE_MACHINE, EncodingPlan
from mimo_plugin.indexing.settings import MILVUS_PREFIX, ExportOptions, Format, is_milvus
from mimo_plugin.indexing.texts import TextsOf, texts_of
from mimo_plugin.indexing.vectors import PARQUET_SETTINGS, VectorBatch, Vectors, open_vectors, vector_table
from mimo_plugin.pyserini.bm25 import LUCENE_FILES, lucene_files, versions
from mimo_plugin.pyserini.java import ensure_jvm

# Maximum bytes per number while exporting. Lucene needs its input, and two copies during a merge; Milvus Lite
# a log, and vectors with their index.
_BYTES = {
    Format.LUCENE_HNSW: 12,
    Format.LUCENE_FLAT: 12,
    Format.FLEX: 4,
    Format.JSONL: 23,
    Format.PARQUET: 4,
    Format.MILVUS: 12,
}


class ExportManifest(Manifest):
    """Attributes:
    kind: lucene-hnsw, lucene-flat or flex.
    plan: of the vectors.
    versions: of what wrote the index; another Anserini may not read one of Lucene.
    """

    format: Literal["mimo-lucene-vectors", "mimo-flex-vectors"] = "mimo-lucene-vectors"
    format_version: Literal[1] = 1
    kind: str
    plan: EncodingPlan
    versions: dict[str, str]


# Folder of Anserini's input until the index is complete.
_INPUT = "exporting"
LUCENE_VECTORS = Kind(
    ExportManifest,
    formats=frozenset({"mimo-lucene-vectors"}),
    noun="an export",
    command="mimo export",
    names=LUCENE_FILES,
    mark=_INPUT,
    mark_is_folder=True,
    again="remove the directory and export again",
)
FLEX_VECTORS = Kind(
    ExportManifest,
    formats=frozenset({"mimo-flex-vectors"}),
    noun="an export",
    command="mimo export",
    names=re.compile(r"vecs\.f4|docnos\.npids|pt_meta\.json"),
    again="remove the directory and export again",
)
# Of the formats that are directories.
_KINDS = {
    Format.LUCENE_HNSW: LUCENE_VECTORS,
    Format.LUCENE_FLAT: LUCENE_VECTORS,
    Format.FLEX: FLEX_VECTORS,
}


@dataclass(frozen=True)
class Exported:
    """What a call did. already: the export was complete before the call."""

    documents: int
    dimension: int
    already: bool = False
    warnings: tuple[str, ...] = ()


def export_vectors(
    sources: Sequence[Path],
    to: Format,
    output: Path | str,
    options: ExportOptions | None = None,
    **changes: Any,
) -> Exported:
    """Writes vectors in another format, all or nothing.

    A load into Milvus that was cut short goes on with the next call; until it is complete no search takes it.

    Of an index, FAISS holds all vectors in memory; otherwise memory does not grow with them.

    Args:
        sources: one index that keeps its vectors unchanged, or directories of vectors that belong together.
        output: for Lucene and FlexIndex a directory and for Milvus the address of a collection, where a
            finished export of the same vectors stays as it is; otherwise a new file.
        changes: fields of `ExportOptions` in place of those of `options`.

    Raises:
        ArtifactError: a source is corrupted or changed its vectors; the output holds something else.
        DataError: the collection of the wanted texts is missing or has changed.
        EnvironmentProblem: the disk is full, or the file system refuses; no usable Java for Lucene, or no
            pyterrier_dr for FlexIndex, or no Milvus.
        UsageError: an option does not fit the format.
    """
    options = replace(options or ExportOptions(), **changes)
    problems = Problems()
    if options.text and to is not Format.JSONL:
        problems.add(f"--text: only jsonl takes texts, not {to.value}", UsageError)
    if options.index_type != ExportOptions.index_type and to is not Format.MILVUS:
        problems.add(f"--index-type: only milvus builds an index of a type, not {to.value}", UsageError)
    if is_milvus(str(output)) != (to is Format.MILVUS):
        problems.add(
            f"--output {output}: --to milvus needs an address that begins with {MILVUS_PREFIX}, the others a "
            "path",
            UsageError,
        )
    if to is Format.MILVUS:
        return _to_milvus(sources, str(output), options, problems)
    output = Path(output)
    directory = Artifact(output, _KINDS[to]) if to in _KINDS else None
    with problems.collect():
        if to is Format.FLEX:
            require_extra("--to flex", ["pyterrier_dr"], "terrier")
    with problems.collect():
        if directory is not None:
            directory.check_output()
        else:
            check_place(output)
            if output.exists():
                raise ArtifactError(f"{output} exists already: choose another --output, or remove it")
    with problems.collect():
        vectors = open_source(sources)
        plan = _cut_plan(vectors, options.dimension, sources)
    problems.raise_any()
    if directory is not None and (manifest := directory.finished()) is not None:
        kind = [f"kind is {to.value!r}, there it is {manifest.kind!r}"] if manifest.kind != to.value else []
        directory.refuse([*plan.differences(manifest.plan, ignoring=OF_THE_MACHINE), *kind])
        return Exported(plan.documents, plan.dimension, already=True)
    texts = texts_of(plan) if options.text else None
    make_parent(output)
    size = _BYTES[to] * plan.dimension * plan.documents
    require_space(output.absolute().parent, size, f"{plan.documents} vectors as {to.value}")
    warnings = []
    with bar(total=plan.documents, what="exporting", unit="docs", enabled=options.progress) as counter:
        batches = _batches(vectors, plan, counter.update)
        if to is Format.JSONL:
            write_jsonl(batches, output, texts)
        elif directory is None:
            write_parquet(batches, output)
        elif to is Format.FLEX:
            _write_flex(batches, directory, plan)
        else:
            warnings = _write_lucene(batches, directory, to, plan, options)
    return Exported(plan.documents, plan.dimension, warnings=tuple(warnings))


def _to_milvus(sources: Sequence[Path], output: str, options: ExportOptions, problems: Problems) -> Exported:
    from mimo_plugin.indexing.loading import load
    from mimo_plugin.indexing.milvus import Address

    with problems.collect():
        address = Address.parse(output)
    with problems.collect():
        vectors = open_source(sources)
        plan = _cut_plan(vectors, options.dimension, sources)
    problems.raise_any()
    if address.directory is not None:
        make_parent(address.directory)
        if not address.directory.exists():
            size = _BYTES[Format.MILVUS] * plan.dimension * plan.documents
            require_space(
                address.directory.absolute().parent, size, f"{plan.documents} vectors in Milvus Lite"
            )
    already = load(
        address,
        plan,
        vectors.languages,
        vectors.empty_documents,
        lambda advance: _batches(vectors, plan, advance),
        index_type=options.index_type,
        resume=options.resume,
        progress=options.progress,
    )
    return Exported(plan.documents, plan.dimension, already)


# Rows in memory at a time.
_ROWS = 4096
# Tolerance for vectors of length 1; float32 rounding stays far below.
_TOLERANCE = 1e-3


def open_source(directories: Sequence[Path]) -> Vectors:
    """Opens the vectors of one index, or of one directory of vectors or several that belong together.

    Raises:
        ArtifactError: a directory is neither, incomplete or corrupted, or an index with changed vectors.
        UsageError: there are several indexes.
    """
    # `index_at` refuses Pyserini's indexes.
    if not any(made_by_pyserini(one) or said_format(one / MANIFEST) == "mimo-index" for one in directories):
        return open_vectors(directories)
    if len(directories) > 1:
        name = ", ".join(map(str, directories))
        raise UsageError(f"{name}: one index, or directories of vectors, were expected")
    import faiss

    directory = directories[0]
    manifest = index_at(directory).verify()
    plan = manifest.plan
    index = new_index(plan.factory, plan.dimension)
    if not isinstance(
        faiss.downcast_index(index), faiss.IndexFlat | faiss.IndexHNSWFlat | faiss.IndexIVFFlat
    ):
        raise ArtifactError(
            f"{directory} is an index of {plan.factory}, which does not keep the vectors "
            "unchanged: export its vectors from `mimo encode`, or a Flat index"
        )
    return IndexedVectors(plan.vectors, [(directory, manifest)])


def _cut_plan(vectors: Vectors, dimension: int | None, sources: Sequence[Path]) -> EncodingPlan:
    """The plan of the vectors' first components; their length is 1 again where it is 1 now."""
    plan = vectors.plan
    if dimension is None or dimension == plan.dimension:
        return plan
    if dimension > plan.dimension:
        raise UsageError(
            f"--dimension {dimension}: the vectors of {', '.join(map(str, sources))} have {plan.dimension} "
            "dimensions, expected a number up to that"
        )
    normalized = plan.normalized
    if normalized is None:
        # Unknown in older manifests and for imported vectors.
        normalized = bool((abs(lengths(vectors.batch(0).vectors) - 1) < _TOLERANCE).all())
    update = {"dimension": dimension, "truncate": dimension, "normalized": normalized}
    return plan.model_copy(update=update)


def _batches(vectors: Vectors, plan: EncodingPlan, advance: Callable[[int], object]) -> Iterator[VectorBatch]:
    """All documents in order, with vectors of the plan's dimension."""
    for batch in vectors.batches():
        if plan.dimension < batch.vectors.shape[1]:
            cut = batch.vectors[:, : plan.dimension].copy()
            batch = batch._replace(vectors=unit(cut) if plan.normalized else cut)
        for start in range(0, len(batch.docids), _ROWS):
            rows = batch.rows(start, start + _ROWS)
            yield rows
            advance(len(rows.docids))


def write_jsonl(
    batches: Iterator[VectorBatch],
    path: Path,
    texts: TextsOf | None = None,
) -> None:
    """Writes lines of `{"id", "contents", "vector"}`, as `pyserini.encode` does, without loss of precision.

    Args:
        texts: from docids to texts; None leaves `contents` empty.
    """
    with replacing(path) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:
        for batch in batches:
            contents = texts(batch.docids) if texts else [""] * len(batch.docids)
            for docid, text, vector in zip(batch.docids, contents, batch.vectors, strict=True):
                line = {"id": docid, "contents": text, "vector": vector.tolist()}
                file.write(json.dumps(line) + "\n")


def write_parquet(batches: Iterator[VectorBatch], path: Path) -> None:
    """Writes the columns docid, lang and vector (float32), one row group per batch, at least one."""
    from pyarrow import parquet

    with replacing(path) as beside, beside.open("wb") as file:
        table = vector_table(next(batches))
        with parquet.ParquetWriter(file, table.schema, **PARQUET_SETTINGS) as writer:
            writer.write_table(table)
            for batch in batches:
                writer.write_table(vector_table(batch))


def _write_flex(
    batches: Iterator[VectorBatch], directory: Artifact[ExportManifest], plan: EncodingPlan
) -> None:
    from pyterrier_dr import FlexIndex

    records = (
        {"docno": docid, "doc_vec": vector}
        for batch in batches
        for docid, vector in zip(batch.docids, batch.vectors, strict=True)
    )
    with directory.building() as work:
        FlexIndex(str(work), verbose=False).indexer(mode="overwrite").index(records)
        manifest = ExportManifest(
            format="mimo-flex-vectors",
            kind=Format.FLEX,
            plan=plan,
            versions=installed_versions(["pyterrier", "pyterrier-dr", "npids"]),
            files={path.name: FileRecord.of(path) for path in sorted(work.iterdir())},
        )
        directory.publish(manifest)


def _write_lucene(
    batches: Iterator[VectorBatch],
    directory: Artifact[ExportManifest],
    to: Format,
    plan: EncodingPlan,
    options: ExportOptions,
) -> list[str]:
    """Returns warnings."""
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
            _index_with_anserini(vectors, output, plan.documents, to, options)
        except BaseException:
            directory.start_over()
            raise
        directory.seal(
            ExportManifest(kind=to.value, plan=plan, versions=versions(), files=lucene_files(output))
        )
    if least > 1 - _TOLERANCE and most < 1 + _TOLERANCE:
        return []
    return [
        f"the vectors are {least:.3g} to {most:.3g} long, Lucene takes them to be of length 1: scores are "
        "(1 + inner product) / 2, and 0 for all documents where that is negative; rank with FAISS, or encode "
        "with --normalize"
    ]


# Seconds between updates of Lucene's progress.
_LOOK = 0.2
# MiB of Lucene's write buffer; Anserini's default can exceed the JVM's heap.
_BUFFER = 512


def _index_with_anserini(
    source: Path, index: Path, documents: int, to: Format, options: ExportOptions
) -> None:
    """Indexes the Parquet files of a directory with Lucene, HNSW with Anserini's default M=16 and efC=100."""
    ensure_jvm()
    from jnius import autoclass

    name = f"io.anserini.index.Index{'Hnsw' if to is Format.LUCENE_HNSW else 'Flat'}DenseVectors"
    args = autoclass(f"{name}$Args")()
    args.collectionClass = "ParquetDenseVectorCollection"
    # The JVM's working directory is that of its start.
    args.input = str(source.absolute())
    args.index = str(index.absolute())
    args.threads = options.threads
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

    # A separate thread, so that Ctrl-C and the progress bar work.
    thread = Thread(target=run, daemon=True)
    with bar(total=documents, what="Lucene indexing", unit="docs", enabled=options.progress) as counter:
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
