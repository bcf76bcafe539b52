"""Pictures of the encoders' geometry, those of `mimo analyze`."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from mimo_plugin.report.figure import Figure
from mimo_plugin.report.geometry_shapes import Encoder, Geometry
from mimo_plugin.report.names import FileNames
from mimo_plugin.report.results import Results
from mimo_plugin.report.wording import labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


def geometry_figures(results: Results, geometry: Geometry, files: FileNames) -> Iterator[Figure]:
    """The plane of all encoders; of each encoder its projection, centroids and pairs of languages."""
    if any(
        encoder.alignment is not None and encoder.uniformity is not None
        for encoder in geometry.encoders.values()
    ):
        trails = any(encoder.trail for encoder in geometry.encoders.values())
        yield Figure(
            name=files.of("plane"),
            title="Alignment and uniformity",
            caption="Each point is an encoder; lower left is better."
            + (
                " A line with small points leads through the checkpoints of its training run."
                if trails
                else ""
            ),
            description=" ".join(map(_placed, geometry.encoders.items())),
            draw=partial(_draw, results, "draw_plane"),
            labels=labels(results),
        )
    for label, encoder in geometry.encoders.items():
        yield from _of_encoder(results, label, encoder, files)


def _placed(item: tuple[str, Encoder]) -> str:
    label, encoder = item
    if encoder.alignment is None or encoder.uniformity is None:
        return f"{label}: not defined."
    return f"{label}: alignment {encoder.alignment:.4f}, uniformity {encoder.uniformity:.4f}."


def _of_encoder(results: Results, label: str, encoder: Encoder, files: FileNames) -> Iterator[Figure]:
    projection = encoder.projection
    if projection is not None and projection.points:
        explained = " and ".join(f"{100 * share:.1f} %" for share in projection.explained)
        yield Figure(
            name=files.of("projection", label),
            title=f"{label}: vectors of parallel texts in two dimensions",
            caption=(
                f"{label}: vectors of parallel texts on two axes ({projection.method}), which hold "
                f"{explained} of the variance: little of it can be seen here. Colour, mark and name: "
                "language. Where languages lie apart, the encoder tells them apart."
            ),
            description=f"{len(projection.points):,} points in {len(projection.languages)} languages.",
            draw=partial(_draw, results, "draw_projection", label),
            labels=labels(results),
        )
    distances = encoder.centroid_distances
    if distances is not None and len(distances.languages) > 1:
        pairs = [
            (value, f"{a} and {b}")
            for row, a in enumerate(distances.languages)
            for value, b in zip(distances.distances[row][:row], distances.languages[:row], strict=True)
            if value is not None
        ]
        yield Figure(
            name=files.of("centroids", label),
            title=f"{label}: distances between languages",
            caption=f"{label}: distances between the mean vectors of languages; 0 where they are the same.",
            description=_ends(pairs),
            draw=partial(_draw, results, "draw_centroids", label),
            labels=labels(results),
        )
    aligned = [(value, f"{a} and {b}") for a, b, value in encoder.pair_alignment or () if value is not None]
    if aligned:
        yield Figure(
            name=files.of("pair alignment", label),
            title=f"{label}: alignment of each pair of languages",
            caption=f"{label}: mean squared distance between the two versions of a text. 0 is best.",
            description=_ends(aligned),
            draw=partial(_draw, results, "draw_pair_alignment", label),
            labels=labels(results),
        )


def _ends(pairs: list[tuple[float, str]]) -> str:
    if not pairs:
        return "No pair has a value."
    (low, nearest), (high, farthest) = min(pairs), max(pairs)
    return f"Lowest {low:.4f}, {nearest}; highest {high:.4f}, {farthest}."


def _draw(results: Results, picture: str, *label: str) -> "Canvas":
    from mimo_plugin.analysis import pictures

    canvas: Canvas = getattr(pictures, picture)(results.raw["geometry"], *label)
    return canvas
