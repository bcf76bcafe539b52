"""The recall of an approximate index: measured when it is built, and reached by its efSearch or nprobe."""

import logging
import re
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mimo_plugin.core.artifact import Record
from mimo_plugin.core.environment import bar
from mimo_plugin.indexing.faiss import faiss_threads, matrix_products, nested, sample_evenly, set_parameters
from mimo_plugin.indexing.vectors import Vectors

if TYPE_CHECKING:
    from mimo_plugin.encoder.encoder import Encoder

logger = logging.getLogger(__name__)

TARGET = 0.95
# Hits that are compared with those of an exact search, and the number of queries they are the hits of: the
# standard error of a recall near the target is then about .003.
HITS, QUERIES = 100, 500
# Where codes keep any setting from the target, the smallest one this close to the best is taken: a larger one
# costs time and finds nothing.
_CLOSE = 0.01
# The smallest is what `hnsw` always had; with less, a search of 100 hits is no faster.
EF_SEARCH = (128, 192, 256, 384, 512, 768, 1024, 1536, 2048)

_REMEDY = {
    "efSearch": "a graph with more links (--factory hnsw64)",
    "nprobe": "an index that keeps whole vectors (--factory ivf)",
    None: "finer codes",
}


class Recall(Record):
    """How many of an exact search's hits an index finds.

    Attributes:
        recall: mean over the queries.
        hits: per query; 100, or fewer in a smaller collection.
        queries: number of queries in the sample.
        source: the queries are real ones, or documents.
        parameter: efSearch or nprobe; None for an index with neither.
        value: its value in the index file.
    """

    recall: float
    hits: int
    queries: int
    source: Literal["queries", "documents"]
    parameter: Literal["efSearch", "nprobe"] | None = None
    value: int | None = None

    def __str__(self) -> str:
        return f"recall@{self.hits} is {self.recall:.4f}{self._how}"

    @property
    def _how(self) -> str:
        setting = f" with {self.parameter}={self.value}" if self.parameter else ""
        easier = ", which are easier than queries (see --topics)" if self.source == "documents" else ""
        return f"{setting}, measured on {self.queries} {self.source}{easier}"

    def problem(self, parameters: str | None = None) -> str | None:
        """Why searches may find too little, and what to do; None if they should not.

        Args:
            parameters: the user's FAISS search parameters, such as "nprobe=16".
        """
        own = re.search(rf"\b{self.parameter}=(\d+)", parameters or "")
        if own and self.value is not None and (given := int(own[1])) != self.value:
            if given > self.value:
                return None
            return (
                f"{self.parameter}={given} finds less than the index's own {self.parameter}={self.value}, "
                f"with which recall@{self.hits} is {self.recall:.4f}: leave it out, or expect to miss hits"
            )
        if self.recall >= TARGET:
            return None
        return (
            f"{self}, less than the {TARGET} that is aimed at: build {_REMEDY[self.parameter]}, or an exact "
            "index (--factory flat)"
        )


def is_exact(index: Any) -> bool:
    import faiss

    return isinstance(faiss.downcast_index(index), faiss.IndexFlat)


def sampled_queries(pool: Any, encoder: "Encoder", seed: int) -> np.ndarray | None:
    """Vectors of a seeded sample of a pool's queries, float32 (n, dimension); None if they have no text."""
    texts = list(dict.fromkeys(query.text for query in pool.queries_iter() if query.text.strip()))
    if not texts:
        return None
    chosen = np.random.default_rng(seed).choice(len(texts), min(QUERIES, len(texts)), replace=False)
    return encoder.encode_queries([texts[place] for place in np.sort(chosen)])


def tune(
    index: Any,
    vectors: Vectors,
    queries: np.ndarray | None,
    seed: int,
    *,
    threads: int | None = None,
    progress: bool | None = None,
) -> Recall | None:
    """Measures the recall of an index, and gives it the smallest efSearch or nprobe that reaches `TARGET`.

    The truth is an exact search over the vectors that were indexed, shard by shard, so codes count as loss.
    Where no setting reaches the target, a warning is logged.

    Queries are not distributed as documents are: they are shorter, have another prompt, and lie beside the
    documents rather than among them, where graphs and lists find less. So real queries are used where there
    are some. Only without them documents are searched for, each without itself. Such a recall is too high,
    and says so by its `source`: in a graph of 20,000 vectors like those of multilingual-e5-small, at efSearch
    128, it was 0.982, on real queries 0.942 (`performance/index_curves.py`). Which documents are relevant
    has no influence.

    Args:
        index: holds all of `vectors`; its efSearch or nprobe is set.
        queries: float32 (n, dimension); None takes documents.
        seed: of the sample of documents.

    Returns:
        None where nothing is approximate, or there is nothing to find.
    """
    if is_exact(index):
        return None
    own = None
    if queries is None:
        own, queries = sample_evenly(vectors, QUERIES, seed)
    hits = min(HITS, index.ntotal - (own is not None))
    if hits < 1:
        return None
    with faiss_threads(threads), matrix_products():
        found = _tuned(index, _Exact(vectors, queries, own, hits, progress), progress)
    if problem := found.problem():
        logger.warning("%s", problem)
    return found


def _tuned(index: Any, exact: "_Exact", progress: bool | None) -> Recall:
    parameter, values = ladder(index)
    if parameter is None:
        return exact.measured(index)

    def measured(value: int) -> Recall:
        set_parameters(index, f"{parameter}={value}", "the index")
        return exact.measured(index).model_copy(update={"parameter": parameter, "value": value})

    best = measured(values[-1])
    enough = TARGET if best.recall >= TARGET else best.recall - _CLOSE
    for value in bar(values[:-1], what=f"choosing {parameter}", unit="settings", enabled=progress):
        found = measured(value)
        if found.recall >= enough:
            return found
    set_parameters(index, f"{parameter}={best.value}", "the index")
    return best


def ladder(index: Any) -> tuple[Literal["efSearch", "nprobe"] | None, tuple[int, ...]]:
    """The parameter of an index that trades speed for recall, and the values to try, ascending."""
    import faiss

    for part in nested(index):
        if isinstance(part, faiss.IndexHNSW):
            return "efSearch", EF_SEARCH
        if isinstance(part, faiss.IndexIVF):
            powers = [2**power for power in range(part.nlist.bit_length())]
            steps = {*powers, *(3 * power // 2 for power in powers[1:])}
            return "nprobe", (*sorted(step for step in steps if step < part.nlist), part.nlist)
    return None, ()


class _Exact:
    """The hits of an exact search.

    Args:
        queries: float32 (n, dimension).
        own: the queries' positions where these are documents, int64 (n,).
        hits: per query.
    """

    def __init__(
        self, vectors: Vectors, queries: np.ndarray, own: np.ndarray | None, hits: int, progress: bool | None
    ) -> None:
        import faiss
        from faiss.contrib.exhaustive_search import knn_ground_truth

        self._queries = np.ascontiguousarray(queries, dtype=np.float32)
        self._own = own
        self._hits = hits
        self._reach = hits + (own is not None)
        shards = bar(range(len(vectors)), what="searching exactly", unit="shards", enabled=progress)
        blocks = (np.ascontiguousarray(vectors.batch(shard).vectors) for shard in shards)
        self._scores, self._rows = self._without_own(
            *knn_ground_truth(self._queries, blocks, self._reach, faiss.METRIC_INNER_PRODUCT, ngpu=0)
        )

    def measured(self, index: Any) -> Recall:
        """The recall of an index as it is.

        Where an index scores whole vectors, an equal score is as good: which of many copies of a document are
        among the hits is arbitrary.
        """
        scores, rows = self._without_own(*index.search(self._queries, self._reach))
        found = np.array([np.isin(one, truth) for one, truth in zip(rows, self._rows, strict=True)])
        if _scores_whole_vectors(index):
            # Matrix products round otherwise than sums over pairs do.
            last = self._scores[:, -1:]
            found |= (rows >= 0) & (scores >= last - 1e-6 * np.abs(last))
        return Recall(
            recall=float(found.mean()),
            hits=self._hits,
            queries=len(rows),
            source="queries" if self._own is None else "documents",
        )

    def _without_own(self, scores: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Leaves each document out of its own hits, or else the last hit."""
        if self._own is None:
            return scores, rows
        others = rows != self._own[:, None]
        others[others.all(axis=1), -1] = False
        return scores[others].reshape(len(rows), -1), rows[others].reshape(len(rows), -1)


def _scores_whole_vectors(index: Any) -> bool:
    import faiss

    parts = list(nested(index))
    transformed = any(isinstance(part, faiss.IndexPreTransform) for part in parts)
    return not transformed and isinstance(parts[-1], faiss.IndexFlat | faiss.IndexIVFFlat)
