"""Geometry of encoders, as `results.json` has it. What is None is in `skipped`, with the reason."""

from collections.abc import Mapping

from pydantic import model_validator

from mimo_plugin.report.shapes import Shape


class Texts(Shape):
    """groups: texts, each in several languages. role: documents or queries."""

    collections: tuple[str, ...]
    role: str
    groups: int
    vectors: int
    languages: Mapping[str, int]
    seed: int


class Separability(Shape):
    """Cross-validated accuracy of telling the language from the vector. chance: of guessing."""

    centroid: float | None
    knn: float | None
    neighbours: int
    folds: int
    chance: float | None


class CentroidDistances(Shape):
    languages: tuple[str, ...]
    distances: tuple[tuple[float | None, ...], ...]

    @model_validator(mode="after")
    def _is_square(self) -> "CentroidDistances":
        size = len(self.languages)
        found = [len(row) for row in self.distances]
        if found != [size] * size:
            raise ValueError(f"distances have rows of {found} values, expected {size} rows of {size}")
        return self


class Projection(Shape):
    """points: x, y, number of the language, number of the text. explained: share of variance of each axis."""

    method: str
    explained: tuple[float, ...]
    languages: tuple[str, ...]
    points: tuple[tuple[float, float, int, int], ...]

    @model_validator(mode="after")
    def _names_its_languages(self) -> "Projection":
        unknown = sorted({point[2] for point in self.points} - set(range(len(self.languages))))
        if unknown:
            raise ValueError(f"points name language {unknown[0]}, expected less than {len(self.languages)}")
        return self


class Checkpoint(Shape):
    step: int
    alignment: float | None
    uniformity: float | None


class Encoder(Shape):
    name: str
    fingerprint: str | None
    dimension: int
    alignment: float | None
    pair_alignment: tuple[tuple[str, str, float | None], ...] | None
    uniformity: float | None
    uniformity_per_language: Mapping[str, float | None] | None
    separability: Separability | None
    centroid_distances: CentroidDistances | None
    projection: Projection | None
    trail: tuple[Checkpoint, ...]


class Geometry(Shape):
    texts: Texts
    encoders: Mapping[str, Encoder]
    skipped: Mapping[str, str]
