"""Vectors of documents on disk: encoded once, or brought along, and any number of indexes made from them."""

from mimo_plugin.vectors.encoding import Encoded, EncodeOptions, encode_collection
from mimo_plugin.vectors.job import encode_collections
from mimo_plugin.vectors.joining import join_plans
from mimo_plugin.vectors.manifest import VectorsManifest, read_manifest
from mimo_plugin.vectors.plan import EncodingPlan
from mimo_plugin.vectors.reading import Vectors, open_vectors
from mimo_plugin.vectors.shards import VectorBatch

__all__ = [
    "EncodeOptions",
    "Encoded",
    "EncodingPlan",
    "VectorBatch",
    "Vectors",
    "VectorsManifest",
    "encode_collection",
    "encode_collections",
    "join_plans",
    "open_vectors",
    "read_manifest",
]
