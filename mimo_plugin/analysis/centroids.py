"""How far apart the middles of the languages are."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.evaluation.geometry import version_pairs


def centroid_distances(
    vectors: NDArray[np.float32], langs: Sequence[str], groups: Sequence[str] | None = None
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Euclidean distances between the mean vectors of each two languages.

    With groups, the means are over the texts that are in both. Means of different texts lie apart even
    where the languages do not: about the square root of 2 / n for n texts that have nothing to do with each
    other, where n versions of the same texts lie apart by chance about the square root of alignment / n.

    Args:
        vectors: (n, d), n at least 1.
        langs: (n,) languages.
        groups: (n,) equal for the versions of one text, at most one a language; None where no text has
            versions.

    Returns:
        The m languages in alphabetical order, and distances (m, m), NaN where no text is in both.
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
