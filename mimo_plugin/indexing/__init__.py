"""From a collection to a directory with a FAISS index that Pyserini's FaissSearcher reads."""

from mimo_plugin.indexing.build import IndexOptions, build_index, index_vectors
from mimo_plugin.indexing.job import index_collections
from mimo_plugin.indexing.manifest import IndexManifest, read_manifest

__all__ = [
    "IndexManifest",
    "IndexOptions",
    "build_index",
    "index_collections",
    "index_vectors",
    "read_manifest",
]
