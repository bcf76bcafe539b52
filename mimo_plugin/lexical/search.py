"""Queries against a Lucene index, scored by BM25."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.errors import ArtifactError
from mimo_plugin.jvm import import_pyserini
from mimo_plugin.lexical.analysis import Analysis, versions
from mimo_plugin.lexical.directory import DAMAGED, Bm25Manifest, read_bm25_manifest
from mimo_plugin.manifests import require_content

if TYPE_CHECKING:
    import numpy as np

# Anserini's defaults for passages, which Pyserini takes for MIRACL and Mr. TyDi.
K1, B = 0.9, 0.4

_BATCH = 1000


def search_bm25(
    directory: Path,
    queries: list[tuple[str, str]],
    *,
    hits: int,
    k1: float = K1,
    b: float = B,
    threads: int = 2,
    advance: Callable[[int], object] | None = None,
) -> Iterator[tuple[str, list[str], "np.ndarray"]]:
    """Yields (query id, docids, BM25 scores float32), a query at a time in the queries' order.

    Queries are analysed like the documents of the index.

    Args:
        directory: an index that `index_bm25` wrote.
        queries: (query id, text) pairs.
        hits: documents a query at most.
        advance: called with the number of queries done since the last call.

    Raises:
        ArtifactError: the directory is no finished index, or this Pyserini would analyse queries otherwise
            than the index's documents.
    """
    manifest = read_bm25_manifest(directory)
    require_content(directory, manifest.files, DAMAGED)
    import_pyserini()
    import numpy as np
    from pyserini.search.lucene import LuceneSearcher

    searcher = LuceneSearcher(str(directory))
    try:
        plan = manifest.plan
        _check_analyzer(directory, manifest, Analysis(plan.language, plan.analyzer).apply(searcher))
        searcher.set_bm25(k1, b)
        pending = iter(queries)
        while batch := list(islice(pending, _BATCH)):
            ids = [query_id for query_id, _ in batch]
            found = searcher.batch_search([text for _, text in batch], ids, k=hits, threads=threads)
            for query_id in ids:
                results = found.get(query_id, [])
                scores = np.array([hit.score for hit in results], dtype=np.float32)
                yield query_id, [str(hit.docid) for hit in results], scores
            if advance is not None:
                advance(len(batch))
    finally:
        searcher.close()


def _check_analyzer(directory: Path, manifest: Bm25Manifest, analyzer: str) -> None:
    if analyzer != manifest.plan.analyzer:
        raise ArtifactError(
            f"{directory} was made with {manifest.plan.analyzer} (Pyserini {manifest.versions['pyserini']}), "
            f"Pyserini {versions()['pyserini']} analyses queries with {analyzer}: build the index again"
        )
