"""What an analysis finds."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.analysis.separability import Separability
from mimo_plugin.analysis.texts import Texts
from mimo_plugin.analysis.trail import TrailPoint


@dataclass(frozen=True)
class Centroids:
    """See `centroid_distances`. distances: (m, m)."""

    languages: tuple[str, ...]
    distances: NDArray[np.float64]


@dataclass(frozen=True)
class Projection:
    """Principal components of the first texts. points: (n, 2). explained: shares of the variance.

    language_of: (n,) positions in `languages`. text_of: (n,) the same number for the versions of a text.
    """

    points: NDArray[np.float64]
    explained: tuple[float, float]
    languages: tuple[str, ...]
    language_of: NDArray[np.intp]
    text_of: NDArray[np.intp]


@dataclass(frozen=True)
class Geometry:
    """One encoder's vectors, each of length 1, in numbers; what the texts do not allow is None.

    Attributes:
        name, fingerprint, dimension: of the encoder.
        alignment, pair_alignment, uniformity: see `evaluation.geometry`; none without parallel texts.
        uniformity_per_language: of a language's vectors among themselves; None where it has one.
        trail: of the training run that was named.
    """

    name: str
    fingerprint: str
    dimension: int
    alignment: float | None
    pair_alignment: Mapping[tuple[str, str], float]
    uniformity: float
    uniformity_per_language: Mapping[str, float | None]
    separability: Separability | None
    centroids: Centroids
    projection: Projection
    trail: tuple[TrailPoint, ...]


@dataclass(frozen=True)
class Analysis:
    """encoders: label -> geometry. skipped: what is not there, or not as it may be expected -> why."""

    texts: Texts
    encoders: Mapping[str, Geometry]
    skipped: Mapping[str, str]
