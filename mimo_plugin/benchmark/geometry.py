"""An encoder's space on parallel texts: translations, languages, spread."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.benchmark.texts import NamedEncoder, Role, Texts
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import DataError
from mimo_plugin.encoder.encoder import Encoder, EncoderOptions, NotFinite
from mimo_plugin.evaluation.geometry import (
    Separability,
    Vectors,
    alignment,
    centroid_distances,
    mean_over_pairs,
    pair_alignment,
    project,
    separability,
    uniformity,
)
from mimo_plugin.training.curves import read_metrics
from mimo_plugin.training.run import RunDirectory


@dataclass(frozen=True)
class TrailPoint:
    """step: of the optimiser. alignment: None where it is not defined."""

    step: int
    alignment: float | None
    uniformity: float


def checkpoints(run: Path) -> Iterator[tuple[int, Path]]:
    """The complete checkpoints that a run holds, with their steps, newest first.

    They are there while a run trains, or where it was stopped; a finished run has its model only.
    """
    directory = RunDirectory(run)
    found = directory.last_checkpoint()
    while found is not None:
        step = int(found.name.rpartition("-")[2])
        yield step, found
        found = directory.last_checkpoint(before=step)


def written_trail(run: Path) -> tuple[TrailPoint, ...]:
    """What the run wrote down each time it scored its dev collection; empty where it has none.

    Raises:
        DataError: its metrics cannot be read.
    """
    metrics = RunDirectory(run).metrics
    if not metrics.is_file():
        return ()
    return tuple(
        TrailPoint(step, scores.get("alignment"), scores["uniformity"])
        for step, scores in read_metrics(metrics).dev.items()
        if "uniformity" in scores
    )


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


_MOST_PROBED = 20_000
_MOST_PROJECTED = 2_000


def analyse(
    encoders: Sequence[NamedEncoder],
    texts: Texts,
    options: EncoderOptions | None = None,
    *,
    progress: bool | None = None,
) -> Analysis:
    """Encodes the texts once with each encoder, and once with each checkpoint of an unfinished run.

    Vectors are scaled to length 1 whatever the encoder does. One model is in memory at a time.

    Raises:
        ModelError: an encoder cannot be loaded, or gives NaN or a vector of zeros.
    """
    look = _Look(texts, options, progress)
    found = {encoder.label: look.at(encoder) for encoder in encoders}
    return Analysis(texts, found, look.skipped)


class _Look:
    """Looks at encoders, one after the other, and notes what cannot be measured in `skipped`."""

    def __init__(self, texts: Texts, options: EncoderOptions | None, progress: bool | None) -> None:
        self._texts = texts
        self._options = options
        self._progress = progress
        self.skipped: dict[str, str] = {}
        if texts.left_out:
            self.skipped["texts"] = (
                f"{texts.left_out:,} {texts.role} without text or without a known language are left out"
            )
        if texts.alone is not None:
            self.skipped["alignment"] = texts.alone
            if len(texts.counts) > 1:
                self.skipped["centroid_distances"] = (
                    "means of different texts, which lie apart for what they are about, too"
                )
        probed = texts.first(_MOST_PROBED)
        if probed < len(texts.texts):
            self.skipped[f"separability beyond {probed:,} vectors"] = (
                "the nearest neighbours of each vector are looked for among all others, which takes long"
            )
        self._languages = np.asarray(texts.languages)

    def at(self, encoder: NamedEncoder) -> Geometry:
        texts = self._texts
        student = Encoder(encoder.checkpoint, self._options)
        vectors = self._vectors(student, encoder.label)
        pairs = {} if texts.alone else pair_alignment(vectors, texts.groups, texts.languages)
        aligned = mean_over_pairs(pairs) if pairs else None
        spread = uniformity(vectors, seed=texts.seed)
        return Geometry(
            name=student.name,
            fingerprint=student.fingerprint,
            dimension=student.dimension,
            alignment=aligned,
            pair_alignment=pairs,
            uniformity=spread,
            uniformity_per_language={
                language: self._own_uniformity(vectors, language) for language in texts.counts
            },
            separability=self._separability(vectors),
            centroids=Centroids(
                *centroid_distances(vectors, texts.languages, None if texts.alone else texts.groups)
            ),
            projection=self._projection(vectors),
            trail=self._trail(encoder, TrailPoint(0, aligned, spread)),
        )

    def _vectors(self, student: Encoder, label: str) -> Vectors:
        """Of length 1, (n, d)."""
        texts = self._texts
        encode = student.encode_documents if texts.role is Role.DOCUMENTS else student.encode_queries
        with bar(
            total=len(texts.texts), what=f"encoding, {label}", unit="texts", enabled=self._progress
        ) as counter:
            try:
                vectors: Vectors = encode(list(texts.texts), advance=counter.update)
            except NotFinite as error:
                text = f"{texts.role.removesuffix('s')} {texts.ids[error.position]}"
                raise NotFinite(error.position, error.name, text) from None
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        # A vector of zeros stays one, for the measures to refuse.
        np.divide(vectors, lengths, out=vectors, where=lengths > 0)
        return vectors

    def _own_uniformity(self, vectors: Vectors, language: str) -> float | None:
        try:
            return uniformity(vectors[self._languages == language], seed=self._texts.seed)
        except DataError as error:
            self.skipped[f"uniformity of {language}"] = str(error)
            return None

    def _separability(self, vectors: Vectors) -> Separability | None:
        texts, rows = self._texts, slice(self._texts.first(_MOST_PROBED))
        try:
            found = separability(vectors[rows], texts.languages[rows], texts.groups[rows], seed=texts.seed)
        except DataError as error:
            self.skipped["separability"] = str(error)
            return None
        for language in found.left_out:
            self.skipped[f"separability of {language}"] = f"fewer than {found.folds} texts: left out"
        return found

    def _projection(self, vectors: Vectors) -> Projection:
        rows = slice(self._texts.first(_MOST_PROJECTED))
        points, explained = project(vectors[rows])
        languages, language_of = np.unique(self._languages[rows], return_inverse=True)
        groups = self._texts.groups[rows]
        number = {group: at for at, group in enumerate(dict.fromkeys(groups))}
        return Projection(
            points,
            explained,
            tuple(languages.tolist()),
            language_of.astype(np.intp),
            np.array([number[group] for group in groups], dtype=np.intp),
        )

    def _trail(self, encoder: NamedEncoder, now: TrailPoint) -> tuple[TrailPoint, ...]:
        """now: of the encoder itself, which is a checkpoint where the run is not finished."""
        if encoder.run is None:
            return ()
        kept = list(checkpoints(encoder.run))
        if not kept:
            return self._written_trail(encoder.label, encoder.run)
        points = []
        for step, path in kept:
            if str(path) == encoder.checkpoint:
                points.append(replace(now, step=step))
                continue
            student = Encoder(str(path), self._options)
            vectors = self._vectors(student, f"{encoder.label}, step {step:,}")
            points.append(self._point(step, vectors))
        return tuple(reversed(points))

    def _point(self, step: int, vectors: Vectors) -> TrailPoint:
        texts = self._texts
        aligned = None if texts.alone else alignment(vectors, texts.groups, texts.languages)
        return TrailPoint(step, aligned, uniformity(vectors, seed=texts.seed))

    def _written_trail(self, label: str, run: Path) -> tuple[TrailPoint, ...]:
        points = written_trail(run)
        self.skipped[f"{label}: trail"] = (
            "the run's checkpoints are gone: its trail is what was written while it trained, on its dev "
            "collection and not on these texts"
            if points
            else "the run's checkpoints are gone, and it was not scored on a dev collection while it trained"
        )
        return points


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
