"""What `mimo export` does: every check that is cheap, then the vectors in another format."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mimo_plugin.errors import ArtifactError, Findings, UsageError
from mimo_plugin.exporting.directory import finished, seal, workplace
from mimo_plugin.exporting.lucene import Norms, index_with_anserini, write_input
from mimo_plugin.exporting.source import Source, open_source, shortened
from mimo_plugin.exporting.tables import write_jsonl, write_parquet
from mimo_plugin.exporting.texts import texts_of
from mimo_plugin.files import check_place, make_parent
from mimo_plugin.lexical.analysis import versions
from mimo_plugin.progress import bar
from mimo_plugin.vectors import VectorBatch
from mimo_plugin.vectors.encoding import require_space


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
