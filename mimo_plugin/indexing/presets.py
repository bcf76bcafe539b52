"""Names for the indexes that most people want, with settings chosen from `benchmarks/index_curves.py`."""

import math
from collections.abc import Callable
from dataclasses import dataclass

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


def resolve(factory: str, dimension: int, documents: int) -> ResolvedFactory:
    """The FAISS factory string and parameters of a preset; any other string is a factory string itself.

    Args:
        dimension: of the vectors.
        documents: number of vectors that the index is to hold.
    """
    preset = PRESETS.get(factory)
    return ResolvedFactory(factory) if preset is None else preset(dimension, documents)


def _flat(dimension: int, documents: int) -> ResolvedFactory:
    return ResolvedFactory("Flat")


def _fp16(dimension: int, documents: int) -> ResolvedFactory:
    return ResolvedFactory("SQfp16")


def _sq8(dimension: int, documents: int) -> ResolvedFactory:
    return ResolvedFactory("SQ8")


def _hnsw(dimension: int, documents: int) -> ResolvedFactory:
    return ResolvedFactory("HNSW32", "efConstruction=200,efSearch=128")


def _ivfpq(dimension: int, documents: int) -> ResolvedFactory:
    """A code has a byte for every four dimensions; a sixteenth of the lists is searched.

    "np" leaves out polysemous training, which takes minutes and helps only a search that nobody here makes.
    """
    least = VECTORS_A_CENTROID * _CODES
    if documents < least:
        return _too_little(f"at least {least} documents to learn its codes and there are {documents}")
    size = _code_bytes(dimension)
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


def _code_bytes(dimension: int) -> int:
    """The largest divisor of the dimension that is at most a quarter of it; 1 where there is none."""
    return next((size for size in range(dimension // 4, 1, -1) if dimension % size == 0), 1)


PRESETS: dict[str, Callable[[int, int], ResolvedFactory]] = {
    "flat": _flat,
    "fp16": _fp16,
    "sq8": _sq8,
    "hnsw": _hnsw,
    "ivfpq": _ivfpq,
}
