"""Vectors without texts and encoder."""

from typing import get_args

import numpy as np

from mimo_plugin.indexing.plan import EncodingPlan
from mimo_plugin.indexing.vectors import VectorBatch, Vectors


class Seeded(Vectors):
    """Unit vectors with a low intrinsic dimension, as embeddings have, in shards of 1,000.

    Attributes:
        all: of the documents.
        queries: 50 of the same distribution.
    """

    def __init__(self, documents: int, dimension: int) -> None:
        super().__init__(_plan(documents, dimension), [])
        self.languages = {"de": documents}
        generator = np.random.default_rng(7)
        axes = generator.standard_normal((12, dimension)).astype(np.float32)
        latent = generator.standard_normal((documents + 50, 12)).astype(np.float32)
        vectors = latent @ axes + 0.3 * generator.standard_normal((len(latent), dimension)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self.all, self.queries = vectors[:documents], vectors[documents:]

    def __len__(self) -> int:
        return -(-self.plan.documents // 1000)

    def batch(self, shard: int) -> VectorBatch:
        vectors = self.all[shard * 1000 : (shard + 1) * 1000]
        docids = [f"d{shard * 1000 + row}" for row in range(len(vectors))]
        return VectorBatch(docids, ["de"] * len(vectors), vectors)


def _plan(documents: int, dimension: int) -> EncodingPlan:
    values = {
        name: None if type(None) in get_args(field.annotation) else ""
        for name, field in EncodingPlan.model_fields.items()
        if field.is_required()
    }
    return EncodingPlan(
        **values
        | {
            "collections": ("seeded",),
            "collection_fingerprint": "seeded",
            "collection_documents": documents,
            "documents": documents,
            "dimension": dimension,
            "shard_size": 1000,
            "versions": {},
        }
    )
