"""Vectors in the formats of other tools: Lucene, JSON Lines, Parquet."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal

from mimo_plugin.collections.pool import load_pool
from mimo_plugin.core.artifact import (
    NOTES,
    FileRecord,
    SealedRecord,
    one_writer,
    parse_manifest,
    require_files,
)
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import ArtifactError, DataError, Findings, UsageError
from mimo_plugin.core.files import check_place, make_parent, remove_tree, write_text, writing
from mimo_plugin.encoder.encoder import lengths, unit
from mimo_plugin.indexing.encode import require_space
from mimo_plugin.indexing.lucene import Norms, index_with_anserini, write_input, write_jsonl, write_parquet
from mimo_plugin.indexing.open import Lines, OpenIndex, StrippedLines, open_index
from mimo_plugin.indexing.plan import FORMAT as INDEX_FORMAT
from mimo_plugin.indexing.plan import (
    LANG,
    MANIFEST,
    OF_THE_MACHINE,
    EncodingPlan,
    made_by_pyserini,
    require_unchanged,
)
from mimo_plugin.indexing.vectors import VectorBatch, open_vectors
from mimo_plugin.pyserini.bm25 import versions

# Rows that are held at a time, whatever the source's shards are.
_ROWS = 4096
# Vectors so close to length 1 are of length 1; float32 rounding stays far below.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Source:
    """Attributes:
    name: for messages.
    plan: what the vectors are of, and what made them.
    read: yields the documents in order.
    """

    name: str
    plan: EncodingPlan
    read: Callable[[], Iterator[VectorBatch]]

    def batches(self) -> Iterator[VectorBatch]:
        """All documents in order, a few thousand at a time.

        Raises:
            ArtifactError: they are damaged.
        """
        for batch in self.read():
            for start in range(0, len(batch.docids), _ROWS):
                rows = slice(start, start + _ROWS)
                yield VectorBatch(batch.docids[rows], batch.langs[rows], batch.vectors[rows])


def shortened(source: Source, dimension: int) -> Source:
    """The first components of every vector, of length 1 again where the whole vectors are.

    Raises:
        UsageError: the vectors have fewer.
    """
    plan = source.plan
    if dimension > plan.dimension:
        raise UsageError(
            f"--dimension {dimension}: the vectors of {source.name} have {plan.dimension} dimensions, "
            "expected a number up to that"
        )
    if dimension == plan.dimension:
        return source
    normalized = plan.normalized
    if normalized is None:
        # Not said in older manifests, nor of imported vectors.
        first = next(source.read(), None)
        normalized = first is not None and bool((abs(lengths(first.vectors) - 1) < _TOLERANCE).all())

    def read() -> Iterator[VectorBatch]:
        for batch in source.read():
            vectors = batch.vectors[:, :dimension].copy()
            yield batch._replace(vectors=unit(vectors) if normalized else vectors)

    update = {"dimension": dimension, "truncate": dimension, "normalized": normalized}
    return replace(source, plan=plan.model_copy(update=update), read=read)


def open_source(directories: Sequence[Path]) -> Source:
    """Opens one index, or one directory of vectors or several that belong together.

    Raises:
        ArtifactError: a directory is neither, or incomplete or damaged, or an index whose vectors are not
            the ones that were encoded.
        UsageError: several indexes.
    """
    name = ", ".join(map(str, directories))
    if not any(_is_index(directory) for directory in directories):
        vectors = open_vectors(directories)
        return Source(name, vectors.plan, vectors.batches)
    if len(directories) > 1:
        raise UsageError(f"{name}: one index, or directories of vectors, were expected")
    index = open_index(directories[0])
    require_unchanged(index.directory, index.manifest, (LANG,))
    exact = _exact(index)
    langs = Lines(index.directory / LANG)
    plan = EncodingPlan(**index.manifest.plan.model_dump(include=set(EncodingPlan.model_fields)))
    return Source(name, plan, lambda: _read(exact, index.docids, langs))


def _is_index(directory: Path) -> bool:
    if made_by_pyserini(directory):
        return True  # opening it says that this is for searches only
    try:
        found = json.loads((directory / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("format") == INDEX_FORMAT


def _exact(index: OpenIndex) -> Any:
    """The FAISS index, able to give back its vectors by position."""
    import faiss

    found = faiss.downcast_index(index.faiss)
    if isinstance(found, faiss.IndexIVFFlat):
        found.make_direct_map()
    elif not isinstance(found, faiss.IndexFlat | faiss.IndexHNSWFlat):
        raise ArtifactError(
            f"{index.directory} is an index of {index.manifest.plan.factory}, which does not keep the "
            "vectors as they were encoded: export the vectors that it was made of (`mimo encode`), or a Flat "
            "index"
        )
    return found


def _read(index: Any, docids: Lines | StrippedLines, langs: Lines) -> Iterator[VectorBatch]:
    for start in range(0, index.ntotal, _ROWS):
        rows = range(start, min(start + _ROWS, index.ntotal))
        yield VectorBatch(
            [docids[row] for row in rows],
            [langs[row] for row in rows],
            index.reconstruct_n(start, len(rows)),
        )


def texts_of(plan: EncodingPlan) -> Callable[[Sequence[str]], list[str]]:
    """A function that gives the texts of documents: asked for in the vectors' order, it reads the
    collections once.

    Raises:
        DataError: a collection is not known here; later on, it lacks a document.
        UsageError: the vectors were imported, and nobody knows of what.
    """
    if not plan.backend:
        raise UsageError(f"the vectors were imported from {plan.collections[0]}: their texts are not known")
    pool = load_pool(
        plan.collections, fields=plan.fields, pooled=plan.prefixes is not None, prefixes=plan.prefixes
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


EXPORT_MANIFEST = "manifest.json"
FORMAT: Final = "mimo-lucene-vectors"
_LOCK = "write.lock"


class LuceneManifest(SealedRecord):
    """What lies beside Lucene's files.

    Attributes:
        kind: lucene-hnsw or lucene-flat.
        plan: of the vectors.
        versions: of Pyserini, Anserini and Lucene; another Anserini may not read the index.
        files: what is known of Lucene's files, by name.
    """

    format: Literal["mimo-lucene-vectors"] = FORMAT
    format_version: Literal[1] = 1
    kind: str
    plan: EncodingPlan
    versions: dict[str, str]
    files: dict[str, FileRecord]


def finished(path: Path, kind: str, plan: EncodingPlan) -> bool:
    """Whether the very export lies there already; False where there is nothing.

    Raises:
        ArtifactError: something else does.
        UsageError: nothing can be written there.
    """
    check_place(path / EXPORT_MANIFEST)
    names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    if not names:
        return False
    if not _is_ours(path):
        raise ArtifactError(
            f"{path} holds something else ({', '.join(names[:5])}): --output must name a new or empty "
            "directory"
        )
    manifest = parse_manifest(path / EXPORT_MANIFEST, LuceneManifest, "exported vectors")
    require_files(path, manifest.files, "the export is damaged; remove the directory and export again")
    differences = plan.differences(manifest.plan, ignoring=OF_THE_MACHINE)
    if manifest.kind != kind:
        differences.append(f"kind is {kind!r}, there it is {manifest.kind!r}")
    if differences:
        raise ArtifactError(
            f"{path} holds an export of other vectors: {'; '.join(differences)}. Choose another --output, or "
            "remove it"
        )
    return True


@contextmanager
def workplace(path: Path) -> Iterator[Path]:
    """A directory beside `path`, empty and this process's alone; what an earlier one left is removed.

    Raises:
        ArtifactError: another process is exporting to `path`.
        EnvironmentProblem: the file system refuses.
    """
    path = path.absolute()
    beside = path.with_name(f".{path.name}.exporting")
    try:
        with one_writer(beside):
            with writing(beside):
                for left in _others(beside):
                    remove_tree(left)
            try:
                yield beside
            finally:
                for made in _others(beside):
                    shutil.rmtree(made, ignore_errors=True)
    finally:
        # It stays where another process holds it.
        with suppress(OSError):
            beside.rmdir()


def _others(directory: Path) -> list[Path]:
    return [entry for entry in directory.glob("*") if entry.name not in NOTES]


def seal(index: Path, path: Path, kind: str, plan: EncodingPlan, versions: dict[str, str]) -> None:
    """Writes the manifest into a finished index and puts it in its place.

    Raises:
        EnvironmentProblem: the file system refuses.
    """
    (index / _LOCK).unlink(missing_ok=True)
    files = {entry.name: FileRecord.of(entry) for entry in sorted(index.iterdir())}
    manifest = LuceneManifest(kind=kind, plan=plan, versions=versions, files=files)
    write_text(index / EXPORT_MANIFEST, manifest.sealed(indent=2))
    with writing(path):
        index.rename(path)


def _is_ours(path: Path) -> bool:
    try:
        found = json.loads((path / EXPORT_MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("format") == FORMAT


class Format(StrEnum):
    """What vectors can be exported to."""

    LUCENE_HNSW = "lucene-hnsw"
    LUCENE_FLAT = "lucene-flat"
    JSONL = "jsonl"
    PARQUET = "parquet"


# Bytes a number at most, while the export is made: a float as text; Lucene's input and two copies in a merge.
_BYTES = {Format.LUCENE_HNSW: 12, Format.LUCENE_FLAT: 12, Format.JSONL: 23, Format.PARQUET: 4}


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
    findings = Findings()
    if text and to is not Format.JSONL:
        findings.add(UsageError, [f"--text: only jsonl takes texts, not {to.value}"])
    if not lucene:
        findings.attempt(_refuse_existing, output)
    source = findings.complete(findings.attempt(open_source, sources))
    if dimension is not None:
        source = shortened(source, dimension)
    plan = source.plan
    if lucene and finished(output, to.value, plan):
        return Exported(plan.documents, plan.dimension, already=True)
    texts = texts_of(plan) if text else None
    make_parent(output)
    size = _BYTES[to] * plan.dimension * plan.documents
    require_space(output.absolute().parent, size, f"{plan.documents} vectors as {to.value}")
    if lucene:
        warning = _to_lucene(source, to, output, threads, progress)
        return Exported(plan.documents, plan.dimension, warnings=(warning,) if warning else ())
    with bar(total=plan.documents, what="exporting", unit="docs", enabled=progress) as counter:
        batches = _counted(source.batches(), counter.update)
        if to is Format.JSONL:
            write_jsonl(batches, output, texts)
        else:
            write_parquet(batches, output, plan.dimension)
    return Exported(plan.documents, plan.dimension)


def _to_lucene(source: Source, to: Format, output: Path, threads: int, progress: bool | None) -> str | None:
    """Returns what a user should know."""
    plan = source.plan
    norms = Norms()
    with workplace(output) as place:
        vectors, index = place / "vectors", place / "index"
        vectors.mkdir()
        with bar(total=plan.documents, what="reading", unit="docs", enabled=progress) as counter:
            write_input(norms.watch(source.batches()), vectors, plan.dimension, counter)
        index_with_anserini(
            vectors,
            index,
            plan.documents,
            hnsw=to is Format.LUCENE_HNSW,
            threads=threads,
            progress=progress,
        )
        seal(index, output, to.value, plan, versions())
    return norms.warning()


def _counted(batches: Iterator[VectorBatch], advance: Callable[[int], object]) -> Iterator[VectorBatch]:
    for batch in batches:
        yield batch
        advance(len(batch.docids))


def _refuse_existing(output: Path) -> None:
    check_place(output)
    if output.exists():
        raise ArtifactError(f"{output} is there already: choose another --output, or remove it")
