"""Exact search in vectors that fit into memory, as `mimo search` searches a flat index of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mimo_plugin.evaluation.runs import Ranking, ranking
from mimo_plugin.indexing.nearest import Nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def nearest(
    query_ids: Sequence[str],
    queries: "NDArray[np.float32]",
    docids: Sequence[str],
    documents: "NDArray[np.float32]",
    hits: int,
) -> dict[str, Ranking]:
    """For each query the documents with the largest inner products, all of them where there are fewer.

    Args:
        query_ids, queries: (m,) and (m, d).
        docids, documents: (n,) and (n, d), n at least 1.
    """
    import faiss

    index = faiss.IndexFlatIP(documents.shape[1])
    index.add(documents)
    search = Nearest([_InMemory("vectors in memory", index, _Listed(docids))])
    found = search.named(search.search(queries, hits))
    return {query_id: ranking(*hit) for query_id, hit in zip(query_ids, found, strict=True)}


@dataclass(frozen=True)
class _Listed:
    docids: Sequence[str]

    def take(self, numbers: "np.ndarray") -> list[str]:
        return [self.docids[number] for number in numbers.tolist()]


@dataclass(frozen=True)
class _InMemory:
    name: str
    faiss: Any
    docids: _Listed
