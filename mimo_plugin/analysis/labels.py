"""Names beside the points of a picture, moved apart where they would cover each other."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values = NDArray[np.float64]

_POINTS_AN_INCH = 72
# Of a letter and a line, in parts of the font size.
_LETTER, _LINE = 0.66, 1.3
# How far a name keeps from a point, in points.
_CLEAR = 5.0
# From how far on a line leads from a point to its name.
_FAR = 10.0
_DIRECTIONS = 16


def place_labels(
    axes: "Axes",
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    *,
    avoid: Sequence[tuple[float, float]] = (),
    size: float = 9,
    **style: Any,
) -> None:
    """Writes a name beside each point, where it covers neither a point nor another name, with a thin line
    to it where that is not near.

    The axes' limits must be set and the figure laid out before. Deterministic.

    Args:
        points: in data coordinates.
        avoid: further points that are not to be covered.
        size: of the font, in points.
        style: of the text, as matplotlib takes it.
    """
    inside = np.array(axes.get_window_extent().size) / axes.figure.dpi * _POINTS_AN_INCH
    corner = np.array([axes.get_xlim()[0], axes.get_ylim()[0]])
    extent = np.array([axes.get_xlim()[1], axes.get_ylim()[1]]) - corner
    # In points, like font sizes.
    at, others = ((np.reshape(given, (-1, 2)) - corner) / extent * inside for given in (points, avoid))
    halves = np.array([[len(name) * _LETTER * size / 2, _LINE * size / 2] for name in names])
    places = _places(at, np.concatenate([at, others]), halves, inside)
    far = (np.abs(places - at) - halves).max(axis=1) > _FAR
    for name, point, way, distant in zip(names, points, places - at, far, strict=True):
        line = {"arrowstyle": "-", "color": "0.45", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        axes.annotate(
            name,
            point,
            xytext=tuple(way),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            arrowprops=line if distant else None,
            **style,
        )


def _places(points: Values, taken: Values, halves: Values, inside: Values) -> Values:
    """Centres for boxes: each as near to its point as there is room, outward first.

    points, halves: (n, 2) points, and half the widths and heights of their boxes. taken: (m, 2) points that
    no box may cover. inside: (2,) width and height of the axes.
    """
    middle = points.mean(axis=0) if len(points) else points
    places = np.empty_like(points)
    # Those farthest out have the most room, and leave the rest to the others.
    order = np.argsort(-np.linalg.norm(points - middle, axis=1), kind="stable")
    for position, number in enumerate(order.tolist()):
        done = order[:position]
        outward = points[number] - middle
        # A point by itself has its name above it.
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
    """Places around a point, nearest first, and of those equally near the ones towards `start`."""
    turns = sorted(range(-_DIRECTIONS // 2 + 1, _DIRECTIONS // 2 + 1), key=lambda turn: (abs(turn), turn))
    angles = start + 2 * np.pi * np.array(turns) / _DIRECTIONS
    # A box that touches its point, in every direction: a rectangle of places, not a circle.
    directions = np.column_stack([np.cos(angles), np.sin(angles)])
    touching = ((half + _CLEAR) / np.abs(directions).clip(1e-9)).min(axis=1)
    away = 0.0
    while away < farthest:
        yield from point + directions * (touching + away)[:, None]
        away += 6.0
