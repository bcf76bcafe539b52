"""From vector shards to one FAISS index file, inner product whatever the factory string."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mimo_plugin.errors import ArtifactError, UsageError
from mimo_plugin.files import replacing
from mimo_plugin.indexing.manifest import Plan
from mimo_plugin.indexing.presets import PRESETS
from mimo_plugin.indexing.training import training_sample, training_vectors
from mimo_plugin.progress import bar
from mimo_plugin.vectors.reading import Vectors

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


def write_index(
    path: Path, plan: Plan, shards: Vectors, languages: Mapping[str, int], *, progress: bool | None = None
) -> None:
    """Trains the index if it needs that, adds every shard in order, and writes it to `path` at once.

    The same plan and vectors give the same bytes; of HNSW only where FAISS, from 1.15 on, builds its graph
    in an order that does not depend on threads.

    Raises:
        UsageError: FAISS cannot train the index on these vectors, or does not know the plan's parameters.
        EnvironmentProblem: the file cannot be written.
    """
    import faiss
    import numpy as np

    index = new_index(plan.factory, plan.dimension)
    if plan.parameters:
        set_parameters(index, plan.parameters, f"--factory {plan.factory!r}")
    if not index.is_trained:
        sample = training_sample(shards, languages, training_vectors(nested(index)), plan.seed)
        try:
            with matrix_products():
                index.train(sample)
        except RuntimeError as error:
            raise UsageError(
                f"--factory {plan.factory!r} cannot be trained on {len(sample)} vectors: {reason(error)}"
            ) from error
        del sample
    _reserve(index, plan.documents)
    for shard in bar(range(len(shards)), what="indexing", unit="shards", enabled=progress):
        index.add(np.ascontiguousarray(shards.vectors(shard)))
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

    Raises:
        UsageError: the index does not have them.
    """
    import faiss

    try:
        faiss.ParameterSpace().set_index_parameters(index, parameters)
    except RuntimeError as error:
        raise UsageError(f"parameters {parameters!r} do not fit {what}: {reason(error)}") from error


def read_index(path: Path) -> Any:
    """Reads an index file.

    Raises:
        ArtifactError: FAISS cannot read it.
    """
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


def _reserve(index: Any, documents: int) -> None:
    """Takes the memory of flat codes at once: grown bit by bit they need up to twice as much for a while."""
    import faiss

    for part in nested(index):
        if isinstance(part, faiss.IndexFlatCodes):
            part.codes.resize(documents * part.code_size)


def reason(error: RuntimeError) -> str:
    """FAISS puts the C++ function and line before its reason."""
    return str(error).rsplit(": ", 1)[-1].strip()
