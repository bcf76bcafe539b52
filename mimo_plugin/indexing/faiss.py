"""FAISS indexes: presets, training, building and reading."""

import logging
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import ArtifactError, UsageError
from mimo_plugin.core.files import replacing
from mimo_plugin.indexing.settings import PRESETS
from mimo_plugin.indexing.vectors import Vectors

if TYPE_CHECKING:
    from mimo_plugin.indexing.open import IndexPlan

logger = logging.getLogger(__name__)

# FAISS's minimum of training vectors per centroid; with fewer it warns, and codes get worse.
VECTORS_A_CENTROID = 39
# Centroids of a product quantizer with codes of one byte.
_CODES = 256
# With fewer inverted lists, a search of all documents is as fast.
_FEWEST_LISTS = 16


@dataclass(frozen=True)
class ResolvedFactory:
    """The meaning of a preset or a factory string for one collection.

    Attributes:
        factory: FAISS factory string.
        parameters: set on the empty index and stored in its file, such as "efConstruction=200,efSearch=128".
        note: tells the user where another kind takes the preset's place.
    """

    factory: str
    parameters: str | None = None
    note: str | None = None


_OF_ANY_SIZE = {
    "flat": ResolvedFactory("Flat"),
    "fp16": ResolvedFactory("SQfp16"),
    "sq8": ResolvedFactory("SQ8"),
    "hnsw": ResolvedFactory("HNSW32", "efConstruction=200,efSearch=128"),
    "hnsw64": ResolvedFactory("HNSW64", "efConstruction=400,efSearch=128"),
}


def resolve(factory: str, dimension: int, documents: int) -> ResolvedFactory:
    """The FAISS factory string and parameters of a preset; any other string is a factory string itself.

    `recall.tune` replaces efSearch and nprobe by what the finished index needs.
    """
    if factory == "ivf":
        return _ivf(documents)
    if factory == "ivfpq":
        return _ivfpq(dimension, documents)
    return _OF_ANY_SIZE.get(factory, ResolvedFactory(factory))


def _ivf(documents: int) -> ResolvedFactory:
    """Lists of whole vectors."""
    least = VECTORS_A_CENTROID * _FEWEST_LISTS
    if documents < least:
        return ResolvedFactory(
            "Flat",
            note=f"ivf needs at least {least} documents to learn its lists and there are {documents}: flat "
            "took its place",
        )
    return ResolvedFactory(f"IVF{list_count(documents)},Flat")


def _ivfpq(dimension: int, documents: int) -> ResolvedFactory:
    """Codes with one byte per four dimensions; a search visits a sixteenth of the lists.

    "np" leaves out polysemous training, which takes minutes and serves a kind of search not used here.
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
    """The number of inverted lists, a power of two.

    More lists find more in the same time, up to four times the square root of the documents. Up to 1024 lists
    can be trained in constant memory; larger collections get the square root.
    """
    root = math.sqrt(documents)
    return 1 << int(math.log2(min(4 * root, documents / VECTORS_A_CENTROID, max(1024, root))))


# More vectors are used only for a factory with more centroids than these can train, to bound memory.
TRAINING_VECTORS = 50_000
# FAISS uses no more than this per centroid.
_MOST_A_CENTROID = 256


def training_vectors(parts: Iterable[Any]) -> int:
    """The maximum number of vectors to train an empty index on; `parts` are those of `nested`."""
    centroids = max(
        (max(getattr(part, "nlist", 0), getattr(getattr(part, "pq", None), "ksub", 0)) for part in parts),
        default=0,
    )
    if not centroids:
        return TRAINING_VECTORS
    return min(_MOST_A_CENTROID * centroids, max(TRAINING_VECTORS, VECTORS_A_CENTROID * centroids))


class Sample(NamedTuple):
    """Some documents: their positions, int64 (n,), ascending, and vectors, float32 (n, dimension)."""

    rows: np.ndarray
    vectors: np.ndarray


def sample_evenly(vectors: Vectors, most: int, seed: int) -> Sample:
    """At most `most` documents; the same seed gives the same ones.

    Languages are sampled evenly, so that a large one does not dominate the index.
    """
    generator = np.random.default_rng(seed)
    wanted: dict[str, set[int]] = {}
    left = most
    # Smallest first: the share that a small language cannot fill goes to larger ones.
    for count, (lang, size) in enumerate(sorted(vectors.languages.items(), key=lambda item: item[1])):
        share = min(size, left // (len(vectors.languages) - count))
        wanted[lang] = set(generator.choice(size, size=share, replace=False).tolist())
        left -= share
    seen = dict.fromkeys(vectors.languages, 0)
    rows: np.ndarray = np.empty(most - left, dtype=np.int64)
    sample: np.ndarray = np.empty((most - left, vectors.plan.dimension), dtype=np.float32)
    filled = start = 0
    for batch in vectors.batches():
        inside = []
        for row, lang in enumerate(batch.langs):
            if seen[lang] in wanted[lang]:
                inside.append(row)
            seen[lang] += 1
        rows[filled : filled + len(inside)] = np.array(inside, dtype=np.int64) + start
        sample[filled : filled + len(inside)] = batch.vectors[inside]
        filled += len(inside)
        start += len(batch.langs)
    return Sample(rows, sample)


# Matrix products are faster from this many numbers per thread (facebookresearch/faiss#5109).
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
    # FAISS ignores the metric for some kinds and uses L2 distance: the best hits would come last.
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise UsageError(
            f"--factory {factory!r}: FAISS cannot build this kind with inner product; try HNSW32, "
            "HNSW32_SQ8, IVF256,PQ16, PQ16"
        )
    if isinstance(faiss.downcast_index(index), faiss.IndexIDMap):
        raise UsageError(f"--factory {factory!r}: docids are kept beside the index; leave IDMap out")
    return index


def filled_index(
    plan: "IndexPlan", vectors: Vectors, *, threads: int | None = None, progress: bool | None = None
) -> Any:
    """Trains an index where needed, and adds every shard in order.

    The same plan and vectors give the same bytes, for HNSW only from FAISS 1.15 on.

    Args:
        threads: None is FAISS's own number: OMP_NUM_THREADS, else all cores.

    Raises:
        UsageError: FAISS cannot build or train the index on these vectors.
    """
    import faiss

    index = new_index(plan.factory, plan.dimension)
    if plan.parameters:
        set_parameters(index, plan.parameters, f"--factory {plan.factory!r}")
    with faiss_threads(threads):
        if not index.is_trained:
            sample = sample_evenly(vectors, training_vectors(nested(index)), plan.seed).vectors
            try:
                with matrix_products():
                    index.train(sample)
            except RuntimeError as error:
                raise UsageError(
                    f"--factory {plan.factory!r} cannot be trained on {len(sample)} vectors: {reason(error)}"
                ) from error
            del sample
        for part in nested(index):
            # Growing the codes shard by shard would need up to twice the memory.
            if isinstance(part, faiss.IndexFlatCodes):
                part.codes.resize(plan.documents * part.code_size)
        graph = any(isinstance(part, faiss.IndexHNSW) for part in nested(index))
        began, told = time.monotonic(), not graph
        with bar(total=plan.documents, what="indexing", unit="docs", enabled=progress) as counter:
            for batch in vectors.batches():
                index.add(np.ascontiguousarray(batch.vectors))
                counter.update(len(batch.docids))
                if not told and (line := _long(time.monotonic() - began, index.ntotal, plan.documents)):
                    logger.info(line)
                    told = True
    return index


# Seconds until the rate of adding to a graph tells something, and those from which an alternative is named.
_SETTLED, _LONG = 30, 600


def _long(elapsed: float, done: int, documents: int) -> str | None:
    """A line about an alternative where the rest of a graph takes long; it takes more than a linear rest."""
    import faiss

    left = elapsed / done * (documents - done)
    if elapsed < _SETTLED or left < _LONG:
        return None
    return (
        f"the graph takes at least {left / 60:.0f} more minutes with {faiss.omp_get_max_threads()} threads: "
        "--factory ivf is built in about a tenth of the time, with nprobe chosen for the same recall"
    )


@contextmanager
def faiss_threads(threads: int | None) -> Iterator[None]:
    """Sets FAISS's number of threads in this thread; None leaves it unchanged."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads or before)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def write_index(path: Path, index: Any) -> None:
    import faiss

    with replacing(path) as beside, beside.open("wb") as file:
        # A Python file reports every error; FAISS's own writer can miss a full disk.
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write, 1 << 20))


@contextmanager
def matrix_products() -> Iterator[None]:
    """Makes FAISS use matrix products wherever they are faster, in searches and in k-means.

    FAISS 1.15 compares pair by pair up to 128,000 numbers, such as 333 queries of 384 dimensions. With few
    threads, searching then takes three times as long and training ten times.
    """
    import faiss

    before = faiss.cvar.distance_compute_blas_threshold
    faiss.cvar.distance_compute_blas_threshold = min(before, _PRODUCTS_FROM * faiss.omp_get_max_threads())
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = before


def set_parameters(index: Any, parameters: str, what: object) -> None:
    """Sets FAISS parameters such as "nprobe=16" on an index. what: its name, for the message."""
    import faiss

    try:
        faiss.ParameterSpace().set_index_parameters(index, parameters)
    except RuntimeError as error:
        raise UsageError(f"parameters {parameters!r} do not fit {what}: {reason(error)}") from error


def choosing(index: Any, chosen: np.ndarray) -> Any:
    """FAISS's parameters of a search among chosen documents only.

    Indexes that score only some documents look at more, by the share of the chosen ones: with an eighth of
    them chosen, an IVF index visits eight times as many lists.

    Args:
        chosen: bool (documents,), at least one.
    """
    import faiss

    index = faiss.downcast_index(index)
    wider = len(chosen) / np.count_nonzero(chosen)
    if isinstance(index, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=choosing(index.index, chosen))
    if isinstance(index, faiss.IndexRefine):
        inner = choosing(index.base_index, chosen)
        return faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=inner)
    selector = faiss.IDSelectorBitmap(np.packbits(chosen, bitorder="little"))
    if isinstance(index, faiss.IndexIVF):
        lists = min(math.ceil(index.nprobe * wider), index.nlist)
        return faiss.SearchParametersIVF(sel=selector, nprobe=lists, max_codes=index.max_codes)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=selector, efSearch=math.ceil(index.hnsw.efSearch * wider))
    return faiss.SearchParameters(sel=selector)


def read_index(path: Path) -> Any:
    import faiss

    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise ArtifactError(
            f"{path} cannot be read by FAISS ({reason(error)}): build the index again"
        ) from error


def nested(index: Any) -> Iterator[Any]:
    """An index and the indexes inside it, each in its own class."""
    import faiss

    index = faiss.downcast_index(index)
    yield index
    for name in ("index", "base_index", "storage"):
        if (inner := getattr(index, name, None)) is not None:
            yield from nested(inner)


def reason(error: RuntimeError) -> str:
    """A FAISS error's message without its C++ function and line."""
    return str(error).rsplit(": ", 1)[-1].strip()
