"""What can be exported: vectors of `mimo encode`, or an index that holds its vectors unchanged."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mimo_plugin.errors import ArtifactError, UsageError
from mimo_plugin.indexing.lines import Lines, StrippedLines
from mimo_plugin.indexing.manifest import FORMAT as INDEX_FORMAT
from mimo_plugin.indexing.manifest import LANG, MANIFEST, made_by_pyserini, require_unchanged
from mimo_plugin.indexing.reader import OpenIndex, open_index
from mimo_plugin.student import lengths, unit
from mimo_plugin.vectors import EncodingPlan, VectorBatch, open_vectors

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
