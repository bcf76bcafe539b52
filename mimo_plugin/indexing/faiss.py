"""FAISS: presets, training, building and writing."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import ArtifactError, UsageError
from mimo_plugin.core.files import replacing
from mimo_plugin.indexing.vectors import Vectors

if TYPE_CHECKING:
    from mimo_plugin.indexing.open import IndexPlan

# FAISS wants this many training vectors a centroid at least; with fewer it complains and codes get worse.
VECTORS_A_CENTROID = 39
# Centroids of a product quantiser's code of one byte.
_CODES = 256


@dataclass(frozen=True)
class ResolvedFactory:
    """What a preset or a factory string means for one collection.

    Attributes:
        factory: FAISS factory string.
        parameters: set on the index before vectors are added, and kept in its file, such as
            "efConstruction=200,efSearch=128"; None sets nothing.
        note: what a user should know, where the preset is not what its name says.
    """

    factory: str
    parameters: str | None = None
    note: str | None = None


_OF_ANY_SIZE = {
    "flat": ResolvedFactory("Flat"),
    "fp16": ResolvedFactory("SQfp16"),
    "sq8": ResolvedFactory("SQ8"),
    "hnsw": ResolvedFactory("HNSW32", "efConstruction=200,efSearch=128"),
}
PRESETS = (*_OF_ANY_SIZE, "ivfpq")


def resolve(factory: str, dimension: int, documents: int) -> ResolvedFactory:
    """The FAISS factory string and parameters of a preset; any other string is a factory string itself.

    Args:
        dimension: of the vectors.
        documents: number of vectors that the index is to hold.
    """
    if factory == "ivfpq":
        return _ivfpq(dimension, documents)
    return _OF_ANY_SIZE.get(factory, ResolvedFactory(factory))


def _ivfpq(dimension: int, documents: int) -> ResolvedFactory:
    """A code has a byte for every four dimensions; a sixteenth of the lists is searched.

    "np" leaves out polysemous training, which takes minutes and helps only a search that nobody here makes.
    """
    least = VECTORS_A_CENTROID * _CODES
    if documents < least:
        return _too_little(f"at least {least} documents to learn its codes and there are {documents}")
    # The largest divisor of the dimension that is at most a quarter of it.
    size = next((size for size in range(dimension // 4, 1, -1) if dimension % size == 0), 1)
    if 8 * size < dimension:
        return _too_little(f"a dimension that can be cut into small equal pieces, and it is {dimension}")
    lists = list_count(documents)
    return ResolvedFactory(f"IVF{lists},PQ{size}np", f"nprobe={lists // 16}")


def _too_little(needed: str) -> ResolvedFactory:
    return ResolvedFactory("SQ8", note=f"ivfpq needs {needed}: sq8 took its place")


def list_count(documents: int) -> int:
    """How many inverted lists, a power of two.

    More lists find more in the same time, up to four times the square root of the documents. But a thousand
    can be learnt in memory that does not grow with the collection; beyond that it is the square root.
    """
    root = math.sqrt(documents)
    return 1 << int(math.log2(min(4 * root, documents / VECTORS_A_CENTROID, max(1024, root))))


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
    # The most that one quantiser of an index has.
    centroids = max(
        (max(getattr(part, "nlist", 0), getattr(getattr(part, "pq", None), "ksub", 0)) for part in parts),
        default=0,
    )
    if not centroids:
        return TRAINING_VECTORS
    return min(_MOST_A_CENTROID * centroids, max(TRAINING_VECTORS, VECTORS_A_CENTROID * centroids))


def training_sample(vectors: Vectors, most: int, seed: int) -> np.ndarray:
    """Vectors to train on, float32 (n, dimension), n <= most; the same for the same seed.

    Every language gives as many, or all that it has, so that no language's vectors alone shape the index.
    """
    generator = np.random.default_rng(seed)
    wanted: dict[str, set[int]] = {}
    left = most
    # The smallest first: what a language cannot fill goes to the ones after it.
    for count, (lang, size) in enumerate(sorted(vectors.languages.items(), key=lambda item: item[1])):
        share = min(size, left // (len(vectors.languages) - count))
        wanted[lang] = set(generator.choice(size, size=share, replace=False).tolist())
        left -= share
    seen = dict.fromkeys(vectors.languages, 0)
    sample: np.ndarray = np.empty((most - left, vectors.plan.dimension), dtype=np.float32)
    filled = 0
    for batch in vectors.batches():
        inside = []
        for row, lang in enumerate(batch.langs):
            if seen[lang] in wanted[lang]:
                inside.append(row)
            seen[lang] += 1
        sample[filled : filled + len(inside)] = batch.vectors[inside]
        filled += len(inside)
    return sample


# Numbers in the queries, a thread, from which on matrix products are faster (facebookresearch/faiss#5109).
_PRODUCTS_FROM = 800


def new_index(factory: str, dimension: int) -> Any:
    """An empty index.

    Raises:
        UsageError: FAISS does not know the factory string for this dimension, or not with inner product.
    """
    import faiss

    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise UsageError(
            f"--factory {factory!r} with {dimension} dimensions is not a FAISS index: {reason(error)}; try "
            f"{', '.join(PRESETS)}, or a factory string such as HNSW32 or IVF256,Flat"
        ) from error
    # FAISS makes some kinds with L2 distance whatever metric it is asked for: best hits would come last.
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise UsageError(
            f"--factory {factory!r}: FAISS cannot build this kind with inner product; try HNSW32, "
            "HNSW32_SQ8, IVF256,PQ16, PQ16"
        )
    if isinstance(faiss.downcast_index(index), faiss.IndexIDMap):
        raise UsageError(f"--factory {factory!r}: docids are kept beside the index; leave IDMap out")
    return index


def write_index(path: Path, plan: "IndexPlan", vectors: Vectors, *, progress: bool | None = None) -> None:
    """Trains the index if it needs that, adds every shard in order, and writes it to `path` at once.

    The same plan and vectors give the same bytes; of HNSW only where FAISS, from 1.15 on, builds its graph
    in an order that does not depend on threads.
    """
    import faiss

    index = new_index(plan.factory, plan.dimension)
    if plan.parameters:
        set_parameters(index, plan.parameters, f"--factory {plan.factory!r}")
    if not index.is_trained:
        sample = training_sample(vectors, training_vectors(nested(index)), plan.seed)
        try:
            with matrix_products():
                index.train(sample)
        except RuntimeError as error:
            raise UsageError(
                f"--factory {plan.factory!r} cannot be trained on {len(sample)} vectors: {reason(error)}"
            ) from error
        del sample
    for part in nested(index):
        # Grown bit by bit, flat codes need up to twice as much memory for a while.
        if isinstance(part, faiss.IndexFlatCodes):
            part.codes.resize(plan.documents * part.code_size)
    for shard in bar(range(len(vectors)), what="indexing", unit="shards", enabled=progress):
        index.add(np.ascontiguousarray(vectors.batch(shard).vectors))
    with replacing(path) as beside, beside.open("wb") as file:
        # Through Python's file, whose every error is seen; FAISS's own can lose what a full disk cuts off.
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write, 1 << 20))


@contextmanager
def matrix_products() -> Iterator[None]:
    """Has FAISS compare vectors by matrix products wherever that is faster, in searching and in k-means.

    FAISS 1.15 goes pair by pair up to 128,000 numbers, which are 333 queries of 384 dimensions. That is right
    for a hundred threads; on a few it takes three times as long to search and ten times as long to train.
    """
    import faiss

    before = faiss.cvar.distance_compute_blas_threshold
    faiss.cvar.distance_compute_blas_threshold = min(before, _PRODUCTS_FROM * faiss.omp_get_max_threads())
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = before


def set_parameters(index: Any, parameters: str, what: object) -> None:
    """Sets FAISS parameters such as "nprobe=16" or "efConstruction=200,efSearch=128" on an index.

    Args:
        what: what the index is called in a message.
    """
    import faiss

    try:
        faiss.ParameterSpace().set_index_parameters(index, parameters)
    except RuntimeError as error:
        raise UsageError(f"parameters {parameters!r} do not fit {what}: {reason(error)}") from error


def read_index(path: Path) -> Any:
    """Reads an index file."""
    import faiss

    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise ArtifactError(
            f"{path} cannot be read by FAISS ({reason(error)}): build the index again"
        ) from error


def nested(index: Any) -> Iterator[Any]:
    """An index and those that it hands its vectors on to, each as the class that it is."""
    import faiss

    index = faiss.downcast_index(index)
    yield index
    for name in ("index", "base_index", "storage"):
        if (inner := getattr(index, name, None)) is not None:
            yield from nested(inner)


def reason(error: RuntimeError) -> str:
    """FAISS puts the C++ function and line before its reason."""
    return str(error).rsplit(": ", 1)[-1].strip()
