"""Geometry of an encoder's space on parallel texts: alignment, uniformity, separability, trail."""

from collections.abc import Iterator, Sequence
from math import isnan
from pathlib import Path

import numpy as np

from mimo_plugin.benchmark.settings import Role
from mimo_plugin.benchmark.texts import NamedEncoder, SampledTexts
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import DataError
from mimo_plugin.encoder.encoder import Encoder, NotFinite, unit
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.evaluation.geometry import (
    Vectors,
    alignment,
    centroid_distances,
    mean_over_pairs,
    pair_alignment,
    project,
    separability,
    uniformity,
)
from mimo_plugin.evaluation.results import (
    CentroidsResult,
    CheckpointResult,
    EncoderResult,
    GeometryResult,
    ProjectionResult,
    SeparabilityResult,
    TextsResult,
)
from mimo_plugin.training.run import RunDirectory, read_metrics


def checkpoints(run: Path) -> Iterator[tuple[int, Path]]:
    """The complete checkpoints of a training run, with their steps, newest first.

    Only an unfinished run has checkpoints; a finished run has only its model.
    """
    directory = RunDirectory(run)
    found = directory.last_checkpoint()
    while found is not None:
        step = int(found.name.rpartition("-")[2])
        yield step, found
        found = directory.last_checkpoint(before=step)


def written_trail(run: Path) -> tuple[CheckpointResult, ...]:
    """The scores of a training run on its dev collection; empty without one.

    Raises:
        DataError: the metrics cannot be read.
    """
    metrics = RunDirectory(run).metrics
    if not metrics.is_file():
        return ()
    return tuple(
        CheckpointResult(step=step, alignment=scores.get("alignment"), uniformity=scores["uniformity"])
        for step, scores in read_metrics(metrics).dev.items()
        if "uniformity" in scores
    )


_MOST_PROBED = 20_000
_MOST_PROJECTED = 2_000
_DECIMALS = 5  # of points to be drawn


def measure_geometry(
    encoders: Sequence[NamedEncoder],
    texts: SampledTexts,
    options: EncoderOptions | None = None,
    *,
    progress: bool | None = None,
) -> GeometryResult:
    """Encodes the texts once with each encoder, and once with each checkpoint of an unfinished run.

    Vectors are scaled to length 1 whatever the encoder does. One model is loaded at a time.

    Raises:
        ModelError: an encoder cannot be loaded, or gives NaN or a vector of zeros.
    """
    space = _Space(texts, options, progress)
    found = {encoder.label: space.measure(encoder) for encoder in encoders}
    about = TextsResult(
        collections=texts.collections,
        role=texts.role,
        groups=len(set(texts.groups)),
        vectors=len(texts.texts),
        languages=texts.counts,
        seed=texts.seed,
    )
    return GeometryResult(texts=about, encoders=found, skipped=space.skipped)


class _Space:
    """Measures encoders one by one; `skipped` holds what cannot be measured."""

    def __init__(self, texts: SampledTexts, options: EncoderOptions | None, progress: bool | None) -> None:
        self._texts = texts
        self._options = options
        self._progress = progress
        self._languages = np.asarray(texts.languages)
        self.skipped: dict[str, str] = {}
        if texts.left_out:
            self.skipped["texts"] = (
                f"{texts.left_out:,} {texts.role} without text or without a known language are left out"
            )
        if texts.alone is not None:
            self.skipped["alignment"] = texts.alone
            if len(texts.counts) > 1:
                self.skipped["centroid_distances"] = "means of different texts, which also differ by subject"
        probed = texts.first(_MOST_PROBED)
        if probed < len(texts.texts):
            self.skipped[f"separability beyond {probed:,} vectors"] = (
                "left out, as the search for nearest neighbours takes quadratic time"
            )

    def measure(self, encoder: NamedEncoder) -> EncoderResult:
        texts = self._texts
        model = encoder.load(self._options)
        vectors = self._vectors(model, encoder.label)
        pairs = {} if texts.alone else pair_alignment(vectors, texts.groups, texts.languages)
        aligned = mean_over_pairs(pairs) if pairs else None
        spread = uniformity(vectors, seed=texts.seed)
        languages, apart = centroid_distances(vectors, texts.languages, None if texts.alone else texts.groups)
        return EncoderResult(
            name=model.name,
            fingerprint=model.fingerprint,
            dimension=model.dimension,
            alignment=aligned,
            pair_alignment=tuple((*pair, value) for pair, value in pairs.items()),
            uniformity=spread,
            uniformity_per_language={
                language: self._own_uniformity(vectors, language) for language in texts.counts
            },
            separability=self._separability(vectors),
            centroid_distances=CentroidsResult(
                languages=languages,
                distances=tuple(tuple(None if isnan(v) else v for v in row) for row in apart.tolist()),
            ),
            projection=self._projection(vectors),
            trail=self._trail(encoder, aligned, spread),
        )

    def _vectors(self, model: Encoder, label: str) -> Vectors:
        """Vectors of length 1, (n, d). A vector of zeros stays zero; the measures refuse it."""
        texts = self._texts
        encode = model.encode_documents if texts.role is Role.DOCUMENTS else model.encode_queries
        total = len(texts.texts)
        with bar(total=total, what=f"encoding, {label}", unit="texts", enabled=self._progress) as counter:
            try:
                return unit(encode(list(texts.texts), advance=counter.update))
            except NotFinite as error:
                text = f"{texts.role.removesuffix('s')} {texts.ids[error.position]}"
                raise NotFinite(error.position, error.name, text) from None

    def _own_uniformity(self, vectors: Vectors, language: str) -> float | None:
        try:
            return uniformity(vectors[self._languages == language], seed=self._texts.seed)
        except DataError as error:
            self.skipped[f"uniformity of {language}"] = str(error)
            return None

    def _separability(self, vectors: Vectors) -> SeparabilityResult | None:
        texts, rows = self._texts, slice(self._texts.first(_MOST_PROBED))
        try:
            found, left_out = separability(
                vectors[rows], texts.languages[rows], texts.groups[rows], seed=texts.seed
            )
        except DataError as error:
            self.skipped["separability"] = str(error)
            return None
        for language in left_out:
            self.skipped[f"separability of {language}"] = f"fewer than {found.folds} texts: left out"
        return found

    def _projection(self, vectors: Vectors) -> ProjectionResult:
        """The projection of the first texts; versions of a text have the same number."""
        rows = slice(self._texts.first(_MOST_PROJECTED))
        points, explained = project(vectors[rows])
        languages, language_of = np.unique(self._languages[rows], return_inverse=True)
        groups = self._texts.groups[rows]
        number = {group: at for at, group in enumerate(dict.fromkeys(groups))}
        return ProjectionResult(
            explained=explained,
            languages=languages.tolist(),
            points=tuple(
                (x, y, language, number[group])
                for (x, y), language, group in zip(
                    points.round(_DECIMALS).tolist(), language_of.tolist(), groups, strict=True
                )
            ),
        )

    def _trail(
        self, encoder: NamedEncoder, aligned: float | None, spread: float
    ) -> tuple[CheckpointResult, ...]:
        """aligned, spread: of the encoder, which is a checkpoint if the run is unfinished."""
        if encoder.run is None:
            return ()
        kept = list(checkpoints(encoder.run))
        if not kept:
            return self._written_trail(encoder.label, encoder.run)
        points = []
        for step, path in kept:
            point = aligned, spread
            if str(path) != encoder.checkpoint:
                model = Encoder(str(path), self._options)
                point = self._point(self._vectors(model, f"{encoder.label}, step {step:,}"))
            points.append(CheckpointResult(step=step, alignment=point[0], uniformity=point[1]))
        return tuple(reversed(points))

    def _point(self, vectors: Vectors) -> tuple[float | None, float]:
        texts = self._texts
        aligned = None if texts.alone else alignment(vectors, texts.groups, texts.languages)
        return aligned, uniformity(vectors, seed=texts.seed)

    def _written_trail(self, label: str, run: Path) -> tuple[CheckpointResult, ...]:
        points = written_trail(run)
        self.skipped[f"{label}: trail"] = (
            "the run has no checkpoints any more: its trail was measured during training, on its dev "
            "collection and not on these texts"
            if points
            else "the run has no checkpoints any more, and was not scored on a dev collection"
        )
        return points
