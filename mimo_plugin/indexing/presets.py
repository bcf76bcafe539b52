"""Names for the indexes that most people want, with settings chosen from `benchmarks/index_curves.py`."""

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
    """Lists grow with the square root of the documents; a code has a byte for every four dimensions."""
    least = VECTORS_A_CENTROID * _CODES
    if documents < least:
        return ResolvedFactory(
            "SQ8",
            note=f"ivfpq needs at least {least} documents to learn its codes and there are {documents}: "
            "sq8 took its place",
        )
    # A power of two next to the square root: from 64 lists of 156 documents on.
    lists = 1 << round((documents.bit_length() - 1) / 2)
    return ResolvedFactory(f"IVF{lists},PQ{_code_bytes(dimension)}", f"nprobe={max(lists // 16, 8)}")


def _code_bytes(dimension: int) -> int:
    """The largest divisor of the dimension that is at most a quarter of it."""
    return next(size for size in range(max(dimension // 4, 1), 0, -1) if dimension % size == 0)


PRESETS: dict[str, Callable[[int, int], ResolvedFactory]] = {
    "flat": _flat,
    "fp16": _fp16,
    "sq8": _sq8,
    "hnsw": _hnsw,
    "ivfpq": _ivfpq,
}
