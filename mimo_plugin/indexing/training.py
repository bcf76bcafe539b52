"""What an index learns its centroids and codes from."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mimo_plugin.indexing.presets import VECTORS_A_CENTROID
from mimo_plugin.vectors.reading import Vectors

if TYPE_CHECKING:
    import numpy as np

# Memory of a build must not grow with the collection, so more vectors are taken only where the factory has
# more centroids than can be learnt from these.
TRAINING_VECTORS = 50_000
# FAISS takes no more than this a centroid.
_MOST_A_CENTROID = 256


def training_vectors(parts: Iterable[Any]) -> int:
    """How many vectors an empty index is to be trained on at most.

    Args:
        parts: the index and those inside it.
    """
    centroids = max(map(_centroids, parts), default=0)
    if not centroids:
        return TRAINING_VECTORS
    return min(_MOST_A_CENTROID * centroids, max(TRAINING_VECTORS, VECTORS_A_CENTROID * centroids))


def _centroids(index: Any) -> int:
    """The most centroids that one quantiser of an index has."""
    quantizer = getattr(index, "pq", None)
    return max(getattr(index, "nlist", 0), 0 if quantizer is None else quantizer.ksub)


def training_sample(shards: Vectors, languages: Mapping[str, int], most: int, seed: int) -> "np.ndarray":
    """Vectors to train on, float32 (n, dimension), n <= most; the same for the same seed.

    Every language gives as many, or all that it has, so that no language's vectors alone shape the index.

    Args:
        languages: language -> its number of documents.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    wanted: dict[str, set[int]] = {}
    left = most
    # The smallest first: what a language cannot fill goes to the ones after it.
    for count, (lang, size) in enumerate(sorted(languages.items(), key=lambda item: item[1])):
        share = min(size, left // (len(languages) - count))
        wanted[lang] = set(generator.choice(size, size=share, replace=False).tolist())
        left -= share
    seen = dict.fromkeys(languages, 0)
    sample: np.ndarray = np.empty((most - left, shards.dimension), dtype=np.float32)
    filled = 0
    for shard in range(len(shards)):
        inside = []
        for row, (_, lang) in enumerate(shards.entries(shard)):
            if seen[lang] in wanted[lang]:
                inside.append(row)
            seen[lang] += 1
        sample[filled : filled + len(inside)] = shards.vectors(shard)[inside]
        filled += len(inside)
    return sample
