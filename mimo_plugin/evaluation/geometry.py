"""The geometry of an encoder's space: alignment, uniformity, separability, centroids."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import fsum, log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.core.errors import DataError, ModelError
from mimo_plugin.evaluation.results import SeparabilityResult

Vectors = NDArray[np.float32]

_UNIT_TOLERANCE = 1e-2  # float16 and bfloat16 round as much
_EXACT_VECTORS = 10_000  # 50 million pairs: a matrix product is faster than drawing a million of them
_ROWS_A_BLOCK = 1024
_PAIRS_A_BLOCK = 1 << 16


def alignment(vectors: Vectors, groups: Sequence[str], langs: Sequence[str]) -> float:
    """Mean squared distance between language versions of the same text: 0 is best, 4 is the largest.

    The mean of `pair_alignment` over language pairs; every pair has the same weight. Arguments and errors as
    there.
    """
    return mean_over_pairs(pair_alignment(vectors, groups, langs))


def mean_over_pairs(distances: Mapping[tuple[str, str], float]) -> float:
    """Alignment from the result of `pair_alignment`."""
    return fsum(distances.values()) / len(distances)


def pair_alignment(
    vectors: Vectors, groups: Sequence[str], langs: Sequence[str]
) -> dict[tuple[str, str], float]:
    """For each pair of languages, the mean squared distance over texts with a version in both.

    Args:
        vectors: (n, d), of length 1.
        groups: (n,) equal for the versions of one text.
        langs: (n,) languages.

    Returns:
        (language, language), in alphabetical order -> mean of ||u - v||^2; pairs without a text are left out.

    Raises:
        ModelError: vectors that are not of length 1.
        DataError: two versions of a text in one language, or no text with versions in two languages.
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
    """Yields the rows of all text versions, for each pair of languages with a text in both.

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

    From -8, for two opposite vectors, to 0, where all vectors are the same. The uniform distribution on a
    sphere of many dimensions has a little above -4.

    Args:
        vectors: (n, d), of length 1.
        pairs: number of different pairs drawn with `seed`. All pairs are used if there are no more, or for
            10,000 vectors or fewer.

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
    """The pairs with these numbers: `first`, and each of the n // 2 vectors after it on a circle of n."""
    step, first = np.divmod(numbers, count)
    return first, (first + step + 1) % count


def _sum_over_all(vectors: Vectors) -> float:
    squares = np.einsum("nd,nd->n", vectors, vectors)
    sums = []
    for start in range(0, len(vectors), _ROWS_A_BLOCK):
        block = slice(start, start + _ROWS_A_BLOCK)
        distances = squares[block, None] + squares[start:] - 2 * (vectors[block] @ vectors[start:].T)
        # Row r of the block is column r: only cells to its right have not been counted yet.
        distances[np.tri(*distances.shape, dtype=np.bool_)] = np.inf
        sums.append(_potential(distances))
    return fsum(sums)


def _potential(distances: NDArray[np.float32]) -> float:
    """Sum of the Gaussian potential of squared distances; rounding may have made some negative."""
    return float(np.exp(-2 * np.maximum(distances, 0)).sum(dtype=np.float64))


def _check_unit(vectors: Vectors) -> None:
    lengths = np.linalg.norm(vectors, axis=1)
    wrong = ~(np.abs(lengths - 1) <= _UNIT_TOLERANCE)
    if wrong.any():
        raise ModelError(
            f"{np.count_nonzero(wrong):,} of {len(vectors):,} vectors do not have length 1 (one "
            f"has {lengths[wrong][0]:.3g}), expected normalised ones: use a model that ends in Normalize"
        )


def separability(
    vectors: NDArray[np.float32],
    langs: Sequence[str],
    groups: Sequence[str],
    *,
    folds: int = 5,
    neighbours: int = 5,
    seed: int = 0,
) -> tuple[SeparabilityResult, list[str]]:
    """Cross-validates two probes that predict the language of each vector.

    One predicts the language with the nearest mean vector, the other the most frequent language among the
    nearest neighbours. Accuracies are averaged over languages.

    Folds are stratified by language, and a fold holds all versions of a text. With a translation among the
    training vectors, nearest neighbours would identify the text and not the language. The subject of a text
    that exists in few languages can still reveal the language.

    Args:
        vectors: (n, d), of length 1, so that nearest by distance is nearest by cosine.
        langs: (n,) languages.
        groups: (n,) equal for the versions of one text.

    Returns:
        The accuracies, and the languages left out because they have fewer texts than folds.

    Raises:
        DataError: fewer than two languages with as many texts as folds, or all vectors are the same.
    """
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

    names, labels = np.unique(np.asarray(langs), return_inverse=True)
    texts = [len(set(np.asarray(groups)[labels == label])) for label in range(len(names))]
    probed = np.flatnonzero(np.array(texts) >= folds)
    if len(probed) < 2:
        raise DataError(
            f"{len(probed)} languages with {folds} texts or more, expected two or more to tell them apart"
        )
    rows = np.isin(labels, probed)
    vectors, labels = vectors[rows], labels[rows]
    if (vectors == vectors[0]).all():
        raise DataError(f"all {len(vectors):,} vectors are the same, expected different ones for a probe")
    texts_of = np.unique(np.asarray(groups)[rows], return_inverse=True)[1]
    parts = list(
        StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(vectors, labels, texts_of)
    )

    def accuracy(probe: object) -> float:
        correct = cross_val_predict(probe, vectors, labels, cv=parts) == labels
        return float(np.mean([correct[labels == label].mean() for label in probed]))

    found = SeparabilityResult(
        centroid=accuracy(NearestCentroid()),
        knn=accuracy(KNeighborsClassifier(neighbours, algorithm="brute")),
        neighbours=neighbours,
        folds=folds,
        chance=1 / len(probed),
    )
    return found, np.delete(names, probed).tolist()


def centroid_distances(
    vectors: NDArray[np.float32], langs: Sequence[str], groups: Sequence[str] | None = None
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Euclidean distances between the mean vectors of each two languages.

    With groups, the means are over the texts in both languages. Means of n different texts differ by about
    the square root of 2 / n even if the languages do not. Means over versions of the same n texts differ by
    chance by about the square root of alignment / n.

    Args:
        vectors: (n, d), n at least 1.
        langs: (n,) languages.
        groups: (n,) equal for the versions of one text, at most one per language; None without versions.

    Returns:
        The m languages in alphabetical order, and distances (m, m), NaN if no text is in both.
    """
    languages = tuple(sorted(set(langs)))
    number = {language: at for at, language in enumerate(languages)}
    if groups is None:
        codes = np.array([number[language] for language in langs])
        means = [vectors[codes == code].mean(axis=0, dtype=np.float64) for code in range(len(languages))]
        stacked = np.stack(means)
        apart: NDArray[np.float64] = np.linalg.norm(stacked[:, None] - stacked[None], axis=2)
        return languages, apart
    distances = np.full((len(languages), len(languages)), np.nan)
    np.fill_diagonal(distances, 0)
    for (first, second), rows in version_pairs(groups, langs):
        apart = (vectors[rows[:, 0]] - vectors[rows[:, 1]]).mean(axis=0, dtype=np.float64)
        row, column = number[first], number[second]
        distances[row, column] = distances[column, row] = np.linalg.norm(apart)
    return languages, distances


class Projected(NamedTuple):
    """points: (n, 2). explained: share of the variance along each axis, from 0 to 1."""

    points: NDArray[np.float64]
    explained: tuple[float, float]


def project(vectors: NDArray[np.float32]) -> Projected:
    """Principal components, without scaling.

    Each axis points towards its farthest vector, so that the same vectors give the same picture, also after
    a rotation of the space.

    Args:
        vectors: (n, d), n at least 1 and d at least 2.
    """
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    variances, directions = np.linalg.eigh(centred.T @ centred)
    points = centred @ directions[:, [-1, -2]]
    farthest = points[np.abs(points).argmax(axis=0), [0, 1]]
    points *= np.where(farthest < 0, -1, 1)
    total = float(np.square(centred).sum())
    first, second = (max(0.0, float(value)) / total if total else 0.0 for value in variances[[-1, -2]])
    return Projected(points, (first, second))
