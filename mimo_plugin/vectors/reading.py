"""Opening vectors that `mimo encode` wrote: one directory, or several that belong together."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.errors import Findings
from mimo_plugin.vectors.joining import join_plans
from mimo_plugin.vectors.manifest import read_manifest
from mimo_plugin.vectors.plan import EncodingPlan
from mimo_plugin.vectors.shards import Shards, VectorBatch, languages_of
from mimo_plugin.vectors.work import shards_of

if TYPE_CHECKING:
    import numpy as np


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
