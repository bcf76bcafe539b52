"""Vectors read back from finished indexes."""

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from mimo_plugin.errors import ArtifactError
from mimo_plugin.indexing.faiss_index import new_index, read_index
from mimo_plugin.indexing.lines import Lines
from mimo_plugin.indexing.manifest import DOCID, INDEX, LANG, IndexManifest, Plan
from mimo_plugin.vectors.plan import EncodingPlan
from mimo_plugin.vectors.reading import Vectors
from mimo_plugin.vectors.shards import VectorBatch


class Storage(StrEnum):
    """What an index gives back of the vectors that were put in."""

    EXACT = "the vectors themselves"
    HALF = "the vectors in 16 bits, which put in again give the same 16 bits"
    LEARNT = "what is left of them after codes that it learnt from its own vectors"


def storage_of(directory: Path, plan: Plan, target: str) -> Storage:
    """Raises an ArtifactError where an index of the kind `target` cannot be made of this one's vectors."""
    # What FAISS hands out of an index lives only as long as the index itself.
    index = new_index(plan.factory, plan.dimension)
    storage = _storage(index)
    if storage is Storage.LEARNT:
        raise ArtifactError(
            f"{directory} is of the kind {plan.factory}, which learns from its own vectors and does not give "
            "them back: keep vectors with `mimo encode` and build one index with `mimo index --vectors`, or "
            "search the indexes together with `mimo search A B`"
        )
    if storage is Storage.HALF and target != plan.factory:
        raise ArtifactError(
            f"{directory} is of the kind {plan.factory}, which keeps 16 bits a number: it can be merged into "
            f"another one of that kind, not into {target}; leave --factory out"
        )
    return storage


def _storage(index: Any) -> Storage:
    import faiss

    index = faiss.downcast_index(index)
    if isinstance(index, (faiss.IndexHNSW, faiss.IndexNSG)):
        index = faiss.downcast_index(index.storage)
    if isinstance(index, faiss.IndexFlat):
        return Storage.EXACT
    half = (faiss.ScalarQuantizer.QT_fp16, faiss.ScalarQuantizer.QT_bf16)
    if isinstance(index, faiss.IndexScalarQuantizer) and index.sq.qtype in half:
        return Storage.HALF
    return Storage.LEARNT


class IndexedVectors(Vectors):
    """The vectors of several indexes as one sequence of shards, as large as those they were built from.

    Args:
        plan: of all of it.
        parts: directory and manifest of each index, in their order.
    """

    def __init__(self, plan: EncodingPlan, parts: Sequence[tuple[Path, IndexManifest]]) -> None:
        self.plan = plan
        self._parts = [directory for directory, _ in parts]
        languages: Counter[str] = Counter()
        for _, manifest in parts:
            languages.update(manifest.languages)
        self.languages = dict(languages)
        empty = [manifest.empty_documents for _, manifest in parts]
        self.empty_documents = None if None in empty else sum(count or 0 for count in empty)
        self._pieces = [
            (number, start, min(start + manifest.plan.shard_size, manifest.plan.documents))
            for number, (_, manifest) in enumerate(parts)
            for start in range(0, manifest.plan.documents, manifest.plan.shard_size)
        ]
        self._held = None
        self._open: tuple[int, Any, Lines, Lines] | None = None

    def __len__(self) -> int:
        return len(self._pieces)

    def batch(self, shard: int) -> VectorBatch:
        """One shard; the last one that was asked for is held, and its index is open.

        Raises:
            ArtifactError: FAISS cannot read the index.
        """
        if self._held is None or self._held[0] != shard:
            number, start, stop = self._pieces[shard]
            if self._open is None or self._open[0] != number:
                directory = self._parts[number]
                self._open = None
                self._open = (
                    number,
                    read_index(directory / INDEX),
                    Lines(directory / DOCID),
                    Lines(directory / LANG),
                )
            _, index, docids, langs = self._open
            vectors = index.reconstruct_n(start, stop - start)
            self._held = (
                shard,
                VectorBatch(docids.between(start, stop), langs.between(start, stop), vectors),
            )
        return self._held[1]
