"""An analysis as a JSON object; values that are not defined are null."""

from math import isnan
from typing import Any

from mimo_plugin.analysis.records import Analysis, Geometry, Projection
from mimo_plugin.analysis.separability import Separability

_DECIMALS = 5  # of points to be drawn


def as_json(analysis: Analysis) -> dict[str, Any]:
    texts = analysis.texts
    return {
        "texts": {
            "collections": list(texts.collections),
            "role": texts.role.value,
            "groups": texts.group_count,
            "vectors": len(texts.texts),
            "languages": texts.counts,
            "seed": texts.seed,
        },
        "encoders": {label: _geometry(geometry) for label, geometry in analysis.encoders.items()},
        "skipped": dict(analysis.skipped),
    }


def _geometry(geometry: Geometry) -> dict[str, Any]:
    return {
        "name": geometry.name,
        "fingerprint": geometry.fingerprint,
        "dimension": geometry.dimension,
        "alignment": geometry.alignment,
        "pair_alignment": [[*pair, value] for pair, value in geometry.pair_alignment.items()],
        "uniformity": geometry.uniformity,
        "uniformity_per_language": dict(geometry.uniformity_per_language),
        "separability": _separability(geometry.separability),
        "centroid_distances": {
            "languages": list(geometry.centroids.languages),
            "distances": [
                [None if isnan(value) else value for value in row]
                for row in geometry.centroids.distances.tolist()
            ],
        },
        "projection": _projection(geometry.projection),
        "trail": [vars(point) for point in geometry.trail],
    }


def _separability(found: Separability | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "centroid": found.centroid,
        "knn": found.knn,
        "neighbours": found.neighbours,
        "folds": found.folds,
        "chance": found.chance,
    }


def _projection(projection: Projection) -> dict[str, Any]:
    rows = zip(
        projection.points.round(_DECIMALS).tolist(),
        projection.language_of.tolist(),
        projection.text_of.tolist(),
        strict=True,
    )
    return {
        "method": "pca",
        "explained": list(projection.explained),
        "languages": list(projection.languages),
        "points": [[x, y, language, text] for (x, y), language, text in rows],
    }
