"""Figures of an encoder's space, for the report and for `mimo analyze`."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.evaluation.results import EncoderResult, GeometryResult
from mimo_plugin.report.figures import Figure
from mimo_plugin.report.heat import Heat, heat_maps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

Values = NDArray[np.float64]


def geometry_figures(
    geometry: GeometryResult, file_of: Callable[..., str], labels: Sequence[str] = ()
) -> Iterator[Figure]:
    """The plane of all encoders, the projection of each, distances and alignment of pairs of languages.

    Args:
        file_of: makes a file's name from the kind of figure, and an encoder's label.
        labels: texts that must accompany every number.
    """
    encoders = geometry.encoders
    if any(_point(encoder) for encoder in encoders.values()):
        trails = " A line with small points leads through the checkpoints of its training run."
        yield Figure(
            name=file_of("plane"),
            title="Alignment and uniformity",
            caption="Each point is an encoder; lower left is better."
            + trails * any(encoder.trail for encoder in encoders.values()),
            description=" ".join(f"{label}: {_in_words(encoder)}." for label, encoder in encoders.items()),
            draw=partial(_draw_plane, geometry),
            labels=labels,
        )
    for label, encoder in encoders.items():
        projection = encoder.projection
        if projection.points:
            explained = " and ".join(f"{100 * share:.1f} %" for share in projection.explained)
            yield Figure(
                name=file_of("projection", label),
                title=f"{label}: vectors of parallel texts in two dimensions",
                caption=(
                    f"{label}: vectors of parallel texts on two axes ({projection.method}), which hold only "
                    f"{explained} of the variance. Colour, mark and name: language; large: its mean. Where "
                    "languages lie apart, the encoder separates them."
                ),
                description=f"{len(projection.points):,} points in {len(projection.languages)} languages.",
                draw=partial(_draw_projection, geometry, label),
                labels=labels,
            )
    yield from _pair_maps(geometry, file_of, labels)


def _point(encoder: EncoderResult) -> tuple[float, float] | None:
    """Alignment and uniformity, if both are defined."""
    aligned, uniform = encoder.alignment, encoder.uniformity
    return None if aligned is None or uniform is None else (aligned, uniform)


def _in_words(encoder: EncoderResult) -> str:
    point = _point(encoder)
    return f"alignment {point[0]:.4f}, uniformity {point[1]:.4f}" if point else "not defined"


def _pair_maps(
    geometry: GeometryResult, file_of: Callable[..., str], labels: Sequence[str]
) -> Iterator[Figure]:
    """Heat maps of pairs of languages, a panel per encoder."""
    encoders = geometry.encoders.items()
    distances = [
        Heat(label, one.centroid_distances.languages, one.centroid_distances.languages, _apart(one))
        for label, one in encoders
        if len(one.centroid_distances.languages) > 1
    ]
    aligned = [
        _aligned(label, one)
        for label, one in encoders
        if any(pair[2] is not None for pair in one.pair_alignment)
    ]
    for name, panels, title, caption, unit in (
        (
            "centroids",
            distances,
            "Distances between languages",
            "Distances between the mean vectors of languages; 0 where they are the same.",
            "euclidean distance of mean vectors (lower is better)",
        ),
        (
            "pair alignment",
            aligned,
            "Alignment of each pair of languages",
            "Mean squared distance between the two versions of a text. 0 is best.",
            "mean squared distance of translations (lower is better)",
        ),
    ):
        if panels:
            every = np.concatenate([panel.values.ravel() for panel in panels])
            yield heat_maps(
                panels,
                unit,
                # Perceptually uniform, with and without colour vision.
                colours="cividis",
                low=float(np.nanmin(every)) if np.isfinite(every).any() else 0.0,
                high=float(np.nanmax(every)) if np.isfinite(every).any() else 1.0,
                name=file_of(name),
                title=title,
                caption=f"{caption} {_texts(geometry)}. All encoders have the same scale.",
                description=" ".join(f"{panel.title}: {_ends(panel.values, panel.rows)}" for panel in panels),
                labels=labels,
            )


def _apart(encoder: EncoderResult) -> Values:
    """Distances between languages, with a blank diagonal. (m, m)"""
    found = np.array(encoder.centroid_distances.distances, dtype=np.float64)
    np.fill_diagonal(found, np.nan)
    return found


def _aligned(label: str, encoder: EncoderResult) -> Heat:
    pairs = [pair for pair in encoder.pair_alignment if pair[2] is not None]
    languages = sorted({language for pair in pairs for language in pair[:2]})
    values = np.full((len(languages), len(languages)), np.nan)
    for first, second, value in pairs:
        row, column = languages.index(first), languages.index(second)
        values[row, column] = values[column, row] = value
    return Heat(label, languages, languages, values)


def _ends(values: Values, languages: Sequence[str]) -> str:
    """The lowest and the highest value of a symmetric matrix, in words."""
    pairs = [
        (values[row, column], f"{languages[column]} and {languages[row]}")
        for row, column in np.argwhere(np.tril(np.isfinite(values), -1)).tolist()
    ]
    if not pairs:
        return "No pair has a value."
    (low, nearest), (high, farthest) = min(pairs), max(pairs)
    return f"Lowest {low:.4f}, {nearest}; highest {high:.4f}, {farthest}."


def _texts(geometry: GeometryResult) -> str:
    texts = geometry.texts
    return f"{texts.vectors:,} {texts.role} in {len(texts.languages)} languages"


# Okabe and Ito, Color Universal Design (2008), without the yellow, which is lost on white.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# 8 markers and 7 colours have no common divisor: 56 combinations.
_MARKERS = ("o", "s", "^", "D", "P", "v", "X", "<")
_LAYERS = 4
_LEGEND_COLUMNS = 6
# With more languages there is no room for names among points.
_MOST_NAMED = 30


def look(number: int) -> dict[str, Any]:
    """Colour and marker (of matplotlib) of the language or model with this number."""
    return {"color": _COLORS[number % len(_COLORS)], "marker": _MARKERS[number % len(_MARKERS)]}


def _axes(width: float, height: float) -> "tuple[Canvas, Axes]":
    # Not pyplot, which keeps figures and sets a back end for the whole process.
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, height), layout="constrained")
    axes = canvas.add_subplot()
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    return canvas, axes


def _draw_plane(geometry: GeometryResult) -> "Canvas":
    """Alignment against uniformity: a point per encoder, and its trail, if any."""
    from matplotlib.lines import Line2D

    canvas, axes = _axes(4.8, 4.2)
    named: list[tuple[tuple[float, float], str]] = []
    avoid: list[tuple[float, float]] = []
    trails: dict[Any, str] = {}
    placed = {label: point for label, one in geometry.encoders.items() if (point := _point(one))}
    for number, (label, point) in enumerate(placed.items()):
        named.append((point, label))
        trail = _trail(geometry.encoders[label])
        if trail:
            # A finished run's trail was measured on other texts than the encoder's point.
            elsewhere = f"{label}: trail" in geometry.skipped
            line = ":" if elsewhere else "-"
            trails[line] = "while it trained" + ", on its dev collection" * elsewhere
            style: dict[str, Any] = {"linewidth": 1.2, "markersize": 3.5, "markerfacecolor": "white"}
            axes.plot(*zip(*trail.values(), strict=True), linestyle=line, **style, **look(number))
            avoid += trail.values()
        axes.plot(*point, markersize=10, linestyle="", **look(number))
        ends = (min(trail), max(trail)) if len(trail) > 1 else ()
        named += [(trail[step], f"step {step:,}") for step in ends]
    axes.set_title(f"Alignment and uniformity: {_texts(geometry)}", fontsize="medium")
    axes.set_xlabel("Alignment: mean squared distance of translations (0 to 4)\n← lower is better")
    axes.set_ylabel("Uniformity: log mean exp(-2 distance²) (-8 to 0)\n← lower is better")
    axes.margins(0.15)
    if trails:
        lines = [
            Line2D([], [], color="0.3", linewidth=1.2, linestyle=line, label=trails[line])
            for line in sorted(trails)
        ]
        canvas.legend(
            handles=lines, frameon=False, fontsize="small", loc="outside lower left", ncols=len(lines)
        )
    canvas.draw_without_rendering()
    place_labels(axes, [point for point, _ in named], [name for _, name in named], avoid=avoid)
    return canvas


def _trail(encoder: EncoderResult) -> dict[int, tuple[float, float]]:
    """Step -> alignment and uniformity."""
    return {
        one.step: (one.alignment, one.uniformity)
        for one in encoder.trail
        if one.alignment is not None and one.uniformity is not None
    }


def _draw_projection(geometry: GeometryResult, label: str) -> "Canvas":
    """One encoder's vectors on two principal components, with the named mean of each language."""
    from matplotlib.patheffects import withStroke

    projection = geometry.encoders[label].projection
    points = np.array(projection.points, dtype=np.float64)
    of_language = [points[points[:, 2] == number, :2] for number in range(len(projection.languages))]
    # Names stand at the means, as long as there is room for them; else a legend below says which is which.
    named = len(of_language) <= _MOST_NAMED
    lines = 0 if named else -(-len(of_language) // _LEGEND_COLUMNS)
    canvas, axes = _axes(4.8, 4.6 + 0.2 * lines)
    # Languages are drawn in layers, so that the last does not cover the others.
    size = 14 if len(points) <= 1000 else 8
    for step in range(_LAYERS):
        for number, own in enumerate(of_language):
            across, up = own[step::_LAYERS].T
            axes.scatter(across, up, s=size, alpha=0.55, linewidths=0, **look(number))
    middles = [tuple(own.mean(axis=0)) for own in of_language]
    style: dict[str, Any] = {"linestyle": "", "markersize": 9, "markeredgecolor": "white", "zorder": 3}
    handles = [
        axes.plot(*middle, label=projection.languages[number], **style, **look(number))[0]
        for number, middle in enumerate(middles)
    ]
    first, second = (100 * share for share in projection.explained)
    part = f"{len(points):,} of " if len(points) < geometry.texts.vectors else ""
    axes.set_title(f"{label}: {part}{_texts(geometry)}", fontsize="medium")
    axes.set_xlabel(f"first principal component, {first:.1f} % of the variance")
    axes.set_ylabel(f"second, {second:.1f} %")
    axes.set_aspect("equal", adjustable="datalim")
    if not named:
        canvas.legend(handles=handles, loc="outside lower center", frameon=False, ncols=_LEGEND_COLUMNS)
    canvas.draw_without_rendering()
    if named:
        halo = [withStroke(linewidth=2.5, foreground="white")]
        place_labels(axes, middles, projection.languages, weight="bold", zorder=4, path_effects=halo)
    return canvas


_POINTS_AN_INCH = 72
# Width of a letter and height of a line, relative to the font size.
_LETTER, _LINE = 0.66, 1.3
_SIZE = 9  # of names, in points
# Distance of a name from a point, in points.
_CLEAR = 5.0
# Distance from which a line leads from a point to its name.
_FAR = 10.0
_DIRECTIONS = 16


def place_labels(
    axes: "Axes",
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    *,
    avoid: Sequence[tuple[float, float]] = (),
    **style: Any,
) -> None:
    """Writes a name beside each point, covering no point and no other name; a thin line leads to far names.

    The axes' limits must be set and the figure laid out before. Deterministic.

    Args:
        points: in data coordinates.
        avoid: further points that must not be covered.
        style: of the text, for matplotlib.
    """
    inside = np.array(axes.get_window_extent().size) / axes.figure.dpi * _POINTS_AN_INCH
    corner, end = np.transpose([axes.get_xlim(), axes.get_ylim()])
    # In points, like font sizes.
    at, others = (
        (np.reshape(given, (-1, 2)) - corner) / (end - corner) * inside for given in (points, avoid)
    )
    halves = np.array([[len(name) * _LETTER * _SIZE / 2, _LINE * _SIZE / 2] for name in names])
    places = _places(at, np.concatenate([at, others]), halves, inside)
    far = (np.abs(places - at) - halves).max(axis=1) > _FAR
    line = {"arrowstyle": "-", "color": "0.45", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
    for name, point, way, distant in zip(names, points, places - at, far, strict=True):
        axes.annotate(
            name,
            point,
            xytext=tuple(way),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=_SIZE,
            arrowprops=line if distant else None,
            **style,
        )


def _places(points: Values, taken: Values, halves: Values, inside: Values) -> Values:
    """Centres of boxes, each as near to its point as there is room, preferably outward. (n, 2)

    points, halves: (n, 2) points, and half the widths and heights of their boxes. taken: (m, 2) points that
    no box may cover. inside: (2,) width and height of the axes.
    """
    middle = points.mean(axis=0) if len(points) else points
    places = np.empty_like(points)
    # The outermost points have the most room, so they are placed first.
    order = np.argsort(-np.linalg.norm(points - middle, axis=1), kind="stable")
    for position, number in enumerate(order.tolist()):
        done = order[:position]
        outward = points[number] - middle
        # The name of a single point is above it.
        start = np.arctan2(outward[1], outward[0]) if outward.any() else np.pi / 2
        for place in _around(points[number], halves[number], start, float(inside.max())):
            kept = np.clip(place, halves[number], inside - halves[number])
            from_points = np.abs(taken - kept) - halves[number] - _CLEAR
            from_names = np.abs(places[done] - kept) - halves[done] - halves[number]
            places[number] = kept
            if (from_points.max(axis=1) >= 0).all() and (from_names.max(axis=1, initial=-1) >= 0).all():
                break
    return places


def _around(point: Values, half: Values, start: float, farthest: float) -> Iterator[Values]:
    """Places around a point, nearest first, among equally near ones those towards `start` first."""
    turns = sorted(range(-_DIRECTIONS // 2 + 1, _DIRECTIONS // 2 + 1), key=lambda turn: (abs(turn), turn))
    angles = start + 2 * np.pi * np.array(turns) / _DIRECTIONS
    # Boxes that touch their point have centres on a rectangle, not a circle.
    directions = np.column_stack([np.cos(angles), np.sin(angles)])
    touching = ((half + _CLEAR) / np.abs(directions).clip(1e-9)).min(axis=1)
    for away in np.arange(0.0, farthest, 6.0):
        yield from point + directions * (touching + away)[:, None]
