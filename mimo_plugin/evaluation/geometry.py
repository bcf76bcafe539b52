"""How embeddings lie on the unit sphere: alignment of translations, and uniformity.

Both after Wang and Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity
on the Hypersphere (ICML 2020), with the language versions of one text as positive pairs.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import fsum, log

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.errors import DataError, ModelError

Vectors = NDArray[np.float32]

_UNIT_TOLERANCE = 1e-2  # float16 and bfloat16 round as much
_EXACT_VECTORS = 10_000  # 50 million pairs: a matrix product is faster than drawing a million of them
_ROWS_A_BLOCK = 1024
_PAIRS_A_BLOCK = 1 << 16


def alignment(vectors: Vectors, groups: Sequence[str], langs: Sequence[str]) -> float:
    """Mean squared distance between language versions of the same text: 0 is best, 4 the most there can be.

    The mean over language pairs of `pair_alignment`, so that every pair counts the same, however many texts
    there are in both languages. Arguments and errors as there.
    """
    return mean_over_pairs(pair_alignment(vectors, groups, langs))


def mean_over_pairs(distances: Mapping[tuple[str, str], float]) -> float:
    """Alignment from what `pair_alignment` returns."""
    return fsum(distances.values()) / len(distances)


def pair_alignment(
    vectors: Vectors, groups: Sequence[str], langs: Sequence[str]
) -> dict[tuple[str, str], float]:
    """For every pair of languages, the mean squared distance over the texts that have a version in both.

    Args:
        vectors: (n, d), of length 1.
        groups: (n,) equal for the versions of one text.
        langs: (n,) languages.

    Returns:
        (language, language), in alphabetical order -> mean of ||u - v||^2; pairs without a text are left out.

    Raises:
        ModelError: vectors that are not of length 1.
        DataError: two versions of a text in one language, or no text with versions in two.
    """
    _check_unit(vectors)
    distances = {}
    for pair, rows in version_pairs(groups, langs):
        apart = vectors[rows[:, 0]] - vectors[rows[:, 1]]
        squares = np.einsum("nd,nd->n", apart, apart)
        distances[pair] = float(squares.mean(dtype=np.float64))
    if not distances:
        raise DataError(
            f"none of {len(set(groups)):,} texts has versions in two languages, expected parallel texts: "
            "alignment compares the versions of one text"
        )
    return distances


def version_pairs(
    groups: Sequence[str], langs: Sequence[str]
) -> Iterator[tuple[tuple[str, str], NDArray[np.intp]]]:
    """Yields, for every pair of languages with a text in both, the rows of its versions there.

    Args:
        groups, langs: (n,) as for `pair_alignment`.

    Returns:
        (language, language), in alphabetical order, and rows (m, 2), m at least 1.

    Raises:
        DataError: two versions of a text in one language.
    """
    texts, text_of = np.unique(np.asarray(groups), return_inverse=True)
    languages, lang_of = np.unique(np.asarray(langs), return_inverse=True)
    numbers = np.arange(len(text_of))
    rows = np.full((len(texts), len(languages)), -1, dtype=np.intp)
    rows[text_of, lang_of] = numbers
    overwritten = np.flatnonzero(rows[text_of, lang_of] != numbers)
    if len(overwritten):
        twice = overwritten[0]
        raise DataError(
            f"text {groups[twice]!r} has two versions in {langs[twice]!r}, expected one a language"
        )
    for first, second in combinations(range(len(languages)), 2):
        both = rows[:, [first, second]]
        both = both[(both >= 0).all(axis=1)]
        if len(both):
            yield (str(languages[first]), str(languages[second])), both


def uniformity(vectors: Vectors, *, pairs: int = 1_000_000, seed: int = 0) -> float:
    """Logarithm of the mean of exp(-2 ||u - v||^2) over pairs of vectors: the lower, the more even.

    From -8, which two opposite vectors have, to 0, where all vectors are the same; the uniform distribution
    on a sphere of many dimensions has a little above -4.

    Args:
        vectors: (n, d), of length 1.
        pairs: how many different pairs are drawn, from `seed`; all pairs are looked at where there are at
            most so many, or at most 10,000 vectors.

    Raises:
        ModelError: vectors that are not of length 1.
        DataError: fewer than two vectors.
    """
    count = len(vectors)
    if count < 2:
        raise DataError(f"{count} vectors, expected at least two: uniformity is about pairs")
    _check_unit(vectors)
    total = count * (count - 1) // 2
    if count <= _EXACT_VECTORS or total <= pairs:
        return min(0.0, log(_sum_over_all(vectors) / total))
    drawn = np.random.default_rng(seed).choice(total, pairs, replace=False, shuffle=False)
    sums = []
    for start in range(0, pairs, _PAIRS_A_BLOCK):
        first, second = _numbered_pairs(drawn[start : start + _PAIRS_A_BLOCK], count)
        apart = vectors[first] - vectors[second]
        sums.append(_potential(np.einsum("nd,nd->n", apart, apart)))
    return min(0.0, log(fsum(sums) / pairs))


def _numbered_pairs(numbers: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs with these numbers, of all n (n - 1) / 2: `first` and what lies 1, 2, ... n // 2 after it on
    a circle of n places."""
    step, first = np.divmod(numbers, count)
    return first, (first + step + 1) % count


def _sum_over_all(vectors: Vectors) -> float:
    squares = np.einsum("nd,nd->n", vectors, vectors)
    sums = []
    for start in range(0, len(vectors), _ROWS_A_BLOCK):
        block = slice(start, start + _ROWS_A_BLOCK)
        distances = squares[block, None] + squares[start:] - 2 * (vectors[block] @ vectors[start:].T)
        # Row r of the block is column r: only what is right of it has not been counted yet.
        distances[np.tri(*distances.shape, dtype=np.bool_)] = np.inf
        sums.append(_potential(distances))
    return fsum(sums)


def _potential(distances: NDArray[np.float32]) -> float:
    """Sum of the Gaussian potential of squared distances, which rounding can have put below 0."""
    return float(np.exp(-2 * np.maximum(distances, 0)).sum(dtype=np.float64))


def _check_unit(vectors: Vectors) -> None:
    lengths = np.linalg.norm(vectors, axis=1)
    wrong = ~(np.abs(lengths - 1) <= _UNIT_TOLERANCE)
    if wrong.any():
        raise ModelError(
            f"{np.count_nonzero(wrong):,} of {len(vectors):,} vectors do not have length 1 (one "
            f"has {lengths[wrong][0]:.3g}), expected normalised ones: use a model that ends in Normalize"
        )
