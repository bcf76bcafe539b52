"""Vectors in the plane: the two directions in which they differ most."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Projected(NamedTuple):
    """points: (n, 2). explained: share of the variance along each axis, from 0 to 1."""

    points: NDArray[np.float64]
    explained: tuple[float, float]


def project(vectors: NDArray[np.float32]) -> Projected:
    """Principal components, without scaling.

    Each axis points to where the vector that lies farthest out on it is, so that the same vectors, and the
    same in a space that is turned, give the same picture.

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
