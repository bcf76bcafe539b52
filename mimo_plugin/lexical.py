"""BM25 over a mixed-language pool, through Pyserini's Lucene."""

import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.errors import ArtifactError
from mimo_plugin.jvm import import_pyserini
from mimo_plugin.progress import bar

if TYPE_CHECKING:
    import numpy as np

# Anserini's defaults for passages.
K1, B = 0.9, 0.4

_BATCH = 1000


def index_bm25(collection: Any, directory: Path, *, threads: int = 2, progress: bool | None = None) -> int:
    """Writes a Lucene index of a pool's documents and returns their number.

    One analysis serves all languages: Unicode word boundaries and lower case, without stemming and stop
    words, which belong to one language each.

    Args:
        collection: an ir_datasets dataset of `Doc`s.

    Raises:
        ArtifactError: the directory is there already.
    """
    if directory.exists():
        raise ArtifactError(f"{directory} is there already: a new directory was expected")
    import_pyserini()
    from jnius import autoclass
    from pyserini.index.lucene import LuceneIndexer

    # The indexer logs its settings as it starts, between the lines of whoever called.
    level = autoclass("org.apache.logging.log4j.Level").WARN
    autoclass("org.apache.logging.log4j.core.config.Configurator").setLevel("io.anserini.index", level)
    # A killed run leaves no directory that looks like an index.
    beside = directory.with_name(f".{directory.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    arguments = ["-index", str(beside), "-stemmer", "none", "-keepStopwords"]
    indexer = LuceneIndexer(args=arguments, threads=threads)
    docs = iter(bar(collection.docs_iter(), what="BM25 indexing", unit="docs", enabled=progress))
    count = 0
    while batch := [{"id": doc.doc_id, "contents": doc.text} for doc in islice(docs, _BATCH)]:
        indexer.add_batch_dict(batch)
        count += len(batch)
    indexer.close()
    beside.rename(directory)
    return count


def search_bm25(
    directory: Path,
    queries: list[tuple[str, str]],
    *,
    hits: int,
    threads: int = 2,
    advance: Callable[[int], object] | None = None,
) -> Iterator[tuple[str, list[str], "np.ndarray"]]:
    """Yields (query id, docids, BM25 scores float32), a query at a time in the queries' order.

    Args:
        directory: an index that `index_bm25` wrote.
        queries: (query id, text) pairs.
        hits: documents a query at most.
    """
    import_pyserini()
    import numpy as np
    from pyserini.analysis import get_lucene_analyzer
    from pyserini.search.lucene import LuceneSearcher

    searcher = LuceneSearcher(str(directory))
    searcher.set_analyzer(get_lucene_analyzer(stemming=False, stopwords=False))
    searcher.set_bm25(K1, B)
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
