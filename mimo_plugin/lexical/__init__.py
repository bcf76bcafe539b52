"""BM25 through Pyserini's Lucene: one index of a collection or a mixed pool, plain or for one language."""

from mimo_plugin.lexical.build import BuiltBm25, index_bm25
from mimo_plugin.lexical.directory import Bm25Manifest, read_bm25_manifest
from mimo_plugin.lexical.search import K1, B, search_bm25

__all__ = ["K1", "B", "Bm25Manifest", "BuiltBm25", "index_bm25", "read_bm25_manifest", "search_bm25"]
